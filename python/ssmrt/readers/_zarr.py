"""Arrays in zarr's formats 2 and 3, cut into compressed chunks, each a value of a key-value store.

After https://zarr-specs.readthedocs.io (v2; v3 core 1.0, the codecs bytes, zstd, gzip, crc32c, sharding_indexed).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import CheckpointError
from . import _files
from ._arrays import Array
from ._compression import CODECS, MAX_RATIO, decompress
from ._crc32c import crc32c
from ._stored import dimensions, from_bytes, itemsize, typestr

METADATA = (".zarray", "zarr.json")

_MISSING = 2**64 - 1
# What an array may take whose chunks are left out because they hold nothing but zeros.
_MAX_ZEROS = 64 << 20
_MAX_CHUNKS = 100_000

Shape = tuple[int, ...]
Index = tuple[int, ...]


class Store(Protocol):
    """Values by their key."""

    def size(self, key: str) -> int | None:
        """Bytes of the value; None where there is no such key."""

    def read(self, key: str) -> bytes:
        """The value of a key that is there."""


@dataclass(frozen=True)
class _Grid:
    """How an array is cut into chunks, where these are and what they are made of."""

    shape: Shape
    chunk: Shape
    dtype: str
    key: Callable[[Index], str]
    decode: Callable[[bytes, str], Array]
    compressed: bool
    zeros: bool  # chunks of zeros may have been left out


def read(store: Store, name: str, source: str, *, zeros_left_out: bool = True) -> Array:
    """The array ``name`` of the store, in format 2 or 3 as its metadata says.

    ``zeros_left_out`` False says that the writer stored every chunk, so that a missing one is damage. Raises
    `CheckpointError`; memory is taken only for as much as the chunks there can fill.
    """
    where = f"{source}: {name}"
    if store.size(f"{name}/.zarray") is not None:
        metadata = _files.parse_object(store.read(f"{name}/.zarray"), f"{where}/.zarray")
        grid = _grid2(metadata, f"{where}/.zarray", zeros_left_out)
    elif store.size(f"{name}/zarr.json") is not None:
        metadata = _files.parse_object(store.read(f"{name}/zarr.json"), f"{where}/zarr.json")
        grid = _grid3(metadata, f"{where}/zarr.json", zeros_left_out)
    else:
        raise CheckpointError(f"{where}: expected an array with {' or '.join(METADATA)}, found none")
    _justify(store, name, grid, where)

    def chunk(index: Index) -> Array | None:
        key = f"{name}/{grid.key(index)}"
        return None if store.size(key) is None else grid.decode(store.read(key), f"{source}: {key}")

    return _assemble(grid.shape, grid.chunk, grid.dtype, chunk)


def _justify(store: Store, name: str, grid: _Grid, where: str) -> None:
    """Raise where a chunk is missing, or where the array or a chunk would take more than is stored can fill."""
    factor = MAX_RATIO if grid.compressed else 1
    allowed = _MAX_ZEROS if grid.zeros else 0
    counts = [-(-s // c) for s, c in zip(grid.shape, grid.chunk)]
    if math.prod(max(count, 1) for count in counts) > _MAX_CHUNKS:
        raise CheckpointError(f"{where}: expected {_MAX_CHUNKS} chunks at most, found {counts} for shape {grid.shape}")
    chunk = math.prod(grid.chunk) * itemsize(grid.dtype)
    stored = 0
    for index in _indices(grid.shape, grid.chunk):
        key = f"{name}/{grid.key(index)}"
        size = store.size(key)
        if size is None and not grid.zeros:
            raise CheckpointError(f"{where}: chunk {key}, one of {math.prod(counts)}, is missing")
        if size is not None and chunk > size * factor + allowed:
            raise CheckpointError(f"{where}: chunk {key}: {chunk} bytes declared, {size} are stored")
        stored += size or 0
    needed = math.prod(grid.shape) * itemsize(grid.dtype)
    if needed > stored * factor + allowed:
        raise CheckpointError(f"{where}: {grid.dtype} {grid.shape} takes {needed} bytes, {stored} are stored")


def _indices(shape: Shape, chunk: Shape) -> Iterator[Index]:
    return itertools.product(*(range(-(-s // c)) for s, c in zip(shape, chunk)))


def _assemble(shape: Shape, chunk: Shape, dtype: str, get: Callable[[Index], Array | None]) -> Array:
    """The array made of its chunks, of which the last ones may stick out; those that are None are zeros."""
    array: Array | None = None
    for index in _indices(shape, chunk):
        piece = get(index)
        if piece is None:
            continue
        if array is None:
            array = np.zeros(shape, piece.dtype)
        target = tuple(slice(i * c, min((i + 1) * c, s)) for i, c, s in zip(index, chunk, shape))
        array[target] = piece[tuple(slice(0, t.stop - t.start) for t in target)]
    if array is None:
        return np.zeros(shape, np.float32 if dtype == "bfloat16" else np.dtype(dtype).newbyteorder("="))
    return array


def _chunk_shape(value: object, shape: Shape, where: str) -> Shape:
    chunk = dimensions(value, where)
    if len(chunk) != len(shape) or 0 in chunk:
        raise CheckpointError(f"{where}: expected chunks for shape {shape}, found {chunk}")
    return chunk


def _grid2(metadata: dict[str, Any], where: str, zeros_left_out: bool) -> _Grid:
    _expect(metadata.get("zarr_format") == 2, where, "zarr_format 2", metadata.get("zarr_format"))
    _expect(metadata.get("order") in ("C", "F"), where, "order C or F", metadata.get("order"))
    _expect(not metadata.get("filters"), where, "no filters", metadata.get("filters"))
    separator = metadata.get("dimension_separator", ".")
    _expect(separator in (".", "/"), where, "dimension_separator . or /", separator)
    dtype = typestr(metadata.get("dtype"), where)
    shape = dimensions(metadata.get("shape"), where)
    chunk = _chunk_shape(metadata.get("chunks"), shape, where)
    compressor = metadata.get("compressor")
    codec = None
    if compressor is not None:
        codec = compressor.get("id") if isinstance(compressor, dict) else compressor
        _expect(codec in CODECS, where, f"a compressor of {', '.join(CODECS)}", codec)
    fill = metadata.get("fill_value")  # null: every chunk is stored
    zeros = zeros_left_out and fill is not None and _is_zero(fill)
    size = math.prod(chunk) * itemsize(dtype)

    def decode(data: bytes, at: str) -> Array:
        plain = data if codec is None else decompress(data, codec, size, at)
        return from_bytes(plain, dtype, chunk, at, fortran_order=metadata["order"] == "F")

    def key(index: Index) -> str:
        return separator.join(map(str, index)) or "0"

    return _Grid(shape, chunk, dtype, key, decode, codec is not None, zeros)


def _grid3(metadata: dict[str, Any], where: str, zeros_left_out: bool) -> _Grid:
    _expect(metadata.get("zarr_format") == 3, where, "zarr_format 3", metadata.get("zarr_format"))
    _expect(metadata.get("node_type") == "array", where, "node_type array", metadata.get("node_type"))
    _expect(not metadata.get("storage_transformers"), where, "no storage_transformers", "some")
    dtype = typestr(metadata.get("data_type"), where)
    shape = dimensions(metadata.get("shape"), where)
    grid, settings = _named(metadata.get("chunk_grid"), where)
    _expect(grid == "regular", where, "chunk_grid regular", grid)
    chunk = _chunk_shape(settings.get("chunk_shape"), shape, where)
    encoding, settings = _named(metadata.get("chunk_key_encoding"), where)
    _expect(encoding in ("default", "v2"), where, "chunk_key_encoding default or v2", encoding)
    separator = settings.get("separator", "/" if encoding == "default" else ".")
    _expect(separator in (".", "/"), where, "separator . or /", separator)
    zeros = zeros_left_out and _is_zero(metadata.get("fill_value"))
    pipeline = _pipeline(metadata.get("codecs"), dtype, chunk, where, zeros, outermost=True)

    def key(index: Index) -> str:
        if encoding == "v2":
            return str(separator.join(map(str, index))) or "0"
        return str(separator.join(["c", *map(str, index)]))

    return _Grid(shape, chunk, dtype, key, pipeline.decode, pipeline.compressed, zeros)


@dataclass(frozen=True)
class _Pipeline:
    """Zarr3's codecs of a chunk, from its bytes to an array."""

    decode: Callable[[bytes, str], Array]
    compressed: bool
    size: int | None  # of the encoded chunk, where the codecs say so beforehand


