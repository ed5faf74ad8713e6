"""memax' ResidualModel in Flax linen with LRU or S6 cells; its start flags are ssmrt's ``resets``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..document import Activation, Document, Node, Norm, Sequential
from ..readers.checkpoint import Checkpoint
from . import flax, lru, memax, memax_s6, parts
from .config import Config
from .facts import TRAINING, facts, named
from .tensors import Tensors

ARCH = "memax-linen"

FACTS = (
    TRAINING
    | named(ARCH, "ResidualModel")
    | facts(
        used="activation",
        checked="models recurrent_size hidden output_size output num_layers",
        idle="key layer_kwargs model_kwargs",
    )
)

_CELL = r"layers_0/(?:gamma_log|A_log)"


def matches(tensors: Mapping[str, Any]) -> bool:
    """Whether the names are those of a ResidualModel with LRU or S6 cells."""
    return flax.holds(tensors, _CELL) and flax.holds(tensors, "map_in/kernel")


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model as upstream runs it, one answer a sample. There is no residual connection, whatever its name says.

    Raises
    ------
    CheckpointError
        A tensor is missing, left over or misshapen, or contradicts the config.
    """
    said = Config(config, checkpoint, FACTS, ARCH)
    variables = flax.Variables(checkpoint, _CELL)
    params = variables.params
    s6 = "layers_0/A_log" in params
    cell = "S6" if s6 else "LRU"
    said.agree("models", cell, "layers_0/A_log" if s6 else "layers_0/gamma_log", also=([cell],))
    count = parts.layer_count(params, "layers_", "/")
    activation = said.get("activation", "leaky_relu", choices=memax.ACTIVATIONS)
    children: list[Node] = [flax.dense(params, "map_in", "I", "H")]
    for i in range(count):
        mixer = f"ff_{i}/layers"
        children += [
            _cell(params.scope(f"layers_{i}/"), f"layers_{i}"),
            flax.dense(params, f"{mixer}_0", "H", "H"),
            Norm("layer", eps=flax.LAYER_NORM_EPS, name=f"{mixer}_1"),
            Activation(activation, name=f"{mixer}_2"),
        ]
    children.append(flax.dense(params, "map_out", "H", "O"))
    variables.finish()
    dims = params.dims
    width, outputs = (dims["H"], "map_in/kernel"), (dims["O"], "map_out/kernel")
    parts.check_sizes(said, dict.fromkeys(("recurrent_size", "hidden"), width))
    parts.check_sizes(said, dict.fromkeys(("output_size", "output"), outputs))
    said.agree("num_layers", count, "the number of layers_i")
    said.finish()
    return Document(Sequential(tuple(children)), dims["I"], dims["O"], {"arch": ARCH})


def _cell(cell: Tensors, name: str) -> Node:
    if "A_log" not in cell:
        return lru.recurrence(cell, name)
    B, C, dt = (flax.dense(cell, place, "H", "H") for place in ("B", "C", "dt/layers_0"))
    return memax_s6.recurrence(-parts.exp(cell, "A_log", "H"), B, C, dt, name)
