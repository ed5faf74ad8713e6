"""C of fixed point: rounding, saturation, functions by tables, and a mode."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# By name, in the order in which they call each other.
SUPPORT = {
    "saturate": """\
static inline int32_t saturate(int32_t v)
{
#ifdef SATURATES
    __asm__("ssat %0, #16, %1" : "=r"(v) : "r"(v));
    return v;
#else
    return v > 32767 ? 32767 : v < -32768 ? -32768 : v;
#endif
}
""",
    "down": """\
/* v 2^-by, rounded. */
static inline int32_t down(int32_t v, int by)
{
    return by > 0 ? (v + ((int32_t)1 << (by - 1))) >> by : (int32_t)((uint32_t)v << -by);
}
""",
    "low": """\
/* What is in the low half. */
static inline int32_t low(int32_t v)
{
    return (int16_t)(v & 0xffff);
}
""",
    "held": """\
/* A state, within 31 bits, so that sums of two have room. */
static inline int32_t held(int32_t v)
{
#ifdef SATURATES
    __asm__("ssat %0, #31, %1" : "=r"(v) : "r"(v));
    return v;
#else
    return v > 0x3fffffff ? 0x3fffffff : v < -0x40000000 ? -0x40000000 : v;
#endif
}
""",
    "look": """\
/* A table of 256 steps for v of 0 .. 32767, with what lies between two of them. */
static inline int32_t look(const int16_t *table, int32_t v)
{
    const int32_t at = v >> 7, left = table[at];
    return left + (((table[at + 1] - left) * (v & 127) + 64) >> 7);
}
""",
    "root": """\
/* The square root of 2^30 .. 2^32 - 1, rounded down. */
static uint32_t root(uint32_t v)
{
    uint32_t found = 0u;
    for (uint32_t bit = (uint32_t)1 << 30; bit > 0u; bit >>= 2) {
        const uint32_t tried = found + bit;
        found >>= 1;
        if (v >= tried) {
            v -= tried;
            found += bit;
        }
    }
    return found;
}
""",
    "scaled_by": """\
/* v times a row's factor: k[0] 2^-k[1], k[0] of 13 bits. */
static inline int32_t scaled_by(int32_t v, const int16_t *k)
{
    return down(down(v, 13) * k[0], k[1]);
}
""",
}

# What runs over a signal v: its exponent there, and a table over |v|, in 15 bits, that makes the function of
# max(v, 0) + table ("even"), sign(v) table ("odd") or, below zero, the table and above 1 - table ("gate").
TABLED: dict[str, tuple[str, int, Callable[[Array], Array]]] = {
    "gelu": ("even", 12, lambda t: -0.5 * t * np.vectorize(math.erfc)(t / math.sqrt(2.0))),
    "gelu_tanh": ("even", 12, lambda t: -t / (1 + np.exp(2 * math.sqrt(2 / math.pi) * (t + 0.044715 * t**3)))),
    "silu": ("even", 11, lambda t: -t / (1 + np.exp(t))),
    "softplus": ("even", 11, lambda t: np.log1p(np.exp(-t))),
    "sigmoid": ("gate", 11, lambda t: 1 / (1 + np.exp(t))),
    "tanh": ("odd", 12, np.tanh),
}
COMBINED = {
    "even": "down(v > 0 ? v : 0, {own} - exponent) + down(part, 15 - exponent)",
    "odd": "down(v < 0 ? -part : part, 15 - exponent)",
    "gate": "down(v < 0 ? part : 32768 - part, 15 - exponent)",
}

_MODE = """\
/* A {kind} mode: its states s move by k[0] and e, and y gets what k[1] reads of them. */
static inline uint32_t {kind}(const int32_t *k, const uint8_t *e, int32_t *s, int32_t x, uint32_t y)
{{
#ifdef DSP
    const int32_t moved = __smusd(upper(s[0], s[1]), k[0]);
#else
    const int32_t moved = (s[0] >> 16) * low(k[0]) - (s[1] >> 16) * (k[0] >> 16);
#endif
    const int32_t t = held((int32_t)((uint32_t)x {sign} (uint32_t)s[0] + (uint32_t)(moved >> e[0]) * 8u));
    const int32_t v = held({move});
    s[0] = t;
    s[1] = v;
#ifdef DSP
    return (uint32_t)__smlad(upper(t, v), k[1], (int32_t)y);
#else
    return y + (uint32_t)((t >> 16) * low(k[1]) + (v >> 16) * (k[1] >> 16));
#endif
}}
"""
KINDS = {
    "plain": _MODE.format(kind="plain", sign="+", move="s[1] + (t >> e[1])"),
    "mirrored": _MODE.format(kind="mirrored", sign="-", move="(t >> e[1]) - s[1]"),
}


def by_pairs(kind: str) -> str:
    """C statements: the channel's modes of one kind, by two where there are registers for it."""
    return f"""\
#ifdef __ARM_ARCH_6M__
        for (int i = 2 * *n++; i > 0; i--) {{
            y = {kind}(k, e, s, x, y);
            s += 2;
            k += 2;
            e += 2;
        }}
#else
        for (int i = *n++; i > 0; i--) {{
            y = {kind}(k, e, s, x, y);
            y = {kind}(k + 2, e + 2, s + 2, x, y);
            s += 4;
            k += 4;
            e += 4;
        }}
#endif"""
