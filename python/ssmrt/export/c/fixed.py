"""Fixed point, for processors without floating point: signals in 16 bits, states in 32, products of 16 by 16.

A signal is whole numbers q that stand for q 2^-exponent; its exponent is chosen by what the calibration data make of
it, and what is beyond it saturates. So every signal has a bound, and with it every state: the sum over time of the
modulus of its response to an impulse, times that bound. Few inputs come near that, and scaled by it a state would have
few digits; so it is scaled by four times what the calibration data make of it where that is less, and saturates too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...document import Activation, Dense, Diagonal, Document, Dplr, Glu, Linear, Node, Norm, Pool, Residual
from ...errors import ExportError
from ..systems import Modes, Systems
from .bounds import SUMMED, halvings, most, peaks, reach_of, truncated
from .fixed_functions import COMBINED, KINDS, SUPPORT, TABLED, by_pairs
from .lower import flat, fused
from .program import Program, Value
from .recurrences import mirrored_modes, own_modes, section

Array = NDArray[Any]

_BITS = 15
# What a signal may exceed the calibration data by before it saturates.
_HEADROOM = 1.25
_HEADROOM_OF_STATES = 4.0
# Of the inputs' mean power, what is added to the power of each before a matrix is rounded for them.
_DAMPING = 0.01


@dataclass(frozen=True)
class Signal:
    """Where a signal is, its exponent, and what it was over the calibration data, (samples, width)."""

    value: Value
    exponent: int
    seen: Array


def exponent_of(seen: Array, bits: int = _BITS) -> int:
    """The exponent with which all of ``seen`` fits."""
    peak = float(np.abs(seen).max(initial=0.0)) * _HEADROOM
    return min(math.floor(math.log2((2**bits - 1) / peak)), 24) if peak > 0 else 0


def _exact(function: str, v: Array) -> Array:
    if function in ("identity", "relu"):
        return v if function == "identity" else np.maximum(v, 0)
    kind, _, table = TABLED[function]
    part = table(np.minimum(np.abs(v), 700.0 if function != "gelu_tanh" else 20.0))
    if kind == "even":
        return np.maximum(v, 0) + part
    return np.where(v < 0, -part, part) if kind == "odd" else np.where(v < 0, part, 1 - part)


def quantized(samples: Array, exponent: int) -> Array:
    """The samples as the C takes them, int16."""
    return np.clip(np.rint(samples * 2.0**exponent), -32768, 32767).astype(np.int16)


def rounded(weight: Array, seen: Array, most: float) -> Array:
    """Whole numbers up to ``most`` near ``weight`` (d_out, d_in), such that products with inputs like ``seen`` stay.

    Column by column, the loudest first: what one loses by rounding, those not yet rounded make up for, by the inputs'
    covariance (GPTQ, https://arxiv.org/abs/2210.17323, algorithm 1).
    """
    covariance = np.cov(seen, rowvar=False, bias=True).reshape(seen.shape[1], -1)
    loudest = np.argsort(-np.diag(covariance), kind="stable")
    damped = covariance[np.ix_(loudest, loudest)]
    damped = damped + np.eye(len(damped)) * max(_DAMPING * float(np.diag(damped).mean()), 1e-30)
    onward = np.linalg.cholesky(np.linalg.inv(damped)).T
    left, found = weight[:, loudest], np.empty(weight.shape)
    for j, at in enumerate(loudest):
        found[:, at] = np.clip(np.rint(left[:, j]), -most, most)
        left[:, j:] -= np.outer((left[:, j] - found[:, at]) / onward[j, j], onward[j, j:])
    return found


def lowered(document: Document, systems: Systems, rate: float, bits: int, samples: Array) -> tuple[Program, int]:
    """A Document as a fixed-point step, and the exponent of its inputs.

    ``bits``, 8 or 16, are those of the mixing layers' weights; ``samples`` (length, d_input) is typical input.
    """
    lowering = _Lowering(document, systems, rate, bits, samples)
    return lowering.p, lowering.exponent


class _Lowering:
    def __init__(self, document: Document, systems: Systems, rate: float, bits: int, samples: Array):
        self.p = Program(systems, rate, number="int16_t", held="int32_t")
        self.bits = bits
        self.answers: Array
        self.exponent = exponent_of(samples)
        x = Signal(Value("x", document.d_input), self.exponent, np.asarray(samples, np.float64))
        self.support("saturate", "down")
        nodes = flat(document.root)
        if not nodes or not isinstance(nodes[-1], Linear):
            last = nodes[-1].name if nodes else "root"
            raise ExportError(f"layer {last!r}: fixed point ends with a linear layer, and this is none")
        for group in fused(nodes[:-1]):
            x = self.run(x, group, None)
        with self.p.scope(nodes[-1]):
            self._last(x, nodes[-1])

    def support(self, *names: str) -> None:
        """Include these functions of `SUPPORT`."""
        for name in names:
            self.p.kernel(name, SUPPORT[name])

    def run(self, x: Signal, group: Sequence[Node], into: Signal | None) -> Signal:
        """The output of a group of fused nodes, added to ``into`` where there is one. Frees x where it is owned."""
        node = group[0]
        with self.p.scope(node):
            if isinstance(node, Residual) and len(group) == 1 and into is None:
                return self._residual(x, node)
            function, glu = "identity", None
            for other in group[1:]:
                if isinstance(other, Glu):
                    glu = other.gate
                elif isinstance(other, Activation):
                    function = other.function
            if isinstance(node, Activation):
                function = node.function
            if function not in ("identity", "relu", *TABLED) or glu not in (None, "sigmoid"):
                raise ExportError(
                    f"layer {self.p.layer!r}: {function if glu is None else 'a gate of ' + glu} has no fixed-point C;"
                    " export with quantize=None"
                )
            if isinstance(node, Linear):
                y = self._linear(x, node, function, glu, into)
            elif isinstance(node, Diagonal) and into is None:
                y = self._modes(x, node, function)
            elif isinstance(node, Norm) and node.kind in ("layer", "rms") and node.size is None and into is None:
                y = self._norm(x, node, function)
            elif isinstance(node, Pool) and node.mode == "mean" and function == "identity" and into is None:
                y = self._pool(x)
            else:
                diagonal = "make it diagonal by ssmrt.reduce, or " if isinstance(node, Dplr | Dense) else ""
                raise ExportError(
                    f"layer {self.p.layer!r}: {type(node).__name__} has no fixed-point C; {diagonal}export with"
                    " quantize=None"
                )
        if y.value.base != x.value.base:
            self.p.free(x.value)
        return y

    def _function(self, name: str) -> tuple[int | None, str]:
        """The exponent that the C function takes its argument in (None: any, since it has none), and the function."""
        if name == "identity":
            return None, "{v}"
        if name == "relu":
            return None, "({v} > 0 ? {v} : 0)"
        kind, own, table = TABLED[name]
        self.support("look")
        numbers = np.clip(np.rint(table(np.arange(257) * 2.0 ** (7 - own)) * 2**15), -32768, 32767)
        part = COMBINED[kind].format(own=own)
        pointer = f"{name}_table"
        rows = ", ".join(str(int(n)) for n in numbers)
        text = f"""\
static const int16_t {pointer}[257] = {{{rows}}};

/* {name} of v 2^-{own}, in units of 2^-exponent. */
APART static int32_t {name}_of(int32_t v, int exponent)
{{
    const int32_t size = v < 0 ? -v : v, part = look({pointer}, size > 32767 ? 32767 : size);
    return {part};
}}
"""
        self.p.kernel(f"{name}_of", text)
        return own, f"{name}_of({{v}}, {{exponent}})"

    def _weights(self, weight: Array, bias: Array | None, x: Signal) -> tuple[str, str, Array]:
        """Pointers to a matrix of x and its bias, and what each row's sums are multiples of, 1 / scale."""
        exponent = x.exponent
        weight = np.asarray(weight, np.float64)
        b = np.zeros(len(weight)) if bias is None else np.asarray(bias, np.float64)
        most = 2.0 ** (self.bits - 1) - 1
        scale = most / np.maximum(np.abs(weight).max(1), 1e-30)
        # No sum of any inputs is beyond 31 bits.
        total = np.abs(weight).sum(1) * 2.0**15 + np.abs(b) * 2.0**exponent
        scale = np.minimum(scale, (2.0**31 - 2.0**20) / np.maximum(total, 1e-30))
        scale = np.minimum(scale, 2.0**40)
        kind = "int8_t" if self.bits == 8 else "int16_t"
        whole = rounded(weight * scale[:, None], x.seen, most)
        # What rounding adds to the mean, the bias takes away.
        b = b - (whole / scale[:, None] - weight) @ x.seen.mean(0)
        matrix = self.p.table(kind, whole)
        return matrix, self.p.table("int32_t", np.rint(b * scale * 2.0**exponent)), scale * 2.0**exponent

    def _factors(self, unit: Array, exponent: Array) -> str:
        """A pointer to what takes rows' sums, in multiples of 1 / unit, to their exponents."""
        self.support("scaled_by")
        factor = 2.0**exponent / unit
        shift = np.floor(np.log2(8191 / factor)).astype(int)
        return self.p.table("int16_t", np.stack([np.rint(factor * 2.0**shift), shift - 13], -1))

    def _dot(self) -> str:
        """The C function that sums products of weights and a signal."""
        kind = "int8_t" if self.bits == 8 else "int16_t"
        pairs = """\
#ifdef DSP
    for (; columns >= 4; columns -= 4) {
        int32_t w0, w1, x0, x1;
        memcpy(&w0, w, sizeof w0);
        memcpy(&w1, w + 2, sizeof w1);
        memcpy(&x0, x, sizeof x0);
        memcpy(&x1, x + 2, sizeof x1);
        sum = __smlad(w1, x1, __smlad(w0, x0, sum));
        w += 4;
        x += 4;
    }
#endif
"""
        text = f"""\
static inline int32_t dot(const {kind} *w, const int16_t *x, int columns, int32_t sum)
{{
{pairs if self.bits == 16 else ""}    for (; columns >= 4; columns -= 4) {{
        sum += w[0] * x[0] + w[1] * x[1] + w[2] * x[2] + w[3] * x[3];
        w += 4;
        x += 4;
    }}
    for (; columns > 0; columns--)
        sum += *w++ * *x++;
    return sum;
}}
"""
        self.p.kernel("dot", text)
        return kind

    def _linear(self, x: Signal, node: Linear, function: str, glu: str | None, into: Signal | None) -> Signal:
        p, kind = self.p, self._dot()
        rows, columns = node.weight.shape
        exact = x.seen @ np.asarray(node.weight, np.float64).T + (0 if node.bias is None else node.bias)
        weight, bias = np.asarray(node.weight, np.float64), node.bias
        if glu is not None:
            half = rows // 2
            # Each value beside its gate.
            order = np.arange(rows).reshape(2, half).T.reshape(-1)
            weight, bias = weight[order], None if bias is None else np.asarray(bias)[order]
            values, gates = exact[:, :half], exact[:, half:]
            exact = values * _exact(glu, gates)
            own = exponent_of(values)
            taken, call = self._function(glu)
            assert taken is not None
            exponents = np.resize(np.array([own, taken]), rows)
        exact = _exact(function, exact)
        seen = exact if into is None else into.seen + exact
        exponent = exponent_of(seen)
        if into is None:
            value, before = p.buffer(exact.shape[1]), 0
        else:
            value, before = into.value, into.exponent - exponent
        if glu is None:
            taken, call = self._function(function)
            exponents = np.full(rows, exponent if taken is None else taken)
        matrix, offsets, unit = self._weights(weight, bias, x)
        factors = self._factors(unit, exponents)
        old = "" if into is None else "down(*y, before) + "
        add = "" if into is None else "_add"
        tables = f"const {kind} *w, const int32_t *bias, const int16_t *k"
        pointers = f"{matrix}, {offsets}, {factors}, {x.value.base}, {value.base}"
        if glu is None:
            what = f"linear{'' if function == 'identity' else '_' + function}{add}"
            result = call.format(v="v", exponent="exponent")
            body = f"""\
        const int32_t v = scaled_by(dot(w, x, columns, *bias++), k);
        *y = (int16_t)saturate({old}{result});
        w += columns;
        k += 2;
"""
            count, last = rows, "exponent"
        else:
            if function != "identity":
                raise ExportError(f"layer {p.layer!r}: {function} behind a gate has no fixed-point C")
            what = f"linear_glu{add}"
            body = f"""\
        const int32_t v = saturate(scaled_by(dot(w, x, columns, bias[0]), k));
        const int32_t u = scaled_by(dot(w + columns, x, columns, bias[1]), k + 2);
        const int32_t g = saturate({call.format(v="u", exponent="15")});
        *y = (int16_t)saturate({old}down((v * g + 16384) >> 15, more));
        w += 2 * columns;
        bias += 2;
        k += 4;
"""
            count, last = rows // 2, "more"
        used = last if f"{last}" in body else ""
        text = f"""\
static void {what}({tables}, const int16_t *x, int16_t *y, int rows, int columns\
{"" if into is None else ", int before"}{f", int {used}" if used else ""})
{{
    for (; rows > 0; rows--) {{
{body}        y++;
    }}
}}
"""
        name = p.kernel(what, text)
        more = "" if into is None else f", {before}"
        if used:
            more += f", {exponent}" if glu is None else f", {own - exponent}"
        p.call(f"{name}({pointers}, {count}, {columns}{more});")
        p.costs.multiply_adds += rows * columns
        p.costs.functions += rows
        return Signal(value, exponent, seen)

    def _residual(self, x: Signal, node: Residual) -> Signal:
        plain = node.alpha == 1.0 and not isinstance(node.beta, np.ndarray) and node.beta == 1.0
        groups = fused(flat(node.child))
        if not plain or (node.skip is not None and flat(node.skip)) or len(groups) < 2 or not x.value.owned:
            raise ExportError(
                f"layer {self.p.layer!r}: only a residual that adds a child of several layers to its input has"
                " fixed-point C; export with quantize=None"
            )
        inner = Signal(Value(x.value.base, x.value.width), x.exponent, x.seen)
        for group in groups[:-1]:
            inner = self.run(inner, group, None)
        return self.run(inner, groups[-1], x)

    def _modes(self, x: Signal, node: Diagonal, function: str) -> Signal:
        p = self.p
        system = p.systems.of(node)
        whole = p.systems.cut(node) is None and node.C_reverse is None
        if not isinstance(system, Modes) or len(system.C) != 1 or not whole:
            raise ExportError(
                f"layer {p.layer!r}: only uncut, causal modes with one output have fixed-point C;"
                " export with quantize=None"
            )
        exact = _convolved(p.systems.kernel(node, len(x.seen))[0], system.D[0], x.seen)
        seen = _exact(function, exact)
        exponent = exponent_of(seen)
        taken, call = self._function(function)
        aim = exponent if taken is None else taken
        bound = 2.0 ** (_BITS - x.exponent)
        minus = minus_of = mirrored_modes(system.a1)
        # Both kinds come in pairs: each may get a mode that forgets at once and is not heard.
        own = own_modes(system.C * system.B)
        odd = np.stack([np.count_nonzero(own & ~minus, 1), np.count_nonzero(own & minus, 1)], -1) % 2 == 1
        used = np.concatenate([own, odd], 1)
        minus = np.concatenate([minus, np.tile([False, True], (len(minus), 1))], 1)
        a, gain = (
            np.pad(v, ((0, 0), (0, 2)), constant_values=fill)
            for v, fill in ((system.a1, -1), (system.C[0] * system.B, 0))
        )
        # Plain ones first.
        order = np.argsort(minus, 1, kind="stable")
        minus, a, gain, used = (np.take_along_axis(v, order, 1) for v in (minus, a, gain, used))
        plain, mirror = (np.stack(section(a, gain, m)) for m in (False, True))
        c, r, C1, C2 = np.where(minus, mirror, plain)
        k = halvings(np.abs(np.where(minus, 2 + a, a)))
        r, C2 = r * 2.0**k, C2 * 2.0**k
        bound_of_states = most(np.where(minus, -(1 + a), 1 + a), k).max(1) * bound
        reach = reach_of(p.systems.kernel(node, SUMMED)[0], system.D[0], np.abs(1 + a).max(1)) * bound
        if not np.isfinite(bound_of_states).all():
            channel = int(np.argmin(np.isfinite(bound_of_states)))
            raise ExportError(f"layer {p.layer!r}: channel {channel} never forgets, which no fixed point can hold")
        bound_of_states = np.minimum(
            bound_of_states, _HEADROOM_OF_STATES * np.maximum(peaks(system.a1, minus_of, x.seen), 1e-9)
        )
        held = np.floor(np.log2(2.0**30 / bound_of_states)).astype(int)
        least = np.full(len(a), 1e-30)
        peak = np.maximum(np.abs([C1, C2]).max((0, 2)), least)
        answer = held - 16 + np.floor(np.log2(32767.0 / peak)).astype(int)
        answer = np.minimum(answer, np.floor(np.log2(2.0**30 / np.maximum(reach, least))).astype(int))
        D = system.D[0]
        fine = np.floor(np.log2(32767.0 / np.maximum(np.abs(D), 1e-9))).astype(int)
        fine = np.minimum(fine, answer - x.exponent)
        norm = np.floor(np.log2(32767.0 / np.maximum(np.maximum(np.abs(c), np.abs(r)), 1e-9))).astype(int) - _BITS
        norm = np.clip(norm, -2, 27)
        moves = _packed(np.rint(c * 2.0 ** (_BITS + norm)), np.rint(r * 2.0 ** (_BITS + norm)))
        scale = 2.0 ** (answer - held + 16)[:, None]
        reads = _packed(np.rint(C1 * scale), np.rint(C2 * scale))
        groups, total = len(a), 2 * int(np.count_nonzero(used))
        pairs = np.stack([np.count_nonzero(used & ~minus, 1), np.count_nonzero(used & minus, 1)], -1) // 2
        words = np.stack([moves, reads], -1)
        bias = np.rint(truncated(c, r, k, C1 * scale, C2 * scale, minus).sum(1))
        parts = [np.concatenate([[-bias[g]], words[g][used[g]].reshape(-1)]) for g in range(groups)]
        tables = {
            "int32_t": np.concatenate(parts),
            "uint8_t": np.stack([norm + 2, k], -1)[used],
            "int16_t": np.stack(
                [x.exponent - held, np.rint(D * 2.0**fine), fine + x.exponent - answer, answer - aim], -1
            ),
            "uint16_t": pairs,
        }
        pointers = ", ".join(p.table(kind, numbers) for kind, numbers in tables.items())
        self.support("low", "held")
        for kind, source in KINDS.items():
            p.kernel(kind, source)
        what = f"modes{'' if function == 'identity' else '_' + function}"
        result = call.format(v="v", exponent="exponent")
        text = f"""\
/* Channels of modes, each a real section of second order, x1' = x1 + u + c x1 - r x2, x2' = x2 + 2^-e x1', then those
 * mirrored, in pairs; of states the upper halves are multiplied. c is the shift of u, D, its shift and that of y. */
static void {what}(const int32_t *k, const uint8_t *e, const int16_t *c, const uint16_t *n, int32_t *s, \
const int16_t *u, int16_t *out, int channels{", int exponent" if "exponent" in result else ""})
{{
    for (; channels > 0; channels--) {{
        const int32_t x = down(*u, c[0]);
        uint32_t y = (uint32_t)down(*u++ * c[1], c[2]) + (uint32_t)*k++;
{by_pairs("plain")}
{by_pairs("mirrored")}
        const int32_t v = down((int32_t)y, c[3]);
        *out++ = (int16_t)saturate({result});
        c += 4;
    }}
}}
"""
        name = p.kernel(what, text)
        value = x.value if x.value.owned else p.buffer(groups)
        more = f", {exponent}" if "exponent" in result else ""
        p.call(f"{name}({pointers}, {p.state(total)}, {x.value.base}, {value.base}, {groups}{more});")
        p.costs.multiply_adds += 2 * total + groups
        p.costs.functions += groups
        return Signal(value, exponent, seen)

    def _norm(self, x: Signal, node: Norm, function: str) -> Signal:
        p = self.p
        layer = node.kind == "layer"
        width = x.value.width
        centred = x.seen - x.seen.mean(1, keepdims=True) if layer else x.seen
        if node.shift:
            raise ExportError(f"layer {p.layer!r}: a norm with a shift has no fixed-point C; export with quantize=None")
        weight = np.ones(width) if node.weight is None else np.asarray(node.weight, np.float64)
        bias = np.zeros(width) if node.bias is None else np.asarray(node.bias, np.float64)
        normed = centred / np.sqrt((centred**2).mean(1, keepdims=True) + node.eps) * weight + bias
        seen = _exact(function, normed)
        exponent = exponent_of(seen)
        taken, call = self._function(function)
        aim = exponent if taken is None else taken
        # c / sqrt(sum of squares) has 15 bits behind the point, and the weights sqrt(width) in them.
        gain = weight * math.sqrt(width)
        fine = math.floor(math.log2(32767.0 / max(float(np.abs(gain).max()), 1e-9)))
        table = p.table("int16_t", np.rint(gain * 2.0**fine))
        offsets = p.table("int32_t", np.rint(bias * 2.0**aim))
        eps = width * node.eps * 4.0**x.exponent
        mean = """\
    int32_t mean = 0;
    for (int i = 0; i < width; i++)
        mean += x[i];
    mean = (mean + (mean < 0 ? -width : width) / 2) / width;
"""
        self.support("root")
        result = call.format(v="v", exponent="exponent")
        what = f"{node.kind}_norm{'' if function == 'identity' else '_' + function}"
        text = f"""\
/* c / sqrt(sum of c^2 + eps) k + bias, c = {"x - mean" if layer else "x"}. */
static void {what}(const int16_t *k, const int32_t *bias, const int16_t *x, int16_t *y, int width, uint32_t eps, \
int by{", int exponent" if "exponent" in result else ""})
{{
{mean if layer else ""}    uint64_t power = eps;
    for (int i = 0; i < width; i++) {{
        const int32_t c = saturate(x[i]{" - mean" if layer else ""});
        power += (uint32_t)(c * c);
    }}
    /* power = m 4^up with m of 31 or 32 bits. */
    int up = 0;
    for (; power >= (uint64_t)1 << 32; up++)
        power >>= 2;
    uint32_t m = (uint32_t)power;
    for (; m < (uint32_t)1 << 30; up--)
        m = m > 0u ? m << 2 : (uint32_t)1 << 30;
    const int32_t inverse = (int32_t)(((uint32_t)1 << 30) / root(m));
    for (int i = 0; i < width; i++) {{
        const int32_t c = saturate(x[i]{" - mean" if layer else ""});
        const int32_t v = down(down(c * inverse, 15 + up) * *k++, by) + *bias++;
        *y++ = (int16_t)saturate({result});
    }}
}}
"""
        name = p.kernel(what, text)
        value = x.value if x.value.owned else p.buffer(width)
        more = f", {exponent}" if "exponent" in result else ""
        numbers = f"{width}, {min(round(eps), 2**32 - 1)}u, {15 + fine - aim}"
        p.call(f"{name}({table}, {offsets}, {x.value.base}, {value.base}, {numbers}{more});")
        p.costs.other += 4 * width
        return Signal(value, exponent, seen)

    def _pool(self, x: Signal) -> Signal:
        p, width = self.p, x.value.width
        seen = np.cumsum(x.seen, 0) / np.arange(1, len(x.seen) + 1)[:, None]
        # The first samples' means are as large as the samples; later ones need the digits.
        exponent = exponent_of(seen)
        text = """\
/* The running mean, with 15 more bits: s has the number of samples, then the means. */
static void pool_mean(int32_t *s, const int16_t *x, int16_t *y, int channels, int by)
{
    const int32_t count = s[0] < (int32_t)1 << 30 ? s[0] + 1 : s[0];
    const int64_t share = ((int64_t)1 << 31) / count;
    *s++ = count;
    for (; channels > 0; channels--) {
        const int64_t away = (int64_t)*x++ * 32768 - *s;
        *s += (int32_t)((away * share + ((int64_t)1 << 30)) >> 31);
        *y++ = (int16_t)saturate(down(*s++, by));
    }
}
"""
        name = p.kernel("pool_mean", text)
        value = x.value if x.value.owned else p.buffer(width)
        p.call(f"{name}({p.state(1 + width)}, {x.value.base}, {value.base}, {width}, {15 + x.exponent - exponent});")
        p.costs.other += 4 * width
        return Signal(value, exponent, seen)

    def _last(self, x: Signal, node: Node) -> None:
        """The last product, in float: one multiplication a row."""
        assert isinstance(node, Linear)
        p, kind = self.p, self._dot()
        rows, columns = node.weight.shape
        self.answers = x.seen @ np.asarray(node.weight, np.float64).T + (0 if node.bias is None else node.bias)
        matrix, offsets, unit = self._weights(node.weight, node.bias, x)
        text = f"""\
static void answers(const {kind} *w, const int32_t *bias, const float *k, const int16_t *x, float *y, int rows, \
int columns)
{{
    for (; rows > 0; rows--) {{
        *y++ = (float)dot(w, x, columns, *bias++) * *k++;
        w += columns;
    }}
}}
"""
        name = p.kernel("answers", text)
        pointers = f"{matrix}, {offsets}, {p.constants(1.0 / unit)}, {x.value.base}, y"
        p.call(f"{name}({pointers}, {rows}, {columns});")
        p.costs.multiply_adds += rows * (columns + 1)
        p.free(x.value)


def _packed(lower: Array, upper: Array) -> Array:
    """Two int16 in an int32."""
    low, high = (np.clip(v, -32768, 32767).astype(np.int64) & 0xFFFF for v in (lower, upper))
    both = low | (high << 16)
    return np.where(both >= 2**31, both - 2**32, both)


def _convolved(kernel: Array, D: Array, u: Array) -> Array:
    """(samples, H) of u (samples, H), kernels (H, samples) and D (H,)."""
    size = 2 * len(u)
    spectrum = np.fft.rfft(u, size, 0) * np.fft.rfft(kernel.T, size, 0)
    found: Array = np.fft.irfft(spectrum, size, 0)[: len(u)] + D * u
    return found
