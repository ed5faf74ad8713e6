"""Element-wise functions of the Document in operators that every target knows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..document import Function
from ..errors import ExportError
from .builder import GraphBuilder

_DIRECT = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}


def gelu(b: GraphBuilder, x: str) -> str:
    """X Phi(x) = x/2 (1 + erf(x / sqrt 2))."""
    e = b.op("Erf", b.op("Mul", x, b.scalar(math.sqrt(0.5)), what="gelu_scaled"), what="gelu_erf")
    e = b.op("Add", e, b.scalar(1.0), what="gelu_phi")
    return b.op("Mul", b.op("Mul", x, e, what="gelu_x"), b.scalar(0.5), what="gelu")


def gelu_tanh(b: GraphBuilder, x: str) -> str:
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    root = math.sqrt(2.0 / math.pi)
    inner = b.op("Mul", b.op("Mul", x, x, what="gelu_square"), b.scalar(0.044715 * root), what="gelu_cubic")
    inner = b.op("Mul", b.op("Add", inner, b.scalar(root), what="gelu_factor"), x, what="gelu_inner")
    e = b.op("Add", b.op("Tanh", inner, what="gelu_tanh"), b.scalar(1.0), what="gelu_phi")
    return b.op("Mul", b.op("Mul", x, e, what="gelu_x"), b.scalar(0.5), what="gelu")


def softplus(b: GraphBuilder, x: str) -> str:
    """max(x, 0) + log1p(exp(-|x|)).

    log1p(z) = 2 atanh(z / (2 + z)) keeps its digits for small z, where the operator Softplus rounds 1 + z first:
    a step size of 1e-3 would be off by 1e-4 of itself.
    """
    z = b.op("Exp", b.op("Neg", b.op("Abs", x, what="softplus_abs"), what="softplus_neg"), what="softplus_exp")
    ratio = b.op("Div", z, b.op("Add", z, b.scalar(2.0), what="softplus_below"), what="softplus_ratio")
    log1p = b.op("Mul", b.op("Atanh", ratio, what="softplus_atanh"), b.scalar(2.0), what="softplus_log")
    return b.op("Add", b.op("Relu", x, what="softplus_relu"), log1p, what="softplus")


def function(b: GraphBuilder, x: str, name: Function, shape: Sequence[int], size: int | None = None) -> str:
    """The function of that name; ``shape`` is the signal's, ``size`` the run that a softmax goes over."""
    if name == "identity":
        return x
    if name in _DIRECT:
        return b.op(_DIRECT[name], x, what=name)
    if name == "gelu":
        return gelu(b, x)
    if name == "gelu_tanh":
        return gelu_tanh(b, x)
    if name == "silu":
        return b.op("Mul", x, b.op("Sigmoid", x, what="silu_gate"), what="silu")
    if name == "softplus":
        return softplus(b, x)
    if name == "leaky_relu":
        return b.op("LeakyRelu", x, what="leaky_relu", alpha=0.01)
    if name == "elu":
        return b.op("Elu", x, what="elu", alpha=1.0)
    if name == "sqrelu":
        positive = b.op("Relu", x, what="relu")
        return b.op("Mul", positive, positive, what="sqrelu")
    if name in ("softmax", "log_softmax"):
        kind = "Softmax" if name == "softmax" else "LogSoftmax"
        if size is None or size == shape[-1]:
            return b.op(kind, x, what=name, axis=-1)
        if shape[-1] % size:
            raise ExportError(f"layer {b.layer!r}: {name} over runs of {size} does not fit {shape[-1]} channels")
        runs = b.reshape(x, [*shape[:-1], shape[-1] // size, size], "runs")
        return b.reshape(b.op(kind, runs, what=name, axis=-1), shape, "row")
    raise ExportError(f"layer {b.layer!r}: the function {name!r} has no operators")
