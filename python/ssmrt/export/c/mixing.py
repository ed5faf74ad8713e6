"""Mixing layers: products of a matrix with a row, four of its rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...document import Linear
from .functions import NAMES
from .program import Out, Program, Value

Array = NDArray[Any]

TILE = 4


def multiply(columns: str, vector: str, indent: int, *, fours: bool = False) -> str:
    """C statements: a0 .. a3 += the four rows at ``k`` times ``vector``, and ``k`` past them. They call `two`.

    ``fours``: the number of columns is a multiple of four. Every fourth product is a fused one, which is shorter, if
    slower, on a Cortex-M4, and leaves registers.
    """
    one = [f"a{row} += k[{row}] * v[0];" for row in range(TILE)]
    four = []
    for c in range(4):
        four.append(f"const pair {pairs({f'p{c}': f'k + {TILE * c}'})};")
        for row in range(TILE):
            gain = lane(f"p{c}", row)
            four.append(f"a{row} = FUSED({gain}, v[3], a{row});" if c == 3 else f"a{row} += {gain} * v[{c}];")
    text = f"""\
const float *v = {vector};
for (int j = ({columns}) / 4; j > 0; j--) {{
{indented(chr(10).join(four), 4)}
    v += 4;
    k += 16;
}}
"""
    rest = f"""\
for (int j = {columns} % 4; j > 0; j--) {{
{indented(chr(10).join(one), 4)}
    v++;
    k += 4;
}}
"""
    return indented(text if fours else text + rest, indent)


def pairs(places: dict[str, str]) -> str:
    """C declarators of four numbers each, two by two, from these places."""
    return ", ".join(f"{name}_{h} = two({place} + {h})" for name, place in places.items() for h in (0, 2))


def lane(name: str, i: int) -> str:
    """The C expression of one of the four numbers of `pairs`."""
    return f"{name}_{i // 2 * 2}.of[{i % 2}]"


def indented(text: str, by: int) -> str:
    """The lines moved to the right."""
    return "\n".join(" " * by + line for line in text.splitlines())


@dataclass(frozen=True)
class _Rows:
    """What becomes of the sums of four rows, and of what is left of the matrix: ``rest`` rows a time."""

    name: str
    title: str
    rest: int
    gate: str | None = None

    @property
    def outputs(self) -> int:
        """Of four rows."""
        return TILE // self.rest

    def answers(self, sums: Sequence[str]) -> list[str]:
        """The outputs that these sums make: themselves, or the first half gated by the other."""
        if self.gate is None:
            return list(sums)
        half = len(sums) // 2
        gates = [g if self.gate == "identity" else f"{NAMES[self.gate]}({g})" for g in sums[half:]]
        return [f"{v} * {g}" for v, g in zip(sums[:half], gates, strict=True)]

    def stores(self, out: Out, y: str, sums: Sequence[str], indent: int) -> str:
        """The C statements that store them at ``y``."""
        return indented("\n".join(out(f"{y}[{i}]", a) for i, a in enumerate(self.answers(sums))), indent)


_LINEAR = _Rows("linear", "y = W x + b", 1)
_DIRECT = _Rows("linear_direct", "y = W x + D u", 1)


def _tiles(head: Array, matrix: Array, rest: int) -> Array:
    """Rows four by four: their ``head`` (d_out,), then their columns; what is left ``rest`` by ``rest``."""
    whole = len(matrix) // TILE * TILE
    both = np.concatenate([head[:, None], matrix], 1)
    parts = [
        rows.reshape(-1, together, both.shape[1]).swapaxes(1, 2).reshape(-1)
        for rows, together in ((both[:whole], TILE), (both[whole:], rest))
    ]
    return np.concatenate(parts)


def linear(p: Program, x: Value, out: Out, weight: Array, bias: Array | None) -> None:
    """Y = W x + b."""
    _emit(p, x, out, _LINEAR, _matrix(p, weight, bias), weight.shape)


def _matrix(p: Program, weight: Array, bias: Array | None) -> str:
    """Where the matrix of `linear` is: there once, whoever reads it."""
    known = id(weight), id(bias)
    if known not in p.matrices:
        head = np.zeros(len(weight)) if bias is None else np.asarray(bias, np.float64)
        p.matrices[known] = p.constants(_tiles(head, np.asarray(weight, np.float64), 1)), weight, bias
    return p.matrices[known][0]


def row_of(p: Program, index: str, out: Out, node: Linear) -> None:
    """Y = a row of a matrix, where its product is to find it."""
    rows, columns = node.weight.shape
    table = _matrix(p, node.weight, node.bias)
    text = f"""\
