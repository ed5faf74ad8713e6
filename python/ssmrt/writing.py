"""Files that are written whole or not at all.

They are written beside their place, brought to the disk and renamed: who reads, and who comes after a full disk or a
killed process, meets the old file or the new one.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

# What writing fails with, without the name of the file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: Path, *, keep_on: tuple[type[BaseException], ...] = ()) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` at the end of the block; where that fails the old one stays.

    An exception of ``keep_on`` ends the block as its end does. Raises OSError, which names ``path``.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        # Nothing takes the place of a pipe or a device; a folder cannot be opened.
        with path.open("wb") as file:
            yield file
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder to write {path.name} into")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            try:
                yield file
            except keep_on:
                _settle(file)
                os.replace(part, path)
                raise
            _settle(file)
        if path.exists():
            part.chmod(path.stat().st_mode)
        os.replace(part, path)
        _settle_names(path.parent)
    except OSError as error:
        if error.filename == str(part) or error.errno in _FULL:
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    finally:
        part.unlink(missing_ok=True)


def write(files: Mapping[Path, bytes]) -> None:
    """Write all files or none. Raises OSError."""
    with ExitStack() as stack:
        for path, data in files.items():
            file = stack.enter_context(replacing(path))
            file.write(data)
            _settle(file)


def _settle(file: BinaryIO) -> None:
    file.flush()
    if os.path.isfile(file.name):
        os.fsync(file.fileno())


def _settle_names(folder: Path) -> None:
    """Bring a folder's new entries to the disk, where the system lets folders be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
