"""memax's ResidualModel in Equinox with LRU cells; its start flags are ssmrt's ``resets``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ..document import Activation, Document, Node, Norm, Sequential
from ..errors import UnsupportedError
from ..readers.checkpoint import Checkpoint
from . import equinox, lru, parts
from .config import Config
from .equinox import Record
from .tensors import Tensors

ARCH = "memax-lru"
WITHOUT_NAMES = True

Array = NDArray[Any]

_CELL = re.compile(r"layers\[0\]\.(gamma_log|A_log)")
_INTEGERS = {"algebra.algebra.recurrent_size": "P", "recurrent_size": "P", "hidden_size": "H"}
_RECORDS_A_LAYER = 13
_OTHER_RECORDS = 4


def matches(tensors: Mapping[str, Any]) -> bool:
    """Whether the names are those of a ResidualModel with LRU or S6 cells."""
    names = {name.removeprefix(".") for name in tensors}
    return "map_in.weight" in names and any(map(_CELL.fullmatch, names))


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model as upstream runs it, one answer a sample. There is no residual connection, whatever its name says.

    Raises
    ------
    CheckpointError
        A tensor is missing, left over or misshapen, or contradicts the config.
    UnsupportedError
        The cells are memax's S6.
    """
    said = Config(config, checkpoint.config, checkpoint.source)
    if said.get("model_name", "LRU") == "S6":
        raise _s6(checkpoint.source)
    tensors = checkpoint.tensors if checkpoint.named else equinox.named(checkpoint, _template(checkpoint, said))
    view = Tensors(equinox.plain_names(tensors), checkpoint.source)
    if "layers[0].A_log" in view:
        raise _s6(checkpoint.source)
    said.agree("model_name", "LRU", "layers[0].gamma_log")
    count = parts.layer_count(view, "layers[", "].")
    activation = said.get("activation", "leaky_relu", choices=("leaky_relu", "relu", "tanh", "silu", "elu"))

    children: list[Node] = [equinox.linear(view, "map_in", "I", "H")]
    for i in range(count):
        cell = view.scope(f"layers[{i}].")
        children += [
            lru.recurrence(cell, f"layers[{i}]"),
            equinox.linear(view, f"ff[{i}].layers[0]", "H", "H"),
            Norm("layer", eps=equinox.NORM_EPS, name=f"ff[{i}].layers[1]"),
            Activation(activation, name=f"ff[{i}].layers[2]"),
        ]
        for name, dim in _INTEGERS.items():
            if (stored := equinox.integer(cell, name)) not in (None, view.dims[dim]):
                raise cell.misfit(name, str(view.dims[dim]), str(stored))
    children.append(equinox.linear(view, "map_out", "H", "O"))
    view.finish()

    dims = view.dims
    parts.check_sizes(
        said,
        {
            "input": (dims["I"], "map_in.weight"),
            "hidden": (dims["H"], "map_in.weight"),
            "output": (dims["O"], "map_out.weight"),
            "num_layers": (count, "the number of layers[i]"),
        },
    )
    said.finish()
    return Document(Sequential(tuple(children)), dims["I"], dims["O"], {"arch": ARCH})


def _template(checkpoint: Checkpoint, config: Config) -> list[Record]:
    """The leaves of a ResidualModel in the order in which Equinox writes them."""
    records = equinox.unnamed(checkpoint)

    def suggested(index: int, axis: int) -> int:
        shape = records[index].shape if len(records) > abs(index) else ()
        return shape[axis] if len(shape) > axis else 1

    count = config.positive("num_layers", max(1, (len(records) - _OTHER_RECORDS) // _RECORDS_A_LAYER))
    H = config.positive("hidden", suggested(-4, 0))
    d_in = config.positive("input", suggested(-4, 1))
    d_out = config.positive("output", suggested(-1, 0))
    P = suggested(1, 0)
    rows: list[Record] = []
    for i in range(min(count, len(records))):
        cell = f"layers[{i}]."
        rows += [
            Record(f"{cell}algebra.algebra.recurrent_size", "int", value=P),
            Record(f"{cell}gamma_log", "real", (P,)),
        ]
        rows += [Record(f"{cell}{name}", "real", (P, H)) for name in ("B_re", "B_im")]
        rows += [Record(f"{cell}{name}", "real", (H, P)) for name in ("C_re", "C_im")]
        rows += [Record(f"{cell}D", "real", (H,))]
        rows += [Record(f"{cell}{name}", "real", (P,)) for name in ("nu_log", "theta_log")]
        rows += [Record(f"{cell}hidden_size", "int", value=H), Record(f"{cell}recurrent_size", "int", value=P)]
    for i in range(min(count, len(records))):
        rows += equinox.linear_records(f"ff[{i}].layers[0]", H, H)
    return [*rows, *equinox.linear_records("map_in", d_in, H), *equinox.linear_records("map_out", H, d_out)]


def _s6(source: str) -> UnsupportedError:
    return UnsupportedError(
        f"{source}: layers[0].A_log: memax's S6, in which every channel has its own B and C computed from the input"
        " and a zero-order hold; ssmrt's selective layer is Mamba's, where the channels share them"
    )
