"""An independent float64 / complex128 interpreter of a Document, written after the papers' equations.

It is the reference that tests compare engines and exporters with: plain recurrences, one sample after the
other, and kernels with a direct convolution where a layer is not a recurrence. It shares no code with the
engine and makes no attempt to be fast.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg  # type: ignore[import-untyped]
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
Siso = Diagonal | Dplr | Dense


@dataclass(frozen=True)
class Call:
    """What is said along with the input. ``scale`` is rate * dt: a float, or (B, L)."""

    scale: float | Array
    rate: float
    lengths: Array  # int (B,)
    resets: Array | None  # bool (B, L)
    streamed: bool


def run(
    document: Document,
    u: Array,
    *,
    rate: float = 1.0,
    dt: Array | None = None,
    lengths: Array | None = None,
    resets: Array | None = None,
    streamed: bool = False,
) -> Array:
    """The model's answer in float64: (B, L, d_output), or (B, d_output) where it pools and not ``streamed``.

    u (B, L, d_input), or integer tokens (B, L). ``dt`` (B, L) multiplies every step size of its sample.
    ``resets`` (B, L): the state is that of the start before that sample. ``lengths`` (B,): what lies behind is padding;
    answers there mean nothing. ``streamed``: the answer of a pooled model at each sample, as if it were the last.
    """
    u = np.asarray(u)
    u = u.reshape(u.shape[:2]) if document.tokens else u.astype(np.float64)
    batch, length = u.shape[:2]
    call = Call(
        scale=rate if dt is None else rate * np.asarray(dt, dtype=np.float64).reshape(batch, length),
        rate=rate,
        lengths=np.full(batch, length) if lengths is None else np.asarray(lengths),
        resets=None if resets is None else np.asarray(resets, dtype=bool).reshape(batch, length),
        streamed=streamed,
    )
    return apply(document.root, u, call)


def apply(node: Node, x: Array, call: Call) -> Array:
    match node:
        case Sequential():
            for child in node.children:
                x = apply(child, x, call)
            return x
        case Residual():
            skip = x if node.skip is None else apply(node.skip, x, call)
            return node.alpha * skip + node.beta * apply(node.child, x, call)
        case Gate():
            return apply(node.left, x, call) * apply(node.right, x, call)
        case Linear():
            y = x @ node.weight.astype(np.float64).T
            return y if node.bias is None else y + node.bias
        case Embedding():
            return node.weight.astype(np.float64)[x]
        case Norm():
            return norm(node, x)
        case Activation():
            return activate(node.function, x, node.size)
        case Glu():
            a, b = np.split(x, 2, -1)
            return a * activate(node.gate, b)
        case Pool():
            return pool(node, x, call)
        case Conv1d():
            return in_segments(lambda v, _: conv1d(node, v), x, call)
        case Selective():
            return in_segments(lambda v, scale: selective(node, v, scale), x, call)
        case Ssd():
            width = len(node.D) + 2 * node.groups * node.d_state
            both = np.concatenate([apply(node.xBC, x, call), apply(node.dt, x, call)], -1)
            return in_segments(lambda v, scale: ssd(node, v[..., :width], v[..., width:], scale), both, call)
        case DiagonalMimo():
            ends = node.C_reverse is not None and not node.reverse_over_padding
            return in_segments(lambda v, scale: mimo(node, v, scale), x, call, at_lengths=ends)
        case Linoss():
            return in_segments(lambda v, scale: linoss(node, v, scale), x, call)
        case Diagonal() | Dplr() | Dense():
            whole = node.C_reverse is not None or is_dss(node)
            return in_segments(lambda v, scale: siso(node, v, scale, call.rate), x, call, at_lengths=whole)
    raise TypeError(f"unknown node {type(node).__name__}")


def in_segments(f: Callable[[Array, float | Array], Array], x: Array, call: Call, at_lengths: bool = False) -> Array:
    """``f(x, scale)`` on every stretch between resets (and, where the layer looks ahead, up to the padding)."""
    batch, length = x.shape[:2]
    cut = at_lengths and bool((call.lengths != length).any())
    if call.resets is None and not cut:
        return f(x, call.scale)
    rows = []
    for b in range(batch):
        cuts = {0, length} | ({int(call.lengths[b])} if cut else set())
        if call.resets is not None:
            cuts |= set(np.flatnonzero(call.resets[b]).tolist())
        edges = sorted(cuts)
        parts = [
            f(x[b : b + 1, i:j], call.scale[b : b + 1, i:j] if isinstance(call.scale, np.ndarray) else call.scale)
            for i, j in itertools.pairwise(edges)
        ]
        rows.append(np.concatenate(parts, 1))
    return np.concatenate(rows, 0)


def norm(node: Norm, x: Array) -> Array:
    if node.size is not None:
        runs = x.reshape(*x.shape[:-1], -1, node.size)
        x = norm(Norm(node.kind, eps=node.eps, shift=node.shift), runs).reshape(x.shape)
    elif node.kind == "layer":
        mean = x.mean(-1, keepdims=True)
        var = ((x - mean) ** 2).mean(-1, keepdims=True)
        x = (x - mean + node.shift) / np.sqrt(var + node.eps)
    elif node.kind == "rms":
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + node.eps)
    if node.weight is not None:
        x = x * node.weight.astype(np.float64)
    return x if node.bias is None else x + node.bias.astype(np.float64)


def activate(function: str, x: Array, size: int | None = None) -> Array:
    if function in ("softmax", "log_softmax"):
        runs = x.reshape(*x.shape[:-1], -1, size or x.shape[-1])
        runs = runs - runs.max(-1, keepdims=True)
        total = np.exp(runs).sum(-1, keepdims=True)
        y: Array = np.exp(runs) / total if function == "softmax" else runs - np.log(total)
        return y.reshape(x.shape)
    with np.errstate(over="ignore"):
        return ELEMENTWISE[function](x)


erf: Callable[[Array], Array] = np.vectorize(math.erf, otypes=[np.float64])


def expit(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


ELEMENTWISE: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x < 0, 0.01 * x, x),
    "silu": lambda x: x * expit(x),
    "sigmoid": expit,
    "tanh": np.tanh,
    "softplus": lambda x: np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20)))),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "sqrelu": lambda x: np.maximum(x, 0) ** 2,
}


def pool(node: Pool, x: Array, call: Call) -> Array:
    """Over the samples since the last reset, up to each sample (streamed) or up to the end of the sequence."""
    modes: dict[str, Callable[[Array], Array]] = {
        "mean": lambda v: v.mean(0),
        "sum": lambda v: v.sum(0),
        "last": lambda v: v[-1],
        "first": lambda v: v[0],
    }

    def upto(b: int, t: int) -> Array:
        begin = 0 if call.resets is None else max([0, *np.flatnonzero(call.resets[b, : t + 1]).tolist()])
        return modes[node.mode](x[b, begin : t + 1])

    if not call.streamed:
        return np.stack([upto(b, int(end) - 1) for b, end in enumerate(call.lengths)])
    return np.stack([np.stack([upto(b, t) for t in range(x.shape[1])]) for b in range(x.shape[0])])


def conv1d(node: Conv1d, x: Array) -> Array:
    (batch, length, d), taps = x.shape, node.weight.shape[1]
    past = np.zeros((d, taps - 1)) if node.x0 is None else node.x0.astype(np.float64)
    x = np.concatenate([np.broadcast_to(past.T, (batch, taps - 1, d)), x], 1)
    y = np.zeros((batch, length, d))
    for k in range(taps):
        y += node.weight[:, k].astype(np.float64) * x[:, k : k + length]
    return y if node.bias is None else y + node.bias


def selective(node: Selective, x: Array, scale: float | Array) -> Array:
    """Gu & Dao 2023, algorithm 2, with A discretised by zoh and B by Euler as their code does."""
    n, rank = node.A.shape[1], node.dt_proj.shape[1]
    projected = x @ node.x_proj.astype(np.float64).T
    r, B, C = np.split(projected, [rank, rank + n], -1)
    if node.norm_eps is not None:
        weights = (node.dt_norm, node.B_norm, node.C_norm)
        r, B, C = (norm(Norm("rms", weight, eps=node.norm_eps), v) for v, weight in zip((r, B, C), weights))
    dt = activate("softplus", r @ node.dt_proj.astype(np.float64).T + node.dt_bias)
    dt = dt * (scale[..., None] if isinstance(scale, np.ndarray) else scale)
    h = np.zeros((x.shape[0], *node.A.shape))
    h = h if node.x0 is None else h + node.x0
    y = np.empty_like(x)
    for t in range(x.shape[1]):
        h = np.exp(dt[:, t, :, None] * node.A) * h + (dt[:, t] * x[:, t])[..., None] * B[:, t, None, :]
        y[:, t] = np.einsum("bdn,bn->bd", h, C[:, t]) + node.D * x[:, t]
    return y


def ssd(node: Ssd, xbc: Array, dt: Array, scale: float | Array) -> Array:
    """Dao & Gu 2024, eq. 16 and listing 1, as the recurrence of each head by itself."""
    heads, d, n, groups = len(node.A), len(node.D), node.d_state, node.groups
    batch, length, _ = xbc.shape
    dt = np.maximum(activate("softplus", dt + node.dt_bias), node.dt_min)
    dt = dt if node.dt_max is None else np.minimum(dt, node.dt_max)
    dt = dt * (scale[..., None] if isinstance(scale, np.ndarray) else scale)
    x = xbc[..., :d].reshape(batch, length, heads, d // heads)
    B, C = (part.reshape(batch, length, groups, n) for part in np.split(xbc[..., d:], 2, -1))
    y = np.empty_like(x)
    for head in range(heads):
        group = head // (heads // groups)
        h, A = np.zeros((batch, d // heads, n)), node.A[head]
        h = h if node.x0 is None else h + node.x0[head * (d // heads) : (head + 1) * (d // heads)]
        for t in range(length):
            step = dt[:, t, head, None, None]
            decay = np.exp(step * A)
            step = np.expm1(step * A) / A if node.disc == "zoh" and A != 0 else step
            h = decay * h + step * x[:, t, head, :, None] * B[:, t, group, None, :]
            y[:, t, head] = np.einsum("bpn,bn->bp", h, C[:, t, group])
    flat: Array = y.reshape(batch, length, d) + node.D * xbc[..., :d]
    return flat


def discretize(A: Array, B: Array, dt: Array, disc: str, alpha: float) -> tuple[Array, Array]:
    """Diagonal A, B and dt that broadcast with one another. GBT after Gu et al. 2021b, eq. 3."""
    if disc == "zoh":
        z = dt * A
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.exp(z), np.where(A == 0, dt, np.expm1(z) / A) * B
    alpha = {"bilinear": 0.5, "euler": 0.0, "backward_euler": 1.0, "gbt": alpha}[disc]
    back = 1 - alpha * dt * A
    return (1 + (1 - alpha) * dt * A) / back, dt * B / back


def steps(scale: float | Array, length: int) -> Iterator[tuple[int, Array, bool]]:
    """For each sample: its number, its factor of dt as (B or 1,), and whether that differs from the one before."""
    for t in range(length):
        if isinstance(scale, np.ndarray):
            yield t, scale[:, t], True
        else:
            yield t, np.array([scale]), t == 0


def no_step_size(scale: float | Array) -> None:
    if isinstance(scale, np.ndarray) or scale != 1.0:
        raise ValueError("a layer given in discrete time has no step size for rate or dt to multiply")


def mimo(node: DiagonalMimo, u: Array, scale: float | Array) -> Array:
    """Smith et al. 2023, eq. 2 to 6; Orvieto et al. 2023, eq. 3 to 5. With z where there is C_reverse."""
    if node.dt is None:
        no_step_size(scale)

    def states(v: Array, scale: float | Array, start: Array | None) -> Array:
        x = np.zeros((v.shape[0], node.A.size), complex)
        x = x if start is None else x + start
        out = np.empty((v.shape[0], v.shape[1], node.A.size), complex)
        for t, s, fresh in steps(scale, v.shape[1]):
            if node.dt is None:
                A, gain = node.A, np.ones(1)
            elif fresh:
                A, gain = discretize(node.A, np.ones(1), s[:, None] * node.dt, node.disc, node.alpha)
            x = A * x + gain * (v[:, t] @ node.B.T)
            out[:, t] = x
        return out

    y = states(u, scale, node.x0) @ node.C.T
    if node.C_reverse is not None:
        back = scale[:, ::-1] if isinstance(scale, np.ndarray) else scale
        y = y + states(u[:, ::-1], back, None)[:, ::-1] @ node.C_reverse.T
    y = (2 if node.conjugate_pairs else 1) * y.real
    return y if node.D is None else y + node.D * u


def linoss(node: Linoss, u: Array, scale: float | Array) -> Array:
    """LinOSS-IM and LinOSS-IMEX of Rusch & Rus 2025, each oscillator's velocity and position w: w' = M w + F B u."""
    w = np.zeros((len(u), len(node.A), 2), complex)
    y = np.empty((*u.shape[:2], len(node.C)))
    G = np.zeros_like(node.A) if node.G is None else node.G
    for t, factor, _ in steps(scale, u.shape[1]):
        s = factor[:, None] * node.dt
        S = 1 + s**2 * node.A if node.disc == "im" else 1 + s * G
        last = 1 / S if node.disc == "im" else 1 - s**2 * node.A / S
        M = np.stack([np.stack([1 / S, -s * node.A / S], -1), np.stack([s / S, last], -1)], -2)
        F = np.stack([s / S, s**2 / S], -1)
        w = (M @ w[..., None])[..., 0] + F * (u[:, t] @ node.B.T)[..., None]
        y[:, t] = (w[..., 1] @ node.C.T).real
    return y if node.D is None else y + node.D * u


def is_dss(node: Siso) -> bool:
    return isinstance(node, Diagonal) and node.disc == "dss"


def siso(node: Siso, u: Array, scale: float | Array, rate: float) -> Array:
    """(B, L, H) -> (B, L, M H), M outermost, or (H M) where ``head_major``."""
    batch, length, _ = u.shape
    if node.dt is None:
        no_step_size(scale)
    cut = None if node.kernel_length is None else round(node.kernel_length / rate)
    start = node.x0 if isinstance(node, Dense) else None
    if isinstance(scale, np.ndarray):
        if is_dss(node):
            raise ValueError("dss is normalised by the length of the sequence: dt cannot vary within it")
        y = output(node, node.C, states(node, u, scale, cut, start))
        if node.C_reverse is not None:
            z = states(node, u[:, ::-1], scale[:, ::-1], cut, None)[:, ::-1]
            y[:, :-1] += output(node, node.C_reverse, z[:, 1:])
    elif is_dss(node) or node.C_reverse is not None or (cut is not None and cut < length):
        y = convolve(node, u, scale, length if cut is None else min(length, cut))
        if start is not None:
            y = y + output(node, node.C, states(node, 0 * u, scale, None, start))
    else:
        y = output(node, node.C, states(node, u, scale, None, start))
    y = y + node.D * u[:, :, None, :]
    flat: Array = (y.swapaxes(2, 3) if node.head_major else y).reshape(batch, length, -1)
    return flat


def output(node: Siso, C: Array, x: Array) -> Array:
    """C x of states (..., H, N), as (..., M, H)."""
    if isinstance(node, Dplr) and node.conjugate_pairs:
        C = np.concatenate([C, C.conj()], -1)
    y: Array = np.einsum("mhn,...hn->...mh", C, x).real
    return 2 * y if isinstance(node, Diagonal) and node.conjugate_pairs else y


def states(node: Siso, u: Array, scale: float | Array, cut: int | None, start: Array | None) -> Array:
    """x_t = Abar x_(t-1) + Bbar u_t for every t: (B, L, H, N), from x_(-1) = ``start`` on (None: 0).

    With ``cut`` only the last ``cut`` inputs count.
    """
    batch, length, _ = u.shape
    out = None
    for t, s, fresh in steps(scale, length):
        if fresh:
            A, B = discrete(node, s)
        new = B * u[:, t, :, None]
        if out is None:
            out = np.empty((batch, length, *B.shape[1:]), B.dtype)
            shares = np.zeros((batch, length if cut is not None else 1, *B.shape[1:]), B.dtype)
            shares = shares if start is None else shares + start
        # One share for every input that still counts, or one for all of them together.
        shares = transition(node, A, shares)
        if cut is None:
            shares[:, 0] += new
        else:
            shares[:, t] = new
            if t >= cut:
                shares[:, t - cut] = 0
        out[:, t] = shares.sum(1)
    assert out is not None
    return out


def transition(node: Siso, A: Array, x: Array) -> Array:
    """Abar x for x (B, K, H, N)."""
    if isinstance(node, Diagonal):
        return A[:, None] * x
    if A.shape[0] > 1:
        return (A[:, None] @ x[..., None])[..., 0]
    columns = x.reshape(-1, *x.shape[2:]).transpose(1, 2, 0)
    product: Array = (A[0] @ columns).transpose(2, 0, 1).reshape(x.shape)
    return product


def discrete(node: Siso, s: Array) -> tuple[Array, Array]:
    """Abar (b, H, N) or (b, H, N, N) and Bbar (b, H, N) for dt factors s (b,); each head has its own."""
    H = node.C.shape[1]
    system = np.arange(H) % node.A.shape[0]
    if isinstance(node, Diagonal):
        if node.disc == "discrete":
            return node.A[system][None], node.B[system][None]
        assert node.dt is not None
        dt = s[:, None, None] * node.dt.reshape(H, -1)
        return discretize(node.A[system], node.B[system], dt, node.disc, node.alpha)
    if isinstance(node, Dense) and node.disc == "discrete":
        return node.A[system][None], node.B[system][None]
    assert node.dt is not None
    if isinstance(node, Dense) and node.disc == "zoh":
        n = node.A.shape[-1]
        both = np.zeros((len(node.A), n + 1, n + 1))
        both[:, :n, :n], both[:, :n, n] = node.A, node.B
        exp = linalg.expm((s[:, None] * node.dt)[..., None, None] * both[system])
        return exp[..., :n, :n], exp[..., :n, n]
    alpha = node.alpha if isinstance(node, Dense) else 0.5
    A, B = (node.A, node.B) if isinstance(node, Dense) else full(node)
    A, B = A[system], B[system]
    dt = (s[:, None] * node.dt)[..., None, None]
    eye = np.eye(A.shape[-1])
    back = eye - alpha * dt * A
    both = np.linalg.solve(back, np.concatenate([eye + (1 - alpha) * dt * A, dt * B[..., None]], -1))
    return both[..., :-1], both[..., -1]


def full(node: Dplr) -> tuple[Array, Array]:
    """A = diag(Lambda) - sum_r P_r Q_r^H and B of every system, with all modes (Gu et al. 2021, eq. 6)."""

    def both(v: Array) -> Array:
        return np.concatenate([v, v.conj()], -1) if node.conjugate_pairs else v

    A, B, P = both(node.A), both(node.B), both(node.P)
    Q = P if node.Q is None else both(node.Q)
    low_rank = sum(P[r][:, :, None] * Q[r].conj()[:, None, :] for r in range(P.shape[0]))
    return A[:, :, None] * np.eye(A.shape[1]) - low_rank, B


def kernel(node: Siso, C: Array, length: int, scale: float = 1.0) -> Array:
    """K[l] = C Abar^l Bbar, (M, H, length); for dss its own definition."""
    if is_dss(node):
        assert isinstance(node, Diagonal)
        assert node.dt is not None
        H = C.shape[1]
        system = np.arange(H) % node.A.shape[0]
        A, B = node.A[system], node.B[system]
        z = scale * node.dt.reshape(H, -1) * A
        x = A * (np.exp(z * length) - 1)
        W = C * B * (np.exp(z) - 1) * x.conj() / (abs(x) ** 2 + 1e-7)
        return np.stack([np.einsum("mhn,hn->mh", W, np.exp(z * lag)).real for lag in range(length)], -1)
    A, x = discrete(node, np.array([scale]))
    K = np.empty((*C.shape[:2], length))
    for lag in range(length):
        K[..., lag] = output(node, C, x[0])
        x = transition(node, A, x[:, None])[:, 0]
    return K


def convolve(node: Siso, u: Array, scale: float, taps: int) -> Array:
    """y[t] = sum_l K[l] u[t - l] + sum_l K_reverse[l] u[t + 1 + l], as (B, L, M, H)."""
    length = u.shape[1]
    y = np.zeros((*u.shape[:2], *node.C.shape[:2]))
    K = kernel(node, node.C, taps, scale)
    for lag in range(taps):
        y[:, lag:] += K[..., lag] * u[:, : length - lag, None]
    if node.C_reverse is not None:
        K = kernel(node, node.C_reverse, taps, scale)
        for lag in range(min(taps, length - 1)):
            y[:, : length - 1 - lag] += K[..., lag] * u[:, lag + 1 :, None]
    return y
