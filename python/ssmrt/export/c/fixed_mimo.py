"""S5 and LRU in fixed point: the product with B drives modes of 32 bits, whose upper halves the product with C reads.

Each state has a scale of its own, which B's rows bring it to and C's columns take it from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...document import DiagonalMimo
from ...errors import ExportError
from ..state_space import refuse_reverse
from .bounds import HEADROOM_OF_STATES, bits_over

if TYPE_CHECKING:
    from .fixed import Lowering, Signal

Array = NDArray[Any]

_MOST_SHIFT = 20


def mimo(lowering: Lowering, x: Signal, node: DiagonalMimo, function: str) -> Signal:
    """``function`` of y = Re(C x) + D u, x' = x + a x + B u."""
    p = lowering.p
    refuse_reverse(node)
    if node.x0 is not None:
        raise ExportError(
            f"layer {p.layer!r}: an initial state has no fixed-point C; leave out x0, or export with quantize=None"
        )
    a, B, C = p.systems.mimo(node)
    slowest = int(np.argmax(np.abs(1 + a)))
    if abs(1 + a[slowest]) >= 1:
        raise ExportError(f"layer {p.layer!r}: mode {slowest} never forgets, which no fixed point can hold")
    rows = np.stack([B.real, B.imag], 1)
    states = _states(a, B, x.seen)
    scale = 2.0**30 / _bounds(a, rows, states, 2.0 ** (15 - x.exponent))
    drive = rows.reshape(-1, rows.shape[-1])
    finest = lowering.scales(drive, np.zeros(len(drive)), x)
    coarse = bits_over(np.abs(drive).sum(1) * 2.0**15 * finest)
    # Sums are shifted down, never up.
    scale = np.minimum(scale, (finest * 2.0 ** (x.exponent + 13 - coarse)).reshape(-1, 2).min(1))
    pointers, _ = lowering.rows(drive, None, x, np.repeat(np.log2(scale), 2), coarse=coarse)
    e = np.clip(np.floor(2 - np.log2(np.maximum(np.abs(a), 1e-9))), 0, _MOST_SHIFT).astype(int)
    moves = np.clip(np.rint(np.stack([a.real, a.imag], -1) * 2.0 ** (13 + e)[:, None]), -32768, 32767)
    tables = f"{p.table('int16_t', moves)}, {p.table('uint8_t', e)}, {p.state(2 * len(a))}"
    lowering.support("held")
    text = f"""\
/* v = B u, x' = x + a x + v, a in units of 2^-(13 + e); z are the upper halves of x. */
static void driven_modes({lowering.parameters}, const int16_t *a, const uint8_t *e, int32_t *s, const int16_t *u, \
int16_t *z, int modes, int columns)
{{
    const int across = columns + columns % 2;
    for (; modes > 0; modes--) {{
        int32_t sums[2] = {{bias[0], bias[1]}};
        dots(w, w + across, u, columns, sums);
        const int32_t re = s[0] >> 16, im = s[1] >> 16;
        const int32_t moved[2] = {{re * a[0] - im * a[1], re * a[1] + im * a[0]}};
        for (int i = 0; i < 2; i++) {{
            const uint32_t v = (uint32_t)scaled_by(sums[i], k, coarse);
            *s = held((int32_t)((uint32_t)*s + (uint32_t)(moved[i] >> *e) * 8u + v));
            *z++ = (int16_t)(*s++ >> 16);
            k += 2;
        }}
        w += 2 * across;
        bias += 2;
        a += 2;
        e++;
    }}
}}
"""
    name = p.kernel("driven_modes", text)
    # Slow states' means are what chance made of the data: C is rounded for states about zero.
    upper = np.stack([states.real, states.imag], -1) * scale[:, None] / 2**16
    z = lowering.signal(np.concatenate([upper, -upper]))
    p.call(f"{name}({pointers}, {tables}, {x.value.base}, {z.value.base}, {len(a)}, {B.shape[1]});")
    p.costs.multiply_adds += 2 * len(a) * (B.shape[1] + 2)
    weight = np.stack([C.real, -C.imag], -1) / scale[:, None] * 2**16
    D = np.zeros(len(C)) if node.D is None else np.asarray(node.D, np.float64)
    direct = D if D.any() else None
    exact = (states @ C.T).real + D * (0.0 if direct is None else x.seen)
    y = lowering.linear(
        z, exact, weight.reshape(len(C), -1), None, function, None, None if direct is None else (direct, x)
    )
    p.free(z.value)
    return y


def _states(a: Array, B: Array, u: Array) -> Array:
    """Those that u (samples, d_in) makes, (samples, modes)."""
    x = u @ B.T
    for t in range(1, len(x)):
        x[t] += x[t - 1] + a * x[t - 1]
    return x


def _bounds(a: Array, rows: Array, states: Array, most: float) -> Array:
    """What each mode's states stay below: all that inputs up to ``most`` can do, or the headroom over what they did.

    A sample's part alone leaves room for what it is added to.
    """
    sample = np.abs(rows).sum(-1).max(1) * most
    reach = np.hypot(*np.moveaxis(np.abs(rows).sum(-1), 1, 0)) * most / (1 - np.abs(1 + a))
    seen = np.maximum(np.abs(states.real), np.abs(states.imag)).max(0)
    return np.asarray(np.maximum(np.minimum(reach, HEADROOM_OF_STATES * np.maximum(seen, 1e-9)), 2 * sample))
