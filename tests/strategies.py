"""Random systems, whole models and inputs for property tests.

Structure (widths, modes, ranks, lengths, options) is drawn by hypothesis, so that failures shrink; the numbers
come from a seed that is drawn as well. Every system is stable at the steps that tests put to it (`MOST_STEPS`
times its own), and none is far from normal: what float32 loses on these, the engine loses.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import linalg  # type: ignore[import-untyped]
from ssmrt import Model
from ssmrt.document import (
    Activation,
    Conv1d,
    Dense,
    Diagonal,
    DiagonalMimo,
    Document,
    Dplr,
    Embedding,
    Function,
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
Draw = Callable[..., Any]

MOST_STEPS = 4.0
VOCABULARY = 11

WIDTHS = st.sampled_from([1, 2, 3, 5, 8, 15, 16, 17, 24, 33, 40])
MODES = st.integers(1, 12)
SEEDS = st.integers(0, 2**32 - 1)
BATCHES = st.sampled_from([1, 2, 3, 5])
# Around chunks of 32 and 64 samples, tiles of several, blocks.
LENGTHS = st.one_of(
    st.sampled_from([1, 2, 31, 32, 33, 63, 64, 65, 96, 127, 128, 129, 255, 256, 257, 385]), st.integers(1, 400)
)
SHORT = st.one_of(st.sampled_from([1, 2, 31, 33, 64, 65, 97]), st.integers(1, 100))
FUNCTIONS: st.SearchStrategy[Function] = st.sampled_from(
    ["identity", "gelu", "gelu_tanh", "relu", "leaky_relu", "silu", "sigmoid", "tanh", "softplus", "elu", "sqrelu"]
)


def complex_normal(g: np.random.Generator, *shape: int) -> Array:
    return np.asarray(np.sqrt(0.5) * (g.standard_normal(shape) + 1j * g.standard_normal(shape)))


def spectrum(g: np.random.Generator, *shape: int, damped: bool = False) -> Array:
    """Eigenvalues with memories of 1 to 5 seconds; ``damped`` ones stand even Euler's step."""
    real = g.uniform(0.2, 3.0, shape)
    turns = 0.5 * real if damped else g.uniform(0, 30, shape)
    return np.asarray(-real + 1j * turns * g.choice([-1, 1], shape))


def step_sizes(g: np.random.Generator, *shape: int, most: float = 0.1) -> Array:
    return np.exp(g.uniform(np.log(1e-3), np.log(most), shape))


def outputs(draw: Draw, causal: bool | None) -> tuple[int, dict[str, Any], bool]:
    """M, what every state-space node may have, and whether it is bidirectional."""
    reverse = draw(st.booleans()) if causal is None else not causal
    options = {
        "head_major": draw(st.booleans()),
        "kernel_length": draw(st.one_of(st.none(), st.integers(3, 90))),
        "name": "layer",
    }
    return draw(st.sampled_from([1, 1, 2, 3])), options, reverse


def systems(draw: Draw, h: int) -> int:
    return int(draw(st.sampled_from([s for s in range(1, h + 1) if h % s == 0])))


@st.composite
def diagonals(draw: Draw, h: int | None = None, causal: bool | None = True, stepped: bool = False) -> Diagonal:
    """``stepped``: with a step size, which rate and dt multiply."""
    h = h or draw(WIDTHS)
    n, s = draw(MODES), systems(draw, h)
    m, options, reverse = outputs(draw, causal)
    discs = ["zoh", "bilinear", "euler", "backward_euler", "gbt"] + ([] if stepped else ["discrete"])
    disc = draw(st.sampled_from(discs))
    alpha = draw(st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0]))
    untied = draw(st.booleans())
    pairs = draw(st.booleans())
    g = np.random.default_rng(draw(SEEDS))
    A = spectrum(g, s, n, damped=disc == "euler" or (disc == "gbt" and alpha < 0.5))
    B = complex_normal(g, s, n)
    dt: Array | None = step_sizes(g, h, n) if untied else step_sizes(g, h)
    if disc == "discrete":
        A, dt = np.exp(spectrum(g, s, n) * step_sizes(g, s, n)), None
    C, D = complex_normal(g, m, h, n), g.standard_normal((m, h))
    C_reverse = complex_normal(g, m, h, n) if reverse else None
    return Diagonal(
        C, D, dt, A, B, disc=disc, alpha=alpha, conjugate_pairs=pairs, C_reverse=C_reverse, **options
    )  # fmt: skip


