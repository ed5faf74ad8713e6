"""Raw numbers as arrays that every machine takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_OBJECTS = (
    "Python objects, which NumPy has pickled; nothing of it was run."
    " Save each array of the tree under a name of its own: np.savez(path, **arrays)"
)
_NO_NUMBERS = b"'|O'"
MAX_DIMS = 32  # of NumPy before 2.0


def described(header: bytes) -> str:
    """What a ``.npy`` with this header holds, for errors."""
    return _OBJECTS if _NO_NUMBERS in header else f"the header {header[:120]!r}"


def plausible(shape: Sequence[int]) -> bool:
    """Whether an array can have the shape, also where a 0 in it hides how large the others are."""
    return len(shape) <= MAX_DIMS and math.prod(max(size, 1) for size in shape) < 2**48


def native(array: Array) -> Array:
    """The array in the machine's byte order and aligned, copied only where it is not."""
    return array.astype(array.dtype.newbyteorder("="), copy=not array.flags.aligned)


def widen_bf16(bits: Array) -> Array:
    """bfloat16 given as its uint16 bits, as float32, which holds every one of its numbers exactly."""
    wide = bits.astype(np.uint32)
    # In place: an array of that size that comes and goes would keep the allocator from giving memory back.
    np.left_shift(wide, 16, out=wide)
    return wide.view(np.float32)
