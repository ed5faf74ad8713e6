"""A pickle of nested dicts of NumPy's or JAX's arrays, as training code in JAX keeps its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from . import _files, _numpy_pickle, _pickle
from ._arrays import Array
from ._numpy_pickle import Ndarray
from ._pickle import Global, Record, describe
from ._state_dict import REMEDY
from ._variables import own, tree_leaves
from .checkpoint import Checkpoint

_REMEDY = (
    "Load it where it was made and save it with flax.serialization.to_bytes(variables),"
    " or its arrays with np.savez(path, **arrays)"
)
_MAPPINGS = ("OrderedDict", "defaultdict")
_FROZEN = "FrozenDict"


def matches(path: Path, head: bytes) -> bool:
    """Whether the file is a pickle of protocol 2 or later."""
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")


def read(path: Path, step: int | None = None) -> Checkpoint:
    """The model's parameters and batch statistics, without an optimiser's state.

    Dicts, lists and tuples are the levels of the tree, the attributes of an object its root: of a training state.
    Raises `CheckpointError` where it holds no array, or where something else stands in the place of one of the model's.
    """
    source = str(path)
    data = _files.read(path)
    rules = _Rules()
    root, end = _pickle.load(data, source, rules, limit=len(data))
    remedy = f"nothing of it was run. {REMEDY if rules.torch else _REMEDY}"
    if end != len(data):
        raise CheckpointError(f"{source}: expected the end of the pickle, found {len(data) - end} more bytes; {remedy}")

    def load(value: Any, where: str) -> Array:
        if isinstance(value, Ndarray):
            return value.array(where)
        raise CheckpointError(f"{where}: expected an array, found {describe(value)}; {remedy}")

    tree = root.state if isinstance(root, Record) and root.state else root
    leaves = tree_leaves(tree, source, children=lambda value: value if isinstance(value, dict) else None, load=load)
    if not rules.arrays:
        raise CheckpointError(
            f"{source}: expected a pickle of nested dicts of arrays, found another pickle, {describe(root)}; {remedy}"
        )
    return Checkpoint(own(leaves, source), source, "pickle")


class _Rules(_numpy_pickle.Rules):
    """As NumPy's, with the mappings of Python and Flax; notes whether there are arrays, and names of torch."""

    def __init__(self) -> None:
        self.arrays = False
        self.torch = False

    def call(self, function: Global, args: tuple[Any, ...]) -> Any:
        if function.module == "collections" and function.name in _MAPPINGS:
            return {}
        if function.name == _FROZEN and function.module.startswith("flax.") and len(args) == 1:
            return args[0]
        self.torch |= function.module.partition(".")[0] == "torch"
        made = super().call(function, args)
        self.arrays |= isinstance(made, Ndarray)
        return made