@st.composite
def dplrs(draw: Draw, h: int | None = None, causal: bool | None = True) -> Dplr:
    h = h or draw(WIDTHS)
    n, s, r = draw(MODES), systems(draw, h), draw(st.integers(1, 3))
    m, options, reverse = outputs(draw, causal)
    pairs, skewed = draw(st.booleans()), draw(st.booleans())
    g = np.random.default_rng(draw(SEEDS))
    A, B, P = spectrum(g, s, n), complex_normal(g, s, n), complex_normal(g, r, s, n)
    Q = None
    if skewed:
        # T A T^-1 has the eigenvalues of A, which is stable because A + A^H is negative.
        T = np.exp(0.5 * complex_normal(g, s, n))
        P, Q = T * P, P / T.conj()
    C, D, dt = complex_normal(g, m, h, n), g.standard_normal((m, h)), step_sizes(g, h)
    C_reverse = complex_normal(g, m, h, n) if reverse else None
    return Dplr(C, D, dt, A, P, B, Q, conjugate_pairs=pairs, C_reverse=C_reverse, **options)


@st.composite
def denses(draw: Draw, h: int | None = None, causal: bool | None = True, stepped: bool = False) -> Dense:
    disc = draw(st.sampled_from(["gbt", "zoh"] + ([] if stepped else ["discrete"])))
    h = h or draw(WIDTHS)
    n, s = draw(st.integers(1, 9)), systems(draw, h)
    m, options, reverse = outputs(draw, causal)
    alpha = draw(st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0]))
    g = np.random.default_rng(draw(SEEDS))
    skew = g.standard_normal((s, n, n))
    T = np.eye(n) + 0.2 * g.standard_normal((s, n, n)) / np.sqrt(n)
    A = T @ (skew - skew.swapaxes(1, 2) - g.uniform(1, 2) * np.eye(n)) @ np.linalg.inv(T)
    B, C, D = g.standard_normal((s, n)), g.standard_normal((m, h, n)), g.standard_normal((m, h))
    C_reverse = g.standard_normal((m, h, n)) if reverse else None
    dt: Array | None = step_sizes(g, h, most=0.1 if alpha >= 0.5 or disc == "zoh" else 0.01)
    if disc == "discrete":
        A, dt = linalg.expm(0.05 * A), None
    started = options.get("kernel_length") is None and draw(st.booleans())
    x0 = g.standard_normal((h, n)) if started else None
    return Dense(C, D, dt, A, B, alpha=alpha, disc=disc, C_reverse=C_reverse, x0=x0, **options)


@st.composite
def mimos(
    draw: Draw, h: int | None = None, causal: bool | None = True, stepped: bool = False, over: bool = False
) -> DiagonalMimo:
    """``over``: what looks ahead begins at the end of the padding."""
    h = h or draw(WIDTHS)
    n, d_out = draw(MODES), h if draw(st.booleans()) else draw(WIDTHS)
    discs = ["zoh", "bilinear", "euler", "backward_euler", "gbt"] + ([] if stepped else ["discrete"])
    disc = draw(st.sampled_from(discs))
    alpha = draw(st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0]))
    pairs = draw(st.booleans())
    direct = h == d_out and draw(st.booleans())
    reverse = draw(st.booleans()) if causal is None else not causal
    g = np.random.default_rng(draw(SEEDS))
    A = spectrum(g, n, damped=disc == "euler" or (disc == "gbt" and alpha < 0.5))
    dt: Array | None = step_sizes(g, n)
    if disc == "discrete":
        A, dt = np.exp(spectrum(g, n) * step_sizes(g, n)), None
    B, C = complex_normal(g, n, h) / np.sqrt(h), complex_normal(g, d_out, n)
    return DiagonalMimo(
        A,
        B,
        C,
        g.standard_normal(h) if direct else None,
        dt,
        disc,
        alpha,
        pairs,
        C_reverse=complex_normal(g, d_out, n) if reverse else None,
        reverse_over_padding=reverse and over,
        x0=complex_normal(g, n) if draw(st.booleans()) else None,
        name="layer",
    )


