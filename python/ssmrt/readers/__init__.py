"""Checkpoint files of any supported container, read without the framework that wrote them.

A reader is a module with `matches` (a look at the path and the first bytes) and `read`. Readers know nothing
of models: they answer with a `Checkpoint`, which the families make sense of.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from ..errors import CheckpointError
from . import directories, eqx, flax_msgpack, jax_pickle, npz, safetensors, torch
from .checkpoint import Checkpoint as Checkpoint


class Reader(Protocol):
    """What a module in `READERS` offers."""

    def matches(self, path: Path, head: bytes) -> bool:
        """Whether this is the reader's format; ``head`` is the file's first bytes, empty for a directory."""

    def read(self, path: Path, step: int | None = None) -> Checkpoint:
        """The checkpoint; ``step`` chooses among several in a directory. Raises `CheckpointError`."""


HEAD = 4096

# Tried in this order: formats with a magic number first, those told by their structure last.
READERS: dict[str, Reader] = {
    "eqx": eqx,
    "safetensors": safetensors,
    "npz": npz,
    "torch": torch,
    "pickle": jax_pickle,
    "flax-msgpack": flax_msgpack,
    "orbax": directories,
}


def read(path: str | os.PathLike[str], *, step: int | None = None) -> Checkpoint:
    """The checkpoint at ``path``, a file or directory of any format in `READERS`.

    ``step`` chooses among the steps that a directory holds; the last one where it is None.
    Raises `CheckpointError` where nothing is there, no reader knows the format or the file is damaged.
    """
    path = Path(path)
    try:
        directory = path.is_dir()
        head = b""
        if not directory:
            with path.open("rb") as file:
                head = file.read(HEAD)
        for reader in READERS.values():
            if reader.matches(path, head):
                return reader.read(path, step)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (MemoryError, RecursionError) as error:
        raise CheckpointError(f"{path}: too large or too deeply nested to read ({type(error).__name__})") from None
    found = f"a directory of {_listing(path)}" if directory else f"{head[:16]!r}" if head else "an empty file"
    raise CheckpointError(f"{path}: expected a checkpoint ({', '.join(READERS)}), found {found}")


def _listing(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    return ", ".join(names[:6] + ["..."] * (len(names) > 6)) or "nothing"
