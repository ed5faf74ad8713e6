"""The next token of a language model, chosen from its logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import checks


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen from logits (vocabulary,).

    ``temperature`` divides the logits; at 0 the token of the greatest logit is chosen, the first of equal ones.
    ``top_k`` keeps the k most probable tokens, and ``top_p`` of these the fewest that have that probability together
    (Holtzman et al. 2020, sec. 3.1); None: all. Of tokens that are equally probable the first ones are kept.

    Raises `ValueError` and `TypeError` where a parameter is out of range or no number.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if checks.number("temperature", self.temperature) < 0:
            raise ValueError(f"temperature: expected 0 or more, found {checks.found(self.temperature)}")
        if self.top_k is not None:
            checks.whole("top_k", self.top_k, 1)
        if self.top_p is not None and not 0 < checks.number("top_p", self.top_p) <= 1:
            raise ValueError(f"top_p: expected more than 0 and at most 1, found {checks.found(self.top_p)}")

    def choose(self, logits: NDArray[Any], random: np.random.Generator) -> int:
        """A token. Takes one number of ``random`` where ``temperature`` is above 0.

        Raises `ValueError` where the logits are not finite.
        """
        if not np.isfinite(logits).all():
            raise ValueError("logits: expected finite numbers, found others: the model's answers are of no use")
        if self.temperature == 0:
            return int(logits.argmax())
        tokens, probabilities = self.candidates(logits)
        below = np.cumsum(probabilities)
        chosen = np.searchsorted(below, random.random() * below[-1], side="right")
        return int(tokens[min(chosen, len(tokens) - 1)])

    def candidates(self, logits: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The tokens (n,) that may be chosen at a temperature above 0, and their probabilities (n,)."""
        tokens = np.arange(len(logits))
        with np.errstate(over="ignore"):
            scores = (logits.astype(np.float64) - logits.max()) / self.temperature
        if self.top_k is not None and self.top_k < len(tokens):
            least = np.partition(scores, -self.top_k)[-self.top_k]
            tokens = _descending(scores, np.flatnonzero(scores >= least))[: self.top_k]
        probabilities = np.exp(scores[tokens])
        probabilities /= probabilities.sum()
        if self.top_p is not None and self.top_p < 1:
            # All others together have less than what may be left out.
            likely = np.flatnonzero(probabilities >= (1 - self.top_p) / len(tokens))
            order = _descending(probabilities, likely)
            count = 1 + np.searchsorted(np.cumsum(probabilities[order])[:-1], self.top_p)
            tokens, probabilities = tokens[order[:count]], probabilities[order[:count]]
            probabilities = probabilities / probabilities.sum()
        return tokens, probabilities


def _descending(scores: NDArray[np.float64], which: NDArray[np.intp]) -> NDArray[np.intp]:
    return which[np.argsort(-scores[which], kind="stable")]
