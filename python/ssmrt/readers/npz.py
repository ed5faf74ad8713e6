"""NumPy's ``.npz``: a zip archive of ``.npy`` arrays. Never unpickles."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from ..errors import CheckpointError
from ._archive import Archive, is_archive
from ._arrays import Array, described, native, plausible, widen_bf16
from .checkpoint import Checkpoint

# The header is a Python literal; only its one form for plain arrays is taken. V2 is how NumPy writes bfloat16.
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?(?:[biufc]\d{1,2}|V2))', 'fortran_order': (True|False),"
    rb" 'shape': \(((?:\d{1,18}L?, ?)*(?:\d{1,18}L?)?)\),? *\}\s*"
)


def matches(path: Path, head: bytes) -> bool:
    """Whether the file is a zip archive of nothing but ``.npy`` entries."""
    if not is_archive(head):
        return False
    try:
        with Archive(path) as archive:
            return bool(archive.names) and all(name.endswith(".npy") for name in archive.names)
    except CheckpointError:
        return False


def read(path: Path, step: int | None = None) -> Checkpoint:
    """The arrays of the archive under their names; bfloat16 as float32. Raises `CheckpointError`."""
    with Archive(path) as archive:
        tensors = {name[: -len(".npy")]: _array(archive.read(name), f"{path}: {name!r}") for name in archive.names}
    return Checkpoint(tensors, str(path), "npz")


def _array(data: bytes, source: str) -> Array:
    if data[:6] != b"\x93NUMPY" or data[6:7] not in (b"\x01", b"\x02", b"\x03"):
        raise CheckpointError(f"{source}: expected an array in NumPy's format 1 to 3, found {data[:8]!r}")
    start = 10 if data[6] == 1 else 12
    end = start + int.from_bytes(data[8:start], "little")
    header = _HEADER.fullmatch(data[start:end])
    if end > len(data) or header is None:
        raise CheckpointError(f"{source}: expected a plain array of numbers, found {described(data[start:end])}")
    descr, fortran, sizes = header[1].decode(), header[2] == b"True", header[3].replace(b"L", b"").split(b",")
    bf16 = descr[-2:] == "V2"
    try:
        dtype = np.dtype("<u2" if bf16 else descr)
    except TypeError:
        raise CheckpointError(f"{source}: expected a dtype of NumPy's, found {descr!r}") from None
    shape = tuple(int(size) for size in sizes if size.strip())
    if not plausible(shape) or math.prod(shape) * dtype.itemsize != len(data) - end:
        raise CheckpointError(f"{source}: {descr} {shape} declared, {len(data) - end} bytes found")
    array: Array = np.frombuffer(data, dtype, offset=end).reshape(shape, order="F" if fortran else "C")
    if bf16:
        return widen_bf16(array)
    if dtype.kind == "b":
        array = array.view(np.uint8) != 0
    return native(array)