def _pipeline(
    codecs: object, dtype: str, shape: Shape, where: str, zeros: bool, *, outermost: bool = False
) -> _Pipeline:
    if not isinstance(codecs, list) or not codecs:
        raise CheckpointError(f"{where}: expected a list of codecs, found {codecs!r:.80}")
    first, settings = _named(codecs[0], where)
    if first == "sharding_indexed" and outermost:
        pipeline = _sharding(settings, dtype, shape, where, zeros)
    else:
        pipeline = _plain(first, settings, dtype, shape, where)
    for codec in codecs[1:]:
        name, _ = _named(codec, where)
        if name == "crc32c":
            pipeline = _checksummed(pipeline)
        elif name in CODECS and pipeline.size is not None:
            pipeline = _compressed(pipeline, name, pipeline.size)
        else:
            raise CheckpointError(
                f"{where}: expected codecs {', '.join(CODECS)} (one of them) and crc32c, found {name!r}"
            )
    return pipeline


def _plain(name: str, settings: dict[str, Any], dtype: str, shape: Shape, where: str) -> _Pipeline:
    _expect(name == "bytes", where, "codec bytes or, outermost, sharding_indexed", name)
    endian = settings.get("endian", "little")
    _expect(endian in ("little", "big"), where, "endian little or big", endian)
    _expect(endian == "little" or dtype != "bfloat16", where, "bfloat16 little-endian", endian)
    stored = dtype.replace("<", ">") if endian == "big" else dtype
    return _Pipeline(lambda data, at: from_bytes(data, stored, shape, at), False, math.prod(shape) * itemsize(dtype))


