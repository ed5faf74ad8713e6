"""State-space layers, one sample a call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import DiagonalMimo, Linoss, Selective, Ssd, StateSpace
from ..errors import ExportError
from .context import Context
from .functions import softplus
from .layout import REALS, advance
from .systems import Matrices, Modes, fold_input
from .windowed import fir

Array = NDArray[Any]


def refuse_reverse(node: StateSpace | DiagonalMimo) -> None:
    """Refuse a layer that needs the future."""
    if node.C_reverse is not None:
        raise ExportError(
            f"layer {node.name!r} is bidirectional: each output needs the whole sequence, so it cannot stream;"
            " export a model trained with bidirectional=False"
        )


def skip(c: Context, y: str, x: str, D: Array, *, head_major: bool) -> str:
    """Y + D u with D (M, H) and ``y`` in a step graph; one input channel may feed several outputs."""
    b = c.b
    if not D.any():
        return y
    outputs, channels = D.shape
    if outputs == 1:
        scaled = x if (D == 1.0).all() else b.op("Mul", x, b.weight(D[0], "D"), what="D_u")
    elif head_major:
        column = b.reshape(x, [c.batch, channels, 1], "column")
        scaled = b.reshape(b.op("Mul", column, b.weight(D.T, "D"), what="D_u"), [c.batch, channels * outputs], "row")
    else:
        row = b.reshape(x, [c.batch, 1, channels], "row")
        scaled = b.reshape(b.op("Mul", row, b.weight(D, "D"), what="D_u"), [c.batch, channels * outputs], "row")
    return b.op("Add", y, scaled, what="y")


def state_space(c: Context, x: str, node: StateSpace) -> str:
    """`Diagonal`, `Dplr`, `Dense`."""
    refuse_reverse(node)
    system, cut = c.systems.of(node), c.systems.cut(node)
    outputs, channels = system.D.shape
    if cut is not None:
        y = fir(c, c.by_channel(x, channels), c.systems.kernel(node, cut))
    elif isinstance(system, Modes):
        y = _modes(c, x, system)
    else:
        y = _matrices(c, x, system)
    y = c.from_channels(y, channels, outputs, head_major=node.head_major)
    return skip(c, y, x, system.D, head_major=node.head_major)


def _modes(c: Context, x: str, modes: Modes) -> str:
    b = c.b
    modes, folded = fold_input(modes)
    groups, n = modes.a1.shape
    layout = REALS if modes.real else c.layout
    state = b.state(layout.shape(c.batch, groups, n))
    terms = layout.rotate(b, state.input, modes.a1)
    u = b.reshape(x, layout.broadcast(c.batch, groups), "u")
    if len(modes.U):
        w = layout.project(b, state.input, modes.V, c.batch, "V")
        terms.append(layout.spread(b, modes.U, w, c.batch))
    if folded:
        terms.append(u)
    else:
        columns = b.weight(layout.flat(modes.B).reshape(layout.shape(1, groups, n)[1:]), "B")
        terms.append(b.op("Mul", columns, u, what="B_u"))
    return layout.project(b, advance(b, state, terms), modes.C, c.batch, "C")


def _matrices(c: Context, x: str, system: Matrices) -> str:
    b = c.b
    groups, n = system.B.shape
    state = b.state((c.batch, groups, n, 1), system.x0)
    u = b.reshape(x, [c.batch, groups, 1, 1], "u")
    driven = b.op("Mul", b.weight(system.B[..., None], "B"), u, what="B_u")
    moved = b.op("MatMul", b.weight(system.A1, "A"), state.input, what="A_x")
    new = advance(b, state, [moved, driven])
    return b.op("MatMul", b.weight(system.C.transpose(1, 0, 2), "C"), new, what="C_x")


def mimo(c: Context, x: str, node: DiagonalMimo) -> str:
    """`DiagonalMimo`."""
    refuse_reverse(node)
    b = c.b
    a1, B, C = c.systems.mimo(node)
    n = len(a1)
    state = b.state(c.layout.shape(c.batch, 1, n), None if node.x0 is None else c.layout.flat(node.x0))
    flat_b = b.weight(c.layout.flat(B.T).T, "B")
    driven = b.op("Gemm", x, flat_b, what="B_u", transB=1)
    terms = [*c.layout.rotate(b, state.input, a1[None]), b.reshape(driven, state.shape, "B_u_state")]
    new = b.reshape(advance(b, state, terms), [c.batch, 2 * n], "x")
    y = b.op("Gemm", new, b.weight(c.layout.flat(C.conj()), "C"), what="C_x", transB=1)
    if node.D is None:
        return y
    return skip(c, y, x, node.D[None], head_major=False)


def linoss(c: Context, x: str, node: Linoss) -> str:
    """`Linoss`: the real parts of all oscillators, then the imaginary ones."""
    b = c.b
    system = c.systems.oscillators(node)
    w, position = (b.state((c.batch, 2 * len(system.sign))) for _ in range(2))

    def times(state: str, factors: Array, name: str, what: str) -> str:
        if (factors == 1.0).all():
            return state
        return b.op("Mul", state, b.weight(np.tile(factors, 2), name), what=what)

    force = b.op("Gemm", x, b.weight(np.concatenate([system.B.real, system.B.imag]), "B"), what="B_u", transB=1)
    drag = times(w.input, system.sign * system.drag, "drag", "drag_w")
    spring = times(position.input, system.spring, "spring", "spring_x")
    moved = b.op("Sum", times(w.input, system.sign, "sign", "sign_w"), drag, spring, force, out=w.output)
    new = b.op("Sum", times(position.input, system.sign, "sign", "sign_x"), moved, out=position.output)
    y = b.op("Gemm", new, b.weight(np.concatenate([system.C.real, -system.C.imag], -1), "C"), what="C_x", transB=1)
    return y if node.D is None else skip(c, y, x, node.D[None], head_major=False)


def _refuse_chunks(c: Context, node: Selective | Ssd) -> None:
    if c.chunk is not None:
        raise ExportError(
            f"layer {node.name!r} chooses its dynamics from every sample, so it has no precomputed chunk products;"
            ' export with mode="step"'
        )


def _rms(c: Context, x: str, weight: Array | None, eps: float, what: str) -> str:
    b = c.b
    power = b.mean(b.op("Mul", x, x, what=f"{what}_squares"), f"{what}_power")
    root = b.op("Sqrt", b.op("Add", power, b.scalar(eps), what=f"{what}_power_eps"), what=f"{what}_root")
    x = b.op("Div", x, root, what=f"{what}_normalised")
    return x if weight is None else b.op("Mul", x, b.weight(weight, f"{what}_norm"), what=f"{what}_weighted")


def selective(c: Context, x: str, node: Selective) -> str:
    """`Selective`: dt, B and C come from the sample itself."""
    _refuse_chunks(c, node)
    b = c.b
    channels, n = node.A.shape
    rank = node.dt_proj.shape[1]
    projected = b.op("Gemm", x, b.weight(node.x_proj, "x_proj"), what="dt_B_C", transB=1)
    r, columns, rows = b.split(projected, [rank, n, n], ["r", "B", "C"])
    if node.norm_eps is not None:
        r = _rms(c, r, node.dt_norm, node.norm_eps, "dt")
        columns = _rms(c, columns, node.B_norm, node.norm_eps, "B")
        rows = _rms(c, rows, node.C_norm, node.norm_eps, "C")
    dt = b.op("Gemm", r, b.weight(node.dt_proj, "dt_proj"), b.weight(node.dt_bias, "dt_bias"), what="dt_in", transB=1)
    dt = softplus(b, dt)
    if c.rate != 1.0:
        dt = b.op("Mul", dt, b.scalar(c.rate), what="dt_rate")
    state = b.state((c.batch, channels, n), node.x0)
    dt_column = b.reshape(dt, [c.batch, channels, 1], "dt_column")
    decay = b.op("Exp", b.op("Mul", dt_column, b.weight(node.A, "A"), what="A_dt"), what="A_bar")
    dt_u = b.reshape(b.op("Mul", dt, x, what="dt_u"), [c.batch, channels, 1], "dt_u_column")
    driven = b.op("Mul", dt_u, b.reshape(columns, [c.batch, 1, n], "B_row"), what="B_u")
    kept = b.op("Mul", decay, state.input, what="A_x")
    new = b.op("Add", kept, driven, out=state.output)
    y = b.op("MatMul", new, b.reshape(rows, [c.batch, n, 1], "C_column"), what="C_x")
    y = b.reshape(y, [c.batch, channels], "row")
    return skip(c, y, x, np.asarray(node.D)[None], head_major=False)


def _held(c: Context, dt: str, A: Array) -> str:
    """(exp(dt A) - 1) / A without cancellation: with t = tanh(dt A / 2) it is 2 t / (1 - t) / A."""
    b = c.b
    # In place of zero a number so near that the limit, dt, is what comes out.
    A = np.minimum(A, -1e-20)
    t = b.op("Tanh", b.op("Mul", dt, b.weight(A / 2, "A_half"), what="A_dt_half"), what="tanh")
    risen = b.op("Div", t, b.op("Sub", b.scalar(1.0), t, what="one_less"), what="risen")
    return b.op("Mul", risen, b.weight(2 / A, "A_inverse"), what="dt_held")


def ssd(c: Context, xbc: str, dt: str, node: Ssd) -> str:
    """`Ssd` of x|B|C (batch, d + 2 G N) and dt (batch, heads): both come from the sample itself."""
    _refuse_chunks(c, node)
    b = c.b
    heads, channels, n = len(node.A), len(node.D), node.d_state
    shared = node.groups * n
    x, columns, rows = b.split(xbc, [channels, shared, shared], ["x", "B", "C"])
    dt = softplus(b, b.op("Add", dt, b.weight(node.dt_bias, "dt_bias"), what="dt_in"))
    if node.dt_min > 0:
        dt = b.op("Max", dt, b.scalar(node.dt_min), what="dt_least")
    if node.dt_max is not None:
        dt = b.op("Min", dt, b.scalar(node.dt_max), what="dt_most")
    if c.rate != 1.0:
        dt = b.op("Mul", dt, b.scalar(c.rate), what="dt_rate")
    decay = b.op("Exp", b.op("Mul", dt, b.weight(node.A, "A"), what="A_dt"), what="A_bar")

    def by_head(shared: str, shape: list[int], what: str) -> str:
        if node.groups > 1:
            each = b.reshape(shared, [c.batch, node.groups, n], f"{what}_groups")
            groups = b.ints([head * node.groups // heads for head in range(heads)], "groups")
            shared = b.op("Gather", each, groups, what=f"{what}_heads", axis=1)
        return b.reshape(shared, shape, f"{what}_by_head")

    one = 1 if node.groups == 1 else heads
    state = b.state((c.batch, heads, channels // heads, n), node.x0)
    by_channel = b.reshape(x, [c.batch, heads, channels // heads, 1], "x_column")
    step = dt if node.disc == "euler" else _held(c, dt, np.asarray(node.A))
    driven = b.op("Mul", by_channel, b.reshape(step, [c.batch, heads, 1, 1], "dt_by_head"), what="dt_x")
    driven = b.op("Mul", driven, by_head(columns, [c.batch, one, 1, n], "B"), what="B_u")
    kept = b.op("Mul", b.reshape(decay, [c.batch, heads, 1, 1], "A_bar_by_head"), state.input, what="A_x")
    new = b.op("Add", kept, driven, out=state.output)
    y = b.op("MatMul", new, by_head(rows, [c.batch, one, n, 1], "C"), what="C_x")
    return skip(c, b.reshape(y, [c.batch, channels], "row"), x, np.asarray(node.D)[None], head_major=False)
