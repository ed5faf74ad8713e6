"""Files of a checkpoint directory: only regular ones inside of it are opened, and every error names the file."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from ..errors import CheckpointError


def inside(root: Path, name: str, where: str) -> Path:
    """The path ``name``, given in a file with "/" between its parts, below ``root``.

    Raises `CheckpointError` where it would lead out.
    """
    parts = name.split("/")
    # A lone surrogate, which JSON can spell, is in no file's name.
    odd = any(c in "\\:\0" or "\ud800" <= c <= "\udfff" for c in name)
    if odd or any(part in ("", ".", "..") for part in parts):
        raise CheckpointError(f"{where}: expected the path of a file inside the checkpoint, found {name!r:.200}")
    return root.joinpath(*parts)


def size(path: Path) -> int | None:
    """Bytes of the regular file ``path``; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def read(path: Path, offset: int = 0, length: int | None = None) -> bytes:
    """The bytes of a file, or the extent of it. Raises `CheckpointError` where they are not there."""
    available = size(path)
    if available is None:
        raise CheckpointError(f"{path}: expected a file, found none")
    if length is None:
        length = available - offset
    if offset < 0 or length < 0 or offset + length > available:
        raise CheckpointError(f"{path}: bytes {offset} to {offset + length} are referred to, the file has {available}")
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(data) != length:
        raise CheckpointError(f"{path}: {length} bytes at {offset} are referred to, found {len(data)}")
    return data


def parse_json(data: bytes, where: str) -> Any:
    """JSON data. Raises `CheckpointError` where they are not that."""
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: expected JSON: {error}") from None


def parse_object(data: bytes, where: str) -> dict[str, Any]:
    """As `parse_json`, a JSON object."""
    value = parse_json(data, where)
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value
