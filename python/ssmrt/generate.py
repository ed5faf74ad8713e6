"""Text and other sequences of tokens from a language model, token by token."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from . import checks
from ._native import Stream
from .document import Activation, Embedding, Linear, first, last
from .errors import UnsupportedError
from .model import Model
from .sampling import Sampling

Tokens: TypeAlias = Sequence[int] | NDArray[np.integer[Any]]

# Logits of prompts that are in memory at once.
_NUMBERS = 1 << 24
# Prompts are cut at a multiple, where the engine cuts them anyway: the answers are those of the whole.
_ROWS = 64


@overload
def generate(
    model: Model,
    prompt: Tokens,
    *,
    tokens: int | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: Tokens = (),
) -> Iterator[int]: ...
@overload
def generate(
    model: Model,
    prompt: Sequence[Tokens],
    *,
    tokens: int | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: Tokens = (),
) -> Iterator[list[int | None]]: ...
def generate(
    model: Model,
    prompt: Tokens | Sequence[Tokens],
    *,
    tokens: int | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: Tokens = (),
) -> Iterator[int] | Iterator[list[int | None]]:
    """Go on from a prompt, token by token, or from several prompts at once.

    The prompt goes through the model in blocks, and each new token as one sample of a stream.

    Parameters
    ----------
    model
        A language model: it takes tokens, and answers with a logit for each of them.
    prompt
        (length,) tokens; or several such sequences, of any lengths.
    tokens
        How many to give at most, for each prompt; None: without end.
    temperature
        Divides the logits. At 0 the most probable token is taken, and nothing is left to chance.
    top_k
        Choose among the k most probable tokens; None: all.
    top_p
        Choose among the fewest tokens that have this probability together; None: all.
    seed
        The same seed gives the same tokens. Each prompt has chances of its own, which depend on the seed and on its
        number among the prompts, and on nothing else.
    stop
        Tokens after which a sequence has ended. They are not given.

    Returns
    -------
    An iterator over the tokens that follow; of several prompts over lists of a token for each, with None for those that
    have ended.

    Raises
    ------
    UnsupportedError
        The model takes no tokens, or has no head.
    NotStreamable
        The model is not causal.
    ValueError, TypeError
        A token is none of the model's, a parameter is out of range or of another kind, or the model's answers are not
        finite.

    >>> layers = ssmrt.nn.embedding(np.eye(9)), ssmrt.nn.linear(np.roll(np.eye(9), 1, axis=0))
    >>> counts = ssmrt.nn.model(ssmrt.nn.sequential(layers))
    >>> list(ssmrt.generate(counts, [1, 2], tokens=4))
    [3, 4, 5, 6]
    >>> list(ssmrt.generate(counts, [[1, 2], [7]], tokens=3, stop=[0]))
    [[3, 8], [4, None], [5, None]]
    """
    count = _vocabulary(model)
    sampling = Sampling(temperature, top_k, top_p)
    seed = checks.whole("seed", seed)
    limit = None if tokens is None else checks.whole("tokens", tokens)
    ends = frozenset(_tokens("stop", stop, count).tolist())
    if isinstance(prompt, str) or not isinstance(prompt, Sequence | np.ndarray):
        raise TypeError(f"prompt: expected tokens, or several sequences of them, found {checks.found(prompt)}")
    alone = all(np.ndim(part) == 0 for part in prompt)
    prompts = [_tokens("prompt", one, count) for one in ([prompt] if alone else prompt)]
    if not all(map(len, prompts)):
        raise ValueError("prompt: expected a token at least, found none")
    # Who asks for what cannot be is told at once, and not with the first token.
    stream = model.stream(len(prompts))
    several = _generate(model, stream, prompts, sampling, seed, ends, limit)
    return (one[0] for one in several if one[0] is not None) if alone else several


def _generate(
    model: Model,
    stream: Stream,
    prompts: list[NDArray[np.int64]],
    sampling: Sampling,
    seed: int,
    ends: frozenset[int],
    limit: int | None,
) -> Iterator[list[int | None]]:
    everyone = list(range(len(prompts)))
    chances = [np.random.default_rng([seed, i]) for i in everyone]
    logits = np.empty((len(prompts), model.d_output), model.dtype)
    most = max(1, _NUMBERS // (_ROWS * model.d_output))
    for length in sorted({len(prompt) for prompt in prompts}):
        alike = [i for i in everyone if len(prompts[i]) == length]
        for at in range(0, len(alike), most):
            these = alike[at : at + most]
            together = np.stack([prompts[i] for i in these])
            active = None if these == everyone else these
            # Only after the last token logits are wanted.
            before = (length - 1) // _ROWS * _ROWS
            stream.prefill(together[:, :before], active=active)
            logits[these] = stream.push(together[:, before:], active=active)[:, -1]
    running = everyone
    for number in itertools.count(1) if limit is None else range(1, limit + 1):
        chosen: list[int | None] = [None] * len(prompts)
        for i in running:
            token = sampling.choose(logits[i], chances[i])
            chosen[i] = None if token in ends else token
        running = [i for i in running if chosen[i] is not None]
        if not running:
            return
        following = np.array([chosen[i] for i in running])
        yield chosen
        if number != limit:
            logits[running] = stream.step(following, active=None if running == everyone else running)


def _vocabulary(model: Model) -> int:
    """How many tokens the model knows, some of which may only pad its table: it answers with as many logits at most.

    Raises `UnsupportedError` where it is no language model.
    """
    checks.instance("model", model, Model, "an ssmrt.Model")
    table, head = first(model.outline.root), last(model.outline.root)
    if not isinstance(table, Embedding):
        raise UnsupportedError(
            f"generate: expected a model that takes tokens, found one of {model.d_input} numbers a sample"
        )
    count = len(table.weight)
    logits = isinstance(head, Linear) or (isinstance(head, Activation) and head.function == "log_softmax")
    if not logits or model.d_output > count:
        raise UnsupportedError(
            f"generate: expected a model with a head, which answers with logits of its {count} tokens, found one"
            f" without that answers with {model.d_output} numbers"
        )
    return count


def _tokens(name: str, value: Any, count: int) -> NDArray[np.int64]:
    """Tokens (n,) of a model that knows ``count`` of them."""
    array = checks.array(name, value)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integer tokens, found dtype {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name}: expected tokens of shape (length,), found shape {array.shape}")
    strange = array[(array < 0) | (array >= count)]
    if strange.size:
        raise ValueError(f"{name}: expected tokens from 0 to {count - 1}, found {strange[0]}")
    return array.astype(np.int64)