@st.composite
def linosses(draw: Draw, h: int | None = None) -> Linoss:
    """Oscillators that are stable at `MOST_STEPS` times their steps, double integrators among them."""
    h = h or draw(WIDTHS)
    n, d_out = draw(MODES), h if draw(st.booleans()) else draw(WIDTHS)
    damped, implicit = draw(st.sampled_from([(True, False), (False, False), (False, True)]))
    direct = h == d_out and draw(st.booleans())
    g = np.random.default_rng(draw(SEEDS))
    dt = step_sizes(g, n)
    A = np.asarray((g.uniform(0, 30, n) * (g.random(n) < 0.8)) ** 2)
    if not implicit:
        A = np.minimum(A, (1.9 / (MOST_STEPS * dt)) ** 2)
    B, C = complex_normal(g, n, h) / np.sqrt(h), complex_normal(g, d_out, n)
    D = g.standard_normal(h) if direct else None
    G = np.asarray(g.uniform(0.2, 30, n)) if damped else None
    return Linoss(A, B, C, D, dt, G, "im" if implicit else "imex", name="layer")


@st.composite
def dss(draw: Draw, h: int | None = None) -> Diagonal:
    """Upstream's dss kernel, normalised by the length of the sequence."""
    h = h or draw(WIDTHS)
    n, s, m = draw(MODES), systems(draw, h), draw(st.sampled_from([1, 2]))
    g = np.random.default_rng(draw(SEEDS))
    A, B, C = spectrum(g, s, n), complex_normal(g, s, n), complex_normal(g, m, h, n)
    D, dt = g.standard_normal((m, h)), step_sizes(g, h)
    return Diagonal(C, D, dt, A, B, disc="dss", head_major=draw(st.booleans()), name="layer")


@st.composite
def selectives(draw: Draw, h: int | None = None) -> Selective:
    h = h or draw(WIDTHS)
    n, r = draw(MODES), draw(st.integers(1, 3))
    g = np.random.default_rng(draw(SEEDS))
    x_proj, dt_proj = g.standard_normal((r + 2 * n, h)) / np.sqrt(h), 0.5 * g.standard_normal((h, r))
    dt_bias = np.log(np.expm1(step_sizes(g, h)))
    A, D = -g.uniform(0.2, 10, (h, n)), g.standard_normal(h)
    x0 = g.standard_normal((h, n)) if draw(st.booleans()) else None
    normed = draw(st.sampled_from(["none", "plain", "weighted"]))
    if normed == "none":
        return Selective(A, x_proj, dt_proj, dt_bias, D, x0=x0, name="layer")
    # Of few numbers an RMS norm of small eps is next to a step function.
    if normed == "plain":
        return Selective(A, x_proj, dt_proj, dt_bias, D, 0.3, x0=x0, name="layer")
    r_weight, B_weight, C_weight = (np.asarray(1 + 0.1 * g.standard_normal(size)) for size in (r, n, n))
    return Selective(A, x_proj, dt_proj, dt_bias, D, 0.3, r_weight, B_weight, C_weight, x0=x0, name="layer")


