"""State-space layers, a chunk of samples a call, as products with precomputed matrices.

With x the state before the chunk and u its T inputs, of every channel:
y = (C A^{t+1}) x + Toeplitz(C A^l B, D on the diagonal) u and x' = A^T x + (A^{T-1-t} B) u.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import DiagonalMimo, Linoss, StateSpace
from .context import Context
from .layout import REALS, advance
from .state_space import refuse_reverse
from .systems import Matrices, Modes, Oscillators, fold_input, powers, real_matrices
from .windowed import fir

Array = NDArray[Any]


def lower_toeplitz(k: Array) -> Array:
    """(..., T) -> (..., T, T), lower triangular: out[t, j] = k[t - j]."""
    steps = k.shape[-1]
    lag = np.arange(steps)[:, None] - np.arange(steps)
    return np.where(lag >= 0, k[..., np.maximum(lag, 0)], 0.0)


def state_space(c: Context, x: str, node: StateSpace) -> str:
    """`Diagonal`, `Dplr`, `Dense`."""
    refuse_reverse(node)
    b, steps = c.b, c.samples
    system, cut = c.systems.of(node), c.systems.cut(node)
    outputs, channels = system.D.shape
    columns = c.by_channel(x, channels)
    if cut is not None:
        kernel = c.systems.kernel(node, cut)
        kernel[..., 0] += system.D
        return c.from_channels(fir(c, columns, kernel), channels, outputs, head_major=node.head_major)
    kernel = c.systems.kernel(node, steps)
    kernel[..., 0] += system.D
    response = lower_toeplitz(kernel).transpose(1, 0, 2, 3).reshape(channels, outputs * steps, steps)
    u = b.reshape(columns, [c.batch, channels, steps, 1], "u")
    if isinstance(system, Modes) and not len(system.U):
        y = _modes(c, u, system, response)
    else:
        matrices = real_matrices(system) if isinstance(system, Modes) else system
        y = _matrices(c, u, matrices, response)
    return c.from_channels(y, channels, outputs, head_major=node.head_major)


def _joined(c: Context, state: str, n: int, u: str, groups: int) -> str:
    """(x, u) as one column. Everything but the final sum reads the old state here, so that the sum depends on it."""
    column = c.b.reshape(state, [c.batch, groups, n, 1], "x")
    return c.b.op("Concat", column, u, what="x_u", axis=2)


def _modes(c: Context, u: str, modes: Modes, response: Array) -> str:
    b, steps = c.b, c.samples
    modes, _ = fold_input(modes)
    layout = REALS if modes.real else c.layout
    groups, n = modes.a1.shape
    power = powers(modes.a1, steps + 1)
    state = b.state(layout.shape(c.batch, groups, n))
    rows = (modes.C[..., None] * power[None, ..., 1:]).conj().transpose(1, 0, 3, 2).reshape(groups, -1, n)
    rows = layout.flat(rows)
    joined = _joined(c, state.input, rows.shape[-1], u, groups)
    u = b.slice(joined, 2, rows.shape[-1], rows.shape[-1] + steps, "u")
    columns = (modes.B[..., None] * power[..., steps - 1 :: -1]).transpose(2, 0, 1)
    terms = [*layout.rotate(b, state.input, power[..., steps] - 1.0), layout.spread(b, columns, u, c.batch)]
    advance(b, state, terms)
    return b.op("MatMul", b.weight(np.concatenate([rows, response], -1), "C_A_K"), joined, what="y")


def _matrices(c: Context, u: str, system: Matrices, response: Array) -> str:
    b, steps = c.b, c.samples
    groups, n = system.B.shape
    A = np.eye(n) + system.A1
    power, rows, columns = np.broadcast_to(np.eye(n), A.shape), [], []
    for _ in range(steps):
        columns.append(np.einsum("gij,gj->gi", power, system.B))
        power = A @ power
        rows.append(np.einsum("mgi,gij->gmj", system.C, power))
    state = b.state((c.batch, groups, n, 1), system.x0)
    joined = _joined(c, state.input, n, u, groups)
    forward = np.concatenate([power - np.eye(n), np.stack(columns[::-1], -1)], -1)
    advance(b, state, [b.op("MatMul", b.weight(forward, "A_B"), joined, what="A_x_B_u")])
    observed = np.stack(rows, 2).reshape(groups, -1, n)
    return b.op("MatMul", b.weight(np.concatenate([observed, response], -1), "C_A_K"), joined, what="y")


def mimo(c: Context, x: str, node: DiagonalMimo) -> str:
    """`DiagonalMimo`: the modes' inputs by one product, each mode's chunk by another, the outputs by a third."""
    refuse_reverse(node)
    b, steps = c.b, c.samples
    a1, B, C = c.systems.mimo(node)
    n = len(a1)
    power = powers(a1, steps + 1)
    both = np.concatenate([B.real, B.imag])
    driven = b.op("MatMul", x, b.weight(both.T, "B"), what="B_u")
    driven = b.reshape(driven, [c.batch, steps, 2, n], "B_u_modes")
    driven = b.op("Transpose", driven, what="B_u_by_mode", perm=[0, 3, 2, 1])
    driven = b.reshape(driven, [c.batch, n, 2 * steps, 1], "B_u_column")

    def real(z: Array) -> Array:
        return np.concatenate([np.concatenate([z.real, -z.imag], -1), np.concatenate([z.imag, z.real], -1)], -2)

    start = None if node.x0 is None else np.stack([node.x0.real, node.x0.imag], -1)
    state = b.state((c.batch, n, 2, 1), start)
    free = b.op("MatMul", b.weight(real(power[:, 1:, None]), "A"), state.input, what="A_x")
    forced = b.op("MatMul", b.weight(real(lower_toeplitz(power[:, :steps])), "L"), driven, what="L_u")
    modes = b.reshape(b.op("Add", free, forced, what="x"), [c.batch, n, 2, steps], "x_modes")
    b.slice(modes, 3, steps - 1, steps, "x_end", out=state.output)
    by_sample = b.op("Transpose", modes, what="x_by_sample", perm=[0, 3, 2, 1])
    by_sample = b.reshape(by_sample, [c.batch, steps, 2 * n], "x_row")
    return _read(c, by_sample, C, x, node.D)


def _read(c: Context, rows: str, C: Array, x: str, D: Array | None) -> str:
    """Re(C x) + D u of rows of real parts, then imaginary ones."""
    b = c.b
    y = b.op("MatMul", rows, b.weight(np.concatenate([C.real, -C.imag], -1).T, "C"), what="C_x")
    if D is None or not D.any():
        return y
    return b.op("Add", y, b.op("Mul", x, b.weight(D, "D"), what="D_u"), what="y")


def linoss(c: Context, x: str, node: Linoss) -> str:
    """`Linoss`: each oscillator's chunk by one product with its state and its forces.

    Real and imaginary parts are two columns of it, for an oscillator is real.
    """
    b, steps = c.b, c.samples
    system = c.systems.oscillators(node)
    n = len(system.sign)
    driven = b.op("MatMul", x, b.weight(np.concatenate([system.B.real, system.B.imag]).T, "B"), what="B_u")
    driven = b.reshape(driven, [c.batch, steps, 2, n], "B_u_parts")
    driven = b.op("Transpose", driven, what="B_u_by_oscillator", perm=[0, 3, 1, 2])
    state = b.state((c.batch, n, 2, 2))
    joined = b.op("Concat", state.input, driven, what="w_x_B_u", axis=2)
    positions, end = _responses(system, steps)
    moves = end - np.eye(2, 2 + steps)
    advance(b, state, [b.op("MatMul", b.weight(moves, "A_end"), joined, what="w_x_moves")])
    rows = b.op("MatMul", b.weight(positions, "A"), joined, what="positions")
    rows = b.op("Transpose", rows, what="positions_by_sample", perm=[0, 2, 3, 1])
    return _read(c, b.reshape(rows, [c.batch, steps, 2 * n], "x_row"), system.C, x, node.D)


def _responses(system: Oscillators, steps: int) -> tuple[Array, Array]:
    """The positions (P, T, 2 + T) at T samples and the state (P, 2, 2 + T) after them.

    For 1 each of w and x before them, and of the force at each sample.
    """
    w, x, *forces = np.moveaxis(np.broadcast_to(np.eye(2 + steps), (len(system.sign), 2 + steps, 2 + steps)), 1, 0)
    sign, drag, spring = (numbers[:, None] for numbers in (system.sign, system.drag, system.spring))
    positions = []
    for force in forces:
        w = sign * (w + drag * w) + (spring * x + force)
        x = sign * x + w
        positions.append(x)
    return np.stack(positions, 1), np.stack([w, x], 1)
