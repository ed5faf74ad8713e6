"""memax's ResidualModel in Equinox with LRU or S6 cells; its start flags are ssmrt's ``resets``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ..document import Activation, Document, Gate, Linear, Node, Norm, Sequential
from ..readers.checkpoint import Checkpoint
from . import equinox, lru, memax_s6, parts
from .config import Config
from .equinox import Record
from .facts import TRAINING, facts, named
from .tensors import Tensors

ARCH = "memax-lru"
WITHOUT_NAMES = True

FACTS = (
    TRAINING
    | named(ARCH, "ResidualModel", "MultiHeadResidualModel")
    | facts(
        used="activation",
        checked="model_name input input_size hidden recurrent_size hidden_size output output_size num_layers num_heads",
        idle="key",
    )
)

Array = NDArray[Any]

# Those of JAX that ssmrt has.
ACTIVATIONS = ("leaky_relu", "relu", "tanh", "silu", "elu")

_CELL = re.compile(r"layers\[0\]\.(gamma_log|A_log)")
# Python integers of the modules repeat what the shapes say.
_CELL_INTEGERS = {
    "readout_dim": "H",
    "algebra.algebra.recurrent_size": "P",
    "hidden_size": "H",
    "recurrent_size": "P",
}
# Records of a cell.
_LRU_RECORDS, _S6_RECORDS = 11, 10


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
    """
    said = Config(config, checkpoint, FACTS, ARCH)
    tensors = checkpoint.tensors if checkpoint.named else equinox.named(checkpoint, _template(checkpoint, said))
    view = Tensors(equinox.plain_names(tensors), checkpoint.source)
    s6 = "layers[0].A_log" in view
    said.agree("model_name", "S6" if s6 else "LRU", "layers[0].A_log" if s6 else "layers[0].gamma_log")
    count = parts.layer_count(view, "layers[", "].")
    activation = said.get("activation", "leaky_relu", choices=ACTIVATIONS)

    children: list[Node] = [equinox.linear(view, "map_in", "I", "H")]
    heads = 1
    for i in range(count):
        cell = view.scope(f"layers[{i}].")
        children.append(_s6(cell, f"layers[{i}]") if "A_log" in cell else lru.recurrence(cell, f"layers[{i}]"))
        _check_integers(cell, {name: view.dims[dim] for name, dim in _CELL_INTEGERS.items()})
        mixed, heads, norm, function = _mixer(view, i)
        children += [mixed, Norm("layer", eps=equinox.NORM_EPS, name=norm), Activation(activation, name=function)]
    children.append(equinox.linear(view, "map_out", "H", "O"))
    dims = view.dims
    _check_integers(view, {"recurrent_size": dims["H"], "num_heads": heads})
    view.finish()

    sizes = {
        ("input", "input_size"): (dims["I"], "map_in.weight"),
        ("hidden", "recurrent_size", "hidden_size"): (dims["H"], "map_in.weight"),
        ("output", "output_size"): (dims["O"], "map_out.weight"),
        ("num_layers",): (count, "the number of layers[i]"),
        ("num_heads",): (heads, "mixers[0].heads"),
    }
    parts.check_sizes(said, {name: size for names, size in sizes.items() for name in names})
    said.finish()
    return Document(Sequential(tuple(children)), dims["I"], dims["O"], {"arch": "memax-s6" if s6 else ARCH})


def _s6(cell: Tensors, name: str) -> Gate:
    rate = parts.exp(cell, "A_log", "P")
    # The input is taken channel by channel: there are as many states as channels.
    if len(rate) != cell.dims["H"]:
        raise cell.misfit("A_log", f"({cell.dims['H']},), one a channel", f"({len(rate)},)")
    B, C, dt = (equinox.linear(cell, place, "H", "H") for place in ("B", "C", "dt.layers[0]"))
    return memax_s6.recurrence(-rate, B, C, dt, name)


