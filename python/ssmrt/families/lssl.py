"""``lssl``: the layer of Gu et al. 2021 ("Combining Recurrent, Convolutional, and Continuous-time Models").

The listing that stands alone stores A, B and dt themselves; the one in the state-spaces/s4 repository stores
log(dt) and A in the form that its fast multiplication takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Dense, Document, Node, Norm, Sequential
from ..readers.checkpoint import Checkpoint
from .config import Config
from .facts import TRAINING, facts, named
from .s4_block import WHY_ACTIVATION
from .s4_kernel import step_size
from .tensors import Tensors
from .torch_layers import activation, linear, option

ARCH = "lssl"

FACTS = (
    TRAINING
    | named(ARCH, "LSSL", "StateSpace", "Platypus")
    | facts(
        used="activation",
        checked="d d_model order d_state channels bias ff",
        idle="dt dt_min dt_max measure measure_args learn noise init weight_norm l_max transposed tie_dropout",
        only={"_name_": ("lssl", None)},
    )
)

Real = NDArray[np.float64]


def matches(tensors: Mapping[str, NDArray[np.generic]]) -> bool:
    """Whether the tensors are those of one layer."""
    return is_layer(Tensors(tensors, ""))


def is_layer(t: Tensors) -> bool:
    """Whether the scope is that of an LSSL, complete or not."""
    return bool(t.scope("transition.").names) and ("C" in t or "D" in t)


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The layer as a model: (L, d) to (L, d)."""
    t = Tensors(checkpoint.tensors, checkpoint.source)
    said = Config(config, checkpoint, FACTS, ARCH)
    # What a file says of itself is some trainer's; that a fact is missing there says nothing.
    said.silent = config is None
    layer, d_output = lssl(t, said, "", checkpoint.source)
    t.finish()
    said.finish()
    return Document(layer, t.dims["H"], d_output, {"arch": ARCH})


def lssl(t: Tensors, config: Config, name: str, source: str) -> tuple[Sequential, int]:
    """The layer whose tensors are those of ``t``, and its number of outputs; ``name`` is its place."""
    dot = f"{name}." if name else ""
    C, D = t.f64("C", "H", "M", "N"), t.f64("D", "H", "M")
    H, M = D.shape
    if "dt" in t or "transition.A" in t:
        dt = step_size(lambda dt: dt, t, "dt", "H")
        A, B = t.f64("transition.A", "N", "N")[None], t.f64("transition.B", "N")[None]
        t.ignore("transition.I")
        function = config.get("activation", "gelu")
    else:
        dt = step_size(np.exp, t, "log_dt", "H")
        A, B = _transition(t.scope("transition."))
        function = option(config, "activation", "gelu", WHY_ACTIVATION)
    N = C.shape[2]
    # The repository's listing calls the size of the state d_model.
    alone = "dt" in t
    for fact, actual in (("d", H), ("d_model", H if alone else N), ("order", N), ("d_state", N), ("channels", M)):
        config.agree(fact, actual, "C", also=(-1,) if fact in ("order", "d_model") and N == H else ())
    mixed = any(n.startswith("output_linear.") for n in t.names)
    config.agree("bias", "E" in t, "E" if "E" in t else "the missing E")
    config.agree("ff", mixed, "output_linear.weight" if mixed else "the missing output_linear")
    if A.shape[0] not in (1, H):
        raise t.misfit("transition", f"one system, or one for each of {H} channels", f"{A.shape[0]}")
    ssm = Dense(A=A, B=B, C=C.transpose(1, 0, 2), D=D.T, dt=dt, head_major=True, name=f"{dot}transition")
    nodes: tuple[Node, ...] = (ssm,)
    if "E" in t:
        nodes += (Norm("affine", bias=t.take("E", "H", "M").reshape(-1), name=f"{dot}E"),)
    nodes += activation(function, f"{dot}activation", source)
    if not mixed:
        return Sequential(nodes, name=name), H * M
    mix = linear(t, "output_linear", "H", H * M, f"{dot}output_linear")
    return Sequential((*nodes, mix), name=name), H


def _transition(t: Tensors) -> tuple[Real, Real]:
    """A (S, N, N) and B (S, N) of x' = A x + B u, from whichever of the repository's forms is stored."""
    for buffer in ("I", "ones", "arange"):
        t.ignore(buffer)
    if "pl" in t:
        return _inverse_tridiagonal(t)
    if "c" in t:
        return _toeplitz(t)
    if t.shape("a") == ():
        N = t.dims["N"]
        t.ignore("A")
        a, b = float(t.f64("a")), float(t.f64("b"))
        return -(np.tril(np.ones((1, N, N))) + a * np.eye(N)), np.full((1, N), b)
    batch = ("S",) if len(t.shape("a")) == 3 else ()
    A, B = t.f64("a", *batch, "N", "N"), t.f64("b", *batch, "N")
    return A.reshape(-1, *A.shape[-2:]), B.reshape(-1, B.shape[-1])


def _inverse_tridiagonal(t: Tensors) -> tuple[Real, Real]:
    """A = -diag(pl) (T^-1 + c I) diag(pr) with T tridiagonal, B = pl b. The first and last of dl, du are padding."""
    N = t.dims["N"]
    batch = ("S",) if len(t.shape("d")) == 2 else ()
    d, pl, pr, c, b = (_row(t, n, batch, N) for n in ("d", "pl", "pr", "c", "b"))
    dl, du = (t.f64(n, *batch, N + 1).reshape(-1, N + 1)[:, 1:-1] for n in ("dl", "du"))
    T = d[:, :, None] * np.eye(N)
    index = np.arange(N - 1)
    T[:, index + 1, index] = dl
    T[:, index, index + 1] = du
    try:
        inverse = np.linalg.inv(T)
    except np.linalg.LinAlgError:
        raise t.misfit("d", "an invertible tridiagonal matrix", "a singular one") from None
    A = -pl[:, :, None] * (inverse + c[:, :, None] * np.eye(N)) * pr[:, None, :]
    return A, pl * b


def _toeplitz(t: Tensors) -> tuple[Real, Real]:
    """A = -diag(c) T diag(c)^-1 with T lower triangular Toeplitz of first column a, B = c b."""
    N = t.dims["N"]
    t.ignore("e")
    batch = ("S",) if len(t.shape("a")) == 2 else ()
    a, b, c = (_row(t, n, batch, N) for n in ("a", "b", "c"))
    if not c.all():
        raise t.misfit("c", "numbers other than zero", f"{int((c == 0).sum())} zeros")
    lag = np.arange(N)[:, None] - np.arange(N)
    T = np.where(lag >= 0, a[:, np.maximum(lag, 0)], 0.0)
    return -c[:, :, None] * T / c[:, None, :], c * b


def _row(t: Tensors, name: str, batch: tuple[str, ...], N: int) -> Real:
    """A row for each system; where one number is stored it stands for the whole row."""
    shape = t.shape(name)
    width = shape[-1] if shape[len(batch) :] else 1
    stored = t.f64(name, *batch, *shape[len(batch) :])
    if width not in (1, N) or len(shape) > len(batch) + 1:
        raise t.misfit(name, f"({', '.join([*batch, str(N)])})", str(shape))
    return np.broadcast_to(stored.reshape(-1, width), (stored.size // width, N))
