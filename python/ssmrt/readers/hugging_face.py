"""What Hugging Face's ``save_pretrained`` writes: a folder of a configuration and weights, which may be in shards."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from . import _files, safetensors, torch
from ._arrays import Array
from .checkpoint import Checkpoint

CONFIG = "config.json"
GENERATION = "generation_config.json"
TOKENIZER = "tokenizer.json"

_STOP = "eos_token_id"
_INDEX = ".index.json"
# In the order in which upstream looks for them.
_WEIGHTS = ("model.safetensors", f"model.safetensors{_INDEX}", "pytorch_model.bin", f"pytorch_model.bin{_INDEX}")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.safetensors|\.bin)")
_MOST_NAMED = 6


def matches(path: Path, head: bytes) -> bool:
    """Whether ``path`` is a folder with weights of these names, the index of shards, or one shard of several."""
    return path.name.endswith(_INDEX) or is_shard(path) or (path.is_dir() and _weights(path) is not None)


def is_shard(path: Path) -> bool:
    """Whether the file's name says that there are others."""
    named = _SHARD.fullmatch(path.name)
    return named is not None and int(named[3]) > 1


def read(path: Path, step: int | None = None) -> Checkpoint:
    """The model of a folder or an index, with the folder's `CONFIG` as its configuration.

    Raises `CheckpointError`, also where the index and its shards contradict one another, or for one shard alone.
    """
    if is_shard(path):
        raise _alone(path)
    if step is not None:
        raise CheckpointError(f"{path}: expected step {step}, found a single checkpoint; leave step out")
    weights = _weights(path) if path.is_dir() else path
    assert weights is not None
    found = _joined(weights) if weights.name.endswith(_INDEX) else _single(weights)
    return configured(replace(found, source=str(path)), weights)


def configured(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """The checkpoint read from ``path`` with the configuration that stands beside it, if it holds none itself."""
    beside = path.with_name(CONFIG)
    if checkpoint.config is not None or _files.size(beside) is None:
        return checkpoint
    return replace(checkpoint, config=_files.parse_object(_files.read(beside), str(beside)))


def stop_tokens(folder: Path) -> tuple[int, ...]:
    """The tokens that end a sequence, as `GENERATION` says, or where it does not `CONFIG`; none where neither does.

    Raises `CheckpointError` where what they say is no token.
    """
    for path in (folder / GENERATION, folder / CONFIG):
        said = None if _files.size(path) is None else _files.parse_object(_files.read(path), str(path)).get(_STOP)
        if said is None:
            continue
        tokens = said if isinstance(said, list) else [said]
        if any(isinstance(token, bool) or not isinstance(token, int) or token < 0 for token in tokens):
            raise CheckpointError(f"{path}: {_STOP}: expected a token or a list of tokens, found {said!r:.80}")
        return tuple(tokens)
    return ()


def _weights(folder: Path) -> Path | None:
    return next((folder / name for name in _WEIGHTS if _files.size(folder / name) is not None), None)


def _single(path: Path) -> Checkpoint:
    return safetensors.read(path) if path.suffix == ".safetensors" else torch.read(path)


def _alone(path: Path) -> CheckpointError:
    stem, number, count, suffix = re.fullmatch(_SHARD, path.name).groups()  # type: ignore[union-attr]
    index = path.with_name(f"{stem}{suffix}{_INDEX}")
    there = "open its folder" if _files.size(index) is not None else f"expected the index {index.name} beside it"
    return CheckpointError(f"{path}: one shard of a model, number {int(number)} of {int(count)}; {there}")


def _joined(index: Path) -> Checkpoint:
    """The tensors of all shards. Each is read once, and its tensors are views of what was read."""
    owners = _owners(index)
    shards = {name: _files.inside(index.parent, name, str(index)) for name in sorted(set(owners.values()))}
    wrong = [f"it names {name}, which is not there" for name, path in shards.items() if _files.size(path) is None]
    if wrong:
        raise _contradiction(index, wrong)
    tensors: dict[str, Array] = {}
    again: list[tuple[str, str, Array]] = []
    formats = set()
    for shard, path in shards.items():
        found = _single(path)
        formats.add(found.format)
        for name, array in found.tensors.items():
            if owners.get(name) == shard:
                tensors[name] = array
            else:
                again.append((name, shard, array))
        lacking = [name for name, owner in owners.items() if owner == shard and name not in found.tensors]
        wrong += [f"it names {name!r:.200} in {shard}, which has no such tensor" for name in lacking]
    for name, shard, array in again:
        if name not in owners:
            wrong.append(f"{shard} has {name!r:.200}, which it does not name")
        elif name in tensors and not _same(array, tensors[name]):
            wrong.append(f"{name!r:.200} of {owners[name]} is another in {shard}")
    if wrong:
        raise _contradiction(index, wrong)
    return Checkpoint({name: tensors[name] for name in owners}, str(index), formats.pop())


def _owners(index: Path) -> dict[str, str]:
    """The shard of each tensor."""
    owners: Any = _files.parse_object(_files.read(index), str(index)).get("weight_map")
    if not isinstance(owners, dict) or not owners or not all(isinstance(shard, str) for shard in owners.values()):
        raise CheckpointError(
            f"{index}: weight_map: expected the name of a shard for each tensor, found {owners!r:.80}"
        )
    return owners


def _same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def _contradiction(index: Path, wrong: Iterable[str]) -> CheckpointError:
    lines = list(wrong)
    rest = [f"and {len(lines) - _MOST_NAMED} more"] if len(lines) > _MOST_NAMED else []
    return CheckpointError(
        f"{index}: the index and the shards do not fit together: {'; '.join([*lines[:_MOST_NAMED], *rest])}"
    )
