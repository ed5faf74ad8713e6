"""State-space layers, one sample a call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import DiagonalMimo, Selective, StateSpace
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
    state = b.state((c.batch, groups, n, 1))
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
    state = b.state(c.layout.shape(c.batch, 1, n))
    flat_b = b.weight(c.layout.flat(B.T).T, "B")
    driven = b.op("Gemm", x, flat_b, what="B_u", transB=1)
    terms = [*c.layout.rotate(b, state.input, a1[None]), b.reshape(driven, state.shape, "B_u_state")]
    new = b.reshape(advance(b, state, terms), [c.batch, 2 * n], "x")
    y = b.op("Gemm", new, b.weight(c.layout.flat(C.conj()), "C"), what="C_x", transB=1)
    if node.D is None:
        return y
    return skip(c, y, x, node.D[None], head_major=False)


def selective(c: Context, x: str, node: Selective) -> str:
    """`Selective`: dt, B and C come from the sample itself."""
    if c.chunk is not None:
        raise ExportError(
            f"layer {node.name!r} chooses its dynamics from every sample, so it has no precomputed chunk products;"
            ' export with mode="step"'
        )
    b = c.b
    channels, n = node.A.shape
    rank = node.dt_proj.shape[1]
    projected = b.op("Gemm", x, b.weight(node.x_proj, "x_proj"), what="dt_B_C", transB=1)
    r, columns, rows = b.split(projected, [rank, n, n], ["r", "B", "C"])
    dt = b.op("Gemm", r, b.weight(node.dt_proj, "dt_proj"), b.weight(node.dt_bias, "dt_bias"), what="dt_in", transB=1)
    dt = softplus(b, dt)
    if c.rate != 1.0:
        dt = b.op("Mul", dt, b.scalar(c.rate), what="dt_rate")
    state = b.state((c.batch, channels, n))
    dt_column = b.reshape(dt, [c.batch, channels, 1], "dt_column")
    decay = b.op("Exp", b.op("Mul", dt_column, b.weight(node.A, "A"), what="A_dt"), what="A_bar")
    dt_u = b.reshape(b.op("Mul", dt, x, what="dt_u"), [c.batch, channels, 1], "dt_u_column")
    driven = b.op("Mul", dt_u, b.reshape(columns, [c.batch, 1, n], "B_row"), what="B_u")
    kept = b.op("Mul", decay, state.input, what="A_x")
    new = b.op("Add", kept, driven, out=state.output)
    y = b.op("MatMul", new, b.reshape(rows, [c.batch, n, 1], "C_column"), what="C_x")
    y = b.reshape(y, [c.batch, channels], "row")
    return skip(c, y, x, np.asarray(node.D)[None], head_major=False)
