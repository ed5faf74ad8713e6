"""memorax' LRU and S5 cells in Flax linen, alone or within its Memoroid; its masks are ssmrt's ``resets``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..document import DiagonalMimo, Document
from ..errors import UnsupportedError
from ..readers.checkpoint import Checkpoint
from . import flax, parts
from .config import Config
from .facts import TRAINING, facts, named
from .tensors import Tensors

ARCH = "memorax"

FACTS = (
    TRAINING
    | named(ARCH, "LRUCell", "S5Cell", "Memoroid")
    | facts(
        used="discretization clip_eigens step_rescale",
        checked="features hidden_dim state_size",
        idle="r_min r_max max_phase c_init dt_min dt_max dtype param_dtype",
    )
)

_CELL = r"(?:cell/)?(?:B_real|lambda_real|log_decay)"


def matches(tensors: Mapping[str, Any]) -> bool:
    """Whether the names are those of a cell, alone or in a Memoroid."""
    return flax.holds(tensors, _CELL)


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The cell as upstream runs it, (..., features) -> (..., features).

    Raises
    ------
    CheckpointError
        A tensor is missing, left over or misshapen, or contradicts the config.
    ConfigRequired
        ``discretization``, ``step_rescale`` or, where it would clip, ``clip_eigens`` of an S5 cell is not known.
    UnsupportedError
        The cell is memorax' MambaCell.
    """
    said = Config(config, checkpoint, FACTS, ARCH)
    variables = flax.Variables(checkpoint, _CELL)
    inner = any(name.startswith("cell/") for name in variables.params.names)
    cell = variables.params.scope("cell/" if inner else "")
    if "log_decay" in cell:
        raise UnsupportedError(
            f"{checkpoint.source}: log_decay: memorax' MambaCell, in which all states of a head decay alike;"
            " ssmrt's selective layer is Mamba's, where each decays by itself"
        )
    root = _lru(cell) if "B_real" in cell else _s5(cell, said)
    variables.finish()
    H, P = cell.dims["H"], cell.dims["P"]
    said.agree("features", H, root.name)
    for name in ("hidden_dim", "state_size"):
        said.agree(name, P, root.name)
    said.finish()
    return Document(root, H, H, {"arch": ARCH})


def _lru(cell: Tensors) -> DiagonalMimo:
    """Orvieto et al. 2023, eq. 6 and 7; gamma is trained on its own."""
    decay, phase = parts.exp(cell, "nu_log", "P"), parts.exp(cell, "theta_log", "P")
    B = cell.f64("B_real", "P", "H") + 1j * cell.f64("B_imag", "P", "H")
    return DiagonalMimo(
        A=np.exp(-decay + 1j * phase),
        B=B * parts.exp(cell, "gamma_log", "P")[:, None],
        C=cell.f64("C_real", "H", "P") + 1j * cell.f64("C_imag", "H", "P"),
        D=cell.f64("D", "H"),
        dt=None,
        disc="discrete",
        conjugate_pairs=False,
        name="LRUCell",
    )


def _s5(cell: Tensors, said: Config) -> DiagonalMimo:
    """S5 (Smith et al. 2023, eq. 5 and 6), of which both of each conjugate pair are stored."""
    real, imag = cell.f64("lambda_real", "P"), cell.f64("lambda_imag", "P")
    clip = False
    if (real > parts.CLIP).any():
        clip = said.get(
            "clip_eigens",
            False,
            choices=(False, True),
            why=f"lambda_real reaches {real.max():.3g}, which clip_eigens would cut off at {parts.CLIP}",
        )
    disc = said.get("discretization", "zoh", choices=("zoh", "bilinear"), why="the stored system is the continuous one")
    said.get("step_rescale", 1.0, why="it multiplies every step size")
    rescale = said.number("step_rescale", 1.0)
    if rescale <= 0:
        raise said.invalid("step_rescale", "a number above zero")
    return DiagonalMimo(
        A=(np.minimum(real, parts.CLIP) if clip else real) + 1j * imag,
        B=cell.complex("b", "P", "H"),
        C=cell.complex("c", "H", "P"),
        D=cell.f64("d", "H"),
        dt=rescale * parts.exp(cell, "log_step", "P", 1)[:, 0],
        disc=disc,
        conjugate_pairs=False,
        allow_unstable=not clip,
        name="S5Cell",
    )
