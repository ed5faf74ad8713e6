"""From the Document's tree to operators: one function a node kind."""

from __future__ import annotations

from ..document import (
    Activation,
    Conv1d,
    DiagonalMimo,
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
    StateSpace,
)
from ..errors import ExportError
from . import chunked, state_space
from .context import Context
from .functions import function
from .windowed import conv1d, pool


def lower(c: Context, x: str, width: int, node: Node) -> tuple[str, int]:
    """Append ``node`` on the signal ``x`` of ``width`` channels: the output's name and width."""
    with c.b.scope(node):
        return _lower(c, x, width, node)


def _lower(c: Context, x: str, width: int, node: Node) -> tuple[str, int]:
    if isinstance(node, Sequential):
        for child in node.children:
            x, width = lower(c, x, width, child)
        return x, width
    if isinstance(node, Residual):
        return _residual(c, x, width, node)
    if isinstance(node, Gate):
        left, size = lower(c, x, width, node.left)
        right, _ = lower(c, x, width, node.right)
        return c.b.op("Mul", left, right, what="gated"), size
    if isinstance(node, Embedding):
        return c.b.op("Gather", c.b.weight(node.weight, "table"), x, what="embedded", axis=0), node.weight.shape[1]
    if isinstance(node, Linear):
        return c.linear(x, node.weight, node.bias), len(node.weight)
    if isinstance(node, Norm):
        return _norm(c, x, width, node), width
    if isinstance(node, Activation):
        return function(c.b, x, node.function, c.signal(width), node.size), width
    if isinstance(node, Glu):
        return _glu(c, x, width, node), width // 2
    if isinstance(node, Conv1d):
        return conv1d(c, x, node), width
    if isinstance(node, Pool):
        return pool(c, x, node, width), width
    return _recurrent(c, x, width, node)


def _recurrent(c: Context, x: str, width: int, node: Node) -> tuple[str, int]:
    if isinstance(node, StateSpace):
        outputs, channels, _ = node.C.shape
        run = state_space.state_space if c.chunk is None else chunked.state_space
        return run(c, x, node), outputs * channels
    if isinstance(node, DiagonalMimo):
        run_mimo = state_space.mimo if c.chunk is None else chunked.mimo
        return run_mimo(c, x, node), len(node.C)
    if isinstance(node, Linoss):
        run_linoss = state_space.linoss if c.chunk is None else chunked.linoss
        return run_linoss(c, x, node), len(node.C)
    if isinstance(node, Selective):
        return state_space.selective(c, x, node), width
    if isinstance(node, Ssd):
        return _ssd(c, x, width, node)
    raise ExportError(f"layer {c.b.layer!r}: {type(node).__name__} has no operators")


def _ssd(c: Context, x: str, width: int, node: Ssd) -> tuple[str, int]:
    xbc, _ = lower(c, x, width, node.xBC)
    dt, _ = lower(c, x, width, node.dt)
    return state_space.ssd(c, xbc, dt, node), len(node.D)


def _residual(c: Context, x: str, width: int, node: Residual) -> tuple[str, int]:
    b = c.b
    skip, size = (x, width) if node.skip is None else lower(c, x, width, node.skip)
    y, _ = lower(c, x, width, node.child)
    if node.alpha != 1.0:
        skip = b.op("Mul", skip, b.scalar(node.alpha), what="skip_scaled")
    if not isinstance(node.beta, float | int):
        y = b.op("Mul", y, b.weight(node.beta, "beta"), what="branch_scaled")
    elif node.beta != 1.0:
        y = b.op("Mul", y, b.scalar(node.beta), what="branch_scaled")
    return b.op("Add", skip, y, what="sum"), size


def _glu(c: Context, x: str, width: int, node: Glu) -> str:
    half = width // 2
    value, gate = c.b.split(x, [half, half], ["value", "gate"])
    return c.b.op("Mul", value, function(c.b, gate, node.gate, c.signal(half)), what="y")


def _norm(c: Context, x: str, width: int, node: Norm) -> str:
    b = c.b
    if node.kind != "affine":
        if node.size is not None:
            x = b.reshape(x, [*c.signal(width)[:-1], width // node.size, node.size], "runs")
        centred = x
        if node.kind == "layer":
            centred = b.op("Sub", x, b.mean(x, "mean"), what="centred")
        # ONNX Runtime recognises a layer norm by Pow, and no code generator makes more of it than a product.
        variance = b.mean(b.op("Pow", centred, b.scalar(2.0), what="squares"), "variance")
        deviation = b.op("Sqrt", b.op("Add", variance, b.scalar(node.eps), what="variance_eps"), what="deviation")
        if node.kind == "layer" and node.shift != 0.0:
            centred = b.op("Add", centred, b.scalar(node.shift), what="shifted")
        x = b.op("Div", centred, deviation, what="normalised")
        if node.size is not None:
            x = b.reshape(x, c.signal(width), "row")
    if node.weight is not None:
        x = b.op("Mul", x, b.weight(node.weight, "weight"), what="weighted")
    if node.bias is not None:
        x = b.op("Add", x, b.weight(node.bias, "bias"), what="biased")
    return x
