"""One form for the names of a JAX tree's leaves, however whoever saved them has joined the keys."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import replace

from ..errors import CheckpointError
from ._arrays import Array
from ._variables import Place, own
from .checkpoint import Checkpoint

_QUOTED = r"""(?:'[^'\\]*'|"[^"\\]*")"""
# `jax.tree_util.keystr`: ['params'][0].kernel
_KEYSTR = re.compile(rf"\[({_QUOTED}|\d+)\]|\.(\w+)")
# `str` of a tuple of keys or of JAX's own paths: ('params', 0), (DictKey(key='params'), SequenceKey(idx=0))
_ENTRY = rf"(?:\w+\((?:key|name|idx)=)?({_QUOTED}|\d+)\)?"
_TUPLE = re.compile(rf"\({_ENTRY}(?:, {_ENTRY})*,?\)")
# Tried in this order: what one of them joins may contain those after it.
SEPARATORS = ("/", ".", "__")


def place(name: str) -> Place:
    """The keys that lead to the leaf ``name`` from the root.

    Understood are keys joined by one of `SEPARATORS`, ``jax.tree_util.keystr``, and ``str`` of a tuple of keys.
    """
    if name[:1] in ("[", ".") and _whole(_KEYSTR, name):
        return tuple(_unquoted(match[1] or match[2]) for match in _KEYSTR.finditer(name))
    if _TUPLE.fullmatch(name):
        return tuple(map(_unquoted, re.findall(_ENTRY, name[1:-1])))
    separator = next((s for s in SEPARATORS if s in name), None)
    return (name,) if separator is None else tuple(name.split(separator))


def _whole(token: re.Pattern[str], name: str) -> bool:
    return sum(len(match[0]) for match in token.finditer(name)) == len(name)


def _unquoted(key: str) -> str:
    return key[1:-1] if key[0] in "'\"" else key


def as_tree(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its tensors named as in Flax's own files, joined by "/" from ``params`` down.

    What was saved beside the model is left out, as in those. Raises `CheckpointError` where two tensors are
    one leaf of the tree.
    """
    leaves: dict[Place, Callable[[], Array]] = {}
    names: dict[Place, str] = {}
    for name, tensor in checkpoint.tensors.items():
        found = place(name)
        if found in names:
            raise CheckpointError(
                f"{checkpoint.source}: {names[found]!r:.200} and {name!r:.200} are two names of one array"
            )
        names[found] = name
        leaves[found] = functools.partial(_same, tensor)
    return replace(checkpoint, tensors=own(leaves, checkpoint.source))


def _same(tensor: Array) -> Array:
    return tensor