def _checksummed(inner: _Pipeline) -> _Pipeline:
    return _Pipeline(
        lambda data, at: inner.decode(_verified(data, at), at),
        inner.compressed,
        None if inner.size is None else inner.size + 4,
    )


def _compressed(inner: _Pipeline, codec: str, size: int) -> _Pipeline:
    return _Pipeline(lambda data, at: inner.decode(decompress(data, codec, size, at), at), True, None)


def _sharding(settings: dict[str, Any], dtype: str, shape: Shape, where: str, zeros: bool) -> _Pipeline:
    """Chunks within a chunk, with an index of where each begins and how long it is."""
    chunk = _chunk_shape(settings.get("chunk_shape"), shape, where)
    _expect(all(s % c == 0 for s, c in zip(shape, chunk)), where, f"chunks that divide {shape}", chunk)
    location = settings.get("index_location", "end")
    _expect(location in ("start", "end"), where, "index_location start or end", location)
    codecs = settings.get("index_codecs")
    names = [_named(codec, where) for codec in codecs] if isinstance(codecs, list) else []
    checked = len(names) == 2 and names[1][0] == "crc32c"
    plain = names[:1] == [("bytes", {"endian": "little"})] and (checked or len(names) == 1)
    _expect(plain, where, "index_codecs bytes (little) and crc32c", codecs)
    inner = _pipeline(settings.get("codecs"), dtype, chunk, where, zeros)
    grid = tuple(s // c for s, c in zip(shape, chunk))
    count = math.prod(grid)
    length = 16 * count + (4 if checked else 0)

    def decode(data: bytes, at: str) -> Array:
        if length > len(data):
            raise CheckpointError(f"{at}: a shard's index takes {length} bytes, found {len(data)} in all")
        raw = data[-length:] if location == "end" else data[:length]
        index = np.frombuffer(_verified(raw, at) if checked else raw, "<u8").reshape(*grid, 2)
        present = [(o, n) for o, n in index.reshape(-1, 2).tolist() if o != _MISSING]
        if any(o + n > len(data) for o, n in present) or sum(n for _, n in present) > len(data):
            raise CheckpointError(f"{at}: the shard's index leads beyond its {len(data)} bytes")
        if len(present) < count and not zeros:
            raise CheckpointError(f"{at}: {count - len(present)} of the shard's {count} chunks are missing")

        def chunk_at(place: Index) -> Array | None:
            offset, size = index[place].tolist()
            return None if offset == _MISSING else inner.decode(data[offset : offset + size], f"{at} chunk {place}")

        return _assemble(shape, chunk, dtype, chunk_at)

    return _Pipeline(decode, inner.compressed, None)


def _verified(data: bytes, where: str) -> bytes:
    """The data before their checksum, which is found right."""
    stored, computed = int.from_bytes(data[-4:], "little"), crc32c(memoryview(data)[:-4])
    if len(data) < 4 or stored != computed:
        raise CheckpointError(f"{where}: damaged: expected checksum {stored:08x}, found {computed:08x}")
    return data[:-4]


def _named(value: object, where: str) -> tuple[str, dict[str, Any]]:
    """Name and configuration of one of zarr3's extension points."""
    settings = value.get("configuration", {}) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not isinstance(settings, dict):
        raise CheckpointError(f"{where}: expected an object with a name, found {value!r:.80}")
    return value["name"], settings


def _is_zero(fill: object) -> bool:
    """Whether a fill value is zero; complex ones are pairs."""
    values: Sequence[object] = fill if isinstance(fill, list) else [fill]
    return all(isinstance(value, (bool, int, float)) and value == 0 for value in values)


def _expect(holds: bool, where: str, expected: str, found: object) -> None:
    if not holds:
        raise CheckpointError(f"{where}: expected {expected}, found {found!r:.80}")
