"""The data that a model is reduced by: what it calibrates with, and what is held back to judge the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import checks
from ..document import Document

Array = NDArray[Any]

# One sequence in so many is held back; of a single one the end.
_HELD = 5


@dataclass(frozen=True)
class Recordings:
    """Sequences (1, length, d_input), or tokens (1, length).

    ``count`` sequences were given, and ``places`` says which of them those held back are; None where a single one was
    cut in two.
    """

    calibrate: list[Array]
    held_back: list[Array]
    count: int
    places: list[int] | None


def recordings(data: ArrayLike | Sequence[ArrayLike] | Iterator[ArrayLike], document: Document) -> Recordings:
    """What ``data`` holds, as `ssmrt.reduce` describes it.

    Raises ValueError or TypeError where a shape or dtype does not fit the model, where a number is not finite, and
    where the samples are too few or never change: they say nothing about what the layers hear.
    """
    sequences = list(_sequences(data, document))
    for u in sequences:
        if u.dtype.kind == "f" and not np.isfinite(u).all():
            raise ValueError("data: expected finite numbers, found others")
    if not any((u != u[:, :1]).any() for u in sequences):
        what = "silence" if not any(u.any() for u in sequences) else "sequences of one value"
        raise ValueError(f"data: expected samples that change, such as the model is to hear, found {what}")
    if len(sequences) == 1:
        (u,) = sequences
        cut = u.shape[1] - u.shape[1] // _HELD
        return Recordings([u[:, :cut]], [u[:, cut:]], 1, None)
    # Evenly from all of them: they may stand in the order of their kinds.
    count = max(1, len(sequences) // _HELD)
    places = [(2 * i + 1) * len(sequences) // (2 * count) for i in range(count)]
    return Recordings(
        [u for i, u in enumerate(sequences) if i not in places],
        [sequences[i] for i in places],
        len(sequences),
        places,
    )


def _sequences(data: Any, document: Document) -> Iterator[Array]:
    if isinstance(data, Iterator):
        blocks = [_batch(block, document) for block in data]
        if not blocks or any(len(block) != 1 for block in blocks):
            found = f"{len(blocks)} blocks" if not blocks else "a batch in a block"
            raise ValueError(f"data: expected blocks of one signal, one after the other, found {found}")
        blocks = [np.concatenate(blocks, axis=1)]
    elif isinstance(data, list | tuple) and data and np.ndim(data[0]) > 0:
        blocks = [_batch(part, document) for part in data]
    else:
        blocks = [_batch(data, document)]
    for block in blocks:
        if block.shape[1] < 2 * _HELD:
            raise ValueError(f"data: expected sequences of {2 * _HELD} samples or more, found {block.shape[1]}")
        yield from (block[i : i + 1] for i in range(len(block)))


def _batch(part: Any, document: Document) -> Array:
    """(batch, length, d_input) or tokens (batch, length)."""
    u = checks.array("data", part)
    if document.tokens:
        if u.dtype.kind not in "iu":
            raise TypeError(f"data: expected integer tokens, found dtype {u.dtype}")
        if u.ndim not in (1, 2) or not u.size:
            raise ValueError(f"data: expected tokens (length,) or (batch, length), found shape {u.shape}")
        return np.atleast_2d(u)
    u = checks.floats("data", u)
    if u.ndim == 1 and document.d_input == 1:
        u = u[:, None]
    if u.ndim not in (2, 3) or u.shape[-1] != document.d_input or not u.size:
        width, found = document.d_input, checks.array("data", part).shape
        raise ValueError(f"data: expected shape (length, {width}) or (batch, length, {width}), found {found}")
    return u[None] if u.ndim == 2 else u
