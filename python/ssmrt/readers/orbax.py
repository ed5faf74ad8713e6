"""Orbax's directories, each one saved tree: OCDBT or a directory an array, zarr 2 or 3, and the format before 0.4."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from . import _files, _zarr, flax_msgpack
from ._arrays import Array
from ._ocdbt import MANIFEST, Database
from ._variables import Leaves, Place, own
from ._zarr import Store
from .checkpoint import Checkpoint

METADATA = "_METADATA"
COMMITTED = "commit_success.txt"
STEP_METADATA = "_CHECKPOINT_METADATA"
UNFINISHED = ".orbax-checkpoint-tmp"

_AGGREGATE = "checkpoint"
_PLACEHOLDER = "PLACEHOLDER://"
# Leaves that hold no numbers: empty containers, and strings, which Orbax keeps in a file of their own.
_NO_ARRAY = ("None", "Dict", "List", "Tuple", "NamedTuple", "string")


class Folder:
    """A directory as a store: keys are paths in it."""

    def __init__(self, root: Path):
        self._root = root

    def _path(self, key: str) -> Path:
        return _files.inside(self._root, key, str(self._root))

    def size(self, key: str) -> int | None:
        """Bytes of the file; None where there is none."""
        return _files.size(self._path(key))

    def read(self, key: str) -> bytes:
        """The content of the file."""
        return _files.read(self._path(key))


def matches(path: Path, head: bytes) -> bool:
    """Whether ``path`` is a directory that holds one tree saved by Orbax."""
    if not path.is_dir():
        return False
    if _files.size(path / METADATA) is not None or _files.size(path / MANIFEST) is not None:
        return True
    if _files.size(path / _AGGREGATE) is None:
        return False
    with (path / _AGGREGATE).open("rb") as file:
        return flax_msgpack.matches(path / _AGGREGATE, file.read(300))


def read(path: Path, step: int | None = None) -> Checkpoint:
    """The model's parameters and batch statistics, without an optimiser's state. Raises `CheckpointError`."""
    return Checkpoint(own(leaves(path), str(path)), str(path), "orbax")


def leaves(path: Path) -> Leaves:
    """All arrays of the tree, each by its place; they are read when called.

    Raises `CheckpointError`, also where the directory was not saved to the end.
    """
    check_committed(path)
    store: Store
    store, names = Folder(path), None
    if _files.size(path / MANIFEST) is not None:
        store = database = Database(path)
        names = database.keys
    # Until 0.6 both may be there: the one says of a leaf that it is skipped, the other one holds it.
    described = _described(path, store) if _files.size(path / METADATA) is not None else None
    aggregated = _aggregated(path, store) if _files.size(path / _AGGREGATE) is not None else None
    if described is None and aggregated is None:
        return _listed(path, store, names or [])
    return {**(aggregated or {}), **(described or {})}


def check_committed(path: Path) -> None:
    """Raise where Orbax did not finish saving the directory.

    It names it so while it saves. When done it notes the time in `STEP_METADATA` (of the step, if the directory is
    an item of one), and since 0.12.3 also writes `COMMITTED`; only versions that wrote neither go without.
    """
    if UNFINISHED in path.name:
        raise CheckpointError(f"{path}: Orbax did not finish saving it; open a finished one")
    if any(_files.size(at / COMMITTED) is not None for at in (path, path.parent)):
        return
    notes = [at / STEP_METADATA for at in (path, path.parent) if _files.size(at / STEP_METADATA) is not None]
    if notes:
        if type(_files.parse_object(_files.read(notes[0]), str(notes[0])).get("commit_timestamp_nsecs")) is int:
            return
    elif not _is_described(path) or "store_array_data_equal_to_fill_value" not in _metadata(path):
        return
    raise CheckpointError(
        f"{path}: expected {COMMITTED}, or {STEP_METADATA} with the time of its commit, found neither:"
        " Orbax did not finish saving it, or not all of its files were copied"
    )


def _is_described(path: Path) -> bool:
    return _files.size(path / METADATA) is not None


def _metadata(path: Path) -> dict[str, Any]:
    return _files.parse_object(_files.read(path / METADATA), str(path / METADATA))


def _loader(store: Store, name: str, path: Path, zeros_left_out: bool) -> Callable[[], Array]:
    return functools.partial(_zarr.read, store, name, str(path), zeros_left_out=zeros_left_out)


def _described(path: Path, store: Store) -> Leaves:
    """The tree that `METADATA` describes; an array's name is its keys joined with a dot."""
    where = str(path / METADATA)
    metadata = _metadata(path)
    entries = metadata.get("tree_metadata")
    if not isinstance(entries, dict):
        raise CheckpointError(f"{where}: tree_metadata: expected an object, found {entries!r:.80}")
    zeros_left_out = metadata.get("store_array_data_equal_to_fill_value") is not True
    found: dict[Place, Callable[[], Array]] = {}
    for label, entry in entries.items():
        place, kind = _entry(entry, f"{where}: {label}")
        if kind not in _NO_ARRAY:
            found[place] = _loader(store, ".".join(place), path, zeros_left_out)
    _check_distinct(found, where)
    return found


def _entry(entry: Any, where: str) -> tuple[Place, str]:
    """Place and kind of a leaf."""
    keys = entry.get("key_metadata") if isinstance(entry, dict) else None
    value = entry.get("value_metadata") if isinstance(entry, dict) else None
    names = [key.get("key") if isinstance(key, dict) else None for key in keys] if isinstance(keys, list) else []
    if not names or not all(isinstance(name, (str, int)) for name in names):
        raise CheckpointError(f"{where}: expected key_metadata with the keys to a leaf, found {keys!r:.80}")
    if not isinstance(value, dict) or not isinstance(value.get("value_type"), str):
        raise CheckpointError(f"{where}: expected value_metadata with a value_type, found {value!r:.80}")
    return tuple(map(str, names)), "None" if value.get("skip_deserialize") else value["value_type"]


def _aggregated(path: Path, store: Store) -> Leaves:
    """The tree in the one msgpack file of old versions, whose larger leaves refer to arrays beside it."""
    found: dict[Place, Callable[[], Array]] = {}
    referred: list[Place] = []
    for place, value in flax_msgpack.tree(path / _AGGREGATE):
        if isinstance(value, np.ndarray):
            found[place] = functools.partial(np.asarray, value)
        elif value.startswith(_PLACEHOLDER):
            name = value.removeprefix(_PLACEHOLDER)
            found[place] = _loader(store, name, path, True)
            referred.append((name,))
    _check_distinct(referred, str(path / _AGGREGATE))
    return found


def _listed(path: Path, store: Store, keys: list[str]) -> Leaves:
    """A database without a description of the tree: whatever in it is an array."""
    names = [key.rpartition("/")[0] for key in keys if key.rpartition("/")[2] in _zarr.METADATA]
    if not names:
        raise CheckpointError(f"{path}: expected arrays in the OCDBT database, found {len(keys)} keys and none")
    return {tuple(name.split(".")): _loader(store, name, path, True) for name in names}


def _check_distinct(places: Iterable[Place], where: str) -> None:
    """Raise where two leaves are one stored array: a small file must not stand for many."""
    seen: set[str] = set()
    for place in places:
        name = ".".join(place)
        if name in seen:
            raise CheckpointError(f"{where}: two leaves are stored as {name!r:.200}")
        seen.add(name)