/* y = row i of a matrix of tiles of four rows, each of which starts with four other numbers. */
static void row_of{out.suffix}(const float *RESTRICT k, int i, float *y, int rows, int columns)
{{
    const int apart = i < rows / 4 * 4 ? 4 : 1;
    k += apart == 4 ? i / 4 * 4 * (columns + 1) + i % 4 : i * (columns + 1);
    for (int j = 0; j < columns; j++) {{
        k += apart;
        {out("y[j]", "*k")}
    }}
}}
"""
    p.call(f"{p.kernel('row_of' + out.suffix, text)}({table}, {index}, {out.value.pointer}, {rows}, {columns});")


def linear_glu(p: Program, x: Value, out: Out, weight: Array, bias: Array | None, gate: str) -> None:
    """Y = (W x + b) gate(V x + c), the halves of a `Linear` whose outputs go into a `Glu`."""
    half = len(weight) // 2
    head = np.zeros(2 * half) if bias is None else np.asarray(bias, np.float64)
    # Rows by two, each with its gate: v v g g.
    whole = half // 2 * 2
    order = np.arange(2 * half).reshape(2, half)
    order = np.concatenate(
        [order[:, :whole].reshape(2, -1, 2).swapaxes(0, 1).reshape(-1), order[:, whole:].reshape(-1)]
    )
    kind = _Rows(f"linear_glu_{gate}", f"y = (W x + b) {gate}(V x + c)", 2, gate)
    p.costs.multiply_adds += half
    p.costs.functions += half
    table = p.constants(_tiles(head[order], np.asarray(weight, np.float64)[order], 2))
    _emit(p, x, out, kind, table, weight.shape)


def read(p: Program, x: Value, out: Out, weight: Array, D: Array | None, u: Value) -> str:
    """The statement y = W x + D u, with D (d_out,) or none."""
    head = np.zeros(len(weight)) if D is None else np.asarray(D, np.float64)
    table = p.constants(_tiles(head, np.asarray(weight, np.float64), 1))
    p.costs.multiply_adds += weight.size
    return _step(p, x, out, _LINEAR if D is None else _DIRECT, table, weight.shape, None if D is None else u)


def _emit(p: Program, x: Value, out: Out, kind: _Rows, table: str, shape: tuple[int, ...]) -> None:
    p.costs.multiply_adds += shape[0] * shape[1]
    if p.samples is not None and x.stride and out.value.stride:
        _block(p, x, out, kind, table, shape)
    else:
        p.call(_step(p, x, out, kind, table, shape, None))


def _step(p: Program, x: Value, out: Out, kind: _Rows, table: str, shape: tuple[int, ...], u: Value | None) -> str:
    sums = [f"a{i}" for i in range(TILE)]
    scale = "" if u is None else " * u[{}]"
    starts = ", ".join(f"{a} = k[{i}]{scale.format(i)}" for i, a in enumerate(sums))
    rest = sums[: kind.rest]
    begin = ", ".join(f"{a} = k[{i}]{scale.format(i)}" for i, a in enumerate(rest))
    add = "\n".join(f"            {a} += k[{i}] * x[j];" for i, a in enumerate(rest))
    more = "" if u is None else f"\n        u += {kind.outputs};", "" if u is None else "\n        u++;"
    text = f"""\
