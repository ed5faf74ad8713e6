"""A model's own arrays out of what was saved with it: training states, optimisers, other collections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ._arrays import Array

# Where a leaf stands in the tree, and how to get it: what nobody asks for is not read.
Place = tuple[str, ...]
Leaves = Mapping[Place, Callable[[], Array]]

# Flax's collections that a trained model consists of; "cache" holds the state of a sequence under way.
_OWN = (("params",), ("batch_stats",), ("prime",))
_COLLECTIONS = {"params", "batch_stats", "prime", "cache", "intermediates", "losses"}
# Optimisers and moving averages mirror the parameters under their own names.
_COPIES = {"opt_state", "optimizer", "optimizer_state", "mu", "nu", "ema", "ema_params", "ema_state"}
# Levels that stand around a whole model: a mapping's or a tuple's, what is saved beside the model being left out.
_AROUND = {"model", "state", "module", "0"}
_BESIDE = _COPIES | {"step", "epoch", "rng", "rngs", "key", "metrics", "opt", "optim"}
# Flax NNX files a variable's array under the variable, and the counters of random numbers among them.
_VALUE = "value"
_RANDOM = "rngs"

_MAX_DEPTH = 100
_MAX_VALUES = 200_000


def own(leaves: Leaves, source: str) -> dict[str, Array]:
    """The arrays of the model, named from ``params`` or ``batch_stats`` down and joined with "/".

    They may stand in a training state below other levels. A tree without ``params`` is taken to be the parameters
    themselves, and keeps its names but for a level around all of them: it says nothing about the other collections.
    Raises `CheckpointError` where there are none, or several models.
    """
    base = _base(leaves, source)
    kept = _without_variables(_inner(leaves) if base is None else _collections(leaves, base))
    result: dict[str, Array] = {}
    for place, load in kept.items():
        name = "/".join(place)
        if name in result:
            raise CheckpointError(f"{source}: two arrays are named {name!r}")
        result[name] = load()
    if not result:
        raise CheckpointError(f"{source}: expected a model's parameters, found no array")
    return result


def _base(leaves: Leaves, source: str) -> Place | None:
    """The place of the mapping that holds ``params``; None where there is none."""
    bases = {place[:i] for place in leaves for i, part in enumerate(place[:-1]) if part == "params"}
    bases = {base for base in bases if _COPIES.isdisjoint(base)}
    if not bases:
        return None
    depth = min(map(len, bases))
    outermost = sorted(base for base in bases if len(base) == depth)
    if len(outermost) > 1:
        found = ", ".join("/".join(base) for base in outermost)
        raise CheckpointError(f"{source}: expected one model's params, found those of {found}; save one of them alone")
    base = outermost[0]
    inner = (*base, "params")
    children = {place[len(inner)] for place in leaves if place[: len(inner)] == inner and len(place) > len(inner)}
    # `TrainState.create(params=model.init(...))` files the whole of the variables under "params".
    return inner if "params" in children and children <= _COLLECTIONS else base


def _collections(leaves: Leaves, base: Place) -> Leaves:
    depth = len(base)
    kept = {p[depth:]: load for p, load in leaves.items() if p[:depth] == base and p[depth : depth + 1] in _OWN}
    if base[-1:] == ("params",) and not any(place[0] == "batch_stats" for place in kept):
        beside = (*base[:-1], "batch_stats")
        kept |= {p[depth - 1 :]: load for p, load in leaves.items() if p[:depth] == beside}
    return kept


def _inner(leaves: Leaves) -> Leaves:
    """The leaves without the levels that stand around all of the model."""
    while True:
        tops: dict[str, list[Place]] = {}
        for place in leaves:
            tops.setdefault(place[0] if place else "", []).append(place)
        model = [t for t in tops if t not in _BESIDE and all(map(_COPIES.isdisjoint, tops[t]))]
        if len(model) != 1 or model[0] not in _AROUND or any(len(place) < 2 for place in tops[model[0]]):
            return leaves
        leaves = {place[1:]: leaves[place] for place in tops[model[0]]}


def _without_variables(leaves: Leaves) -> Leaves:
    """The leaves named after NNX's variables, where all are a variable's ``value``; no counters of random numbers."""
    kept = {place: load for place, load in leaves.items() if _RANDOM not in place}
    if not all(len(place) > 1 and place[-1] == _VALUE for place in kept):
        return kept
    return {place[:-1]: load for place, load in kept.items()}


def tree_leaves(
    root: Any,
    source: str,
    *,
    children: Callable[[Any], Mapping[Any, Any] | None],
    load: Callable[[Any, str], Array],
) -> Leaves:
    """The leaves of nested mappings, lists and tuples, each by its place; strings and None are none.

    ``children`` are those of a value that is no list or tuple, None of a leaf; a key that is a tuple is several
    levels. ``load`` makes an array of a leaf that is no number of Python's, when the leaf is asked for. Raises
    `CheckpointError` where two leaves have one place, or where the tree contains itself or is beyond all measure.
    """
    found: dict[Place, Callable[[], Array]] = {}
    names: dict[Place, str] = {}
    left = _MAX_VALUES

    def visit(value: Any, keys: tuple[Any, ...]) -> None:
        nonlocal left
        left -= 1
        if left < 0 or len(keys) > _MAX_DEPTH:
            raise CheckpointError(f"{source}: the tree in it contains itself or is unreasonably large")
        inner = dict(enumerate(value)) if isinstance(value, list | tuple) else children(value)
        if inner is not None:
            for key, item in inner.items():
                visit(item, (*keys, key))
        elif value is not None and not isinstance(value, str | bytes):
            name = "".join(f"[{key!r:.80}]" for key in keys)
            place = tuple(str(part) for key in keys for part in (key if isinstance(key, tuple) else (key,)))
            if place in found:
                raise CheckpointError(f"{source}: {names[place]:.200} and {name:.200} are two names of one array")
            names[place] = name
            found[place] = _loader(value, f"{source}: {name:.200}".rstrip(": "), load)

    visit(root, ())
    return found


def _loader(value: Any, where: str, load: Callable[[Any, str], Array]) -> Callable[[], Array]:
    return lambda: np.asarray(value) if isinstance(value, bool | int | float | complex) else load(value, where)
