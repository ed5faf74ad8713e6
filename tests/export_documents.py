"""Small random Documents with every node kind, for the exporter's tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ssmrt.document import (
    Activation,
    Conv1d,
    Dense,
    Diagonal,
    DiagonalMimo,
    Document,
    Dplr,
    Embedding,
    Gate,
    Glu,
    Linear,
    Linoss,
    Node,
    Norm,
    Pool,
    Residual,
    Selective,
    Sequential,
    Ssd,
)

Array = NDArray[Any]

H, N = 6, 5


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def cplx(g: np.random.Generator, *shape: int) -> Array:
    z: Array = (g.standard_normal(shape) + 1j * g.standard_normal(shape)) * np.sqrt(0.5)
    return z


def spectrum(g: np.random.Generator, systems: int, n: int) -> Array:
    return -0.5 * np.exp(0.3 * g.standard_normal((systems, n))) + 1j * np.pi * np.arange(n) * np.ones((systems, 1))


def steps(g: np.random.Generator, *shape: int) -> Array:
    return np.exp(g.uniform(np.log(1e-2), np.log(2e-1), shape))


def linear(d_in: int, d_out: int, seed: int = 0, name: str = "", bias: bool = True) -> Linear:
    g = rng(seed)
    weight = (g.standard_normal((d_out, d_in)) / np.sqrt(d_in)).astype(np.float32)
    return Linear(weight, g.standard_normal(d_out).astype(np.float32) if bias else None, name=name)


def diagonal(h: int = H, n: int = N, m: int = 1, s: int | None = None, seed: int = 0, **kw: Any) -> Diagonal:
    g = rng(seed)
    s = h if s is None else s
    dt = steps(g, h)
    A, B = spectrum(g, s, n), cplx(g, s, n)
    return Diagonal(cplx(g, m, h, n), g.standard_normal((m, h)), **{"dt": dt, "A": A, "B": B, "name": "ssm", **kw})


def dplr(
    h: int = H, n: int = N, m: int = 1, s: int | None = None, r: int = 1, seed: int = 0, q: bool = False, **kw: Any
) -> Dplr:
    g = rng(seed)
    s = h if s is None else s
    P = 0.5 * cplx(g, r, s, n)
    Q = P * (1 + 0.05 * g.standard_normal(P.shape)) if q else None
    D = g.standard_normal((m, h))
    return Dplr(cplx(g, m, h, n), D, steps(g, h), spectrum(g, s, n), P, cplx(g, s, n), Q, **{"name": "ssm", **kw})


def dense(h: int = H, n: int = N, m: int = 1, s: int = 1, seed: int = 0, **kw: Any) -> Dense:
    g = rng(seed)
    A = g.standard_normal((s, n, n))
    A = A - A.swapaxes(-1, -2) - 0.5 * np.eye(n)
    B, C, D = g.standard_normal((s, n)), g.standard_normal((m, h, n)), g.standard_normal((m, h))
    return Dense(C, D, steps(g, h), A, B, **{"name": "ssm", **kw})


def discrete_dense() -> Dense:
    node = dense()
    return replace(
        node, A=node.A / (1.1 * np.linalg.norm(node.A, 2, (-2, -1))[:, None, None]), dt=None, disc="discrete"
    )


def mimo(d: int = H, n: int = N, d_out: int = H, seed: int = 0, discrete: bool = False, **kw: Any) -> DiagonalMimo:
    g = rng(seed)
    B, C = cplx(g, n, d) / np.sqrt(d), cplx(g, d_out, n)
    D = g.standard_normal(d) if d == d_out else None
    if discrete:
        A = 0.95 * np.exp(1j * g.uniform(0, 3, n))
        return DiagonalMimo(A, B, C, D, None, "discrete", **{"name": "ssm", **kw})
    return DiagonalMimo(spectrum(g, 1, n)[0], B, C, D, steps(g, n), **{"name": "ssm", **kw})


def linoss(d: int = H, n: int = N, d_out: int = H, seed: int = 0, **kw: Any) -> Linoss:
    g = rng(seed)
    B, C, dt = cplx(g, n, d) / np.sqrt(d), cplx(g, d_out, n), steps(g, n)
    D = g.standard_normal(d) if d == d_out else None
    # The first is a double integrator.
    A = (np.pi * np.arange(n)) ** 2 / (10 * dt.max()) ** 2
    return Linoss(B=B, C=C, D=D, **{"A": A, "dt": dt, "name": "ssm", **kw})


def selective(d: int = H, n: int = N, r: int = 2, seed: int = 0) -> Selective:
    g = rng(seed)
    x_proj = g.standard_normal((r + 2 * n, d)) / np.sqrt(d)
    dt_proj, dt_bias = g.standard_normal((d, r)), np.log(np.expm1(steps(g, d)))
    A = -np.arange(1.0, n + 1) * np.ones((d, 1))
    return Selective(A, x_proj, dt_proj, dt_bias, g.standard_normal(d), name="ssm")


def ssd(d_in: int = H, heads: int = 4, p: int = 3, n: int = N, groups: int = 1, **kw: Any) -> Ssd:
    g = rng(0)
    xbc, dt = linear(d_in, heads * p + 2 * groups * n, 1, "xBC"), linear(d_in, heads, 2, "dt", bias=False)
    dt_bias = np.log(np.expm1(steps(g, heads)))
    return Ssd(xbc, dt, -g.uniform(1, 9, heads), dt_bias, g.standard_normal(heads * p), n, groups, name="ssm", **kw)


def norm(d: int = H, kind: Any = "layer", seed: int = 0, **kw: Any) -> Norm:
    g = rng(seed)
    return Norm(kind, 1 + 0.1 * g.standard_normal(d), 0.1 * g.standard_normal(d), **{"name": "norm", **kw})


def conv(d: int = H, k: int = 4, seed: int = 0, bias: bool = True) -> Conv1d:
    g = rng(seed)
    return Conv1d(g.standard_normal((d, k)), g.standard_normal(d) if bias else None, name="conv")


def document(*nodes: Node, d_input: int = H, d_output: int = H) -> Document:
    return Document(Sequential(nodes), d_input, d_output, {"arch": "test"})


def classifier(d_input: int = 1, h: int = 8, n: int = 8, layers: int = 2, d_output: int = 4, seed: int = 0) -> Document:
    """An S4D classifier: encoder, residual blocks with GELU and GLU, norms, mean pooling, decoder."""
    nodes: list[Node] = [linear(d_input, h, seed, "encoder")]
    for i in range(layers):
        mix = linear(h, 2 * h, seed + i, f"layers.{i}.output_linear")
        ssm = diagonal(h, n, seed=seed + i, name=f"layers.{i}.kernel")
        gelu = Activation("gelu", name=f"layers.{i}.activation")
        block = Sequential((ssm, gelu, mix, Glu(name=f"layers.{i}.glu")), name=f"layers.{i}")
        nodes += [Residual(block, name=f"layers.{i}.residual"), norm(h, seed=i, name=f"norms.{i}")]
    nodes += [Pool("mean", name="pool"), linear(h, d_output, seed + 9, "decoder")]
    return Document(Sequential(tuple(nodes)), d_input, d_output, {"arch": "s4-example"})


def state_spaces() -> dict[str, Document]:
    """One layer each."""
    real: dict[str, Any] = {"A": -np.exp(rng(3).standard_normal((H, N))) + 0j}
    wide: dict[str, Any] = {"d_output": 3 * H}
    return {
        "diagonal": document(diagonal()),
        "diagonal_bilinear": document(diagonal(disc="bilinear")),
        "diagonal_euler": document(diagonal(disc="backward_euler")),
        "diagonal_gbt": document(diagonal(disc="gbt", alpha=0.7)),
        "diagonal_discrete": document(
            diagonal(A=0.9 * np.exp(1j * rng(2).uniform(0, 3, (H, N))), disc="discrete", dt=None)
        ),
        "diagonal_shared": document(diagonal(s=2)),
        "diagonal_untied_dt": document(diagonal(dt=steps(rng(5), H, N))),
        "diagonal_outputs": document(diagonal(m=3), **wide),
        "diagonal_outputs_head_major": document(diagonal(m=3, head_major=True), **wide),
        "diagonal_full_spectrum": document(diagonal(conjugate_pairs=False)),
        "diagonal_real": document(diagonal(**real)),
        "diagonal_real_outputs": document(diagonal(m=3, **real), **wide),
        "diagonal_integrator": document(diagonal(A=0.0 * spectrum(rng(), H, N))),
        "diagonal_silent_mode": document(diagonal(B=cplx(rng(), H, N) * (np.arange(N) > 1))),
        "diagonal_no_D": document(
            Diagonal(cplx(rng(), 1, H, N), np.zeros((1, H)), steps(rng(), H), spectrum(rng(), H, N), cplx(rng(), H, N))
        ),
        "diagonal_cut": document(diagonal(kernel_length=7)),
        "diagonal_cut_to_one": document(diagonal(kernel_length=1)),
        "diagonal_cut_outputs": document(diagonal(m=3, kernel_length=7), **wide),
        "dplr": document(dplr()),
        "dplr_rank3": document(dplr(r=3)),
        "dplr_q": document(dplr(q=True)),
        "dplr_shared_outputs": document(dplr(s=2, m=3, r=2), **wide),
        "dplr_full_spectrum": document(dplr(conjugate_pairs=False)),
        "dplr_full_spectrum_rank2": document(dplr(r=2, conjugate_pairs=False)),
        "dplr_silent_mode": document(_silent(dplr())),
        "dplr_cut": document(dplr(kernel_length=9)),
        "dense": document(dense()),
        "dense_systems": document(dense(s=H, alpha=0.3)),
        "dense_zoh": document(dense(disc="zoh")),
        "dense_discrete": document(discrete_dense()),
        "dense_outputs": document(dense(m=3, head_major=True), **wide),
        "dense_cut": document(dense(kernel_length=5)),
        "mimo": document(mimo()),
        "mimo_bilinear": document(mimo(disc="bilinear")),
        "mimo_full_spectrum": document(mimo(conjugate_pairs=False)),
        "mimo_lru": document(mimo(discrete=True, conjugate_pairs=False)),
        "mimo_rectangular": document(mimo(d_out=4), d_output=4),
        "linoss": document(linoss()),
        "linoss_damped": document(linoss(G=rng(3).uniform(0, 9, N))),
        "linoss_implicit": document(linoss(disc="im")),
        # Undamped, up to the fastest that a step can follow, whose poles meet at -1.
        "linoss_fastest": document(linoss(A=np.linspace(0, 4, N) / 0.25, dt=np.full(N, 0.5))),
        "linoss_rectangular": document(linoss(d_out=4), d_output=4),
        "selective": document(selective()),
        "selective_normed": document(replace(selective(), norm_eps=1e-3)),
        "selective_weighted": document(
            replace(selective(), norm_eps=1e-3, dt_norm=np.array([1.0, 0.5]), B_norm=rng(4).uniform(0.5, 2, N))
        ),
        "ssd": document(ssd(), d_output=12),
        "ssd_groups": document(ssd(groups=2, dt_min=0.004, dt_max=0.05), d_output=12),
        "ssd_hold": document(ssd(disc="zoh"), d_output=12),
        "ssd_integrator": document(replace(ssd(disc="zoh"), A=np.array([-0.5, 0.0, -1e-6, -9.0])), d_output=12),
        "dense_start": document(dense(s=2, m=2, x0=rng(5).standard_normal((H, N))), d_output=2 * H),
        "mimo_start": document(mimo(x0=cplx(rng(5), N))),
        "selective_start": document(replace(selective(), x0=rng(5).standard_normal((H, N)))),
        "ssd_start": document(ssd(groups=2, x0=rng(5).standard_normal((12, N))), d_output=12),
    }


def _silent(node: Dplr) -> Dplr:
    node.B[:, 1] = 0
    return node


def others() -> dict[str, Document]:
    """Everything that is no state space."""
    act = ["identity", "gelu", "gelu_tanh", "relu", "leaky_relu", "silu", "sigmoid", "tanh"]
    act += ["softplus", "elu", "sqrelu", "softmax", "log_softmax"]
    beta = rng(8).standard_normal(H)
    out: dict[str, Document] = {f"act_{name}": document(Activation(name, name="act")) for name in act}  # type: ignore[arg-type]
    return out | {
        "act_softmax_runs": document(Activation("softmax", 3, name="act")),
        "linear": document(linear(H, 4), d_output=4),
        "linear_no_bias": document(linear(H, 4, bias=False), d_output=4),
        "norm_layer": document(norm()),
        "norm_layer_shift": document(norm(shift=0.3)),
        "norm_layer_plain": document(Norm("layer")),
        "norm_rms": document(norm(kind="rms", eps=1e-3)),
        "norm_rms_runs": document(norm(kind="rms", size=2)),
        "norm_affine": document(norm(kind="affine")),
        "glu": document(Glu(), d_output=H // 2),
        "glu_silu": document(Glu("silu"), d_output=H // 2),
        "conv": document(conv()),
        "conv_no_bias": document(conv(bias=False, k=2)),
        "conv_one_tap": document(conv(k=1)),
        "conv_start": document(replace(conv(), x0=rng(5).standard_normal((H, 3)))),
        "residual": document(Residual(linear(H, H, 1), name="r")),
        "residual_scaled": document(Residual(linear(H, H, 1), linear(H, H, 2), 0.5, 2.0, name="r")),
        "residual_vector": document(Residual(linear(H, H, 1), None, 1.0, beta, name="r")),
        "gate": document(Gate(linear(H, H, 1), Sequential((linear(H, H, 2), Activation("silu"))), name="g")),
        "empty": document(),
        "pool_mean": document(linear(H, H), Pool("mean", name="pool")),
        "pool_sum": document(linear(H, H), Pool("sum", name="pool")),
        "pool_last": document(linear(H, H), Pool("last", name="pool")),
        "pool_first": document(linear(H, H), Pool("first", name="pool")),
        "tokens": document(Embedding(rng().standard_normal((11, H)), name="embedding"), diagonal(), d_input=1),
        "tokens_tied": tied(False),
        "tokens_tied_bias": tied(True),
        "tokens_pooled": document(Embedding(rng().standard_normal((11, H))), conv(), Pool("mean"), d_input=1),
        "classifier": classifier(),
        "mamba_block": document(
            Residual(Sequential((norm(kind="rms"), Gate(
                Sequential((linear(H, 8, 1, "in"), conv(8), Activation("silu"), selective(8))),
                Sequential((linear(H, 8, 2, "z"), Activation("silu"))), ), linear(8, H, 3, "out"))))
        ),
    }  # fmt: skip


def tied(bias: bool) -> Document:
    """A language model whose head is its table of tokens."""
    table = rng(3).standard_normal((11, H)).astype(np.float32)
    head = Linear(table, rng(4).standard_normal(11).astype(np.float32) if bias else None, name="head")
    return document(Embedding(table, name="embedding"), diagonal(), head, d_input=1, d_output=11)


def inputs(document: Document, length: int = 60, batch: int = 1, seed: int = 7) -> Array:
    """(batch, length, d_input) float32, or tokens (batch, length)."""
    g = rng(seed)
    if document.tokens:
        return g.integers(0, 11, (batch, length))
    return g.standard_normal((batch, length, document.d_input)).astype(np.float32)