@st.composite
def ssds(draw: Draw, h: int | None = None) -> Ssd:
    h = h or draw(WIDTHS)
    groups, each, p, n = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.sampled_from([1, 2, 5, 16])),
        draw(MODES),
    )
    heads = groups * each
    d = heads * p
    g = np.random.default_rng(draw(SEEDS))
    limits = draw(st.sampled_from([(0.0, None), (0.004, 0.05)]))
    return Ssd(
        linear(g, h, d + 2 * groups * n),
        linear(g, h, heads, bias=False),
        -g.uniform(0.2, 10, heads),
        np.log(np.expm1(step_sizes(g, heads))),
        g.standard_normal(d),
        n,
        groups,
        *limits,
        disc=draw(st.sampled_from(["euler", "zoh"])),
        x0=g.standard_normal((d, n)) if draw(st.booleans()) else None,
        name="layer",
    )


def siso(h: int | None = None, causal: bool | None = True, stepped: bool = False) -> st.SearchStrategy[Any]:
    """Layers of independent channels."""
    return st.one_of(diagonals(h, causal, stepped), dplrs(h, causal), denses(h, causal, stepped))


def linear_layers(causal: bool | None = True, stepped: bool = False) -> st.SearchStrategy[Any]:
    """Every linear state-space layer."""
    both = st.one_of(siso(None, causal, stepped), mimos(None, causal, stepped))
    return both if causal is False else st.one_of(both, linosses())


def alone(node: Node) -> Document:
    """A Document of one layer."""
    match node:
        case DiagonalMimo() | Linoss():
            return Document(node, node.B.shape[1], node.C.shape[0])
        case Diagonal() | Dplr() | Dense():
            m, h, _ = node.C.shape
            return Document(node, h, m * h)
        case Selective():
            return Document(node, node.A.shape[0], node.A.shape[0])
        case Ssd():
            assert isinstance(node.dt, Linear)
            return Document(node, node.dt.weight.shape[1], len(node.D))
    raise TypeError(type(node).__name__)


def layers(causal: bool | None = True, stepped: bool = False) -> st.SearchStrategy[Document]:
    """Documents of one layer."""
    return linear_layers(causal, stepped).map(alone)


def uncut(node: Any) -> Any:
    """The layer with its whole kernel."""
    return replace(node, kernel_length=None) if hasattr(node, "kernel_length") else node


def linear(g: np.random.Generator, d_in: int, d_out: int, bias: bool = True) -> Linear:
    weight = (g.standard_normal((d_out, d_in)) / np.sqrt(d_in)).astype(np.float32)
    return Linear(weight, g.standard_normal(d_out).astype(np.float32) if bias else None)


def mixed(g: np.random.Generator, node: Any, h: int) -> Sequential:
    """A layer of whatever outputs, brought back to ``h`` channels."""
    width = alone(node).d_output
    return Sequential((node, linear(g, width, h)))


