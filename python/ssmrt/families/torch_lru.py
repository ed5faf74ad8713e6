"""LRU layers (Orvieto et al. 2023) in PyTorch: lrnnx' and LRU-pytorch's, each by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..document import DiagonalMimo, Document, Linear, Node, Residual
from ..readers.checkpoint import Checkpoint
from . import lru, parts
from .config import Config
from .facts import TRAINING, facts, named
from .tensors import Tensors

ARCH = "torch-lru"

FACTS = (
    TRAINING
    | named(ARCH, "LRU")
    | facts(
        checked="d_model d_state in_features out_features state_features",
        idle="r_min r_max rmin rmax max_phase",
    )
)

_SHARED = {"nu_log", "theta_log", "gamma_log", "D"}
_LRNNX = _SHARED | {"B_re", "B_im", "C_re", "C_im"}
_LRU_PYTORCH = _SHARED | {"B", "C"}


def matches(tensors: Mapping[str, Any]) -> bool:
    """Whether the names are those of one of the two layers."""
    return set(tensors) in (_LRNNX, _LRU_PYTORCH)


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The layer as upstream runs it, (..., d_in) -> (..., d_out).

    Raises `CheckpointError` where a tensor is missing, left over or misshapen, or contradicts the config.
    """
    said = Config(config, checkpoint, FACTS, ARCH)
    layer = Tensors(checkpoint.tensors, checkpoint.source)
    full = "B" in layer
    root: Node = lru.recurrence(layer, "LRU") if not full else _full(layer)
    layer.finish()
    dims = layer.dims
    sizes = {
        "state_features": (dims["P"], "nu_log"),
        "d_state": (dims["P"], "nu_log"),
        "in_features": (dims["H"], "D"),
        "out_features": (dims["O"] if full else dims["H"], "D"),
        "d_model": (dims["H"], "D"),
    }
    parts.check_sizes(said, sizes)
    said.finish()
    return Document(root, dims["H"], dims["O"] if full else dims["H"], {"arch": ARCH})


def _full(layer: Tensors) -> Residual:
    """LRU-pytorch's layer, in which D is a matrix."""
    return Residual(system(layer, "B", "O", "LRU"), skip=Linear(layer.take("D", "O", "H"), name="D"))


def system(layer: Tensors, B: str, d_out: str, name: str) -> DiagonalMimo:
    """Orvieto et al. 2023, eq. 6 and 7, without D: Re(C x), of P states and H inputs; B and C are complex tensors."""
    decay, phase = parts.exp(layer, "nu_log", "P"), parts.exp(layer, "theta_log", "P")
    return DiagonalMimo(
        A=np.exp(-decay + 1j * phase),
        B=parts.exp(layer, "gamma_log", "P")[:, None] * layer.complex(B, "P", "H"),
        C=layer.complex("C", d_out, "P"),
        D=None,
        dt=None,
        disc="discrete",
        conjugate_pairs=False,
        name=name,
    )
