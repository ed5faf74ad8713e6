"""State-space nodes as real discrete systems, their states, and their Gramians. All in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import document as doc
from ..model import Model
from ..nn.compose import widths
from ..ops import krylov

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]
Signal = NDArray[Any]
Siso = doc.Diagonal | doc.Dplr | doc.Dense
Node = Siso | doc.DiagonalMimo

# Numbers in memory at once, of the states of some channels over a sequence.
_NUMBERS = 1 << 23
# A mode that keeps more than this of its modulus a sample never decays, as far as Gramians go.
_DECAYS = 1 - 1e-10


@dataclass(frozen=True)
class Systems:
    """The S systems of a node, x' = A x + B u and y = C x' + D u: of a channel each, or one of all inputs and outputs.

    ``mu`` and ``b`` are the poles and the input gains where the state moves by poles alone: state n is the real part of
    mode n and state N + n the imaginary one. A bidirectional layer's C has C_reverse below it.
    """

    A: Real  # (S, n, n)
    B: Real  # (S, n, d)
    C: Real  # (S, p, n)
    mu: Complex | None  # (S, N)
    b: Complex | None  # (S, N, d)

    @property
    def stable(self) -> bool:
        """Whether every state decays."""
        poles = np.linalg.eigvals(self.A) if self.mu is None else self.mu
        return bool((np.abs(poles) < _DECAYS).all())


def systems(node: Node) -> Systems:
    """The node's discrete systems at rate 1."""
    reverse = node.C_reverse is not None
    forward = replace(node, C_reverse=None)
    bar = _alone(forward).discrete(0)
    reads = [bar["c"]]
    if reverse:
        assert node.C_reverse is not None
        reads.append(_alone(replace(forward, C=node.C_reverse)).discrete(0)["c"])
    if isinstance(node, doc.Dense):
        a = bar["a_minus_one"]
        c = np.concatenate(reads).transpose(1, 0, 2)
        return Systems(a + np.eye(a.shape[-1]), bar["b"][..., None], c, None, None)
    if isinstance(node, doc.DiagonalMimo):
        mu, b, c = 1 + bar["a_minus_one"][None], bar["b"][None], np.concatenate(reads)[None]
    else:
        mu, b, c = 1 + bar["a_minus_one"], bar["b"][..., None], np.concatenate(reads).transpose(1, 0, 2)
    n = mu.shape[1]
    i = np.arange(n)
    a = np.zeros((len(mu), 2 * n, 2 * n))
    a[:, i, i] = a[:, n + i, n + i] = mu.real
    a[:, n + i, i], a[:, i, n + i] = mu.imag, -mu.imag
    coupled = isinstance(node, doc.Dplr)
    if coupled:
        for w, v in zip(bar["w"], bar["v"]):
            a -= np.concatenate([w.real, w.imag], 1)[:, :, None] * np.concatenate([v.real, -v.imag], 1)[:, None]
    return Systems(
        a,
        np.concatenate([b.real, b.imag], 1),
        np.concatenate([c.real, -c.imag], 2),
        None if coupled else mu,
        None if coupled else b,
    )


def _alone(node: Node) -> Model:
    return model_of(node, node.B.shape[-1] if isinstance(node, doc.DiagonalMimo) else node.C.shape[1])


def model_of(node: doc.Node, d_input: int) -> Model:
    """A model of that node alone, in float64."""
    return Model(doc.Document(node, *widths(node, d_input)), "float64")


