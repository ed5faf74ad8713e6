"""Checkpoints that are no files: arrays by name, and files that are open."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import CheckpointError, UnsupportedError
from ._arrays import Array, native
from ._variables import own, tree_leaves
from .checkpoint import Checkpoint

_SOURCE = "the mapping"


def of_mapping(mapping: Mapping[Any, Any]) -> Checkpoint:
    """The arrays of a state dict by their names, or of nested mappings as of a file of Flax's; all are copied.

    An array is whatever NumPy takes for one, or has PyTorch's ``detach``, ``cpu`` and ``numpy``. Raises
    `CheckpointError` where a value is none.
    """
    if not mapping:
        raise CheckpointError(f"{_SOURCE}: expected arrays, found none")
    if all(isinstance(name, str) for name in mapping) and not any(map(_is_level, mapping.values())):
        tensors = {name: _array(value, f"{_SOURCE}: {name!r:.200}") for name, value in mapping.items()}
        return Checkpoint(tensors, _SOURCE, "mapping")
    leaves = tree_leaves(mapping, _SOURCE, children=lambda v: v if isinstance(v, Mapping) else None, load=_array)
    return Checkpoint(own(leaves, _SOURCE), _SOURCE, "mapping")


def _is_level(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _array(value: Any, where: str) -> Array:
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.float() if str(value.dtype) == "torch.bfloat16" else value
            value = value.resolve_conj().resolve_neg().numpy()
        array = np.array(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{where}: expected an array, found {type(value).__name__!r}: {error}") from None
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind not in "biufc":
        raise CheckpointError(f"{where}: expected an array of numbers, found one of dtype {array.dtype}")
    return native(array)


@contextmanager
def on_disk(file: BinaryIO) -> Iterator[Path]:
    """The rest of an open file as a path, while the context lasts; errors name it as the file is called."""
    name = getattr(file, "name", None)
    with tempfile.TemporaryDirectory(prefix="ssmrt-") as folder:
        path = Path(folder) / ((Path(name).name if isinstance(name, str) else "") or "open file")
        with path.open("wb") as copy:
            try:
                shutil.copyfileobj(file, copy)
            except TypeError:
                raise TypeError(f"{path.name}: expected a file opened in binary mode, found one of text") from None
        try:
            yield path
        except (CheckpointError, UnsupportedError) as error:
            raise type(error)(str(error).replace(folder + os.sep, "")) from None
