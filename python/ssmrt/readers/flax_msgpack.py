"""Flax's msgpack files: ``flax.serialization.to_bytes`` and the ``checkpoint_<step>`` files of training states."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from . import _files, _msgpack
from ._arrays import Array
from ._msgpack import Extension
from ._stored import dimensions, from_bytes, typestr
from ._variables import Leaves, Place, own
from .checkpoint import Checkpoint

PLACEHOLDERS = ("PLACEHOLDER://", "//GDAPlaceholder:", "//MPAPlaceholder:", "AGGREGATED://")

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"


def matches(path: Path, head: bytes) -> bool:
    """Whether the file starts with a msgpack map that is not empty and whose first key is a printable string."""
    skip = {0xDE: 3, 0xDF: 5}.get(head[0], 1) if head else 0
    if not head or not (0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF)) or len(head) <= skip + 1:
        return False
    tag = head[skip]
    if 0xA1 <= tag <= 0xBF:
        key = head[skip + 1 : skip + 1 + (tag & 0x1F)]
    elif tag == 0xD9:
        key = head[skip + 2 : skip + 2 + head[skip + 1]]
    else:
        return False
    return key.decode("utf-8", "replace").isprintable()


def read(path: Path, step: int | None = None) -> Checkpoint:
    """The model's parameters and batch statistics, without an optimiser's state. Raises `CheckpointError`."""
    source = str(path)
    return Checkpoint(own(leaves(path), source), source, "flax-msgpack")


def leaves(path: Path) -> Leaves:
    """All arrays and numbers in the file, each by its place in the tree."""
    found: dict[Place, Callable[[], Array]] = {}
    for place, value in tree(path):
        if isinstance(value, str) and value.startswith(PLACEHOLDERS):
            raise CheckpointError(
                f"{path}: {'/'.join(place)} refers to an array in another file; open the directory instead"
            )
        if isinstance(value, np.ndarray):
            found[place] = _constant(value)
    return found


def tree(path: Path) -> list[tuple[Place, Array | str]]:
    """The leaves of the file's tree in its order: arrays, Python's numbers as such without dimensions, strings."""
    source = str(path)
    found: list[tuple[Place, Array | str]] = []
    root = _msgpack.decode(_files.read(path), source)
    if not isinstance(root, dict):
        raise CheckpointError(f"{source}: expected a msgpack map at the root, found {type(root).__name__}")
    _walk(root, (), source, found)
    return found


def _constant(value: Array) -> Callable[[], Array]:
    return lambda: value


def _walk(value: Any, place: Place, source: str, found: list[tuple[Place, Array | str]]) -> None:
    where = f"{source}: {'/'.join(place)}"
    if isinstance(value, dict):
        if _CHUNKED in value:
            found.append((place, _chunked(value, where)))
            return
        for key, inner in value.items():
            _walk(inner, (*place, str(key)), source, found)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _walk(inner, (*place, str(i)), source, found)
    elif isinstance(value, Extension):
        found.append((place, _extension(value, where)))
    elif isinstance(value, (bool, int, float)):
        found.append((place, np.asarray(value)))
    elif isinstance(value, str):
        found.append((place, value))
    elif value is not None:
        raise CheckpointError(f"{where}: expected an array, a number or a string, found {len(value)} bare bytes")


def _extension(value: Extension, where: str) -> Array:
    if value.code not in (_ARRAY, _COMPLEX, _SCALAR):
        raise CheckpointError(f"{where}: expected one of Flax's msgpack extensions 1 to 3, found {value.code}")
    content = _msgpack.decode(value.data, where)
    if value.code == _COMPLEX:
        if not isinstance(content, list) or len(content) != 2 or not all(type(x) in (int, float) for x in content):
            raise CheckpointError(f"{where}: expected a complex number as [re, im]")
        return np.asarray(complex(*map(float, content)))
    if not isinstance(content, list) or len(content) != 3 or not isinstance(content[2], memoryview):
        raise CheckpointError(f"{where}: expected an array as [shape, dtype, bytes]")
    shape, dtype, data = content
    if isinstance(dtype, memoryview):
        dtype = bytes(dtype).decode("ascii", "replace")
    return from_bytes(data, typestr(dtype, where), dimensions(shape, where), where)


def _chunked(value: dict[Any, Any], where: str) -> Array:
    """An array above Flax's limit of bytes, cut into flat pieces."""
    shape = dimensions(_sequence(value.get("shape"), where), where)
    pieces = []
    for chunk in _sequence(value.get("chunks"), where):
        if not isinstance(chunk, Extension) or chunk.code != _ARRAY:
            raise CheckpointError(f"{where}: expected an array as chunk")
        pieces.append(_extension(chunk, where))
    found = sum(piece.size for piece in pieces)
    if not pieces or found != math.prod(shape) or len({piece.dtype for piece in pieces}) != 1:
        raise CheckpointError(f"{where}: expected chunks of one dtype for shape {shape}, found {found} numbers")
    return np.concatenate([piece.reshape(-1) for piece in pieces]).reshape(shape)


def _sequence(value: Any, where: str) -> list[Any]:
    """A list that Flax stored as a map from "0", "1", ..."""
    if not isinstance(value, dict) or list(value) != [str(i) for i in range(len(value))]:
        raise CheckpointError(f"{where}: expected a chunked array's shape and chunks under the keys 0, 1, ...")
    return list(value.values())
