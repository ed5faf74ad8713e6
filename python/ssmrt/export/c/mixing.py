"""Mixing layers: products of a matrix with a row, four of its rows at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .functions import NAMES
from .program import Out, Program, Value

Array = NDArray[Any]

TILE = 4


def multiply(columns: str, vector: str, indent: int, *, fours: bool = False) -> str:
    """C statements: a0 .. a3 += the four rows at ``k`` times ``vector``, and ``k`` past them.

    ``fours``: the number of columns is a multiple of four.
    """
    one = "\n".join(f"a{row} += k[{row}] * v[0];" for row in range(TILE))
    four = "\n".join(f"a{row} += k[{TILE * c + row}] * v[{c}];" for c in range(4) for row in range(TILE))
    text = f"""\
const float *v = {vector};
for (int j = ({columns}) / 4; j > 0; j--) {{
{indented(four, 4)}
    v += 4;
    k += 16;
}}
"""
    rest = f"""\
for (int j = {columns} % 4; j > 0; j--) {{
{indented(one, 4)}
    v++;
    k += 4;
}}
"""
    return indented(text if fours else text + rest, indent)


def indented(text: str, by: int) -> str:
    """The lines moved to the right."""
    return "\n".join(" " * by + line for line in text.splitlines())


def interleaved(head: Array, matrix: Array) -> Array:
    """Rows four by four: their ``head`` (d_out,), then their columns; what is left row by row, head first."""
    whole = len(matrix) // TILE * TILE
    both = np.concatenate([head[:, None], matrix], 1)
    tiles = both[:whole].reshape(-1, TILE, both.shape[1]).swapaxes(1, 2)
    return np.concatenate([tiles.reshape(-1), both[whole:].reshape(-1)])


def linear(p: Program, x: Value, out: Out, weight: Array, bias: Array | None) -> None:
    """Y = W x + b."""
    head = np.zeros(len(weight)) if bias is None else np.asarray(bias, np.float64)
    weight = np.asarray(weight, np.float64)
    if p.samples is not None and x.stride and out.value.stride:
        _block(p, x, out, head, weight)
    else:
        p.call(_product(p, x, out, head, weight, None))


def read(p: Program, x: Value, out: Out, weight: Array, D: Array | None, u: Value) -> str:
    """The statement y = W x + D u, with D (d_out,) or none."""
    head = np.zeros(len(weight)) if D is None else np.asarray(D, np.float64)
    return _product(p, x, out, head, weight, None if D is None else u)


def _product(p: Program, x: Value, out: Out, head: Array, weight: Array, u: Value | None) -> str:
    kind = "linear" if u is None else "linear_direct"
    scale = "" if u is None else " * u[{}]"
    starts = ", ".join(f"a{i} = k[{i}]{scale.format(i)}" for i in range(TILE))
    stores = "\n".join(f"        {out(f'y[{i}]', f'a{i}')}" for i in range(TILE))
    text = f"""\
/* {"y = W x + b" if u is None else "y = W x + D u"}, four rows at a time. */
static void {kind}{out.suffix}(const float *RESTRICT k, const float *x, {"" if u is None else "const float *u, "}\
float *y, int rows, int columns)
{{
    for (; rows >= 4; rows -= 4) {{
        float {starts};
        k += 4;
{multiply("columns", "x", 8)}
{stores}
        y += 4;{"" if u is None else chr(10) + "        u += 4;"}
    }}
    for (; rows > 0; rows--) {{
        float a = *k++{"" if u is None else " * *u++"};
        for (int j = 0; j < columns; j++)
            a += *k++ * x[j];
        {out("*y++", "a")}
    }}
}}
"""
    name = p.kernel(kind + out.suffix, text, out.function)
    rows, columns = weight.shape
    _count(p, out, rows, columns)
    table = p.constants(interleaved(head, weight))
    arguments = [table, x.pointer, *([] if u is None else [u.pointer]), out.value.pointer]
    return f"{name}({', '.join(arguments)}, {rows}, {columns});"


def _count(p: Program, out: Out, rows: int, columns: int) -> None:
    p.costs.multiply_adds += rows * columns
    p.costs.functions += rows * (out.function != "identity")


def _block(p: Program, x: Value, out: Out, head: Array, weight: Array) -> None:
    """The product for a block: each tile of the matrix for two samples after the other two."""
    text = f"""\
