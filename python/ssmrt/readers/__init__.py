"""Checkpoint files of any supported container, read without the framework that wrote them.

A reader is a module with `matches` (a look at the path and the first bytes) and `read`. Readers know nothing
of models: they answer with a `Checkpoint`, which the families make sense of.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ..errors import CheckpointError
from . import _files, directories, eqx, flax_msgpack, hugging_face, jax_pickle, npz, safetensors, torch
from .checkpoint import Checkpoint as Checkpoint


class Reader(Protocol):
    """What a module in `READERS` offers."""

    def matches(self, path: Path, head: bytes) -> bool:
        """Whether this is the reader's format; ``head`` is the file's first bytes, empty for a directory."""

    def read(self, path: Path, step: int | None = None) -> Checkpoint:
        """The checkpoint; ``step`` chooses among several in a directory. Raises `CheckpointError`."""


HEAD = 4096

# Tried in this order: what is told by its name first, then formats with a magic number, those of structure last.
READERS: dict[str, Reader] = {
    "hugging-face": hugging_face,
    "eqx": eqx,
    "safetensors": safetensors,
    "npz": npz,
    "torch": torch,
    "pickle": jax_pickle,
    "flax-msgpack": flax_msgpack,
    "orbax": directories,
}

# Whose configuration stands in a file of its own beside them.
_CONFIGURED = (".safetensors", ".bin")
# What training leaves beside the weights.
_NO_MODEL = {"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth"}
_OTHERS = {
    b"\x1f\x8b": "a file compressed by gzip; decompress it first (gunzip)",
    b"BZh": "a file compressed by bzip2; decompress it first (bunzip2)",
    b"\xfd7zXZ": "a file compressed by xz; decompress it first (unxz)",
    b"\x28\xb5\x2f\xfd": "a file compressed by Zstandard; decompress it first (unzstd)",
    b"\x89HDF": "an HDF5 file; save its arrays with np.savez(path, **arrays)",
    b"GGUF": "a GGUF file; open the checkpoint that it was made from",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; get that with git lfs pull",
}


def read(path: str | os.PathLike[str], *, step: int | None = None) -> Checkpoint:
    """The checkpoint at ``path``, a file or directory of any format in `READERS`.

    A directory may also hold just one file of such a format. ``step`` chooses among the steps that a directory
    holds; the last one where it is None. Raises `CheckpointError` where nothing is there, no reader knows the format
    or the file is damaged.
    """
    path = located(path)
    with _named_errors(path):
        directory = path.is_dir()
        head = b"" if directory else _head(path)
        if (reader := _reader(path, head)) is not None:
            checkpoint = reader.read(path, step)
            return hugging_face.configured(checkpoint, path) if path.suffix in _CONFIGURED else checkpoint
    found = f"a directory of {_listing(path)}" if directory else f"{head[:16]!r}" if head else "an empty file"
    found = next((what for start, what in _OTHERS.items() if head.startswith(start)), found)
    raise CheckpointError(f"{path}: expected a checkpoint ({', '.join(READERS)}), found {found}")


def located(path: str | os.PathLike[str]) -> Path:
    """The path with ``~`` made plain; of a directory that is no checkpoint itself, the only one in it.

    Raises `CheckpointError` where there are several, or the path is that of a pipe or a device, which may never end.
    """
    try:
        path = Path(path).expanduser()
    except RuntimeError as error:
        raise CheckpointError(f"{path}: {error}") from None
    with _named_errors(path):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise CheckpointError(f"{path}: expected a file or a folder, found a pipe, a device or a socket")
        return path if not path.is_dir() or _reader(path, b"") is not None else _only(path) or path


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (MemoryError, RecursionError) as error:
        raise CheckpointError(f"{path}: too large or too deeply nested to read ({type(error).__name__})") from None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _reader(path: Path, head: bytes) -> Reader | None:
    return next((reader for reader in READERS.values() if reader.matches(path, head)), None)


def _only(folder: Path) -> Path | None:
    """The one checkpoint in a folder, None where there is none; arrays in an ``.npz`` may be data beside another."""
    found: dict[Path, Reader] = {}
    for path in sorted(folder.iterdir()):
        if path.name[0] != "." and path.name not in _NO_MODEL and (path.is_dir() or _files.size(path)):
            reader = _reader(path, b"" if path.is_dir() else _head(path))
            found |= {} if reader is None else {path: reader}
    found = {path: reader for path, reader in found.items() if reader is not npz} or found
    if len(found) > 1 and not all(map(hugging_face.is_shard, found)):
        names = ", ".join(path.name for path in found)
        raise CheckpointError(f"{folder}: expected one checkpoint, found {len(found)}: {names:.500}; open one of them")
    return next(iter(found), None)


def _listing(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    return ", ".join(names[:6] + ["..."] * (len(names) > 6)) or "nothing"
