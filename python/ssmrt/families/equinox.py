"""What the Equinox families share: names for a file that has none, and Equinox's own modules as nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..document import Linear, Norm
from ..errors import CheckpointError
from ..readers.checkpoint import Checkpoint
from .tensors import Dim, Tensors, table

NORM_EPS = 1e-5

_KINDS = {"real": "f", "complex": "c", "int": "iu"}
SNIPPET = """\
import json
import equinox as eqx
import jax

leaves = jax.tree_util.tree_leaves_with_path(module)
rows = [
    {
        "path": jax.tree_util.keystr(path),
        "saved": bool(eqx.is_array_like(leaf)),
        "shape": list(leaf.shape) if eqx.is_array(leaf) else None,
        "dtype": str(leaf.dtype) if eqx.is_array(leaf) else type(leaf).__name__,
    }
    for path, leaf in leaves
]
with open("leaves.json", "w") as file:
    json.dump(rows, file)
"""
LEAVES = f"write leaves.json beside the file, where the module is at hand:\n\n{SNIPPET}"


@dataclass(frozen=True)
class Record:
    """One array that ``eqx.tree_serialise_leaves`` writes; an ``int`` is a Python integer of the module."""

    name: str
    kind: Literal["real", "complex", "int"]
    shape: tuple[int, ...] = ()
    value: int | None = None


def linear_records(name: str, d_in: int, d_out: int) -> list[Record]:
    """The leaves of ``eqx.nn.Linear``."""
    return [Record(f"{name}.weight", "real", (d_out, d_in)), Record(f"{name}.bias", "real", (d_out,))]


def unnamed(checkpoint: Checkpoint) -> list[NDArray[Any]]:
    """The records of a file without names, in its order."""
    return [np.asarray(checkpoint.tensors[f"[{i}]"]) for i in range(len(checkpoint.tensors))]


def named(checkpoint: Checkpoint, template: Sequence[Record]) -> dict[str, NDArray[Any]]:
    """The records under the names of ``template``; raises with a table where count, kind, shape or value differ."""
    records = unnamed(checkpoint)
    if len(records) != len(template):
        raise CheckpointError(
            f"{checkpoint.source}: expected {len(template)} records for this arch and configuration,"
            f" found {len(records)}; give the constructor's arguments in config, or {LEAVES}"
        )
    wrong = []
    for i, (row, record) in enumerate(zip(template, records)):
        fits = record.dtype.kind in _KINDS[row.kind] and record.shape == row.shape
        if not fits:
            wrong.append((f"[{i}] {row.name}", f"{row.kind} {row.shape}", f"{record.dtype} {record.shape}"))
        elif row.value is not None and int(record) != row.value:
            wrong.append((f"[{i}] {row.name}", str(row.value), str(int(record))))
    if wrong:
        raise table(checkpoint.source, wrong)
    return {row.name: record for row, record in zip(template, records)}


def plain_names(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Names as Python writes them, ``cell.p`` where ``keystr`` says ``.cell.p``."""
    return {name.removeprefix("."): array for name, array in tensors.items()}


def linear(tensors: Tensors, name: str, d_in: int | str, d_out: int | str) -> Linear:
    """``eqx.nn.Linear``: its weight is (d_out, d_in)."""
    return Linear(tensors.take(f"{name}.weight", d_out, d_in), tensors.optional(f"{name}.bias", d_out), name=name)


def integer(tensors: Tensors, name: str) -> int | None:
    """A Python integer of the module, which is in ``.eqx`` files only."""
    return tensors.integer(name) if name in tensors else None


def boolean(tensors: Tensors, name: str) -> bool | None:
    """A Python boolean of the module, which is in ``.eqx`` files only."""
    return tensors.boolean(name) if name in tensors else None


_STATE = re.compile(r"\[1\]\[<flat index (\d{1,9})>\](?:\[\d\])?")


class Stateful:
    """A module and the `eqx.nn.State` beside it, saved as ``(model, state)``.

    The State has no names: its entries stand in the order of the layers that own them, two a batch norm. The first
    says whether statistics were ever taken, the second is them.
    """

    def __init__(self, checkpoint: Checkpoint):
        self._tensors = Tensors(plain_names(checkpoint.tensors), checkpoint.source)
        self._source = checkpoint.source
        self._state = sorted({int(m[1]) for name in self._tensors.names if (m := _STATE.fullmatch(name))})
        paired = any(name.startswith("[0].") for name in self._tensors.names)
        self.model = self._tensors.scope("[0]." if paired else "")
        self._met = 0

    def batch_norm(self, name: str, d: Dim) -> Norm:
        """The model's next ``eqx.nn.BatchNorm`` in evaluation, its running statistics folded into an affine map.

        Raises `CheckpointError` where the file has no statistics for it.
        """
        self.model.ignore(f"{name}.inference")
        first, second = 2 * self._met, 2 * self._met + 1
        if second >= len(self._state):
            raise CheckpointError(
                f"{self._source}: {name}: expected the running statistics of this batch norm, which Equinox keeps in"
                f" the model's State, found {len(self._state) // 2} before it; save both:"
                " eqx.tree_serialise_leaves(path, (model, state))"
            )
        self._met += 1
        self._tensors.boolean(f"[1][<flat index {self._state[first]}>]")
        entry = f"[1][<flat index {self._state[second]}>]"
        mean, var = self._tensors.f64(f"{entry}[0]", d), self._tensors.f64(f"{entry}[1]", d)
        if (var < 0).any():
            raise self._tensors.misfit(f"{entry}[1]", "variances", f"{var.min():.3g}")
        scale = 1 / np.sqrt(var + NORM_EPS)
        shift = -mean * scale
        weight, bias = self.model.optional(f"{name}.weight", d), self.model.optional(f"{name}.bias", d)
        if weight is not None:
            scale, shift = scale * weight, shift * weight
        return Norm("affine", scale, shift if bias is None else shift + bias, name=name)

    def finish(self) -> None:
        """Raise where a tensor was left over."""
        self._tensors.finish()
