"""Layers that remember samples rather than modes: delay lines and pooling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...document import Conv1d, Pool
from .program import Out, Program, Value

Array = NDArray[Any]


def fir(
    p: Program, x: Value, out: Out, kernel: Array, bias: Array, strides: tuple[int, int], past: Array | None = None
) -> None:
    """Causal convolution of every channel with ``kernel`` (M, H, K), plus ``bias`` (M, H), after ``past`` (H, K - 1).

    Output m of channel c is at c * strides[0] + m * strides[1].
    """
    outputs, channels, taps = kernel.shape
    newest, older = kernel[..., :1], kernel[..., :0:-1]
    table = np.concatenate([bias[..., None], newest, older], -1).swapaxes(0, 1)
    several = "" if outputs == 1 else "_outputs"
    more = "" if outputs == 1 else f", {outputs}, {strides[0]}, {strides[1]}"
    text = f"""\
/* Causal convolution; s has each channel's samples before this one, the oldest first. */
static void convolve{several}{out.suffix}(const float *RESTRICT k, float *s, const float *x, float *y, int channels, \
int delay{"" if outputs == 1 else ", int outputs, int across, int along"})
{{
    for (; channels > 0; channels--) {{
        const float newest = *x++;
        {_taps(out, outputs)}
        for (int i = 1; i < delay; i++)
            s[i - 1] = s[i];
        if (delay > 0)
            s[delay - 1] = newest;
        s += delay;
    }}
}}
"""
    name = p.kernel(f"convolve{several}{out.suffix}", text)
    p.costs.multiply_adds += outputs * channels * taps
    # Of one tap there is nothing to remember.
    state = p.state(channels * (taps - 1), past) if taps > 1 else "NULL"
    p.call(f"{name}({p.constants(table)}, {state}, {x.pointer}, {out.value.pointer}, {channels}, {taps - 1}{more});")


def _taps(out: Out, outputs: int) -> str:
    if outputs == 1:
        return f"""\
float a = k[0] + k[1] * newest;
        k += 2;
        for (int i = 0; i < delay; i++)
            a += *k++ * s[i];
        {out("*y++", "a")}"""
    return f"""\
for (int m = 0; m < outputs; m++) {{
            float a = k[0] + k[1] * newest;
            k += 2;
            for (int i = 0; i < delay; i++)
                a += *k++ * s[i];
            {out("y[m * along]", "a")}
        }}
        y += across;"""


def conv1d(p: Program, x: Value, out: Out, node: Conv1d) -> None:
    """`Conv1d`."""
    weight = np.asarray(node.weight, np.float64)[None, :, ::-1]
    bias = np.zeros(weight.shape[1]) if node.bias is None else np.asarray(node.bias, np.float64)
    fir(p, x, out, weight, bias[None], (1, weight.shape[1]), node.x0)


_RUNNING = """\
/* The running {mode} by Kahan's summation: s has the number of samples, then of each channel {mode} and error. */
static void pool_{mode}{suffix}(float *s, const float *x, float *y, int channels)
{{
{count}    for (; channels > 0; channels--) {{
        const float move = {move} - s[1], now = s[0] + move;
        s[1] = (now - s[0]) - move;
        s[0] = now;
        s += 2;
        {store}
    }}
}}
"""
# A mean goes on as a weighted one when its count, which float32 holds exactly up to 2^24, stops growing.
_COUNT = """\
    const float count = s[0] + 1.0f, share = 1.0f / count;
    *s++ = count;
"""
_FIRST = """\
/* The first sample, kept: s[0] is 1 once it has come. */
static void pool_first{suffix}(float *s, const float *x, float *y, int channels)
{{
    const int seen = s[0] > 0.5f;
    *s++ = 1.0f;
    for (int i = 0; i < channels; i++) {{
        if (!seen)
            s[i] = x[i];
        {store}
    }}
}}
"""


def pool(p: Program, x: Value, out: Out, node: Pool) -> None:
    """`Pool` of mode mean, sum or first, answering at every sample as if the sequence ended there."""
    mean = node.mode == "mean"
    if node.mode == "first":
        text = _FIRST.format(suffix=out.suffix, store=out("y[i]", "s[i]"))
        state = p.state(1 + x.width)
    else:
        move = "(*x++ - s[0]) * share" if mean else "*x++"
        text = _RUNNING.format(
            mode=node.mode, suffix=out.suffix, move=move, count=_COUNT if mean else "", store=out("*y++", "now")
        )
        text = text if mean else text.replace("the number of samples, then of each channel", "of each channel")
        state = p.state(2 * x.width + mean)
        p.costs.other += 5 * x.width
    name = p.kernel(f"pool_{node.mode}{out.suffix}", text)
    p.call(f"{name}({state}, {x.pointer}, {out.value.pointer}, {x.width});")
