"""A model's own arrays out of what was saved with it: training states, optimisers, other collections."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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


def own(leaves: Leaves, source: str) -> dict[str, Array]:
    """The arrays of the model, named from ``params`` or ``batch_stats`` down and joined with "/".

    They may stand in a training state below other levels. A tree without ``params`` is taken to be the parameters
    themselves, and keeps its names: it says nothing about the other collections. Raises `CheckpointError` where
    there are none, or several models.
    """
    base = _base(leaves, source)
    kept = leaves if base is None else _collections(leaves, base)
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
