"""``s4-example``: the S4Model of the state-spaces/s4 repository's example.py, with S4D or S4 layers.

The S4D layer is the repository's minimal one (Gu et al. 2022, listing 1), with zero-order hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Diagonal, Document, Node, Norm, Pool, Residual, Sequential
from ..readers.checkpoint import Checkpoint
from . import s4_block
from .config import Config
from .facts import TRAINING, facts, named
from .s4_kernel import applied, step_size
from .tensors import Tensors
from .torch_layers import activation, layer_norm, linear

ARCH = "s4-example"

# The minimal layer has no other options; what S4Block would call them is fixed.
S4D = facts(
    checked="d_model d_state",
    idle="transposed tie_dropout dt_min dt_max init measure verbose",
    only={
        "_name_": ("s4d", None),
        "activation": ("gelu",),
        "final_act": ("glu",),
        "disc": ("zoh",),
        "mode": ("diag", "s4d"),
        "dt_transform": ("exp",),
        "real_transform": ("exp",),
        "imag_transform": ("none", None),
        "bidirectional": (False,),
        "channels": (1,),
        "l_max": (None,),
        "bandlimit": (None,),
        "dt_fast": (False,),
        "dt_tie": (True,),
        "is_real": (False,),
    },
)

MODEL = (
    TRAINING
    | named(ARCH, "S4Model")
    | facts(
        used="prenorm",
        checked="d_input d_output d_model n_layers layer",
        idle="grayscale resume epochs",
        only={"norm": ("layer",), "pooling": ("mean",)},
    )
)

FACTS = S4D | MODEL
FACTS_OF_BLOCKS = s4_block.FACTS | MODEL

# What scripts call the layer, where it is the minimal one and where it is not.
_ALSO = {True: ("s4d", "s4D"), False: ("s4", "S4", "s4block")}

WHY_PRENORM = "whether a layer's norm stands before it or after its residual sum is not in the file"


def matches(tensors: Mapping[str, NDArray[np.generic]]) -> bool:
    """Whether the tensors are those of an S4Model, or of its S4D layer alone."""
    return is_s4d(Tensors(tensors, "")) or any(name.startswith("s4_layers.") for name in tensors)


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model: (L, d_input) to (d_output,), the mean over time; an S4D layer alone keeps the time."""
    source = checkpoint.source
    t = Tensors(checkpoint.tensors, source)
    first = t if is_s4d(t) else t.scope("s4_layers.0.")
    said = Config(config, checkpoint, FACTS if is_s4d(first) else FACTS_OF_BLOCKS, ARCH)
    # What a file says of itself is some trainer's; that a fact is missing there says nothing.
    said.silent = config is None
    meta = {"arch": ARCH}
    if is_s4d(t):
        alone = s4d(t, said, "", source)
        t.finish()
        said.finish()
        return Document(alone, t.dims["H"], t.dims["H"], meta)
    prenorm = said.get("prenorm", False, choices=(False, True), why=WHY_PRENORM)
    encoder = linear(t, "encoder", "H", "d_input", "encoder")
    numbers = sorted(
        {int(n.split(".")[1]) for n in t.names if n.startswith("s4_layers.") and n.split(".")[1].isdigit()}
    )
    if numbers != list(range(len(numbers))):
        raise t.misfit("s4_layers", "layers numbered from 0", ", ".join(map(str, numbers)))
    said.agree("n_layers", len(numbers), "s4_layers")
    nodes: list[Node] = [encoder]
    for i in numbers:
        layer, name = t.scope(f"s4_layers.{i}."), f"s4_layers.{i}"
        said.agree("layer", "S4D" if is_s4d(layer) else "S4Block", name, also=_ALSO[is_s4d(layer)])
        if is_s4d(layer):
            inner: Sequential = s4d(layer, said, name, source)
        else:
            inner, _ = s4_block.block(layer, said, name, source)
        nodes += around(inner, layer_norm(t, f"norms.{i}", "H", f"norms.{i}"), prenorm, f"{name}.residual")
    decoder = linear(t, "decoder", "d_output", "H", "decoder")
    for name, dim in (("d_model", "H"), ("d_input", "d_input"), ("d_output", "d_output")):
        said.agree(name, t.dims[dim], "encoder.weight" if name != "d_output" else "decoder.weight")
    t.finish()
    said.finish()
    root = Sequential((*nodes, Pool("mean", name="pool"), decoder), name="model")
    return Document(root, t.dims["d_input"], t.dims["d_output"], meta)


def around(layer: Sequential, norm: Norm, prenorm: bool, name: str) -> tuple[Node, ...]:
    """The residual sum x + layer(norm(x)), or norm(x + layer(x))."""
    if prenorm:
        return (Residual(Sequential((norm, *layer.children), name=layer.name), name=name),)
    return Residual(layer, name=name), norm


def is_s4d(t: Tensors) -> bool:
    """Whether the scope is that of the minimal S4D layer, complete or not."""
    return "kernel.log_A_real" in t or "kernel.log_dt" in t


def s4d(t: Tensors, config: Config, name: str, source: str) -> Sequential:
    """The minimal S4D layer: here Im(A) is stored as it is, and B is one."""
    dot = f"{name}." if name else ""
    dt = step_size(np.exp, t, "kernel.log_dt", "H")
    A = -applied(np.exp, t, "kernel.log_A_real", "H", "n") + 1j * t.f64("kernel.A_imag", "H", "n")
    C = t.complex("kernel.C", "H", "n")
    H, n = A.shape
    config.agree("d_model", H, "kernel.log_dt")
    if (d_state := config.raw("d_state")) is not None and d_state not in (2 * n, 2 * n + 1):
        config.agree("d_state", 2 * n, "kernel.C")
    ssm = Diagonal(A=A, B=np.ones_like(A), C=C[None], D=t.f64("D", "H")[None], dt=dt, name=f"{dot}kernel")
    mix = linear(t, "output_linear.0", 2 * H, H, f"{dot}output_linear.0")
    glu = activation("glu", f"{dot}output_linear.1", source)
    return Sequential((ssm, *activation("gelu", f"{dot}activation", source), mix, *glu), name=name)
