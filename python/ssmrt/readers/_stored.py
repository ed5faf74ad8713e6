"""Bytes of a file as arrays; every size is checked against the bytes that are there before memory is taken."""

from __future__ import annotations

import math
import re
from typing import Literal

import numpy as np

from ..errors import CheckpointError
from ._arrays import Array, widen_bf16

Buffer = bytes | memoryview

MAX_DIMS = 32

# NumPy's names, as Flax and zarr3 store them, to type strings; all little-endian.
TYPESTR = {
    "bool": "|b1",
    "int8": "|i1",
    "uint8": "|u1",
    "int16": "<i2",
    "uint16": "<u2",
    "int32": "<i4",
    "uint32": "<u4",
    "int64": "<i8",
    "uint64": "<u8",
    "float16": "<f2",
    "float32": "<f4",
    "float64": "<f8",
    "complex64": "<c8",
    "complex128": "<c16",
    "bfloat16": "bfloat16",
}
_KNOWN = re.compile(r"[<>]([iu][248]|f[248]|c8|c16)|\|[iu]1|\|b1|bfloat16")


def typestr(dtype: object, where: str) -> str:
    """``dtype``, a name or a type string such as "<f4", as one that `from_bytes` takes.

    Raises `CheckpointError` where it is no number's.
    """
    found = TYPESTR.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if not isinstance(found, str) or not _KNOWN.fullmatch(found):
        raise CheckpointError(f"{where}: expected a dtype of {', '.join(TYPESTR)}, found {dtype!r:.80}")
    return found


def itemsize(dtype: str) -> int:
    """Bytes of one number as stored; ``dtype`` is a type string."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def dimensions(shape: object, where: str) -> tuple[int, ...]:
    """``shape`` as a tuple, once it is found to be one that an array can have. Raises `CheckpointError`."""
    if (
        not isinstance(shape, (list, tuple))
        or len(shape) > MAX_DIMS
        or not all(type(size) is int and 0 <= size < 2**48 for size in shape)
        or math.prod(max(size, 1) for size in shape) >= 2**56
    ):
        raise CheckpointError(f"{where}: expected an array's shape, found {shape!r:.80}")
    return tuple(shape)


def from_bytes(data: Buffer, dtype: str, shape: tuple[int, ...], where: str, *, fortran_order: bool = False) -> Array:
    """A new array of native byte order; bfloat16 is widened to float32, which holds its numbers exactly.

    ``dtype`` is a type string (see `typestr`). Raises `CheckpointError` where ``data`` is not just as long as needed.
    """
    needed = math.prod(shape) * itemsize(dtype)
    if len(data) != needed:
        raise CheckpointError(f"{where}: {dtype} {shape} needs {needed} bytes, found {len(data)}")
    order: Literal["C", "F"] = "F" if fortran_order else "C"
    if dtype == "|b1":
        flags = np.frombuffer(data, np.uint8)
        if flags.size and flags.max() > 1:
            raise CheckpointError(f"{where}: expected booleans 0 and 1, found {flags.max()}")
        return flags.astype(np.bool_).reshape(shape, order=order)
    if dtype == "bfloat16":
        return widen_bf16(np.frombuffer(data, "<u2")).reshape(shape, order=order)
    numbers = np.frombuffer(data, dtype)
    return numbers.astype(numbers.dtype.newbyteorder("=")).reshape(shape, order=order)
