"""Norms, functions, gates and sums."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...document import Function, Norm, Residual
from .functions import NAMES
from .program import Out, Program, Value

Array = NDArray[Any]


def norm(p: Program, x: Value, out: Out, node: Norm) -> None:
    """`Norm` of kind layer or rms."""
    _norm(p, x, out, node.kind, node.weight, node.bias, node.eps, node.shift, node.size)


def rms(p: Program, x: Value, weight: Array | None, eps: float) -> None:
    """An RMS norm in place."""
    _norm(p, x, Out(x), "rms", weight, None, eps, 0.0, None)


def _norm(
    p: Program,
    x: Value,
    out: Out,
    kind: str,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    shift: float,
    size: int | None,
) -> None:
    size = x.width if size is None else size
    scale = np.ones(x.width) if weight is None else np.asarray(weight, np.float64)
    add = np.zeros(x.width) if bias is None else np.asarray(bias, np.float64)
    layer = kind == "layer"
    mean = """\
        float mean = 0.0f;
        for (int i = 0; i < size; i++)
            mean += x[i];
        mean *= share;
"""
    moved = "x[i] - mean" if layer else "x[i]"
    text = f"""\
/* y = {"(x - mean + shift) / sqrt(variance + eps)" if layer else "x / sqrt(mean of x^2 + eps)"} * k[0] + k[1], \
over runs of size channels. */
static void {kind}_norm{out.suffix}(const float *RESTRICT k, const float *x, float *y, int runs, int size, \
float share, float eps{", float shift" if layer else ""})
{{
    for (; runs > 0; runs--) {{
{mean if layer else ""}        float power = 0.0f;
        for (int i = 0; i < size; i++) {{
            const float d = {moved};
            power += d * d;
        }}
        power = rsqrt(power * share + eps);
{"        mean -= shift;" + chr(10) if layer else ""}\
        for (int i = 0; i < size; i++) {{
            const pair p = two(k + 2 * i);
            {out("y[i]", f"({moved}) * power * p.of[0] + p.of[1]")}
        }}
        k += 2 * size;
        x += size;
        y += size;
    }}
}}
"""
    name = p.kernel(f"{kind}_norm{out.suffix}", text, "rsqrt", "two")
    p.costs.other += (5 if layer else 3) * x.width
    p.costs.multiply_adds += 2 * x.width
    p.costs.functions += x.width // size
    numbers = f"{x.width // size}, {size}, {literal(1.0 / size)}, {literal(eps)}"
    table = p.constants(np.stack([scale, add], -1))
    more = f", {literal(shift)}" if layer else ""
    p.call(f"{name}({table}, {x.pointer}, {out.value.pointer}, {numbers}{more});")


def literal(value: float) -> str:
    """The float32 literal."""
    text = str(np.float32(value))
    return text + ("f" if "." in text or "e" in text else ".0f")


def affine(p: Program, x: Value, out: Out, node: Norm) -> None:
    """Y = x weight + bias."""
    scale = np.ones(x.width) if node.weight is None else np.asarray(node.weight, np.float64)
    add = np.zeros(x.width) if node.bias is None else np.asarray(node.bias, np.float64)
    text = f"""\
static void affine{out.suffix}(const float *RESTRICT k, const float *x, float *y, int channels)
{{
    for (int i = 0; i < channels; i++) {{
        const pair p = two(k + 2 * i);
        {out("y[i]", "x[i] * p.of[0] + p.of[1]")}
    }}
}}
"""
    name = p.kernel(f"affine{out.suffix}", text, "two")
    p.costs.multiply_adds += x.width
    p.call(f"{name}({p.constants(np.stack([scale, add], -1))}, {x.pointer}, {out.value.pointer}, {x.width});")


def apply(p: Program, x: Value, out: Out, function: str = "identity") -> None:
    """Y = function(x), or a copy, a sum or a product where that is the identity.

    A loop of its own, in which a function's constants are loaded once.
    """
    plain = function == "identity"
    what = ("copy" if plain else f"apply_{function}") + out.suffix
    text = f"""\
static void {what}(const float *x, float *y, int channels)
{{
    for (int i = 0; i < channels; i++)
        {out("y[i]", "x[i]" if plain else f"{NAMES[function]}(x[i])")}
}}
"""
    name = p.kernel(what, text, function)
    p.costs.functions += 0 if plain else x.width
    p.costs.other += x.width
    if p.samples is not None and x.stride == out.value.stride == x.width:
        p.call_block(f"{name}({x.base}, {out.value.base}, {x.width * p.samples});")
    else:
        p.call(f"{name}({x.pointer}, {out.value.pointer}, {x.width});")


_SOFTMAX = """\
/* Over runs of size channels. */
static void {function}{suffix}(const float *x, float *y, int runs, int size)
{{
    for (; runs > 0; runs--) {{
        float peak = x[0], sum = 0.0f;
        for (int i = 1; i < size; i++)
            peak = most(x[i], peak);
        for (int i = 0; i < size; i++)
            sum += exp_(x[i] - peak);
        {total}
        for (int i = 0; i < size; i++)
            {store}
        x += size;
        y += size;
    }}
}}
"""


def softmax(p: Program, x: Value, out: Out, function: Function, size: int | None) -> None:
    """Softmax or log_softmax."""
    size = x.width if size is None else size
    plain = function == "softmax"
    text = _SOFTMAX.format(
        function=function,
        suffix=out.suffix,
        total="sum = 1.0f / sum;" if plain else "sum = peak + logf(sum);",
        store=out("y[i]", "exp_(x[i] - peak) * sum" if plain else "x[i] - sum"),
    )
    name = p.kernel(f"{function}{out.suffix}", text, "exp_", "most")
    p.costs.functions += x.width * (2 if plain else 1)
    p.costs.other += 4 * x.width
    p.call(f"{name}({x.pointer}, {out.value.pointer}, {x.width // size}, {size});")


def glu(p: Program, x: Value, out: Out, gate: Function) -> None:
    """The first half times ``gate`` of the second."""
    call = "x[i + half]" if gate == "identity" else f"{NAMES[gate]}(x[i + half])"
    text = f"""\
static void glu_{gate}{out.suffix}(const float *x, float *y, int half)
{{
    for (int i = 0; i < half; i++)
        {out("y[i]", f"x[i] * {call}")}
}}
"""
    name = p.kernel(f"glu_{gate}{out.suffix}", text, gate)
    p.costs.functions += x.width // 2
    p.costs.multiply_adds += x.width // 2
    p.call(f"{name}({x.pointer}, {out.value.pointer}, {x.width // 2});")


def weighted_sum(p: Program, skip: Value, x: Value, node: Residual) -> None:
    """Skip = alpha skip + beta x."""
    beta = np.broadcast_to(np.asarray(node.beta, np.float64), (x.width,))
    table = np.stack([np.full(x.width, node.alpha), beta], -1)
    text = """\
static void weighted_sum(const float *RESTRICT k, float *y, const float *x, int channels)
{
    for (int i = 0; i < channels; i++) {
        y[i] = k[0] * y[i] + k[1] * x[i];
        k += 2;
    }
}
"""
    name = p.kernel("weighted_sum", text)
    p.costs.multiply_adds += 2 * x.width
    p.call(f"{name}({p.constants(table)}, {skip.pointer}, {x.pointer}, {x.width});")
