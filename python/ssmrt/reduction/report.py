"""What a reduction did."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """One state-space layer. S systems: one a channel, or one for all inputs and outputs (S5, LRU).

    States are real numbers of state, of which a mode stands for two. ``left`` says why the layer is as it was; "" where
    it is not. Errors and sizes are root mean squares over held-back data, of the layer's answers in the full model; the
    reduced layer hears what the reduced layers before it say.
    """

    name: str
    kind: str
    left: str
    states_before: int
    states: int
    modes: NDArray[np.int64]
    """(S,): stored modes of each system; none where the layer is left."""
    error: Real
    """(S, p): of each answer."""
    size: Real
    """(S, p): of the full layer's answers."""
    values: Real
    """(S, n): Hankel singular values, weighted by what the layer hears; by "select", what so many modes lose."""

    @property
    def relative(self) -> float:
        """The error of all answers together, by their size."""
        return _relative(self.error, self.size)


@dataclass(frozen=True)
class Try:
    """One model that was built: its real states, and its error as in `Report`."""

    states: int
    error: float


@dataclass(frozen=True)
class Report:
    """What `ssmrt.reduce` did. ``str(report)`` is a table, `as_dict` the same for programs.

    ``error`` is that of the model's answers to held-back data: the root mean square of the difference to the full
    model's by that of these. ``accuracy`` is that before and after, where labels were given. ``met`` says whether the
    tolerance was; where it is not, the model is the full one, and ``error`` what the best smaller model reached.
    """

    method: str
    layers: tuple[Layer, ...]
    states_before: int
    states: int
    error: float
    met: bool
    accuracy: tuple[float, float] | None
    tries: tuple[Try, ...]
    """All models that were built on the way."""

    def as_dict(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def __str__(self) -> str:
        rows = [("layer", "kind", "states", "of", "modes", "error")]
        for layer in self.layers:
            counts = layer.modes
            modes = layer.left or (
                str(counts.min()) if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"
            )
            error = "" if layer.left else f"{layer.relative:.1e}"
            rows.append((layer.name or "-", layer.kind, str(layer.states), str(layer.states_before), modes, error))
        rows.append(("the model", "", str(self.states), str(self.states_before), "", f"{self.error:.1e}"))
        widths = [max(len(row[i]) for row in rows) for i in range(6)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
        if self.accuracy is not None:
            before, after = self.accuracy
            lines.append(f"accuracy on held-back data: {before:.1%} before, {after:.1%} after")
        if not self.met:
            lines.append("no smaller model is within the tolerance: this is the full one; the error is the best one's")
        return "\n".join(lines)


def _relative(error: Real, size: Real) -> float:
    power = float((size**2).sum())
    return float(np.sqrt((error**2).sum() / power)) if power else 0.0


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
