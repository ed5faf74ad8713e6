"""Directories of JAX checkpoints: steps of one training, items of a step, and one model in several containers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ..errors import CheckpointError
from . import _files, eqx, flax_msgpack, orbax
from ._arrays import Array
from ._variables import Leaves, Place, own
from .checkpoint import Checkpoint

# <step>, <prefix>_<step>, padded with zeros or not: CheckpointManager's and Flax's ways.
_STEP = re.compile(r"(|.*[_-])(\d{1,18})((?:\.eqx|\.msgpack)?)")
_DEFAULT_ITEM = "default"
_MAX_DEPTH = 2
_MAX_CHILDREN = 10_000
_HEAD = 4096


def matches(path: Path, head: bytes) -> bool:
    """Whether ``path`` is a directory with a JAX checkpoint in it, at whatever level."""
    return path.is_dir() and _holds(path, 0)


def read(path: Path, step: int | None = None) -> Checkpoint:
    """The model saved at the latest step, or at ``step``, in a directory of steps.

    A directory of several checkpoints is one model where they agree in every array that they share; then it is the
    one that holds most. Raises `CheckpointError`.
    """
    return _read(path, step, 0)


def _read(path: Path, step: int | None, depth: int) -> Checkpoint:
    if orbax.UNFINISHED in path.name:
        orbax.check_committed(path)
    if path.is_file() or orbax.matches(path, b""):
        return _single(path, step)
    steps = _steps(path)
    if steps:
        if step is not None and step not in steps:
            raise CheckpointError(f"{path}: expected step {step}, found steps {', '.join(map(str, sorted(steps)))}")
        chosen = steps[max(steps) if step is None else step]
        return _items(chosen) if chosen.is_dir() and not orbax.matches(chosen, b"") else _single(chosen, None)
    if _is_step(path):
        _check_single(path, step)
        return _items(path)
    if step is not None:
        raise CheckpointError(f"{path}: expected step {step}, found no steps in this directory")
    return _agreed(path, depth)


def _single(path: Path, step: int | None) -> Checkpoint:
    _check_single(path, step)
    if path.is_dir():
        return orbax.read(path)
    return eqx.read(path) if eqx.matches(path, _head(path)) else flax_msgpack.read(path)


def _check_single(path: Path, step: int | None) -> None:
    named = _STEP.fullmatch(path.name)
    if step is not None and (named is None or int(named[2]) != step):
        raise CheckpointError(f"{path}: expected step {step}, found a single checkpoint; leave step out")


def _children(path: Path) -> list[Path]:
    """What may be a checkpoint: unfinished ones are not."""
    children: list[Path] = []
    for child in path.iterdir():
        if len(children) == _MAX_CHILDREN:
            raise CheckpointError(f"{path}: expected {_MAX_CHILDREN} entries at most; open the checkpoint itself")
        if orbax.UNFINISHED not in child.name and not child.name.startswith("."):
            children.append(child)
    return sorted(children)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _is_checkpoint(path: Path) -> bool:
    """Whether it is a checkpoint in itself."""
    if not _files.size(path):
        return orbax.matches(path, b"")
    head = _head(path)
    return flax_msgpack.matches(path, head) or eqx.matches(path, head)


def _contains(path: Path, depth: int) -> bool:
    """Whether it is a checkpoint, or a directory with one in it."""
    return _is_checkpoint(path) or (depth < _MAX_DEPTH and path.is_dir() and _holds(path, depth + 1))


def _item_dirs(path: Path) -> dict[str, Path]:
    return {child.name: child for child in _children(path) if orbax.matches(child, b"")}


def _is_step(path: Path) -> bool:
    """Whether the directory holds the items of a step, as a CheckpointManager saves them."""
    marked = any(_files.size(path / name) is not None for name in (orbax.COMMITTED, orbax.STEP_METADATA))
    items = _item_dirs(path)
    return bool(items) and (marked or _DEFAULT_ITEM in items or _STEP.fullmatch(path.name) is not None)


def _steps(path: Path) -> dict[int, Path]:
    """The finished checkpoints that are named after a step."""
    found: dict[str, dict[int, Path]] = {}
    for child in _children(path):
        named = _STEP.fullmatch(child.name)
        if named is None or not (_is_checkpoint(child) or (child.is_dir() and _is_step(child))):
            continue
        steps = found.setdefault(named[1], {})
        if int(named[2]) in steps:
            raise CheckpointError(f"{path}: {steps[int(named[2])].name} and {child.name} are the same step; open one")
        steps[int(named[2])] = child
    if len(found) > 1:
        names = ", ".join(f"{prefix}{min(steps)}" for prefix, steps in found.items())
        raise CheckpointError(f"{path}: expected the steps of one training, found {names}; open one of them")
    return next(iter(found.values()), {})


def _items(path: Path) -> Checkpoint:
    """The items of a step, filed under their names unless there is just the default one."""
    items = _item_dirs(path)
    if not items:
        raise CheckpointError(f"{path}: expected an item saved by Orbax, such as {_DEFAULT_ITEM}/{orbax.METADATA}")
    if _DEFAULT_ITEM in items:
        return orbax.read(items[_DEFAULT_ITEM])
    leaves: dict[Place, Callable[[], Array]] = {}
    for name, item in items.items():
        leaves |= {(name, *place): load for place, load in orbax.leaves(item).items()}
    return Checkpoint(own(_outermost_params(leaves, items), str(path)), str(path), "orbax")


def _outermost_params(leaves: Leaves, items: dict[str, Path]) -> Leaves:
    """An only item that holds bare parameters counts as ``params``, whatever its name."""
    if len(items) > 1 or any("params" in place for place in leaves):
        return leaves
    return {place[1:]: load for place, load in leaves.items()}


def _holds(path: Path, depth: int) -> bool:
    if _is_checkpoint(path) or orbax.UNFINISHED in path.name:
        return True
    try:
        return any(_contains(child, depth) for child in _children(path)) or _has_unfinished(path)
    except (OSError, CheckpointError):
        return False


def _has_unfinished(path: Path) -> bool:
    return any(orbax.UNFINISHED in child.name for child in path.iterdir())


def _agreed(path: Path, depth: int) -> Checkpoint:
    """The fullest of the checkpoints in a directory, once none contradicts it."""
    candidates = [child for child in _children(path) if _contains(child, depth)]
    if not candidates:
        raise CheckpointError(f"{path}: expected a checkpoint, found none that was saved to the end")
    fullest: Checkpoint | None = None
    for child in candidates:
        found = _read(child, None, depth + 1)
        if fullest is not None and not _agree(fullest, found):
            raise CheckpointError(
                f"{path}: expected one model, found two in {fullest.source} and {found.source}; open one of them"
            )
        if fullest is None or len(found.tensors) > len(fullest.tensors):
            fullest = found
    assert fullest is not None
    return fullest


def _agree(a: Checkpoint, b: Checkpoint) -> bool:
    """Whether the one's arrays are all among the other's, with the same bits.

    The parameters alone agree with the variables that they are from.
    """
    small, large = sorted((_from_params(a), _from_params(b)), key=len)
    return all(name in large and _same(array, large[name]) for name, array in small.items())


def _from_params(checkpoint: Checkpoint) -> dict[str, Array]:
    tensors = dict(checkpoint.tensors)
    if any(name.startswith("params/") for name in tensors):
        return tensors
    return {f"params/{name}": array for name, array in tensors.items()}


def _same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