@st.composite
def blocks(draw: Draw, h: int, causal: bool | None, stepped: bool, cut: bool, over: bool) -> Node:
    kind = draw(st.sampled_from(["residual", "residual", "gate", "mamba", "mamba2", "plain", "skip"]))
    g = np.random.default_rng(draw(SEEDS))
    if over:
        ssm = draw(mimos(h, causal, stepped, over=True))
    else:
        kinds = [siso(h, causal, stepped), mimos(h, causal, stepped)]
        ssm = draw(st.one_of(kinds if causal is False else [*kinds, linosses(h)]))
    ssm = ssm if cut else uncut(ssm)
    function = draw(FUNCTIONS)
    if kind == "mamba":
        taps = draw(st.integers(1, 5))
        bias = g.standard_normal(h) if draw(st.booleans()) else None
        past = g.standard_normal((h, taps - 1)) if taps > 1 and draw(st.booleans()) else None
        conv = Conv1d(g.standard_normal((h, taps)), bias, x0=past)
        left = Sequential((linear(g, h, h), conv, Activation("silu"), draw(selectives(h))))
        right = Sequential((linear(g, h, h, bias=False), Activation("silu")))
        return Residual(Sequential((Gate(left, right), linear(g, h, h))))
    if kind == "mamba2":
        ssd = draw(ssds(h))
        d = len(ssd.D)
        assert isinstance(ssd.xBC, Linear)
        conv = Conv1d(g.standard_normal((len(ssd.xBC.weight), draw(st.integers(1, 5)))))
        ssd = replace(ssd, xBC=Sequential((ssd.xBC, conv, Activation("silu"))))
        gated = Gate(ssd, Sequential((linear(g, h, d), Activation("silu"))))
        size = d // ssd.groups
        runs = (Norm("rms", 1 + 0.1 * g.standard_normal(d), eps=0.1, size=size),) if size >= 5 else ()
        return Residual(Sequential((gated, *runs, linear(g, d, h))))
    if kind == "gate":
        return Gate(mixed(g, ssm, h), Sequential((linear(g, h, h), Activation(function))))
    if kind == "plain":
        return Sequential((mixed(g, ssm, h), Activation(function)))
    if kind == "skip":
        beta: Any = g.standard_normal(h) if draw(st.booleans()) else 0.5
        skip = Sequential(()) if draw(st.booleans()) else linear(g, h, h)
        return Residual(mixed(g, ssm, h), skip, alpha=0.7, beta=beta)
    glu = Sequential((linear(g, alone(ssm).d_output, 2 * h), Glu(draw(st.sampled_from(["sigmoid", "silu", "gelu"])))))
    inner: list[Node] = [ssm, Activation(function), glu]
    # Of fewer channels a layer norm is next to a step function.
    normed = draw(st.sampled_from(["none", "affine"] + (["layer", "rms"] if h >= 5 else [])))
    if normed != "none":
        norm = Norm(normed, 1 + 0.1 * g.standard_normal(h), 0.1 * g.standard_normal(h))
        inner.insert(0, norm)
    return Residual(Sequential(tuple(inner)))


@st.composite
def models(
    draw: Draw,
    causal: bool | None = True,
    stepped: bool = False,
    pooled: bool | None = None,
    tokens: bool | None = None,
    cut: bool = True,
    over: bool = False,
) -> Document:
    """Whole models: encoder or embedding, blocks, perhaps a pool, decoder. None: either.

    ``cut``: with kernels that are cut off among them. ``over``: of `mimos` only that begin at the end of the padding.
    """
    h = draw(st.sampled_from([1, 3, 6, 8, 15, 16, 17, 24]))
    d_in, d_out = draw(st.integers(1, 4)), draw(st.integers(2, 5))
    g = np.random.default_rng(draw(SEEDS))
    embeds = draw(st.booleans()) if tokens is None else tokens
    pools = draw(st.booleans()) if pooled is None else pooled
    nodes: list[Node] = [Embedding(g.standard_normal((VOCABULARY, h))) if embeds else linear(g, d_in, h)]
    nodes += [draw(blocks(h, causal, stepped, cut, over)) for _ in range(draw(st.integers(1, 2)))]
    mode: Any = draw(st.sampled_from(["mean", "sum", "last", "first"])) if pools else "none"
    if pools:
        nodes.append(Pool(mode))
    nodes.append(linear(g, h, d_out))
    # Of a long sum these are next to step functions.
    if mode != "sum" and draw(st.booleans()):
        nodes.append(Activation(draw(st.sampled_from(["softmax", "log_softmax", "tanh"]))))
    return Document(Sequential(tuple(nodes)), 1 if embeds else d_in, d_out)