def _mixer(view: Tensors, i: int) -> tuple[Linear, int, str, str]:
    """What mixes a layer's channels, how many heads it has, and the names of the norm and function behind it.

    All heads are one Linear. Since 53d9424 (June 2026) it is a LayerMixer, before that one Linear.
    """
    mixer = view.scope(f"mixers[{i}].")
    count = parts.layer_count(mixer, "heads[", "].")
    if count == 0:
        name = f"ff[{i}].layers"
        return equinox.linear(view, f"{name}[0]", "H", "H"), 1, f"{name}[1]", f"{name}[2]"
    H = view.dims["H"]
    heads = [equinox.linear(mixer, f"heads[{j}]", "H", "head") for j in range(count)]
    if count * view.dims["head"] != H:
        raise mixer.misfit(
            "heads[0].weight", f"({H // count}, {H}), as there are {count} heads", f"{view.dims['head']}"
        )
    _check_integers(mixer, {"num_heads": count, "head_dim": H // count, "in_features": H, "out_features": H})
    return parts.side_by_side(*heads), count, f"mixers[{i}].norm", f"mixers[{i}].activation"


def _check_integers(view: Tensors, expected: Mapping[str, int]) -> None:
    for name, value in expected.items():
        if (stored := equinox.integer(view, name)) not in (None, value):
            raise view.misfit(name, str(value), str(stored))


def _template(checkpoint: Checkpoint, config: Config) -> list[Record]:
    """The leaves of a ResidualModel in the order in which Equinox writes them."""
    records = equinox.unnamed(checkpoint)

    def suggested(index: int, axis: int) -> int:
        shape = records[index].shape if -len(records) <= index < len(records) else ()
        return shape[axis] if len(shape) > axis else 1

    def whole(index: int) -> bool:
        return index < len(records) and records[index].dtype.kind in "iu" and records[index].shape == ()

    # A LayerMixer came with one more integer at the head of each cell, and one at the end of the model.
    mixed = whole(0) and whole(1)
    # The fourth record of an LRU is a matrix, that of an S6 a bias.
    s6 = len(records) > 3 + mixed and len(records[3 + mixed].shape) == 1
    each = (_S6_RECORDS if s6 else _LRU_RECORDS) + mixed
    found = next((i for i in range(len(records)) if not whole(i * each + mixed) or whole(i * each + 1 + mixed)), 0)
    heads = min(int(records[found * each]), len(records)) if mixed and whole(found * each) else 1
    count = min(config.positive("num_layers", max(1, found)), len(records))
    tail = 4 * mixed + 2 * heads
    ends = len(records) - count * (each + tail) - 4 if mixed else 0
    H = config.positive("hidden", suggested(-4 - ends, 0))
    d_in = config.positive("input", suggested(-4 - ends, 1))
    d_out = config.positive("output", suggested(-1 - ends, 0))
    P = suggested(1 + mixed, 0)
    rows: list[Record] = []
    for i in range(count):
        cell = f"layers[{i}]."
        if mixed:
            rows.append(Record(f"{cell}readout_dim", "int", value=H))
        rows.append(Record(f"{cell}algebra.algebra.recurrent_size", "int", value=P))
        rows += _s6_records(cell, H, P) if s6 else _lru_records(cell, H, P)
        rows += [Record(f"{cell}hidden_size", "int", value=H), Record(f"{cell}recurrent_size", "int", value=P)]
    for i in range(count):
        rows += _mixer_records(i, H, heads) if mixed else equinox.linear_records(f"ff[{i}].layers[0]", H, H)
    rows += [*equinox.linear_records("map_in", d_in, H), *equinox.linear_records("map_out", H, d_out)]
    if mixed:
        rows.append(Record("recurrent_size", "int", value=H))
        # A MultiHeadResidualModel, which has as many heads in every layer.
        rows += [Record("num_heads", "int", value=heads)] * (ends == 2)
    return rows


def _lru_records(cell: str, H: int, P: int) -> list[Record]:
    rows = [Record(f"{cell}gamma_log", "real", (P,))]
    rows += [Record(f"{cell}{name}", "real", (P, H)) for name in ("B_re", "B_im")]
    rows += [Record(f"{cell}{name}", "real", (H, P)) for name in ("C_re", "C_im")]
    rows += [Record(f"{cell}D", "real", (H,))]
    return rows + [Record(f"{cell}{name}", "real", (P,)) for name in ("nu_log", "theta_log")]


def _s6_records(cell: str, H: int, P: int) -> list[Record]:
    rows = [Record(f"{cell}A_log", "real", (P,))]
    for name, d_in, d_out in (("B", H, P), ("C", P, H), ("dt.layers[0]", H, P)):
        rows += equinox.linear_records(f"{cell}{name}", d_in, d_out)
    return rows


def _mixer_records(i: int, H: int, heads: int) -> list[Record]:
    name, size = f"mixers[{i}].", H // max(heads, 1)
    values = {"num_heads": heads, "head_dim": size, "in_features": H, "out_features": H}
    rows = [Record(f"{name}{integer}", "int", value=value) for integer, value in values.items()]
    for j in range(heads):
        rows += equinox.linear_records(f"{name}heads[{j}]", H, size)
    return rows
