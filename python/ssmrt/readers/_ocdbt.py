"""TensorStore's OCDBT: a key-value database in a directory, in which Orbax keeps the files of a checkpoint.

A manifest names the root of a B+tree, whose nodes lie compressed in data files; leaves hold values or say where in
a data file they are. After TensorStore's description of the format
(https://google.github.io/tensorstore/kvstore/ocdbt/); every manifest and node has its CRC-32C verified.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from . import _files
from ._compression import decompress
from ._crc32c import crc32c

MANIFEST = "manifest.ocdbt"

_MANIFEST_MAGIC = 0x0CDB3A2A
_NODE_MAGIC = 0x0CDB20DE
_SINGLE, _NUMBERED = 0, 1
_NUMBERED_NAME = re.compile(r"manifest\.[0-9a-f]{16}")
_HEADER = 12
_FOOTER = 4
_MAX_DECODED = 128 << 20  # Orbax lets nodes grow to 100 MB
_MAX_ENTRIES = 1_000_000  # of all nodes and tables together
_MAX_KEY = 4096
_MAX_KEYS = 128 << 20  # bytes of all keys and paths
_MISSING = 2**64 - 1


@dataclass(frozen=True)
class _Extent:
    """Bytes of a data file."""

    path: Path
    offset: int
    length: int

    def read(self) -> bytes:
        return _files.read(self.path, self.offset, self.length)

    def __str__(self) -> str:
        return f"{self.path} at byte {self.offset}"


@dataclass(frozen=True)
class _DataFile:
    """A row of a node's table of data files; ``base`` is what the tables of the nodes in it are relative to."""

    name: bytes
    base: bytes


class Database:
    """The newest version of a database: its keys are known from the start, values are read when asked for."""

    def __init__(self, root: Path):
        self._root = root
        self._values: dict[str, bytes | _Extent] = {}
        self._visited: set[_Extent] = set()
        self._sizes: dict[Path, int] = {}
        self._entries = 0
        self._key_bytes = 0
        tree = self._newest()
        if tree is not None:
            self._read_tree(*tree)
        referred = sum(value.length for value in self._values.values() if isinstance(value, _Extent))
        if referred > sum(self._sizes.values()):
            raise CheckpointError(f"{root}: the values take {referred} bytes, which the data files do not have")

    @property
    def keys(self) -> list[str]:
        """All keys, in the tree's order."""
        return list(self._values)

    def size(self, key: str) -> int | None:
        """Bytes of the value; None where there is no such key."""
        value = self._values.get(key)
        if value is None:
            return None
        return value.length if isinstance(value, _Extent) else len(value)

    def read(self, key: str) -> bytes:
        """The value of a key that is there."""
        value = self._values[key]
        return value.read() if isinstance(value, _Extent) else value

    def _newest(self) -> tuple[_Extent, _DataFile, int] | None:
        """Where the root node of the newest version lies, its data file and its height; None for an empty tree."""
        manifest = self._root / MANIFEST
        kind, body = _manifest(manifest)
        if kind == _NUMBERED:
            numbered = [p for p in self._root.glob("manifest.*") if _NUMBERED_NAME.fullmatch(p.name)]
            if not numbered:
                raise CheckpointError(f"{manifest}: expected manifest.<number> beside it, found none")
            manifest = max(numbered, key=lambda p: p.name)
            kind, body = _manifest(manifest)
        files = self._table(body, b"")
        count = body.varint()
        if not count:
            return None
        generations = body.varints(count)
        heights = [body.byte() for _ in range(count)]
        numbers, offsets, lengths = body.varints(count), body.varints(count), body.varints(count)
        newest = max(range(count), key=generations.__getitem__)
        if offsets[newest] == lengths[newest] == _MISSING:
            return None
        file = body.row(files, numbers[newest])
        return self._extent(file, offsets[newest], lengths[newest]), file, heights[newest]

    def _table(self, body: _Body, base: bytes) -> list[_DataFile]:
        count, prefixes, suffixes = self._lengths(body)
        bases = body.varints(count)
        names = body.front_coded(prefixes, suffixes)
        return [_DataFile(base + name, base + name[:length]) for name, length in zip(names, bases)]

    def _lengths(self, body: _Body) -> tuple[int, list[int], list[int]]:
        """How many strings follow, how many first bytes each shares with the one before, and how many it has more."""
        count = body.varint()
        self._entries += count
        if self._entries > _MAX_ENTRIES:
            raise body.error(f"more than {_MAX_ENTRIES} entries")
        prefixes, suffixes = [0, *body.varints(count - 1)] if count else [], body.varints(count)
        self._key_bytes += sum(prefixes) + sum(suffixes)
        if self._key_bytes > _MAX_KEYS:
            raise body.error(f"keys and paths of more than {_MAX_KEYS} bytes")
        return count, prefixes, suffixes

    def _extent(self, file: _DataFile, offset: int, length: int) -> _Extent:
        try:
            name = file.name.decode()
        except UnicodeDecodeError:
            raise CheckpointError(f"{self._root}: a data file's path is not UTF-8: {file.name!r:.200}") from None
        path = _files.inside(self._root, name, str(self._root))
        if path not in self._sizes:
            self._sizes[path] = _files.size(path) or 0
        return _Extent(path, offset, length)

    def _read_tree(self, root: _Extent, file: _DataFile, height: int) -> None:
        todo = [(root, file, height, b"")]
        while todo:
            extent, file, height, prefix = todo.pop()
            where = str(extent)
            if extent in self._visited:
                raise CheckpointError(f"{where}: the tree leads to this node twice")
            self._visited.add(extent)
            body = _body(extent.read(), _NODE_MAGIC, where)
            found = body.byte()
            if found != height:
                raise CheckpointError(f"{where}: expected a node of height {height}, found {found}")
            files = self._table(body, file.base)
            if height:
                todo += reversed(self._children(body, files, height, prefix))
            else:
                self._read_leaf(body, files, prefix, where)

    def _children(
        self, body: _Body, files: list[_DataFile], height: int, prefix: bytes
    ) -> list[tuple[_Extent, _DataFile, int, bytes]]:
        count, prefixes, suffixes = self._lengths(body)
        common = body.varints(count)
        keys = body.front_coded(prefixes, suffixes)
        numbers, offsets, lengths = body.varints(count), body.varints(count), body.varints(count)
        children = []
        for key, shared, number, offset, length in zip(keys, common, numbers, offsets, lengths):
            file = body.row(files, number)
            below = prefix + key[:shared]
            if len(below) > _MAX_KEY:
                raise body.error(f"keys of more than {_MAX_KEY} bytes")
            children.append((self._extent(file, offset, length), file, height - 1, below))
        return children

    def _read_leaf(self, body: _Body, files: list[_DataFile], prefix: bytes, where: str) -> None:
        count, prefixes, suffixes = self._lengths(body)
        keys = body.front_coded(prefixes, suffixes)
        lengths, kinds = body.varints(count), body.varints(count)
        if any(kind > 1 for kind in kinds):
            raise body.error(f"expected values of kind 0 (inline) and 1 (indirect), found {max(kinds)}")
        indirect = sum(kinds)
        places = iter(list(zip(body.varints(indirect), body.varints(indirect))))
        for key, length, kind in zip(keys, lengths, kinds):
            value: bytes | _Extent
            if kind:
                number, offset = next(places)
                value = self._extent(body.row(files, number), offset, length)
            else:
                value = body.take(length)
            name = (prefix + key).decode("utf-8", "backslashreplace")
            if name in self._values:
                raise CheckpointError(f"{where}: key {name!r:.200} stands twice in the tree")
            self._values[name] = value
        body.finish()