/* y = W x + b of a block of samples, four rows at a time for two of them. */
static void linear{out.suffix}_block(const float *RESTRICT tile, const float *x, float *y, int rows, int columns, \
int across, int samples)
{{
    for (; rows >= 4; rows -= 4) {{
        const float *x0 = x;
        float *y0 = y;
        int t = samples;
        for (; t >= 2; t -= 2) {{
            const float *k = tile, *const x1 = x0 + columns;
            float *const y1 = y0 + across;
{_two("k", 12)}
{indented(chr(10).join(out(f"y{s}[{i}]", f"a{s}{i}") for s in range(2) for i in range(TILE)), 12)}
            x0 += 2 * columns;
            y0 += 2 * across;
        }}
        if (t > 0) {{
            const float *k = tile;
            float a0 = k[0], a1 = k[1], a2 = k[2], a3 = k[3];
            k += 4;
{multiply("columns", "x0", 12)}
{indented(chr(10).join(out(f"y0[{i}]", f"a{i}") for i in range(TILE)), 12)}
        }}
        tile += 4 * (columns + 1);
        y += 4;
    }}
    for (; rows > 0; rows--) {{
        for (int t = 0; t < samples; t++) {{
            float a = tile[0];
            for (int j = 0; j < columns; j++)
                a += tile[j + 1] * x[t * columns + j];
            {out("y[t * across]", "a")}
        }}
        tile += columns + 1;
        y++;
    }}
}}
"""
    name = p.kernel(f"linear{out.suffix}_block", text, out.function)
    rows, columns = weight.shape
    _count(p, out, rows, columns)
    table = p.constants(interleaved(head, weight))
    pointers = f"{table}, {x.base}, {out.value.base}"
    p.call_block(f"{name}({pointers}, {rows}, {columns}, {out.value.stride}, {p.samples});")


def _two(k: str, indent: int) -> str:
    """C statements: a00 .. a03 and a10 .. a13 are a tile's four rows for the samples at x0 and x1."""
    lines = [f"float {', '.join(f'a{s}{i} = {k}[{i}]' for i in range(TILE))};" for s in range(2)]
    lines += [f"{k} += 4;", "for (int j = 0; j < columns; j++) {", "    const float u0 = x0[j], u1 = x1[j];"]
    lines += [f"    a{s}{i} += {k}[{i}] * u{s};" for i in range(TILE) for s in range(2)]
    lines += [f"    {k} += 4;", "}"]
    return indented("\n".join(lines), indent)


