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
/* v 2^-by, rounded; by >= 0. */
static inline int32_t down(int32_t v, int by)
{
    return (v + ((int32_t)1 << by >> 1)) >> by;
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
/* A table with steps of 128, and what lies between two of them. */
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
/* v without its coarse bits, times a row's factor: k[0] 2^-k[1], k[0] of 13 bits. */
static inline int32_t scaled_by(int32_t v, const int16_t *k, int coarse)
{
    return down((v >> coarse) * k[0], k[1]);
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
    "even": "down(((v > 0 ? v : 0) << {finer}) + part, by)",
    "odd": "down(v < 0 ? -part : part, by)",
    "gate": "down(v < 0 ? part : 32768 - part, by)",
}

_MODE = """\
/* A {kind} mode: its states s move by k[0] and e, and y gets what k[1] reads of them. */
static inline uint32_t {kind}(const int32_t *k, int e, int32_t *s, int32_t x, uint32_t y)
{{
    const int32_t moved = (s[0] >> 16) * low(k[0]) + (s[1] >> 16) * (k[0] >> 16);
    const int32_t t = held((int32_t)((uint32_t)x {sign} (uint32_t)s[0] + (uint32_t)(moved >> e) * 8u));
    const int32_t v = held({move});
    s[0] = t;
    s[1] = v;
    return y + (uint32_t)((t >> 16) * low(k[1])) + (uint32_t)((v >> 16) * (k[1] >> 16));
}}
"""
KINDS = {
    "plain": _MODE.format(kind="plain", sign="+", move="s[1] + (t >> e)"),
    "mirrored": _MODE.format(kind="mirrored", sign="-", move="(t >> e) - s[1]"),
}


def by_pairs(kind: str, count: str) -> str:
    """C statements: the channel's modes of one kind, by two where there are registers for it."""
    return f"""\
#ifdef __ARM_ARCH_6M__
        for (int i = 2 * {count}; i > 0; i--) {{
            y = {kind}(k, *e++, s, x, y);
            s += 2;
            k += 2;
        }}
#else
        for (int i = {count}; i > 0; i--) {{
            y = {kind}(k, e[0], s, x, y);
            y = {kind}(k + 2, e[1], s + 2, x, y);
            s += 4;
            k += 4;
            e += 2;
        }}
#endif"""


def dots(bits: int) -> str:
    """The C function of two rows' products with a signal, of weights of so many bits.

    Rows are filled up to an even number of columns. Four neighbours of 8 bits stand as 0, 2, 1, 3: taken apart, they
    are two pairs.
    """
    loads = {
        16: """\
        int32_t v0, v1, w0, w1, x0, x1;
        memcpy(&v0, BY_4(v), sizeof v0);
        memcpy(&v1, BY_4(v + 2), sizeof v1);
        memcpy(&w0, BY_4(w), sizeof w0);
        memcpy(&w1, BY_4(w + 2), sizeof w1);
        memcpy(&x0, x, sizeof x0);
        memcpy(&x1, x + 2, sizeof x1);
        a = __smlad(v1, x1, __smlad(v0, x0, a));
        b = __smlad(w1, x1, __smlad(w0, x0, b));
""",
        8: """\
        uint32_t v0, w0;
        int32_t x0, x1;
        memcpy(&v0, v, sizeof v0);
        memcpy(&w0, w, sizeof w0);
        memcpy(&x0, x, sizeof x0);
        memcpy(&x1, x + 2, sizeof x1);
        a = __smlad(__sxtb16((int32_t)(v0 >> 8 | v0 << 24)), x1, __smlad(__sxtb16((int32_t)v0), x0, a));
        b = __smlad(__sxtb16((int32_t)(w0 >> 8 | w0 << 24)), x1, __smlad(__sxtb16((int32_t)w0), x0, b));
""",
    }
    order = (0, 1, 2, 3) if bits == 16 else (0, 2, 1, 3)
    fours = "\n".join(
        f"        {total} += {' + '.join(f'{row}[{at}] * x[{i}]' for i, at in enumerate(order))};"
        for total, row in (("a", "v"), ("b", "w"))
    )
    return f"""\
/* sums += the products of rows v and w with x. */
static inline void dots(const int{bits}_t *v, const int{bits}_t *w, const int16_t *x, int columns, int32_t sums[2])
{{
    int32_t a = sums[0], b = sums[1];
    for (; columns >= 4; columns -= 4) {{
#ifdef DSP
{loads[bits]}#else
{fours}
#endif
        v += 4;
        w += 4;
        x += 4;
    }}
    for (; columns > 0; columns--) {{
        a += *v++ * *x;
        b += *w++ * *x++;
    }}
    sums[0] = a;
    sums[1] = b;
}}
"""