def states(node: doc.Diagonal | doc.DiagonalMimo, u: Signal) -> Iterator[tuple[slice, Real]]:
    """The states of the node's modes while it hears ``u`` (1, length, d): (systems, 2 N, length) for some systems.

    Real parts of all modes, then imaginary ones; with C_reverse those of the backward pass after them.
    """
    if isinstance(node, doc.DiagonalMimo):
        n = len(node.A)
        read = _readers(n, 2.0 if node.conjugate_pairs else 1.0)
        ways = [replace(node, C=read, C_reverse=None, D=None)]
        if node.C_reverse is not None:
            ways.append(replace(node, C=np.zeros_like(read), C_reverse=read, D=None))
        answers = [_alone(way)(u)[0].T for way in ways]
        yield slice(0, 1), np.concatenate(answers)[None]
        return
    h, n = node.C.shape[1:]
    read = _readers(n, 2.0 if node.conjugate_pairs else 1.0)
    several = min(h, max(1, _NUMBERS // (2 * n * u.shape[1])))
    for start in range(0, h, several):
        some = slice(start, min(start + several, h))
        width = some.stop - some.start
        channel = np.arange(start, some.stop)
        c = np.repeat(read[:, None], width, 1)
        a, b = (array[channel % len(array)] for array in (node.A, node.B))
        silent = np.zeros((2 * n, width))
        dt = None if node.dt is None else node.dt[channel]
        part = replace(node, A=a, B=b, C=c, D=silent, dt=dt, C_reverse=None, head_major=False)
        parts = [part]
        if node.C_reverse is not None:
            parts.append(replace(part, C=np.zeros_like(c), C_reverse=c))
        answers = [_alone(p)(u[:, :, some])[0].reshape(-1, 2 * n, width).transpose(2, 1, 0) for p in parts]
        yield some, np.concatenate(answers, 1)


def _readers(n: int, factor: float) -> Complex:
    """C (2 N, N) that reads real parts, then imaginary ones: factor Re(C x)."""
    return np.concatenate([np.eye(n), -1j * np.eye(n)]).astype(np.complex128) / factor


def observability(systems: Systems) -> Real:
    """Q (S, n, n) = sum_t (A^T)^t C^T C A^t: the energy of all answers from a state on (Moore 1981)."""
    return lyapunov(systems.A.transpose(0, 2, 1), systems.C.transpose(0, 2, 1) @ systems.C)


def white(systems: Systems) -> Real:
    """P (S, n, n) = sum_t A^t B B^T (A^T)^t: the covariance of the states under white noise of variance one."""
    return lyapunov(systems.A, systems.B @ systems.B.transpose(0, 2, 1))


def lyapunov(A: Real, M: Real) -> Real:
    """X = A X A^T + M, for (S, n, n), by doubling (Smith 1968): the sum of A^t M (A^T)^t."""
    x, power = M, A
    # Of a pole of modulus 1 - 1e-10 nothing is left after 2^40 samples.
    for _ in range(40):
        x = x + power @ x @ power.transpose(0, 2, 1)
        power = power @ power
        if np.abs(power).max(initial=0.0) < 1e-20:
            break
    return 0.5 * (x + x.transpose(0, 2, 1))


def measured(node: Node, systems: Systems, heard: Sequence[Signal]) -> Real:
    """P (S, n, n): the mean of x x^T over all samples of ``heard``, sequences (1, length, d) that start at x = 0.

    Of systems of one input it follows from the inputs' autocorrelation r and the states x_T at the sequences' ends,
    without any state between: x_t = A x_{t-1} + B u_t makes the sum P of x_t x_t^T solve

        P = A P A^T + A g B^T + B g^T A^T + r_0 B B^T - A x_T x_T^T A^T,  g = sum_t x_{t-1} u_t = sum_k A^{k-1} B r_k.
    """
    if node.C_reverse is not None:
        # Its states are those of the same system that hears the sequence from its end.
        heard = [*heard, *(u[:, ::-1] for u in heard)]
    samples = sum(u.shape[1] for u in heard)
    if isinstance(node, doc.DiagonalMimo):
        forward = replace(node, C_reverse=None)
        total = np.zeros_like(systems.A)
        for u in heard:
            for _, x in states(forward, u):
                total += x @ x.transpose(0, 2, 1)
    elif systems.mu is not None and systems.b is not None:
        total = _measured_modes(systems.mu, systems.b[..., 0], _autocorrelation(heard), heard)
    else:
        total = _measured_coupled(systems, _autocorrelation(heard), heard)
    found: Real = total / samples
    return found


def _measured_coupled(systems: Systems, r: Real, heard: Sequence[Signal]) -> Real:
    """The sum by the Lyapunov equation."""
    B = systems.B[..., 0]
    M = np.empty_like(systems.A)
    for h, (a, b) in enumerate(zip(systems.A, B)):
        response = krylov(a, b, r.shape[1])
        moved = a @ (response[:, :-1] @ r[h, 1:])
        ends = a @ _ends(response, heard, h)
        M[h] = np.outer(moved, b) + np.outer(b, moved) + r[h, 0] * np.outer(b, b) - ends @ ends.T
    return lyapunov(systems.A, M)


def _autocorrelation(heard: Sequence[Signal]) -> Real:
    """Sums (H, length) of u_t u_{t-k} within each sequence."""
    longest = max(u.shape[1] for u in heard)
    r = np.zeros((heard[0].shape[2], longest))
    for u in heard:
        length = u.shape[1]
        padded = 1 << (2 * length - 1).bit_length()
        spectrum = np.fft.rfft(u[0].T, padded)
        r[:, :length] += np.fft.irfft(spectrum.real**2 + spectrum.imag**2, padded)[:, :length]
    return r


def _ends(response: NDArray[Any], heard: Sequence[Signal], channel: int) -> NDArray[Any]:
    """The states (n, sequences) at the ends, of a channel with the impulse response (n, length)."""
    return np.stack([response[:, : u.shape[1]] @ u[0, ::-1, channel] for u in heard], 1)


def _measured_modes(mu: Complex, b: Complex, r: Real, heard: Sequence[Signal]) -> Real:
    """The same sum where A is diagonal: each entry of P by itself."""
    h, n = mu.shape
    out = np.empty((h, 2 * n, 2 * n))
    for i in range(h):
        response = b[i][:, None] * powers(mu[i], r.shape[1])
        moved = mu[i] * (response[:, :-1] @ r[i, 1:])
        ends = mu[i][:, None] * _ends(response, heard, i)

        def pairs(other: Any, moved: Any = moved, ends: Any = ends, i: int = i) -> Complex:
            """The sum of x other(x)^T, of which ``other`` is the conjugate or x itself."""
            cross = np.outer(moved, other(b[i])) + np.outer(b[i], other(moved))
            sums = cross + r[i, 0] * np.outer(b[i], other(b[i])) - ends @ other(ends).T
            found: Complex = sums / (1 - np.outer(mu[i], other(mu[i])))
            return found

        straight, turned = pairs(np.conj), pairs(np.asarray)
        out[i, :n, :n] = (straight + turned).real
        out[i, n:, n:] = (straight - turned).real
        out[i, :n, n:] = (turned - straight).imag
        out[i, n:, :n] = out[i, :n, n:].T
    return np.asarray(0.5 * out)


def powers(mu: Complex, length: int) -> Complex:
    """mu^t (N, length), by doubling."""
    table = np.ones((len(mu), length), np.complex128)
    done, factor = 1, mu
    while done < length:
        more = min(done, length - done)
        np.multiply(table[:, :more], factor[:, None], out=table[:, done : done + more])
        done, factor = done + more, factor * factor
    return table
