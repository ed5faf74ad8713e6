"""A checkpoint's tensors as a family knows them: without the names of wrappers, or a part of them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..errors import CheckpointError
from ..readers.checkpoint import Checkpoint
from ..readers.names import as_tree

_OUTER = re.compile(r"[^./]*[./]")
# torch.compile puts it before the names of whatever it wraps.
_COMPILED = "_orig_mod."
# No model, and no part of one, lies deeper.
_DEPTH = 16
# Parts of a file that are looked at, each of them by every family.
_PARTS = 4096


def known(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """The checkpoint under the names by which families may know it: those of the file, then those of Flax's trees.

    A name with "/" in it is of a tree: the optimiser's copies, which may come first, are to be left out then.
    """
    if not any("/" in name for name in checkpoint.tensors):
        yield from _unwrapped(_plain(checkpoint))
    try:
        tree = as_tree(checkpoint)
    except CheckpointError:
        return
    yield tree


def _plain(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without what `jax.tree_util.keystr` and torch.compile put before every name."""
    names = {name: name.replace(_COMPILED, "").removeprefix(".") for name in checkpoint.tensors}
    if len(set(names.values())) != len(names):
        raise CheckpointError(
            f"{checkpoint.source}: two tensors have the same name once {_COMPILED!r} and a leading dot are left out"
        )
    return replace(checkpoint, tensors={names[name]: tensor for name, tensor in checkpoint.tensors.items()})


def part(checkpoint: Checkpoint, prefix: str) -> Checkpoint:
    """The tensors whose names start with ``prefix``, without it; raises where there are none."""
    checkpoint, prefix = _plain(checkpoint), prefix.replace(_COMPILED, "").removeprefix(".")
    tensors = {n[len(prefix) :]: a for n, a in checkpoint.tensors.items() if n.startswith(prefix)}
    # A name and no place in front of others, as "encoder" for "encoder.weight": the separator is part of it.
    if any(name == "" or name[0] in "./" for name in tensors):
        tensors = {}
    if not tensors:
        outer = sorted({m[0] for name in checkpoint.tensors if (m := _OUTER.match(name))})
        raise CheckpointError(
            f"{checkpoint.source}: prefix={prefix!r}: expected names that go on behind it,"
            f" found none; names start with {', '.join(map(repr, outer[:20])) or 'no prefix at all'}"
        )
    return replace(checkpoint, tensors=tensors)


def _unwrapped(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """The checkpoint, and what is left of it without the names that wrappers put in front of every tensor.

    ``module.`` is DataParallel's, ``model.`` or ``net.`` a training class's.
    """
    tensors = checkpoint.tensors
    for _ in range(_DEPTH):
        yield replace(checkpoint, tensors=tensors)
        outer = {name.partition(".")[0] if "." in name else None for name in tensors}
        if len(outer) != 1 or None in outer:
            return
        tensors = {name.partition(".")[2]: tensor for name, tensor in tensors.items()}


def fitting(checkpoint: Checkpoint, fits: Callable[[Checkpoint], bool], *, numbered: bool) -> dict[str, int]:
    """The outermost prefixes of which ``fits`` says that a part of the file is a model, with its number of tensors.

    ``numbered``: also such as end in a number, which are the elements of a list. Of files with very many parts only
    the first are looked at.
    """
    checkpoint, total = _plain(checkpoint), len(checkpoint.tensors)
    found: dict[str, int] = {}
    asked = itertools.count()

    def search(at: str, tensors: Mapping[str, Any], depth: int) -> None:
        inside: dict[str, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            if m := _OUTER.match(name):
                inside.setdefault(m[0], {})[name[m.end() :]] = tensor
        for name, below in inside.items():
            element = re.search(r"\d\]?[./]$", name)
            if not numbered and element:
                continue
            if len(below) < total:
                if next(asked) >= _PARTS:
                    return
                if fits(replace(checkpoint, tensors=below)):
                    found[at + name] = len(below)
                    continue
            if depth < _DEPTH:
                search(at + name, below, depth + 1)

    search("", checkpoint.tensors, 0)
    return found


def only_in_parts(checkpoint: Checkpoint, parts: Mapping[str, int]) -> CheckpointError:
    """The error that not the whole file is a model, but what starts with one of ``parts``."""
    others = [name for name in checkpoint.tensors if not name.startswith(tuple(parts))]
    problem = f"the file holds {len(parts)} models"
    if others:
        more = f" and {len(others) - 10} more" if len(others) > 10 else ""
        verb = "have" if len(others) > 1 else "has"
        problem = f"a part of the file is a model, in which {', '.join(others[:10])}{more} {verb} no place"
    return CheckpointError(f"{checkpoint.source}: {problem}{advice(checkpoint, parts)}")


def advice(checkpoint: Checkpoint, parts: Mapping[str, int]) -> str:
    """What a caller may do about a file of which ``parts`` are models."""
    total = len(checkpoint.tensors)
    choices = [f"prefix={prefix!r} ({count} of {total} tensors)" for prefix, count in list(parts.items())[:10]]
    more = f" and {len(parts) - 10} more like these" if len(parts) > 10 else ""
    return f"\nTo load a part alone pass {' or '.join(choices)}{more}" if parts else ""
