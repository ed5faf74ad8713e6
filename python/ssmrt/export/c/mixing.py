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
    weight = np.asarray(weight, np.float64)
    head = np.zeros(len(weight)) if bias is None else np.asarray(bias, np.float64)
    _product(p, x, out, head, weight, None)


def direct(p: Program, x: Value, out: Out, weight: Array, D: Array, u: Value) -> None:
    """Y = W x + D u, with D (d_out,)."""
    _product(p, x, out, np.asarray(D, np.float64), weight, u)


def _product(p: Program, x: Value, out: Out, head: Array, weight: Array, u: Value | None) -> None:
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
    table = p.constants(interleaved(head, weight))
    rows, columns = weight.shape
    p.costs.multiply_adds += rows * columns
    p.costs.functions += rows * (out.function != "identity")
    arguments = [table, x.pointer, *([] if u is None else [u.pointer]), out.value.pointer]
    p.call(f"{name}({', '.join(arguments)}, {rows}, {columns});")


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
    name = p.kernel(f"linear_glu_{gate}{out.suffix}", text, gate, out.function)
    p.costs.multiply_adds += weight.size + half
    p.costs.functions += half * (1 + (out.function != "identity"))
    p.call(f"{name}({p.constants(table)}, {x.pointer}, {out.value.pointer}, {half}, {weight.shape[1]});")