def linear_glu(p: Program, x: Value, out: Out, weight: Array, bias: Array | None, gate: str) -> None:
    """Y = (W x + b) gate(V x + c), the halves of a `Linear` whose outputs go into a `Glu`."""
    half = len(weight) // 2
    bias = np.zeros(2 * half) if bias is None else bias
    both = np.concatenate([np.asarray(bias, np.float64)[:, None], np.asarray(weight, np.float64)], 1)
    # Rows by two, each with its gate: v v g g.
    whole = half // 2 * 2
    values, gates = both[:half], both[half:]
    tiles = np.concatenate(
        [values[:whole].reshape(-1, 2, both.shape[1]), gates[:whole].reshape(-1, 2, both.shape[1])], 1
    )
    rest = np.stack([values[whole:], gates[whole:]], 1)
    table = np.concatenate([tiles.swapaxes(1, 2).reshape(-1), rest.swapaxes(1, 2).reshape(-1)])
    call = "{}" if gate == "identity" else f"{NAMES[gate]}({{}})"
    text = f"""\
/* y = (W x + b) {gate}(V x + c), two rows of each at a time. */
static void linear_glu_{gate}{out.suffix}(const float *RESTRICT k, const float *x, float *y, int rows, int columns)
{{
    for (; rows >= 2; rows -= 2) {{
        float a0 = k[0], a1 = k[1], a2 = k[2], a3 = k[3];
        k += 4;
{multiply("columns", "x", 8)}
        {out("y[0]", f"a0 * {call.format('a2')}")}
        {out("y[1]", f"a1 * {call.format('a3')}")}
        y += 2;
    }}
    if (rows > 0) {{
        float a = k[0], b = k[1];
        k += 2;
        for (int j = 0; j < columns; j++) {{
            a += k[0] * x[j];
            b += k[1] * x[j];
            k += 2;
        }}
        {out("*y", f"a * {call.format('b')}")}
    }}
}}
"""
    if p.samples is not None and x.stride and out.value.stride:
        _glu_block(p, x, out, table, gate, half)
        return
    name = p.kernel(f"linear_glu_{gate}{out.suffix}", text, gate, out.function)
    _count_glu(p, out, half, weight.shape[1])
    p.call(f"{name}({p.constants(table)}, {x.pointer}, {out.value.pointer}, {half}, {weight.shape[1]});")


def _count_glu(p: Program, out: Out, half: int, columns: int) -> None:
    p.costs.multiply_adds += half * (2 * columns + 1)
    p.costs.functions += half * (1 + (out.function != "identity"))


def _glu_block(p: Program, x: Value, out: Out, table: Array, gate: str, half: int) -> None:
    call = "{}" if gate == "identity" else f"{NAMES[gate]}({{}})"

    def stores(s: int) -> str:
        return "\n".join(out(f"y{s}[{i}]", f"a{s}{i} * {call.format(f'a{s}{i + 2}')}") for i in range(2))

    text = f"""\
/* y = (W x + b) {gate}(V x + c) of a block of samples, two rows of each at a time for two of them. */
static void linear_glu_{gate}{out.suffix}_block(const float *RESTRICT tile, const float *x, float *y, int rows, \
int columns, int across, int samples)
{{
    for (; rows >= 2; rows -= 2) {{
        const float *x0 = x;
        float *y0 = y;
        int t = samples;
        for (; t >= 2; t -= 2) {{
            const float *k = tile, *const x1 = x0 + columns;
            float *const y1 = y0 + across;
{_two("k", 12)}
{indented(stores(0) + chr(10) + stores(1), 12)}
            x0 += 2 * columns;
            y0 += 2 * across;
        }}
        if (t > 0) {{
            const float *k = tile;
            float a0 = k[0], a1 = k[1], a2 = k[2], a3 = k[3];
            k += 4;
{multiply("columns", "x0", 12)}
            {out("y0[0]", f"a0 * {call.format('a2')}")}
            {out("y0[1]", f"a1 * {call.format('a3')}")}
        }}
        tile += 4 * (columns + 1);
        y += 2;
    }}
    for (int t = 0; rows > 0 && t < samples; t++) {{
        const float *k = tile;
        float a = k[0], b = k[1];
        k += 2;
        for (int j = 0; j < columns; j++) {{
            a += k[0] * x[t * columns + j];
            b += k[1] * x[t * columns + j];
            k += 2;
        }}
        {out("y[t * across]", f"a * {call.format('b')}")}
    }}
}}
"""
    name = p.kernel(f"linear_glu_{gate}{out.suffix}_block", text, gate, out.function)
    columns = x.width
    _count_glu(p, out, half, columns)
    pointers = f"{p.constants(table)}, {x.base}, {out.value.base}"
    p.call_block(f"{name}({pointers}, {half}, {columns}, {out.value.stride}, {p.samples});")
