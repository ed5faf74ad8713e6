"""S5 (Smith et al. 2023) in PyTorch: s5-pytorch's S5, S5SSM and S5Block, and lrnnx' S5 layer.

Neither halves conjugate pairs: every eigenvalue is stored, and y = Re(C x) + D u.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Activation, DiagonalMimo, Discretization, Document, Glu, Linear, Node, Residual, Sequential
from ..readers.checkpoint import Checkpoint
from . import parts, torch_layers
from .config import Config
from .facts import TRAINING, facts, named
from .tensors import Tensors

ARCH = "torch-s5"

FACTS = (
    TRAINING
    | named(ARCH, "S5", "S5SSM", "S5Block")
    | facts(
        used="discretization allow_unstable",
        checked="width dim d_model state_width state_dim d_state h p bidir ff_mult glu",
        idle="block_count dt_min dt_max bcInit factor_rank ff_dropout attn_dropout lambdaInit V Vinv",
        only={"liquid": (False,), "degree": (1,), "conj_sym": (False,)},
    )
)

Array = NDArray[Any]

_S5 = {"Lambda", "B", "C", "D", "log_step"}
_LRNNX = {"A", "B", "C", "D", "log_dt"}


def matches(tensors: Mapping[str, Any]) -> bool:
    """Whether the names are those of one of the layers or of the block."""
    names = set(tensors)
    return names in (_S5, _LRNNX) or {"s5.seq.Lambda", "attn_norm.weight"} <= names


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The layer or block as upstream runs it, (..., d) -> (..., d).

    Raises
    ------
    CheckpointError
        A tensor is missing, left over or misshapen, or contradicts the config.
    ConfigRequired
        ``liquid`` or ``degree`` (s5-pytorch) or ``discretization`` (S5SSM alone, lrnnx) is not known.
    UnsupportedError
        The layer is ``liquid`` or of another ``degree`` than 1.

    lrnnx' bilinear transform has the signs of A swapped, so that every mode grows. The engine refuses it unless
    ``allow_unstable`` is said, which is ssmrt's own name and not lrnnx'.
    """
    said = Config(config, checkpoint, FACTS, ARCH)
    tensors = Tensors(checkpoint.tensors, checkpoint.source)
    if "A" in tensors:
        root = _lrnnx(tensors, said)
    elif "Lambda" in tensors:
        root = _s5(tensors, said, "seq", alone=True)
    else:
        root = _block(tensors, said)
    tensors.finish()
    dims = tensors.dims
    sizes = dict.fromkeys(("width", "dim", "d_model", "h"), (dims["H"], "D"))
    parts.check_sizes(said, sizes | dict.fromkeys(("state_width", "state_dim", "d_state", "p"), (dims["P"], "B")))
    said.finish()
    return Document(root, dims["H"], dims["H"], {"arch": ARCH})


def _block(tensors: Tensors, said: Config) -> Node:
    """S5Block: what is added is the normalised input, not the input."""
    norm = torch_layers.layer_norm(tensors, "attn_norm", "H", "attn_norm")
    layer = _s5(tensors.scope("s5.seq."), said, "s5.seq", alone=False)
    second = torch_layers.layer_norm(tensors, "ff_norm", "H", "ff_norm")
    decoder = torch_layers.linear(tensors, "ff_dec", "H", "ff", "ff_dec", bias=False)
    H, width = tensors.dims["H"], tensors.dims["ff"]
    rows = tensors.shape("ff_enc.weight")[:1]
    gated = rows == (2 * width,)
    said.agree("glu", gated, "ff_enc.weight")
    encoder = torch_layers.linear(tensors, "ff_enc", 2 * width if gated else width, "H", "ff_enc", bias=False)
    if "ff_mult" in said and int(H * said.number("ff_mult", 1.0)) != width:
        said.contradict("ff_mult", f"expected {width / H:g} from ff_dec.weight, found {said.raw('ff_mult')!r}")
    gate = (Glu("gelu", name="geglu"),) if gated else ()
    mixed = Sequential((layer, Activation("gelu", name="gelu")), name="s5")
    forward = Sequential((encoder, *gate, decoder), name="ff")
    added = Residual(mixed, name="s5 + attn_norm"), Residual(forward, name="ff + ff_norm")
    return Sequential((norm, added[0], second, added[1]))


def _s5(layer: Tensors, said: Config, name: str, *, alone: bool) -> DiagonalMimo:
    """s5-pytorch's S5SSM; only what makes one by itself can choose its discretisation."""
    said.get("liquid", False, choices=(False,), why="a liquid layer's eigenvalues follow its input")
    said.get("degree", 1, choices=(1,), why="the discrete B is raised to this power")
    # DataParallel and S5 around an S5SSM leave the same names.
    disc: Discretization = "zoh"
    if alone:
        disc = said.get(
            "discretization",
            "zoh",
            choices=("zoh", "bilinear"),
            why="the stored system is the continuous one; the module S5 has none but zoh",
        )
    elif "discretization" in said:
        said.agree("discretization", "zoh", "S5Block, which has no other")
    A = layer.complex("Lambda", "P")
    C, C_reverse = layer.complex("C", "H", "columns"), None
    P = len(A)
    if layer.dims["columns"] not in (P, 2 * P):
        raise layer.misfit("C", f"({C.shape[0]}, {P}) or, bidirectional, twice as many columns", str(C.shape))
    if C.shape[1] == 2 * P:
        C, C_reverse = C[:, :P].copy(), C[:, P:].copy()
    said.agree("bidir", C_reverse is not None, f"{name}.C")
    return DiagonalMimo(
        A=A,
        B=layer.complex("B", "P", "H"),
        C=C,
        C_reverse=C_reverse,
        D=layer.f64("D", "H"),
        dt=parts.exp(layer, "log_step", "P"),
        disc=disc,
        conjugate_pairs=False,
        reverse_over_padding=C_reverse is not None,
        allow_unstable=True,
        name=name,
    )


def _lrnnx(layer: Tensors, said: Config) -> Node:
    """The S5 of lrnnx: B is real, and D a matrix that is applied from the right."""
    stored, B = layer.f64("A", "P", 2), layer.f64("B", "P", "H")
    A, dt = -np.logaddexp(stored[:, 0], 0) + 1j * stored[:, 1], parts.exp(layer, "log_dt", "P")
    said.required("discretization", why="the stored system is the continuous one")
    disc = said.get("discretization", None, choices=tuple(_LRNNX_SYSTEMS))
    Abar, step, kind = _LRNNX_SYSTEMS[disc](A, dt)
    system = DiagonalMimo(
        A=Abar,
        B=B + 0j,
        C=layer.complex("C", "H", "P"),
        D=None,
        dt=step,
        disc=kind,
        conjugate_pairs=False,
        allow_unstable=said.get("allow_unstable", False, choices=(False, True)),
        name="S5",
    )
    return Residual(system, skip=Linear(layer.take("D", "H", "H").T.copy(), name="D"))


# A, dt and the Document's discretisation for each of lrnnx' own.
_LRNNX_SYSTEMS: dict[str, Callable[[Array, Array], tuple[Array, Array | None, Discretization]]] = {
    "zoh": lambda A, dt: (A, dt, "zoh"),
    # Its signs are swapped, so that every mode grows.
    "bilinear": lambda A, dt: (-A, dt, "bilinear"),
    "dirac": lambda A, dt: (np.exp(A * dt), None, "discrete"),
    "no_discretization": lambda A, dt: (A, None, "discrete"),
}
