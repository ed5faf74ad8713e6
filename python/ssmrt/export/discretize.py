"""Discrete-time systems for exported graphs, in float64.

Everything is given as the *increment* ``A_bar - I``: a slow mode has a factor so near one that float32 would
keep only a few digits of its decay, while the increment keeps them all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Dense, Diagonal, DiagonalMimo, Dplr, StateSpace
from ..errors import ExportError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Modes:
    """G systems over N complex modes, all products of which are followed by taking the real part.

    x' = x + a1 x + sum_k U[k] Re(V[k] x) + B u,    y = Re(C x') + D u
    """

    a1: Array  # complex128 (G, N): the increment, a - 1
    B: Array  # complex128 (G, N)
    C: Array  # complex128 (M, G, N), the factor 2 of conjugate pairs multiplied in
    D: Array  # float64 (M, G)
    U: Array  # complex128 (K, G, N)
    V: Array  # complex128 (K, G, N)

    @property
    def real(self) -> bool:
        """Whether a real input leaves the modes of a folded system real."""
        return not len(self.U) and not self.a1.imag.any()


@dataclass(frozen=True, eq=False)
class Matrices:
    """G real systems: x' = x + A1 x + B u, y = C x' + D u."""

    A1: Array  # float64 (G, n, n)
    B: Array  # float64 (G, n)
    C: Array  # float64 (M, G, n)
    D: Array  # float64 (M, G)


def scaled_step(dt: Array | None, rate: float, layer: str) -> Array:
    """``dt * rate``; a layer without a step size takes no other rate than 1."""
    if dt is not None:
        return np.asarray(dt, np.float64) * rate
    if rate != 1.0:
        raise ExportError(
            f"layer {layer!r} is discrete-time and has no step size that rate={rate} could multiply; export with rate=1"
        )
    return np.ones(1)


def diagonal_pair(A: Array, B: Array, dt: Array, disc: str, alpha: float, layer: str) -> tuple[Array, Array]:
    """(A_bar - 1, B_bar) of a diagonal A; shapes as ``A * dt``.

    zoh: Gu et al. 2022 (S4D), eq. 6; the others are generalised bilinear transforms, Zhang et al. 2007.
    """
    if disc == "discrete":
        return A - 1.0 + 0j, B + 0j
    z = A * dt
    if disc == "zoh":
        a1 = np.expm1(z)
        safe = np.where(A == 0, 1.0, A)
        return a1, B * np.where(A == 0, dt, a1 / safe)
    weights = {"bilinear": 0.5, "euler": 0.0, "backward_euler": 1.0, "gbt": alpha}
    if disc not in weights:
        raise ExportError(
            f"layer {layer!r}: discretization {disc!r} depends on the whole sequence and has no step graph"
        )
    inverse = 1.0 / (1.0 - weights[disc] * z)
    return z * inverse, B * dt * inverse


def check_stable(a1: Array, allowed: bool, rate: float, layer: str) -> None:
    """Refuse a rate that pushes a mode out of the unit circle (only Euler's forms do)."""
    radius = float(np.abs(1.0 + a1).max(initial=0.0))
    if rate != 1.0 and not allowed and radius > 1.0 + 1e-9:
        raise ExportError(f"layer {layer!r} is unstable at rate={rate}: |eigenvalue| {radius:.6g}; use a lower rate")


def diagonal(node: Diagonal, rate: float) -> Modes:
    """The discrete modes of a `Diagonal`."""
    channels = node.C.shape[1]
    system = np.arange(channels) % node.A.shape[0]
    dt = scaled_step(node.dt, rate, node.name)
    dt = dt[:, None] if dt.ndim == 1 else dt
    a1, B = diagonal_pair(node.A[system], node.B[system], dt, node.disc, node.alpha, node.name)
    check_stable(a1, node.allow_unstable, rate, node.name)
    factor = 2.0 if node.conjugate_pairs else 1.0
    none = np.zeros((0, *a1.shape), np.complex128)
    return Modes(a1, B, factor * node.C, np.asarray(node.D, np.float64), none, none)


def dplr(node: Dplr, rate: float) -> Modes:
    """The discrete modes of a `Dplr`: bilinear, with the Woodbury identity, O(R N) a step.

    (I - dt/2 A)^-1 is diagonal plus rank R, hence A_bar = 2 (I - dt/2 A)^-1 - I is too (Gu et al. 2021, C.3).
    """
    channels = node.C.shape[1]
    system = np.arange(channels) % node.A.shape[0]
    A, B, P = node.A[system], node.B[system], node.P[:, system]
    Q = P if node.Q is None else node.Q[:, system]
    dt = scaled_step(node.dt, rate, node.name)[:, None]
    inverse = 1.0 / (1.0 - 0.5 * dt * A)
    left = P * inverse
    right = Q.conj() * inverse
    half = 0.5 * dt[:, 0, None, None]
    inner = np.einsum("rhn,shn->hrs", Q.conj(), left)
    across = np.einsum("rhn,hn->hr", right, B)
    if node.conjugate_pairs:
        inner, across = 2.0 * inner.real, 2.0 * across.real
    core = np.linalg.inv(np.eye(P.shape[0]) + half * inner)
    left = np.einsum("rhn,hrs->shn", left, core)
    U = -dt * left
    B_bar = dt * (inverse * B - 0.5 * dt * np.einsum("shn,hs->hn", left, across))
    a1 = dt * A * inverse
    if node.conjugate_pairs:
        return Modes(a1, B_bar, 2.0 * node.C, np.asarray(node.D, np.float64), U, 2.0 * right)
    U = np.concatenate([U, 1j * U])
    V = np.concatenate([right, -1j * right])
    return Modes(a1, B_bar, node.C + 0j, np.asarray(node.D, np.float64), U, V)


def dense(node: Dense, rate: float) -> Matrices:
    """The discrete matrices of a `Dense`: generalised bilinear transform (Gu et al. 2021b, eq. 3), zoh, or none."""
    channels = node.C.shape[1]
    system = np.arange(channels) % node.A.shape[0]
    dt = scaled_step(node.dt, rate, node.name)
    both = np.concatenate([node.A, node.B[..., None]], -1)[system]
    n = both.shape[-2]
    if node.disc == "discrete":
        both = both - np.eye(n, n + 1)
    else:
        both = both * dt[:, None, None]
        if node.disc == "zoh":
            # exp of (A, B; 0, 0) is (A_bar, B_bar; 0, 1), also where A has no inverse (Van Loan 1978).
            both = _expm1(np.concatenate([both, np.zeros((channels, 1, n + 1))], -2))[:, :-1]
        else:
            both = np.linalg.solve(np.eye(n) - node.alpha * both[..., :-1], both)
    return Matrices(both[..., :-1], both[..., -1], np.asarray(node.C, np.float64), np.asarray(node.D, np.float64))


def _expm1(Z: Array) -> Array:
    """exp(Z) - 1 of square matrices (G, n, n), without cancellation: exp(2Z) - 1 = X^2 + 2X, X = exp(Z) - 1."""
    norm = np.abs(Z).sum(-1).max(initial=0.0)
    halvings = max(0, int(np.ceil(np.log2(max(norm, 1e-300)))) + 1)
    Z = Z / 2.0**halvings
    X, term = Z, Z
    # Of a norm of 1/2 the next term is below 1e-17.
    for k in range(2, 15):
        term = term @ Z / k
        X = X + term
    for _ in range(halvings):
        X = X @ X + 2.0 * X
    return X


def mimo(node: DiagonalMimo, rate: float) -> tuple[Array, Array, Array]:
    """(A_bar - 1, B_bar, C) of a `DiagonalMimo`: (N,), (N, d_in), (d_out, N); y = Re(C x) + D u."""
    dt = scaled_step(node.dt, rate, node.name)
    a1, B = diagonal_pair(node.A[:, None], node.B, dt[:, None], node.disc, node.alpha, node.name)
    check_stable(a1, node.allow_unstable, rate, node.name)
    return a1[:, 0], B, (2.0 if node.conjugate_pairs else 1.0) * node.C


def fold_input(modes: Modes) -> tuple[Modes, bool]:
    """Rescale every mode so that the input enters all of them alike; whether that could be done.

    A diagonal change of basis costs no accuracy. Complex modes get the input in the real and the imaginary part
    (B = 1 + i), so that adding it is one broadcast; modes that stay real get it in the real part (B = 1).
    """
    size = np.abs(modes.B)
    silent = modes.B == 0
    if len(modes.U) and (size < 1e-6 * size.max()).any():
        return modes, False
    scale = np.where(silent, 1.0, modes.B)
    C = np.where(silent, 0.0, modes.C * scale)
    unit = 1.0 if modes.real else 1.0 + 1.0j
    return replace(
        modes,
        B=np.full_like(modes.B, unit),
        C=(C.real + 0j if modes.real else C / unit),
        U=modes.U * unit / scale,
        V=modes.V * scale / unit,
    ), True


def real_matrices(modes: Modes) -> Matrices:
    """The same systems over the real state (Re x, Im x), (G, 2N)."""

    def vector(z: Array) -> Array:
        return np.concatenate([z.real, z.imag], -1)

    def row(z: Array) -> Array:
        return np.concatenate([z.real, -z.imag], -1)

    groups, n = modes.a1.shape
    A1 = np.zeros((groups, 2 * n, 2 * n))
    k = np.arange(n)
    A1[:, k, k] = A1[:, n + k, n + k] = modes.a1.real
    A1[:, n + k, k] = modes.a1.imag
    A1[:, k, n + k] = -modes.a1.imag
    A1 += np.einsum("kgi,kgj->gij", vector(modes.U), row(modes.V))
    return Matrices(A1, vector(modes.B), row(modes.C), modes.D)


def cut_length(kernel_length: int, rate: float) -> int:
    """The samples after which a kernel of ``kernel_length`` is cut off at another rate: the same time."""
    return max(1, round(kernel_length / rate))


def powers(a1: Array, count: int) -> Array:
    """a^0 ... a^{count - 1} of a = 1 + a1 in a new last axis."""
    out = np.ones((*a1.shape, count), np.complex128)
    for i in range(1, count):
        out[..., i] = out[..., i - 1] * (1.0 + a1)
    return out


def impulse_response(system: Modes | Matrices, length: int) -> Array:
    """The convolution kernel without D, float64 (M, G, length)."""
    if isinstance(system, Modes) and not len(system.U):
        out: Array = np.einsum("mgn,gn,gnl->mgl", system.C, system.B, powers(system.a1, length)).real
        return out
    matrices = real_matrices(system) if isinstance(system, Modes) else system
    out = np.empty((*matrices.C.shape[:2], length))
    x = matrices.B
    for i in range(length):
        out[..., i] = np.einsum("mgn,gn->mg", matrices.C, x)
        x = x + np.einsum("gij,gj->gi", matrices.A1, x)
    return out


def state_space(node: StateSpace, rate: float) -> Modes | Matrices:
    """The discrete system of any node with one input a channel."""
    if isinstance(node, Diagonal):
        return diagonal(node, rate)
    if isinstance(node, Dplr):
        return dplr(node, rate)
    if isinstance(node, Dense):
        return dense(node, rate)
    raise ExportError(f"layer {node.name!r}: {type(node).__name__} has no graph")