/* {kind.title}, four rows at a time. */
static void {kind.name}{out.suffix}(const float *RESTRICT k, const float *x, {"" if u is None else "const float *u, "}\
float *y, int rows, int columns)
{{
    for (; rows >= 4; rows -= 4) {{
        float {starts};
        k += 4;
{multiply("columns", "x", 8)}
{kind.stores(out, "y", sums, 8)}
        y += {kind.outputs};{more[0]}
    }}
    for (; rows > 0; rows -= {kind.rest}) {{
        float {begin};
        k += {kind.rest};
        for (int j = 0; j < columns; j++) {{
{add}
            k += {kind.rest};
        }}
{kind.stores(out, "y", rest, 8)}
        y++;{more[1]}
    }}
}}
"""
    name = p.kernel(kind.name + out.suffix, text, "two", kind.gate or "identity")
    arguments = [table, x.pointer, *([] if u is None else [u.pointer]), out.value.pointer]
    return f"{name}({', '.join(arguments)}, {shape[0]}, {shape[1]});"


def _block(p: Program, x: Value, out: Out, kind: _Rows, table: str, shape: tuple[int, ...]) -> None:
    """The product for a block: each tile of the matrix for two samples after the other two."""
    sums = [[f"a{s}{i}" for i in range(TILE)] for s in range(2)]
    one = [f"a{i}" for i in range(TILE)]
    rest = one[: kind.rest]
    both = [f"float {', '.join(f'{a} = k[{i}]' for i, a in enumerate(sums[s]))};" for s in range(2)]
    both += ["k += 4;", "for (int j = 0; j < columns; j++) {", "    const float u0 = x0[j], u1 = x1[j];"]
    both += [f"    {sums[s][i]} += k[{i}] * u{s};" for i in range(TILE) for s in range(2)]
    both += ["    k += 4;", "}"]
    begin = ", ".join(f"{a} = k[{i}]" for i, a in enumerate(rest))
    add = "\n".join(f"                {a} += k[{i}] * x0[j];" for i, a in enumerate(rest))
    text = f"""\
/* {kind.title} of a block of samples, four rows at a time for two of them. */
static void {kind.name}{out.suffix}_block(const float *RESTRICT tile, const float *x, float *y, int rows, int columns, \
int across, int samples)
{{
    for (; rows >= 4; rows -= 4) {{
        const float *x0 = x;
        float *y0 = y;
        int t = samples;
        for (; t >= 2; t -= 2) {{
            const float *k = tile, *const x1 = x0 + columns;
            float *const y1 = y0 + across;
{indented(chr(10).join(both), 12)}
{kind.stores(out, "y0", sums[0], 12)}
{kind.stores(out, "y1", sums[1], 12)}
            x0 += 2 * columns;
            y0 += 2 * across;
        }}
        if (t > 0) {{
            const float *k = tile;
            float {", ".join(f"{a} = k[{i}]" for i, a in enumerate(one))};
            k += 4;
{multiply("columns", "x0", 12)}
{kind.stores(out, "y0", one, 12)}
        }}
        tile += 4 * (columns + 1);
        y += {kind.outputs};
    }}
    for (; rows > 0; rows -= {kind.rest}) {{
        const float *x0 = x;
        float *y0 = y;
        for (int t = samples; t > 0; t--) {{
            const float *k = tile;
            float {begin};
            k += {kind.rest};
            for (int j = 0; j < columns; j++) {{
{add}
                k += {kind.rest};
            }}
{kind.stores(out, "y0", rest, 12)}
            x0 += columns;
            y0 += across;
        }}
        tile += {kind.rest} * (columns + 1);
        y++;
    }}
}}
"""
    name = p.kernel(f"{kind.name}{out.suffix}_block", text, "two", kind.gate or "identity")
    pointers = f"{table}, {x.base}, {out.value.base}"
    p.call_block(f"{name}({pointers}, {shape[0]}, {shape[1]}, {out.value.stride}, {p.samples});")
