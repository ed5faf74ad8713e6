"""State-space layers: recurrence, C and D in one pass over a channel's states."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...document import DiagonalMimo, Linoss, StateSpace
from ..state_space import refuse_reverse
from ..systems import Matrices, Modes, fold_input
from . import mixing
from .mixing import indented, lane, multiply, pairs
from .program import Out, Program, Value
from .windowed import fir

Array = NDArray[Any]

BLOCK = 4  # states of a kind side by side: what four lanes take at once


def state_space(p: Program, x: Value, out: Out, node: StateSpace) -> None:
    """`Diagonal`, `Dplr`, `Dense`."""
    refuse_reverse(node)
    system, cut = p.systems.of(node), p.systems.cut(node)
    outputs, channels = system.D.shape
    # Output m of channel c is y[c * across + m * along].
    strides = (outputs, 1) if node.head_major else (1, channels)
    if cut is not None:
        kernel = p.systems.kernel(node, cut)
        kernel[..., 0] += system.D
        fir(p, x, out, kernel, np.zeros((outputs, channels)), strides)
    elif isinstance(system, Matrices):
        _matrices(p, x, out, system, strides)
    elif len(system.U):
        _low_rank(p, x, out, system, strides)
    elif not system.a1.imag.any():
        _real(p, x, out, system, strides)
    else:
        _modes(p, x, out, system, strides)


def _answer(out: Out, outputs: int) -> str:
    """C statements that store a channel's outputs: its sums, or each by its own row of C."""
    if outputs == 1:
        return f"        {out('*out++', '(y[0] + y[1]) + (y[2] + y[3])')}"
    return f"""\
        for (int m = 0; m < outputs; m++) {{
            float a = k[0] * x;
            k += 2;
            for (int i = 0; i < states; i++)
                a += *k++ * s[i - states];
            {out("out[m * along]", "a")}
        }}
        out += across;"""


def _padded(array: Array, to: int, fill: complex = 0.0) -> Array:
    """The last axis filled up."""
    width = [(0, 0)] * (array.ndim - 1) + [(0, to - array.shape[-1])]
    return np.pad(array, width, constant_values=fill)


