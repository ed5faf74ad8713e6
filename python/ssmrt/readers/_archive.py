"""Zip archives of unknown origin: nothing is read that the file's own size does not justify."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from types import TracebackType

from ..errors import CheckpointError

# Trained weights do not compress beyond a factor of two; biases and buffers of zeros in a small file may.
MAX_RATIO = 20
MAX_SLACK = 16 << 20

_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def is_archive(head: bytes) -> bool:
    """Whether a file that starts so is a zip archive."""
    return head[:4] == b"PK\x03\x04"


class Archive:
    """A zip archive, checked as a whole when opened. Every method raises `CheckpointError`."""

    def __init__(self, path: Path):
        self.source = str(path)
        self.size = path.stat().st_size
        try:
            self._zip = zipfile.ZipFile(path)
        except _ZIP_ERRORS as error:
            raise CheckpointError(f"{path}: the zip archive is truncated or damaged: {error}") from None
        try:
            self._entries = self._check()
        except CheckpointError:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._zip.close()

    @property
    def names(self) -> list[str]:
        """The names of the entries."""
        return list(self._entries)

    def read(self, name: str, limit: int | None = None) -> bytes:
        """The bytes of an entry, which may be at most ``limit``."""
        entry = self._entries.get(name)
        if entry is None:
            raise CheckpointError(f"{self.source}: the archive has no entry {name!r}")
        if limit is not None and entry.file_size > limit:
            raise CheckpointError(
                f"{self.source}: entry {name!r}: expected at most {limit} bytes, found {entry.file_size}"
            )
        try:
            data = self._zip.read(entry)
        except _ZIP_ERRORS as error:
            raise CheckpointError(f"{self.source}: entry {name!r} is damaged: {error}") from None
        if len(data) != entry.file_size:
            raise CheckpointError(f"{self.source}: entry {name!r}: {entry.file_size} bytes declared, {len(data)} found")
        return data

    def _check(self) -> dict[str, zipfile.ZipInfo]:
        entries: dict[str, zipfile.ZipInfo] = {}
        end = 0
        for entry in sorted(self._zip.infolist(), key=lambda e: e.header_offset):
            name = entry.filename
            what = f"{self.source}: entry {name[:200]!r} of the archive"
            if name in entries:
                raise CheckpointError(f"{what} stands in it twice")
            if name.startswith("/") or "\\" in name or ".." in name.split("/") or not name.isprintable():
                raise CheckpointError(f"{what} has a name that no checkpoint has")
            if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise CheckpointError(f"{what} is encrypted or compressed otherwise than by deflate")
            if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
                raise CheckpointError(f"{what}: {entry.file_size} bytes declared, {entry.compress_size} stored")
            if entry.header_offset < end:
                raise CheckpointError(f"{what} overlaps another")
            end = entry.header_offset + entry.compress_size
            entries[name] = entry
        declared = sum(entry.file_size for entry in entries.values())
        if end > self.size or declared > MAX_RATIO * self.size + MAX_SLACK:
            raise CheckpointError(
                f"{self.source}: the archive declares {declared} bytes, which a file of {self.size} bytes does not hold"
            )
        return entries