def _manifest(path: Path) -> tuple[int, _Body]:
    """The kind of a manifest, and its body from the table of data files on."""
    body = _body(_files.read(path), _MANIFEST_MAGIC, str(path))
    body.take(16)
    kind = body.varint()
    if kind not in (_SINGLE, _NUMBERED):
        raise CheckpointError(f"{path}: expected a manifest of kind {_SINGLE} or {_NUMBERED}, found {kind}")
    body.varint()
    body.varint()
    body.byte()
    if body.varint():
        body.take(4)
    return kind, body


def _body(data: bytes, magic: int, where: str) -> _Body:
    """What a manifest or node holds, decompressed, once its frame and checksum are found right."""
    if len(data) < _HEADER + 2 + _FOOTER or int.from_bytes(data[:4], "big") != magic:
        raise CheckpointError(
            f"{where}: expected OCDBT's magic number {magic:08x}, found {data[:4].hex() or 'nothing'}"
        )
    length = int.from_bytes(data[4:_HEADER], "little")
    if length != len(data):
        raise CheckpointError(f"{where}: {length} bytes declared, found {len(data)}")
    stored, computed = int.from_bytes(data[-_FOOTER:], "little"), crc32c(memoryview(data)[:-_FOOTER])
    if stored != computed:
        raise CheckpointError(f"{where}: damaged: expected checksum {stored:08x}, found {computed:08x}")
    frame = _Body(data[_HEADER:-_FOOTER], where)
    version, compression = frame.varint(), frame.varint()
    if version != 0 or compression > 1:
        raise CheckpointError(
            f"{where}: expected OCDBT's version 0, uncompressed (0) or zstd (1);"
            f" found version {version}, compression {compression}"
        )
    rest = frame.rest()
    return _Body(decompress(rest, "zstd", _MAX_DECODED, where) if compression else rest, where)


class _Body:
    """Bytes taken one after the other, as many as there are."""

    def __init__(self, data: bytes, where: str):
        self._data = data
        self._at = 0
        self._where = where

    def error(self, message: str) -> CheckpointError:
        return CheckpointError(f"{self._where}: damaged OCDBT node: {message}")

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise self.error(f"{count} bytes expected, {len(self._data) - self._at} are left")
        self._at += count
        return self._data[self._at - count : self._at]

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def finish(self) -> None:
        if self._at != len(self._data):
            raise self.error(f"expected the end, found {len(self._data) - self._at} more bytes")

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 64, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        else:
            raise self.error("a number of more than 64 bits")
        if value > _MISSING:
            raise self.error("a number of more than 64 bits")
        return value

    def varints(self, count: int) -> list[int]:
        if count > len(self._data) - self._at:
            raise self.error(f"{count} numbers expected, {len(self._data) - self._at} bytes are left")
        return [self.varint() for _ in range(count)]

    def front_coded(self, prefixes: list[int], suffixes: list[int]) -> list[bytes]:
        """Strings that each share so many first bytes with the one before."""
        strings: list[bytes] = []
        last = b""
        for shared, own in zip(prefixes, suffixes):
            if shared > len(last) or shared + own > _MAX_KEY:
                raise self.error(
                    f"a key or path that shares {shared} bytes with one of {len(last)}, and has {own} more"
                )
            last = last[:shared] + self.take(own)
            strings.append(last)
        return strings

    def row(self, files: list[_DataFile], number: int) -> _DataFile:
        if number >= len(files):
            raise self.error(f"data file {number} is referred to, the table has {len(files)}")
        return files[number]