def _planes(*arrays: Array) -> Array:
    """(G, n) each: blocks of four of the first, four of the second, ... as (G, n / 4, 4 * len)."""
    groups, n = arrays[0].shape
    return np.stack([a.reshape(groups, n // BLOCK, BLOCK) for a in arrays], 2).reshape(groups, n // BLOCK, -1)


def _table(D: Array, blocks: Array, C: Array | None = None, head: Array | None = None) -> Array:
    """Each channel's D and ``head`` (G,), then its blocks; where it has several outputs then D, 0 and C of each.

    D (M, G), blocks (G, ...), C (M, G, states).
    """
    groups = len(blocks)
    parts = [np.stack([D[0], np.zeros(groups) if head is None else head], -1), blocks.reshape(groups, -1)]
    if C is not None:
        rows = np.concatenate([_padded(D[..., None], 2), C], -1).swapaxes(0, 1)
        parts.append(rows.reshape(groups, -1))
    return np.concatenate(parts, 1)


def _keep(first: str, second: str) -> list[str]:
    """C statements that store four numbers of each as states."""
    return [f"s[{at + i}] = {name}{i};" for at, name in ((0, first), (BLOCK, second)) for i in range(BLOCK)]


def _sum(number: str, gain: str, i: int) -> str:
    """The C statement that adds to the sum of lane i."""
    at = f"y[SECOND + {i - 2}]" if i > 1 else f"y[{i}]"
    return f"{at} = FUSED({gain}, {number}, {at});"


def _loop(mirrored: bool, outputs: int) -> str:
    """C statements: the channel's modes of one kind, four at a time."""
    places = {"r": "s", "q": "s + 4", "c": "k", "d": "k + 4"}
    if outputs == 1:
        places |= {"e": "k + 8", "f": "k + 12"}
    count = "fours >> 12" if mirrored else "fours & 4095u"
    lines = [f"const pair {pairs(places)};"]
    for i in range(BLOCK):
        r, q, c, d = (lane(name, i) for name in "rqcd")
        change = f"(x + {c} * {r} - {d} * {q})"
        enter, move = (f"{change} - {r}", f"t{i} - {q}") if mirrored else (f"{r} + {change}", f"{q} + t{i}")
        lines += [f"const float t{i} = {enter}, v{i} = {move};"]
    lines += _keep("t", "v")
    if outputs == 1:
        lines += [_sum(number + str(i), lane(gain, i), i) for i in range(BLOCK) for number, gain in ("te", "vf")]
    lines += [f"k += {16 if outputs == 1 else 8};", "s += 8;"]
    body = indented("\n".join(lines), 4)
    return indented(f"for (uint32_t i = {count}; i > 0u; i--) {{\n{body}\n}}", 8)


_SUMS = "        float y[4] = {k[0] * x, 0.0f, 0.0f, 0.0f};\n"


def _modes(p: Program, u: Value, out: Out, modes: Modes, strides: tuple[int, int]) -> None:
    """Complex modes as real sections of second order.

    A mode p = 1 + a and its conjugate give the response Re(G p^t), G = C B. The section

        x1' = x1 + u + c x1 - r x2,    x2' = x2 + x1',    c = |p|^2 - 1,    r = |a|^2

    has these poles and C1 = Re(G conj(p)), C2 = -Re(G conj(a)): one product fewer than a rotation, and of increments
    again, so that slow modes keep their digits. Rounding errors are those of a rotation times about r / (2 |sin|) of
    the pole's angle: less for the slow half of the circle. Poles near -1 take the mirrored section, that of -p for
    inputs of alternating sign.
    """
    groups, outputs = len(modes.a1), len(modes.C)
    G = modes.C * modes.B
    own = own_modes(G)
    tables, fours = [], 0
    for g in range(groups):
        places = np.flatnonzero(own[g])
        mirrored = mirrored_modes(modes.a1[g : g + 1, places])[0]
        both, sizes = [], []
        for minus in (False, True):
            chosen = places[mirrored == minus]
            size = -(-len(chosen) // BLOCK) * BLOCK
            # What fills up is a mode that forgets at once: 1 + a = 0.
            a = _padded(modes.a1[g, chosen], size, -1.0)
            gain = _padded(G[:, g, chosen], size)
            both.append(section(a, gain, minus))
            sizes.append(size // BLOCK)
        c, r, C1, C2 = (np.concatenate(parts, -1) for parts in zip(*both, strict=True))
        fours += sum(sizes)
        blocks = [c[None], r[None], *([C1, C2] if outputs == 1 else [])]
        rows = None if outputs == 1 else _planes(C1, C2).reshape(outputs, 1, -1)
        counts = np.array([sizes[0] + 4096 * sizes[1]])
        tables.append(_table(modes.D[:, g, None], _planes(*blocks), rows, counts).reshape(-1))
    what = "modes" + ("" if outputs == 1 else "_outputs") + out.suffix
    text = f"""\
/* Channels of modes, four at a time, each a real section of second order:
 *   x1' = x1 + u + c x1 - r x2, x2' = x2 + x1'; then those mirrored, with -x1 and -x2.
 * k[1] has the number of fours, and in steps of 4096 that of the mirrored ones. */
static void {what}(const float *RESTRICT k, float *s, const float *u, float *out, int channels\
{"" if outputs == 1 else ", int outputs, int across, int along"})
{{
    for (; channels > 0; channels--) {{
        const float x = *u++;
        const uint32_t fours = (uint32_t)k[1];
{_SUMS if outputs == 1 else "        const int states = 8 * (int)((fours & 4095u) + (fours >> 12));" + chr(10)}\
        k += 2;
{_loop(False, outputs)}
{_loop(True, outputs)}
{_answer(out, outputs)}
    }}
}}
"""
    p.costs.multiply_adds += groups * outputs + int(own.sum()) * (2 + 2 * outputs)
    p.costs.other += 2 * int(own.sum())
    table, state = p.constants(np.concatenate(tables)), p.state(fours * 2 * BLOCK)
    if p.samples is not None and outputs == 1 and u.stride and out.value.stride:
        name = p.kernel(f"modes{out.suffix}_block{p.samples}", _modes_block(out, p.samples))
        pointers = f"{table}, {state}, {u.base}, {out.value.base}"
        p.call_block(f"{name}({pointers}, {groups}, {u.stride}, {out.value.stride});")
        return
    name = p.kernel(what, text, "two")
    more = "" if outputs == 1 else f", {outputs}, {strides[0]}, {strides[1]}"
    p.call(f"{name}({table}, {state}, {u.pointer}, {out.value.pointer}, {groups}{more});")


def _modes_block(out: Out, samples: int) -> str:
    """The C function of `_modes` for a block of samples: four modes stay in registers for all of them."""

    def loop(mirrored: bool) -> str:
        fours = range(BLOCK)
        count = "fours >> 12" if mirrored else "fours & 4095u"
        lines = [f"for (uint32_t i = {count}; i > 0u; i--) {{"]
        lines += [f"    float r{m} = s[{m}], q{m} = s[{m + 4}];" for m in fours]
        lines += [
            f"    const float c{m} = k[{m}], d{m} = k[{m + 4}], e{m} = k[{m + 8}], f{m} = k[{m + 12}];" for m in fours
        ]
        lines += ["    for (int t = 0; t < samples; t++) {", "        const float x = u[t * down];"]
        for m in fours:
            change = f"(x + c{m} * r{m} - d{m} * q{m})"
            enter, move = (f"{change} - r{m}", f"r{m} - q{m}") if mirrored else (f"r{m} + {change}", f"q{m} + r{m}")
            lines.append(f"        r{m} = {enter};")
            lines.append(f"        q{m} = {move};")
        lines.append(f"        y[t] += {' + '.join(f'(e{m} * r{m} + f{m} * q{m})' for m in fours)};")
        lines.append("    }")
        lines += [f"    s[{m}] = r{m};" for m in fours] + [f"    s[{m + 4}] = q{m};" for m in fours]
        lines += ["    k += 16;", "    s += 8;", "}"]
        return indented("\n".join(lines), 8)

    return f"""\
/* As modes, for a block of samples; one of them is down or across floats behind the other. */
static void modes{out.suffix}_block{samples}(const float *RESTRICT k, float *s, const float *u, float *out, \
int channels, int down, int across)
{{
    const int samples = {samples};
    float y[{samples}];
    for (; channels > 0; channels--) {{
        const uint32_t fours = (uint32_t)k[1];
        for (int t = 0; t < samples; t++)
            y[t] = k[0] * u[t * down];
        k += 2;
{loop(False)}
{loop(True)}
        for (int t = 0; t < samples; t++)
            {out("out[t * across]", "y[t]")}
        u++;
        out++;
    }}
}}
"""


def section(a: Array, G: Array, minus: bool) -> tuple[Array, Array, Array, Array]:
    """(c, r, C1, C2) as the C function takes them; a (n,), G (M, n)."""
    if minus:
        return (
            -(2 * a.real + np.abs(a) ** 2),
            -(np.abs(2 + a) ** 2),
            -(G * (1 + a).conj()).real,
            (G * (2 + a).conj()).real,
        )
    return 2 * a.real + np.abs(a) ** 2, np.abs(a) ** 2, (G * (1 + a).conj()).real, -(G * a.conj()).real


def own_modes(gain: Array) -> Array:
    """Which modes (G, n) of each channel an input reaches and an output reads, by C B (M, G, n); one at least."""
    own = (gain != 0).any(0)
    own[:, 0] |= ~own.any(1)
    return np.asarray(own)


def mirrored_modes(a1: Array) -> Array:
    """Which modes (G, n) take the mirrored section, such that both kinds come in fours where they can."""
    p = 1 + a1
    radius = np.abs(p)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.where(radius > 0, np.abs(p / radius - p.conj()), 1.0)
        plain, mirror = np.abs(a1) ** 2 / apart, np.abs(1 + p) ** 2 / apart
    # How much worse a section is than a rotation; up to this, either will do.
    free = np.maximum(plain, mirror) < 2.0
    chosen = mirror < plain
    for g in range(len(a1)):
        excess = np.count_nonzero(chosen[g]) % BLOCK
        preference = np.argsort(plain[g] - mirror[g])
        leave = [i for i in preference if free[g, i] and chosen[g, i]]
        enter = [i for i in preference[::-1] if free[g, i] and not chosen[g, i]]
        if excess and len(leave) >= excess:
            chosen[g, leave[:excess]] = False
        elif excess and len(enter) >= BLOCK - excess:
            chosen[g, enter[: BLOCK - excess]] = True
    return np.asarray(chosen)


def _real(p: Program, u: Value, out: Out, modes: Modes, strides: tuple[int, int]) -> None:
    """Real modes: x' = x + u + a x, y = D u + C x', B in C."""
    groups, n = modes.a1.shape
    outputs = len(modes.C)
    size = -(-n // BLOCK) * BLOCK
    blocks = [_padded(modes.a1.real, size, -1.0)]
    C = _padded((modes.C * modes.B).real, size)
    if outputs == 1:
        blocks.append(C[0])
    table = _table(modes.D, _planes(*blocks), None if outputs == 1 else C)
    places = {"r": "s", "a": "k", **({"e": "k + 4"} if outputs == 1 else {})}
    lines = [f"const pair {pairs(places)};"]
    for i in range(BLOCK):
        r = lane("r", i)
        lines += [f"const float t{i} = ({r} + x) + {lane('a', i)} * {r};"]
    lines += [f"s[{i}] = t{i};" for i in range(BLOCK)]
    lines += [_sum(f"t{i}", lane("e", i), i) for i in range(BLOCK) if outputs == 1]
    lines += [f"k += {4 * len(blocks)};", "s += 4;"]
    what = "real_modes" + ("" if outputs == 1 else "_outputs") + out.suffix
    text = f"""\
/* Channels of real modes, four at a time: x' = x + u + a x. */
static void {what}(const float *RESTRICT k, float *s, const float *u, float *out, int channels, int states\
{"" if outputs == 1 else ", int outputs, int across, int along"})
{{
    for (; channels > 0; channels--) {{
        const float x = *u++;
{_SUMS if outputs == 1 else ""}        k += 2;
        for (int i = 0; i < states; i += 4) {{
{indented(chr(10).join(lines), 12)}
        }}
{_answer(out, outputs)}
    }}
}}
"""
    name = p.kernel(what, text, "two")
    p.costs.multiply_adds += groups * (outputs + n * (1 + outputs))
    p.costs.other += groups * n
    more = "" if outputs == 1 else f", {outputs}, {strides[0]}, {strides[1]}"
    state = p.state(groups * size)
    p.call(f"{name}({p.constants(table)}, {state}, {u.pointer}, {out.value.pointer}, {groups}, {size}{more});")


def _low_rank(p: Program, u: Value, out: Out, modes: Modes, strides: tuple[int, int]) -> None:
    """S4: modes coupled by inner products, each an input of the next sample: x' = x + a x + sum_k U_k w_k + B u,
    w_k = Re(V_k x'), y = D u + Re(C x').
    """
    modes, folded = fold_input(modes, unit=1.0)
    groups, n = modes.a1.shape
    outputs, rank = len(modes.C), len(modes.U)
    size = -(-n // BLOCK) * BLOCK

    def parts(z: Array, sign: float = 1.0, fill: float = 0.0) -> list[Array]:
        return [_padded(z.real, size, fill), _padded(sign * z.imag, size)]

    columns = parts(modes.a1, fill=-1.0) + ([] if folded else parts(modes.B))
    for U, V in zip(modes.U, modes.V, strict=True):
        columns += parts(U) + parts(V, -1.0)
    rows = [parts(C, -1.0) for C in modes.C]
    if outputs == 1:
        columns += rows[0]
    C = None if outputs == 1 else np.stack([_planes(*row).reshape(groups, -1) for row in rows])
    table = _table(modes.D, _planes(*columns), C)
    ranks = range(rank)
    # The inner products come before the modes, at an even place.
    before = rank + rank % 2
    names = ["c", "d", *([] if folded else ["a", "b"])]
    names += [f"{name}{k}" for k in ranks for name in ("g", "h", "m", "n")] + (["e", "f"] if outputs == 1 else [])
    places = {name: f"k + {BLOCK * i}" for i, name in enumerate(names)}
    lines = [f"const pair {pairs({'r': 's', 'q': 's + 4', **places})};"]
    for i in range(BLOCK):
        r, q, c, d = (lane(name, i) for name in "rqcd")
        drive = (f"({r} + x)", q) if folded else (f"({r} + {lane('a', i)} * x)", f"({q} + {lane('b', i)} * x)")
        injected = ["".join(f" + {lane(f'{name}{k}', i)} * w{k}" for k in ranks) for name in "gh"]
        lines += [
            f"const float t{i} = {drive[0]} + {c} * {r} - {d} * {q}{injected[0]};",
            f"const float u{i} = {drive[1]} + {c} * {q} + {d} * {r}{injected[1]};",
        ]
    lines += _keep("t", "u")
    for i in range(BLOCK):
        for k in ranks:
            lines.append(f"v{k} += {lane(f'm{k}', i)} * t{i} + {lane(f'n{k}', i)} * u{i};")
        if outputs == 1:
            lines += [_sum(f"t{i}", lane("e", i), i), _sum(f"u{i}", lane("f", i), i)]
    lines += [f"k += {BLOCK * len(names)};", "s += 8;"]
    what = f"low_rank{rank}{'' if folded else '_driven'}{'' if outputs == 1 else '_outputs'}{out.suffix}"
    text = f"""\
/* Channels of modes, four at a time, coupled by {rank} inner products w of the states with V:
 *   x' = x + a x + B u + U w{", B = 1" if folded else ""}. */
static void {what}(const float *RESTRICT k, float *s, const float *u, float *out, int channels, int modes\
{"" if outputs == 1 else ", int outputs, int across, int along"})
{{
{"" if outputs == 1 else "    const int states = 2 * modes;" + chr(10)}\
    for (; channels > 0; channels--) {{
        const float x = *u++, {", ".join(f"w{k} = s[{k}]" for k in ranks)};
        float {", ".join(f"v{k} = 0.0f" for k in ranks)};
        float *const w = s;
{_SUMS if outputs == 1 else ""}        k += 2;
        s += {before};
        for (int i = 0; i < modes; i += 4) {{
{indented(chr(10).join(lines), 12)}
        }}
{chr(10).join(f"        w[{k}] = v{k};" for k in ranks)}
{_answer(out, outputs)}
    }}
}}
"""
    name = p.kernel(what, text, "two")
    p.costs.multiply_adds += groups * (outputs + n * (4 + 4 * rank + 2 * outputs + (0 if folded else 2)))
    more = "" if outputs == 1 else f", {outputs}, {strides[0]}, {strides[1]}"
    state = p.state(groups * (2 * size + before))
    p.call(f"{name}({p.constants(table)}, {state}, {u.pointer}, {out.value.pointer}, {groups}, {size}{more});")


def _matrices(p: Program, u: Value, out: Out, system: Matrices, strides: tuple[int, int]) -> None:
    """LSSL in its real Schur form: x' = x + A x + B u. Four states need none before them, so they step in place."""
    groups = len(system.A1)
    outputs = len(system.C)
    places = [_places(A) for A in system.A1]
    size = max(-(-(int(at[-1]) + 1) // BLOCK) * BLOCK for at in places)
    tables = []
    for g, at in enumerate(places):
        A, B, C = np.zeros((size, size)), np.zeros(size), np.zeros((outputs, size))
        A[np.ix_(at, at)], B[at], C[:, at] = system.A1[g], system.B[g], system.C[:, g]
        parts = []
        for i in range(0, size, BLOCK):
            parts += [B[i : i + BLOCK], A[i : i + BLOCK, i:].T.reshape(-1)]
            parts += [C[0, i : i + BLOCK]] if outputs == 1 else []
        blocks = np.concatenate(parts)[None]
        tables.append(_table(system.D[:, g, None], blocks, None if outputs == 1 else C[:, None]).reshape(-1))
    what = "triangular" + ("" if outputs == 1 else "_outputs") + out.suffix
    answers = (
        "".join(f"            {_sum(f's[i + {i}]', f'k[{i}]', i)}\n" for i in range(BLOCK)) + "            k += 4;\n"
    )
    text = f"""\
/* Channels of states whose matrix A is triangular but for 2 x 2 blocks, which no four rows cut: x' = x + A x + B u. */
static void {what}(const float *RESTRICT k, float *s, const float *u, float *out, int channels, int states\
{"" if outputs == 1 else ", int outputs, int across, int along"})
{{
    for (; channels > 0; channels--) {{
        const float x = *u++;
{_SUMS if outputs == 1 else ""}        k += 2;
        for (int i = 0; i < states; i += 4) {{
            float a0 = k[0] * x, a1 = k[1] * x, a2 = k[2] * x, a3 = k[3] * x;
            k += 4;
{multiply("states - i", "s + i", 12, fours=True)}
            s[i] += a0;
            s[i + 1] += a1;
            s[i + 2] += a2;
            s[i + 3] += a3;
{answers if outputs == 1 else ""}        }}
        s += states;
{_answer(out, outputs)}
    }}
}}
"""
    name = p.kernel(what, text, "two")
    p.costs.multiply_adds += groups * (size * (size + BLOCK) // 2 + size * (1 + outputs) + outputs)
    more = "" if outputs == 1 else f", {outputs}, {strides[0]}, {strides[1]}"
    start = None
    if system.x0 is not None:
        start = np.zeros((groups, size))
        for g, at in enumerate(places):
            start[g, at] = system.x0[g]
    table, state = p.constants(np.concatenate(tables)), p.state(groups * size, start)
    p.call(f"{name}({table}, {state}, {u.pointer}, {out.value.pointer}, {groups}, {size}{more});")


def _places(A: Array) -> Array:
    """Where the states of a matrix in real Schur form go, such that no 2 x 2 block crosses a boundary of four."""
    n = len(A)
    if np.tril(A, -2).any():
        raise AssertionError("expected a real Schur form")
    at = np.zeros(n, int)
    i = place = 0
    while i < n:
        pair = i + 1 < n and A[i + 1, i] != 0
        if pair and place % BLOCK == BLOCK - 1:
            place += 1
        at[i] = place
        if pair:
            at[i + 1] = place + 1
        i, place = i + 1 + pair, place + 1 + pair
    return at


def mimo(p: Program, x: Value, out: Out, node: DiagonalMimo) -> None:
    """`DiagonalMimo`: the product with B drives the modes where they are, and that with C reads them there."""
    refuse_reverse(node)
    a1, B, C = p.systems.mimo(node)
    n = -(-len(a1) // 2) * 2
    a1, C = _padded(a1, n, -1.0), _padded(C, n)
    table = np.concatenate([_drives(B, n), _by_two(a1).reshape(n // 2, 4)], 1)
    text = f"""\
/* Two modes at a time: v = B u, x' = x + a x + v. */
static void driven_modes(const float *RESTRICT k, float *s, const float *u, int modes, int columns)
{{
    for (; modes > 0; modes -= 2) {{
        float a0 = 0.0f, a1 = 0.0f, a2 = 0.0f, a3 = 0.0f;
{multiply("columns", "u", 8)}
        const float r0 = s[0], r1 = s[1], q0 = s[2], q1 = s[3];
        s[0] = (r0 + a0) + k[0] * r0 - k[2] * q0;
        s[1] = (r1 + a1) + k[1] * r1 - k[3] * q1;
        s[2] = (q0 + a2) + k[0] * q0 + k[2] * r0;
        s[3] = (q1 + a3) + k[1] * q1 + k[3] * r1;
        k += 4;
        s += 4;
    }}
}}
"""
    name = p.kernel("driven_modes", text, "two")
    start = None if node.x0 is None else _by_two(_padded(node.x0, n))
    state = p.state(2 * n, start)
    columns = B.shape[1]
    drive = f"{name}({p.constants(table)}, {state}, {x.pointer}, {n}, {columns});"
    p.costs.multiply_adds += 2 * n * (columns + 2)
    p.costs.other += 2 * n
    p.call(drive, _read(p, state, out, C, node.D, x))


def _by_two(z: Array) -> Array:
    """Modes (n, ...) in pairs: the real parts of two, then the imaginary ones, (n / 2, 2, 2, ...)."""
    return np.stack([z.real.reshape(-1, 2, *z.shape[1:]), z.imag.reshape(-1, 2, *z.shape[1:])], 1)


def _drives(B: Array, n: int) -> Array:
    """The tables (n / 2, 4 d_in) of B (modes, d_in) filled up to n modes: the rows of each pair, four by four."""
    return _by_two(_padded(B.T, n).T).reshape(n // 2, 4, -1).swapaxes(1, 2).reshape(n // 2, -1)


def _read(p: Program, state: str, out: Out, C: Array, D: Array | None, x: Value) -> str:
    """The statement y = Re(C x) + D u of the modes at ``state``, C (d_out, n)."""
    weight = _by_two(C.conj().T).transpose(3, 0, 1, 2).reshape(len(C), -1)
    return mixing.read(p, Value(state, weight.shape[1]), out, weight, D if D is not None and D.any() else None, x)


def linoss(p: Program, x: Value, out: Out, node: Linoss) -> None:
    """`Linoss`: as `mimo`; an oscillator is real, so its real and its imaginary part are two of them."""
    system = p.systems.oscillators(node)
    n = -(-len(system.sign) // 2) * 2
    steps = [
        _padded(v, n, fill).reshape(-1, 2) for v, fill in ((system.sign, 1), (system.drag, -1), (system.spring, 0))
    ]
    table = np.concatenate([_drives(system.B, n), *steps], 1)
    lines = []
    for i in range(BLOCK):
        j = i % 2
        lines.append(f"        w[{i}] = k[{j}] * (w[{i}] + k[{2 + j}] * w[{i}]) + (k[{4 + j}] * x[{i}] + a{i});")
        lines.append(f"        x[{i}] = k[{j}] * x[{i}] + w[{i}];")
    text = f"""\
/* Two oscillators at a time: w' = sign (w + drag w) + spring x + B u, x' = sign x + w'. */
static void oscillators(const float *RESTRICT k, float *w, float *x, const float *u, int count, int columns)
{{
    for (; count > 0; count -= 2) {{
        float a0 = 0.0f, a1 = 0.0f, a2 = 0.0f, a3 = 0.0f;
{multiply("columns", "u", 8)}
{chr(10).join(lines)}
        k += 6;
        w += 4;
        x += 4;
    }}
}}
"""
    name = p.kernel("oscillators", text, "two")
    w, position = p.state(2 * n), p.state(2 * n)
    columns = system.B.shape[1]
    drive = f"{name}({p.constants(table)}, {w}, {position}, {x.pointer}, {n}, {columns});"
    p.costs.multiply_adds += 2 * n * (columns + 4)
    p.call(drive, _read(p, position, out, _padded(system.C, n), node.D, x))
