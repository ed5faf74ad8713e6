"""lrnnx' S4 and S4D layers: state-spaces/s4's kernels, with a GELU before and after, and another tail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..document import Activation, Document, Node, Sequential
from ..errors import UnsupportedError
from ..readers.checkpoint import Checkpoint
from . import parts, s4_block, s4_kernel
from .config import Config
from .facts import TRAINING, facts, named
from .tensors import Tensors
from .torch_layers import linear

ARCH = "lrnnx-s4"

FACTS = (
    TRAINING
    | named(ARCH, "S4", "S4D")
    | facts(
        used="dt_transform real_transform imag_transform dt_fast disc l_max swap_channels",
        checked="d_model d_state channels rank n_ssm dt_tie final_act postact",
        idle="tie_dropout transposed dt_min dt_max init deterministic verbose drop_kernel",
        only={"bottleneck": (None,), "gate": (None,), "is_real": (False,)},
    )
)

# The parameters, which the state dict has twice.
_KERNEL = "layer.kernel."


def matches(tensors: Mapping[str, Any]) -> bool:
    """Whether the names are those of one layer, whose parameters are its kernel's too."""
    return {"D", "inv_dt", f"{_KERNEL}inv_dt"} <= set(tensors)


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The layer as upstream runs it in evaluation, (..., d_model) -> (..., d_model).

    Raises
    ------
    CheckpointError
        A tensor is missing, left over or misshapen, or contradicts the config.
    ConfigRequired
        A transform of the parameters, ``disc``, ``dt_fast``, ``l_max`` or, with several channels, ``swap_channels``
        is not known.
    UnsupportedError
        The layer has a gate, a bottleneck or real modes.
    """
    said = Config(config, checkpoint, FACTS, ARCH)
    tensors = Tensors(checkpoint.tensors, checkpoint.source)
    inner = tensors.scope(_KERNEL)
    for module in ("input_gate", "input_linear"):
        if any(name.startswith(f"{module}.") for name in tensors.names):
            raise UnsupportedError(f"{checkpoint.source}: {module}: lrnnx' gate and bottleneck are not supported")
    if "A_imag" not in inner:
        raise UnsupportedError(f"{checkpoint.source}: {_KERNEL}A_imag is missing: real modes are not supported")
    _check_copies(tensors, inner)
    kernel = s4_kernel.read(inner, said)
    M, H, n = kernel.C.shape
    D = tensors.f64("D", M, "H")
    swap = M > 1 and said.get("swap_channels", False, choices=(False, True), why=s4_block.WHY_SWAP)
    layer = s4_kernel.node(
        kernel,
        D,
        name="layer.kernel",
        kernel_length=s4_block.l_max(said),
        head_major=swap,
        source=checkpoint.source,
    )
    nodes: list[Node] = [layer, *(Activation("gelu", name=f"{name}_activation") for name in ("conv", "mult"))]
    width = H * M
    ends = "output_linear.0.weight" in tensors
    if ends:
        nodes += [linear(tensors, "output_linear.0", H, width, "output_linear.0"), Activation("gelu", name="gelu")]
        width = H
    # Whatever function is named, upstream takes GELU.
    name = "final_act" if said.raw("postact") is None else "postact"
    if name in said and (said.raw(name) is not None) != ends:
        said.contradict(
            name, f"expected {'a function' if ends else None} as output_linear says, found {said.raw(name)!r}"
        )
    tensors.finish()
    sizes = {
        "d_model": (H, f"{_KERNEL}C"),
        "channels": (M, f"{_KERNEL}C"),
        "rank": (1 if kernel.P is None else len(kernel.P), f"{_KERNEL}P"),
        "n_ssm": (len(kernel.A), f"{_KERNEL}A_real"),
    }
    parts.check_sizes(said, {name: size for name, size in sizes.items() if name != "rank" or kernel.P is not None})
    said.agree("d_state", 2 * n, f"{_KERNEL}C", also=(2 * n + 1,))
    said.finish()
    return Document(Sequential(tuple(nodes)), H, width, {"arch": ARCH})


def _check_copies(tensors: Tensors, inner: Tensors) -> None:
    """Take each parameter of the layer, which must be its kernel's."""
    for name in ("inv_dt", "A_real", "A_imag", "B", "C", "P"):
        if name in inner or name in tensors:
            shape = inner.shape(name)
            if not np.array_equal(tensors.take(name, *shape), inner.take(name, *shape)):
                raise tensors.misfit(name, f"the numbers of {_KERNEL}{name}, which are the same parameter", "others")