class Case:
    """A Document, samples or tokens (batch, length, ...) for it, and the generator that made them."""

    def __init__(self, document: Document, seed: int, batch: int, length: int):
        self.document = document
        self.g = np.random.default_rng(seed)
        self.u: Array
        if document.tokens:
            self.u = self.g.integers(0, VOCABULARY, (batch, length))
        else:
            self.u = self.g.standard_normal((batch, length, document.d_input))

    def __repr__(self) -> str:
        return f"u {self.u.shape} into {describe(self.document.root)}"

    def splits(self) -> list[slice]:
        """Chunks of every size, one sample among them often."""
        length = self.u.shape[1]
        cuts = self.g.choice(np.arange(1, length + 1), min(length, int(self.g.integers(0, 7))), replace=False)
        edges = sorted({0, length, *cuts.tolist(), *(int(c) - 1 for c in cuts)})
        return [slice(i, j) for i, j in itertools.pairwise(edges)]

    def factors(self, *shape: int, most: float = MOST_STEPS) -> Array:
        """Irregular steps: stretches of the model's own, others of few values, some of any value."""
        shape = shape or self.u.shape[:2]
        few = self.g.choice([1.0, 1.0, 2.0, 0.5, most], shape)
        free = self.g.uniform(0.2, most, shape)
        factors = np.where(self.g.random(shape) < 0.2, free, few)
        runs = np.maximum.accumulate(np.where(self.g.random(shape) < 0.3, np.arange(shape[-1]), 0), -1)
        return np.asarray(np.take_along_axis(factors, runs, -1))

    def lengths(self) -> Array:
        batch, length = self.u.shape[:2]
        return np.asarray(self.g.integers(1, length + 1, batch))

    def resets(self) -> Array:
        return np.asarray(self.g.random(self.u.shape[:2]) < 0.05)


@st.composite
def cases(
    draw: Draw,
    documents: st.SearchStrategy[Document],
    lengths: st.SearchStrategy[int] = LENGTHS,
    batches: st.SearchStrategy[int] = BATCHES,
) -> Case:
    """A Document and an input that fits it."""
    return Case(draw(documents), draw(SEEDS), draw(batches), draw(lengths))


def answered(model: Model, u: Array, **said: Any) -> tuple[Array, Array]:
    """The answers, and the state after them: an empty one of a model that looks ahead."""
    if model.streamable:
        y, state = model.forward(u, return_state=True, **said)
        return y, state
    return model(u, **said), np.zeros((len(u), 0))


def conditioned(case: Case, **said: Any) -> None:
    """Pass over a model whose answers move by more than 2e-7 when its numbers and its input are rounded to float32.

    Gates multiply, norms divide by what may be next to nothing: what no engine of that precision can know is
    no measure of one.
    """
    g = np.random.default_rng(0)

    def answers(document: Document, u: Array) -> list[Array]:
        model = Model(document, "float64")
        every = [model(u, **said)]
        if model.streamable and said.keys() <= {"rate", "dt"}:
            every.append(model.stream(len(u), rate=said.get("rate", 1.0)).push(u, dt=said.get("dt")))
        return every

    expected = answers(case.document, case.u)
    for _ in range(3):
        document = replace(case.document, root=rounded(case.document.root, g))
        u = case.u if case.document.tokens else jittered(case.u, g)
        for y, reference in zip(answers(document, u), expected):
            assume(np.abs(y - reference).max() < 2e-7 * np.abs(reference).max())


def jittered(x: Array, g: np.random.Generator) -> Array:
    return np.asarray(x * (1 + 2.0**-24 * g.uniform(-1, 1, x.shape)))


def rounded(node: Node, g: np.random.Generator) -> Node:
    def value(x: Any) -> Any:
        if isinstance(x, Node):
            return rounded(x, g)
        if isinstance(x, tuple):
            return tuple(map(value, x))
        return jittered(x.astype(np.result_type(x, np.float64)), g) if isinstance(x, np.ndarray) else x

    return replace(node, **{f.name: value(getattr(node, f.name)) for f in fields(node)})


def describe(node: Node) -> str:
    """A node's kind, the shapes of its arrays, and what its options are."""
    words = []
    for f in fields(node):
        value = getattr(node, f.name)
        if isinstance(value, Node):
            words.append(f"{f.name}={describe(value)}")
        elif isinstance(value, tuple):
            words.append(", ".join(map(describe, value)))
        elif isinstance(value, np.ndarray):
            words.append(f"{f.name}{list(value.shape)}")
        elif f.name != "name" and value is not None:
            words.append(f"{f.name}={value!r}")
    return f"{type(node).__name__}({', '.join(words)})"
