"""Layers whose input chooses their dynamics: Mamba and Mamba-2."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...document import Selective, Ssd
from . import mixing, pointwise
from .pointwise import literal
from .program import Out, Program, Value

Array = NDArray[Any]

# e^(dt A) - 1: a slow state keeps its digits.
_DECAY = "expm1_(most(dt * {}, -87.0f))"


def selective(p: Program, x: Value, out: Out, node: Selective) -> None:
    """`Selective`: dt, B and C come from the sample itself."""
    channels, n = node.A.shape
    rank = node.dt_proj.shape[1]
    chosen = p.buffer(rank + 2 * n)
    mixing.linear(p, x, Out(chosen), node.x_proj, None)
    if node.norm_eps is not None:
        at = 0
        for size, weight in ((rank, node.dt_norm), (n, node.B_norm), (n, node.C_norm)):
            pointwise.rms(
                p, replace(chosen, base=f"{chosen.base} + {at}", width=size, owned=False), weight, node.norm_eps
            )
            at += size
    columns = [node.dt_bias, node.dt_proj.T, node.D, node.A.T]
    table = np.concatenate([np.asarray(c, np.float64).reshape(-1, channels) for c in columns]).T
    text = f"""\
/* dt = softplus(dt_proj r + dt_bias) rate; h = e^(dt A) h + dt B x; y = C h + D x. chosen is r, B, C. */
static void selective{out.suffix}(const float *RESTRICT k, float *h, const float *chosen, const float *x, float *y, \
int channels, int modes, int rank, float rate)
{{
    const float *const B = chosen + rank, *const C = B + modes;
    for (; channels > 0; channels--) {{
        const float u = *x++;
        float dt = *k++;
        for (int i = 0; i < rank; i++)
            dt += *k++ * chosen[i];
        dt = softplus(dt) * rate;
        const float v = dt * u;
        float a = *k++ * u;
        for (int i = 0; i < modes; i++) {{
            h[i] += {_DECAY.format("k[i]")} * h[i] + v * B[i];
            a += C[i] * h[i];
        }}
        k += modes;
        h += modes;
        {out("*y++", "a")}
    }}
}}
"""
    name = p.kernel(f"selective{out.suffix}", text, "softplus", "expm1_", "most")
    p.costs.multiply_adds += channels * (rank + 4 * n + 3)
    p.costs.functions += channels * (n + 1)
    state = p.state(channels * n, node.x0)
    pointers = f"{p.constants(table)}, {state}, {chosen.pointer}, {x.pointer}, {out.value.pointer}"
    p.call(f"{name}({pointers}, {channels}, {n}, {rank}, {literal(p.rate)});")
    p.free(chosen)


def ssd(p: Program, xbc: Value, dt: Value, out: Out, node: Ssd) -> None:
    """`Ssd` of x|B|C and dt: both come from the sample itself."""
    heads, channels, n = len(node.A), len(node.D), node.d_state
    size = channels // heads
    table = np.concatenate(
        [
            np.asarray(node.dt_bias, np.float64)[:, None],
            # In the place of zero a number so near that the limit, dt, is what comes out.
            np.minimum(np.asarray(node.A, np.float64), -1e-20)[:, None],
            np.asarray(node.D, np.float64).reshape(heads, size),
        ],
        1,
    )
    hold, held, what = ("_hold", "decay / k[1]", "(e^(dt A) - 1) / A") if node.disc == "zoh" else ("", "dt", "dt")
    text = f"""\
/* Of each head dt = softplus(dt + bias), within bounds, times rate; h = e^(dt A) h + {what} x B'; y = h C + D x. */
static void ssd{hold}{out.suffix}(const float *RESTRICT k, float *h, const float *x, const float *B, const float *C, \
const float *dts, float *y, int groups, int heads, int channels, int modes, float least_dt, float most_dt, float rate)
{{
    for (; groups > 0; groups--) {{
        for (int head = 0; head < heads; head++) {{
            const float dt = most(least(softplus(*dts++ + k[0]), most_dt), least_dt) * rate;
            const float decay = {_DECAY.format("k[1]")}, held = {held};
            k += 2;
            for (int channel = 0; channel < channels; channel++) {{
                const float u = *x++, v = held * u;
                float a = *k++ * u;
                for (int i = 0; i < modes; i++) {{
                    h[i] += decay * h[i] + v * B[i];
                    a += C[i] * h[i];
                }}
                h += modes;
                {out("*y++", "a")}
            }}
        }}
        B += modes;
        C += modes;
    }}
}}
"""
    name = p.kernel(f"ssd{hold}{out.suffix}", text, "softplus", "expm1_", "most", "least")
    p.costs.multiply_adds += channels * (3 * n + 2)
    p.costs.functions += 2 * heads
    shared = node.groups * n
    columns, rows = (f"{xbc.pointer} + {channels + at}" for at in (0, shared))
    bounds = f"{literal(node.dt_min)}, {'FLT_MAX' if node.dt_max is None else literal(node.dt_max)}"
    pointers = f"{p.constants(table)}, {p.state(channels * n, node.x0)}, {xbc.pointer}, {columns}, {rows}, {dt.pointer}"
    sizes = f"{node.groups}, {heads // node.groups}, {size}, {n}"
    p.call(f"{name}({pointers}, {out.value.pointer}, {sizes}, {bounds}, {literal(p.rate)});")
