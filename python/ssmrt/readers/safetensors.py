"""The safetensors container: a JSON header, then one flat buffer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ._arrays import Array, native, plausible, widen_bf16
from .checkpoint import Checkpoint

_MAX_HEADER = 100_000_000  # the format's own limit

# Little-endian always; BF16 as its bits.
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "u1",
    "C64": "<c8",
}


def matches(path: Path, head: bytes) -> bool:
    """Whether the file starts with a header's length and a JSON object of that format."""
    return len(head) > 8 and head[8:9] == b"{" and (b'"' in head[9:] or head[9:10] == b"}")


def read(path: Path, step: int | None = None) -> Checkpoint:
    """The tensors of a safetensors file under their names, views of what was read. Raises `CheckpointError`.

    The file is not mapped: whoever writes to it later would change the arrays, or end the process.
    """
    _, tensors = parse(path.read_bytes(), str(path))
    return Checkpoint(tensors, str(path), "safetensors")


def parse(data: bytes, source: str) -> tuple[dict[str, str], dict[str, Array]]:
    """The metadata and the tensors of a safetensors buffer; the tensors are read-only, and views where they can be.

    ``source`` names the buffer in errors. Raises `CheckpointError` where the buffer is not of the format, that is
    also where tensors overlap, leave gaps or reach beyond it.
    """
    header, start = _header(data, source)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(f"{source}: safetensors __metadata__: expected an object of strings")
    body = memoryview(data)[start:]
    extents = {name: _extent(name, entry, len(body), source) for name, entry in header.items()}
    end = 0
    for name, (first, last) in sorted(extents.items(), key=lambda item: item[1]):
        if first != end:
            raise CheckpointError(
                f"{source}: tensor {name!r}: expected to start at byte {end}, found {first}:"
                " tensors overlap or leave a gap"
            )
        end = last
    if end != len(body):
        raise CheckpointError(f"{source}: expected {end} bytes of tensors, found {len(body)}")
    return metadata, {name: _array(header[name], body[slice(*extents[name])]) for name in header}


def _header(data: bytes, source: str) -> tuple[dict[str, Any], int]:
    if len(data) < 8:
        raise CheckpointError(f"{source}: expected a safetensors header, found {len(data)} bytes in all")
    size = int.from_bytes(data[:8], "little")
    if size > min(_MAX_HEADER, len(data) - 8):
        raise CheckpointError(f"{source}: safetensors header of {size} bytes declared, {len(data) - 8} bytes follow")
    try:
        header = json.loads(data[8 : 8 + size].decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source}: the safetensors header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{source}: safetensors header: expected a JSON object, found {type(header).__name__}")
    return header, 8 + size


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands in it twice")
    return result


def _extent(name: str, entry: Any, available: int, source: str) -> tuple[int, int]:
    """First and last byte of a tensor, once its dtype, shape and size are found to agree."""
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise CheckpointError(f"{source}: tensor {name!r}: expected dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise CheckpointError(f"{source}: tensor {name!r}: expected dtype of {', '.join(_DTYPES)}, found {dtype!r:.80}")
    if not _naturals(shape) or not plausible(shape):
        raise CheckpointError(f"{source}: tensor {name!r}: {shape!r:.80} is no shape")
    if not _naturals(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= available:
        raise CheckpointError(
            f"{source}: tensor {name!r}: data_offsets {offsets!r:.80} do not lie in {available} bytes of data"
        )
    nbytes = np.dtype(_DTYPES[dtype]).itemsize
    for size in shape:
        nbytes *= size
    if offsets[1] - offsets[0] != nbytes:
        raise CheckpointError(
            f"{source}: tensor {name!r}: {dtype} {tuple(shape)!r:.80} needs {nbytes:.6g} bytes,"
            f" its data_offsets give {offsets[1] - offsets[0]}"
        )
    return offsets[0], offsets[1]


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(i) is int and 0 <= i < 2**63 for i in value)


def _array(entry: dict[str, Any], data: memoryview) -> Array:
    array: Array = np.frombuffer(data, _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    if entry["dtype"] == "BF16":
        array = widen_bf16(array)
    elif entry["dtype"] == "BOOL":
        array = array != 0
    array = native(array)
    array.flags.writeable = False
    return array
