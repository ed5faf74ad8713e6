"""Equinox's ``.eqx``: the leaves of a module as ``.npy`` records one after the other, without names.

A first line of JSON, as Equinox's documentation has it, holds hyper-parameters. Names come from a
``leaves.json`` beside the file, which the model's owner writes once (docs/jax.md has the snippet).
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from . import _files
from ._arrays import Array, described
from ._stored import dimensions, from_bytes, itemsize, typestr
from .checkpoint import Checkpoint

LEAVES = "leaves.json"

_MAGIC = b"\x93NUMPY"
_MAX_LINE = 1 << 20
# NumPy writes its headers in this one form; what is not of it is not evaluated but refused.
_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[A-Za-z]\d{1,2})', 'fortran_order': (True|False),"
    rb" 'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), \} *\n"
)
# NumPy has no name for the 2-byte numbers of JAX and writes them as void.
_BFLOAT16 = ("|V2", "<V2", ">V2")
# Python's own numbers have these dtypes when saved (integers are 32 bits wide on some systems).
_PYTHON = {"bool": ("bool",), "int": ("int64", "int32"), "float": ("float64",), "complex": ("complex128",)}


def matches(path: Path, head: bytes) -> bool:
    """Whether the file starts with NumPy's magic string, or has it right after a first line of JSON."""
    if head.startswith(_MAGIC):
        return True
    if head[:1] != b"{":
        return False
    with path.open("rb") as file:
        file.readline(_MAX_LINE)
        return file.read(len(_MAGIC)) == _MAGIC


def read(path: Path, step: int | None = None) -> Checkpoint:
    """The records, by the names of `LEAVES` where that stands beside the file, else as "[0]", "[1]", ...

    Raises `CheckpointError` where a record is damaged or holds objects, or where the names' count, shapes or dtypes
    are not those of the records.
    """
    source = str(path)
    data = memoryview(_files.read(path))
    start = 0
    config = None
    if data[: len(_MAGIC)] != _MAGIC:
        line = bytes(data[:_MAX_LINE]).partition(b"\n")[0]
        config = _files.parse_object(line, f"{source}: the first line")
        start = len(line) + 1
    records = _records(data, start, source)
    leaves = path.with_name(LEAVES)
    if _files.size(leaves) is None:
        tensors = {f"[{i}]": array for i, (_, array) in enumerate(records)}
        return Checkpoint(tensors, source, "eqx", config, named=False)
    return Checkpoint(_named(records, leaves, source), source, "eqx", config)


def _records(data: memoryview, at: int, source: str) -> list[tuple[str, Array]]:
    """Each record's dtype as stored and its array."""
    records: list[tuple[str, Array]] = []
    while at < len(data):
        where = f"{source}: record [{len(records)}] at byte {at}"
        if data[at : at + len(_MAGIC)] != _MAGIC or bytes(data[at + 6 : at + 7]) not in (b"\x01", b"\x02", b"\x03"):
            raise CheckpointError(f"{where}: expected a .npy record, found {bytes(data[at : at + 8])!r}")
        first = at + (10 if data[at + 6] == 1 else 12)
        end = first + int.from_bytes(data[at + 8 : first], "little")
        header = _HEADER.fullmatch(data[first:end])
        if end > len(data) or header is None:
            raise CheckpointError(
                f"{where}: expected a plain array of numbers, found {described(bytes(data[first:end]))}"
            )
        descr = header[1].decode()
        dtype = "bfloat16" if descr in _BFLOAT16 else typestr(descr, where)
        shape = dimensions([int(size) for size in header[3].split(b",") if size.strip()], where)
        needed = math.prod(shape) * itemsize(dtype)
        if needed > len(data) - end:
            raise CheckpointError(f"{where}: {descr} {shape} needs {needed} bytes, {len(data) - end} are left")
        at = end + needed
        array = from_bytes(data[end:at], dtype, shape, where, fortran_order=header[2] == b"True")
        records.append(("bfloat16" if dtype == "bfloat16" else array.dtype.name, array))
    return records


def _named(records: list[tuple[str, Array]], leaves: Path, source: str) -> dict[str, Array]:
    saved = _saved(leaves)
    if len(saved) != len(records):
        raise CheckpointError(
            f"{source}: expected {len(saved)} records, which {leaves} names as saved, found {len(records)}"
        )
    tensors: dict[str, Array] = {}
    wrong: list[str] = []
    for i, ((name, dtypes, shape), (dtype, array)) in enumerate(zip(saved, records)):
        if name in tensors:
            raise CheckpointError(f"{leaves}: {name!r} stands in it twice")
        if dtype not in dtypes or array.shape != shape:
            wrong.append(f"  [{i}] {name}: expected {dtypes[0]} {shape}, found {dtype} {array.shape}")
        tensors[name] = array
    if wrong:
        raise CheckpointError("\n".join([f"{source}: the records are not those that {leaves} names", *wrong]))
    return tensors


def _saved(leaves: Path) -> list[tuple[str, tuple[str, ...], tuple[int, ...]]]:
    """Name, dtypes that fit and shape of each leaf that ``leaves`` says is saved.

    ``jax.tree_util.keystr`` starts with a dot, which is left out.
    """
    rows = _files.parse_json(_files.read(leaves), str(leaves))
    if not isinstance(rows, list):
        raise CheckpointError(f"{leaves}: expected a list of leaves, found {type(rows).__name__}")
    return [entry for i, row in enumerate(rows) if (entry := _leaf(row, f"{leaves}: leaf {i}")) is not None]


def _leaf(row: Any, where: str) -> tuple[str, tuple[str, ...], tuple[int, ...]] | None:
    if not isinstance(row, dict) or not isinstance(row.get("path"), str):
        raise CheckpointError(f"{where}: expected an object with path, saved, shape and dtype")
    kind = row.get("kind")
    saved = row.get("saved", isinstance(kind, str) and kind != "NOT SAVED")
    if not isinstance(saved, bool):
        raise CheckpointError(f"{where}: saved: expected true or false, found {saved!r:.80}")
    if not saved:
        return None
    dtype = kind.removeprefix("scalar:") if isinstance(kind, str) and kind != "array" else row.get("dtype")
    if not isinstance(dtype, str):
        raise CheckpointError(f"{where}: dtype: expected a string, found {dtype!r:.80}")
    shape = row.get("shape")
    name = row["path"].removeprefix(".")
    return name, _PYTHON.get(dtype, (dtype,)) if shape is None else (dtype,), dimensions(shape or [], where)
