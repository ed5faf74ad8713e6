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

from ...document import (
    Activation,
    Dense,
    Diagonal,
    DiagonalMimo,
    Document,
    Dplr,
    Gate,
    Glu,
    Linear,
    Node,
    Norm,
    Pool,
    Residual,
)
from ...errors import ExportError
from ..systems import Modes, Systems
from . import pointwise
from .bounds import HEADROOM_OF_STATES, SUMMED, bits_over, halvings, most, peaks, reach_of, truncated
from .fixed_functions import COMBINED, KINDS, SUPPORT, TABLED, by_pairs, dots
from .fixed_mimo import mimo
from .lower import RUNS, flat, fused
from .program import Out, Program, Value
from .recurrences import mirrored_modes, own_modes, section

Array = NDArray[Any]

_BITS = 15
# What a signal may exceed the calibration data by before it saturates.
_HEADROOM = 1.25
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
    lowering = Lowering(document, systems, rate, bits, samples)
    return lowering.p, lowering.exponent


class Lowering:
    def __init__(self, document: Document, systems: Systems, rate: float, bits: int, samples: Array):
        self.p = Program(systems, rate, number="int16_t", held="int32_t")
        self.bits = bits
        self.answers: Array
        self.exponent = exponent_of(samples)
        x = Signal(Value("x", document.d_input), self.exponent, np.asarray(samples, np.float64))
        self.support("saturate")
        nodes = flat(document.root)
        behind = nodes.pop() if nodes and isinstance(nodes[-1], Activation) and nodes[-1].function in RUNS else None
        if not nodes or not isinstance(nodes[-1], Linear):
            last = nodes[-1].name if nodes else "root"
            raise ExportError(f"layer {last!r}: fixed point ends with a linear layer, and this is none")
        for group in fused(nodes[:-1]):
            x = self.run(x, group, None)
        with self.p.scope(nodes[-1]):
            self._last(x, nodes[-1])
            if isinstance(behind, Activation):
                y = Value("y", document.d_output)
                pointwise.softmax(self.p, y, Out(y), behind.function, behind.size)

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
            if isinstance(node, Linear) and glu is not None:
                y = self._linear_glu(x, node, function, glu, into)
            elif isinstance(node, Linear):
                weight = np.asarray(node.weight, np.float64)
                exact = x.seen @ weight.T + (0 if node.bias is None else node.bias)
                y = self.linear(x, exact, weight, node.bias, function, into)
            elif isinstance(node, Diagonal) and into is None:
                y = self._modes(x, node, function)
            elif isinstance(node, DiagonalMimo) and into is None:
                y = mimo(self, x, node, function)
            elif isinstance(node, Gate) and not flat(node.left) and function == "identity":
                y = self._gate(x, node, into)
            elif isinstance(node, Norm) and node.kind == "affine" and into is None:
                y = self._affine(x, node, function)
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
        """The exponent that the C function takes its argument in (None: any, since it has none), and the function.

        Its result is in units of 2^-15, shifted down by ``by``.
        """
        if name == "identity":
            return None, "{v}"
        if name == "relu":
            return None, "({v} > 0 ? {v} : 0)"
        kind, own, table = TABLED[name]
        self.support("down", "look")
        numbers = np.clip(np.rint(table(np.arange(257) * 2.0 ** (7 - own)) * 2**15), -32768, 32767).astype(int)
        # From some step on it stays as it is.
        steps = int(np.flatnonzero(numbers != numbers[-1]).max()) + 1
        numbers, most = numbers[: steps + 2], min(steps * 128, 32767)
        pointer = f"{name}_table"
        rows = ", ".join(map(str, numbers))
        text = f"""\
static const int16_t {pointer}[{len(numbers)}] = {{{rows}}};

/* {name} of v 2^-{own}, in units of 2^-15, times 2^-by. */
APART static int32_t {name}_of(int32_t v, int by)
{{
    const int32_t size = v < 0 ? -v : v, part = look({pointer}, size > {most} ? {most} : size);
    return {COMBINED[kind].format(finer=15 - own)};
}}
"""
        self.p.kernel(f"{name}_of", text)
        return own, f"{name}_of({{v}}, {{by}})"

    def fits(self, least: int) -> None:
        """Refuse a layer that is to be shifted down by less than nothing."""
        if least < 0:
            raise ExportError(
                f"layer {self.p.layer!r}: its parts are beyond 2^14 times what they come to, which no fixed point can"
                " hold; export with quantize=None"
            )

    def rows(
        self,
        weight: Array,
        bias: Array | None,
        x: Signal,
        exponents: Array | None,
        *,
        least: int = 0,
        coarse: int | None = None,
        direct: tuple[Array, Signal] | None = None,
    ) -> tuple[str, Array]:
        """Arguments of `dots`: pointers to a matrix and to its biases, and what each row's sums are multiples of.

        With ``exponents`` (rows,) also a pointer to the factors that take sums there, ``coarse`` bits of which are left
        out: they shift down by ``least`` or more. With ``direct``, D (rows,) and u, also D, u and how much finer D is.
        """
        weight = np.asarray(weight, np.float64)
        b = np.zeros(len(weight)) if bias is None else np.asarray(bias, np.float64)
        most = 2.0 ** (self.bits - 1) - 1
        scale = self.scales(weight, b, x)
        if direct is not None:
            D, u = direct
            largest = np.maximum(np.abs(D), 1e-30)
            # x has a bit less than a signal may have.
            scale = np.minimum(scale, (2.0**15 - 2.0**7) * 2.0 ** (u.exponent - x.exponent) / largest)
        if coarse is None:
            # Sums of weights of 16 bits have all 31.
            total = np.abs(weight).sum(1) * scale * 2.0**15 + np.abs(b) * scale * 2.0**x.exponent
            if direct is not None:
                total += np.abs(D) * scale * 2.0 ** (15 + x.exponent - u.exponent)
            coarse = 13 if self.bits == 16 else bits_over(total)
        if exponents is not None:
            scale = np.minimum(scale, 2.0 ** (exponents - x.exponent + 8.0 + coarse))
        whole = rounded(weight * scale[:, None], x.seen, most)
        # What rounding adds to the mean, the bias takes away.
        b = b - (whole / scale[:, None] - weight) @ x.seen.mean(0)
        unit = scale * 2.0**x.exponent
        if self.bits == 8:
            four = whole.shape[1] // 4 * 4
            whole[:, :four] = whole[:, :four].reshape(len(whole), -1, 4)[..., [0, 2, 1, 3]].reshape(len(whole), four)
        whole = np.pad(whole, ((0, 0), (0, whole.shape[1] % 2)))
        pointers = self.p.table(f"int{self.bits}_t", whole)
        half = 0.0 if exponents is None else 2.0**coarse // 2
        pointers += f", {self.p.table('int32_t', np.rint(b * unit) + half)}"
        self.p.kernel("dots", dots(self.bits))
        if exponents is not None:
            self.support("down", "scaled_by")
            factor = 2.0**exponents / unit
            shift = np.floor(np.log2(8191 / factor)).astype(int)
            self.fits(int(shift.min()) - coarse - least)
            pointers += (
                f", {self.p.table('int16_t', np.stack([np.rint(factor * 2.0**shift), shift - coarse], -1))}, {coarse}"
            )
        if direct is not None:
            gain = np.abs(D) * unit * 2.0**-u.exponent
            fine = int(np.clip(np.floor(np.log2(32767 / max(float(gain.max()), 1e-9))), 0, 15))
            table = self.p.table("int16_t", np.rint(D * unit * 2.0 ** (fine - u.exponent)))
            pointers += f", {table}, {u.value.base}, {fine}"
        return pointers, unit

    def scales(self, weight: Array, bias: Array, x: Signal) -> Array:
        """What rows are multiplied by: their weights have so many bits, and no sum with any inputs is beyond 31."""
        most = 2.0 ** (self.bits - 1) - 1
        total = np.abs(weight).sum(1) * 2.0**15 + np.abs(bias) * 2.0**x.exponent
        scale = np.minimum(
            most / np.maximum(np.abs(weight).max(1), 1e-30), (2.0**31 - 2.0**21) / np.maximum(total, 1e-30)
        )
        return np.asarray(np.minimum(scale, 2.0**40))

    def signal(self, seen: Array) -> Signal:
        """A new one of whole numbers, ``seen`` (samples, ...) over the calibration data."""
        flattened = seen.reshape(len(seen), -1)
        return Signal(self.p.buffer(flattened.shape[1]), 0, flattened)

    def linear(
        self,
        x: Signal,
        exact: Array,
        weight: Array,
        bias: Array | None,
        function: str,
        into: Signal | None,
        direct: tuple[Array, Signal] | None = None,
    ) -> Signal:
        """``function`` of W x + b, or with ``direct`` of W x + b + D u, added to ``into``.

        ``exact`` are values of what the function is of, over the calibration data.
        """
        exact = _exact(function, exact)
        taken, call = self._function(function)
        exponent, seen, value, before = self._aim(exact, into, 24 if taken is None else 15)
        even = taken is not None and TABLED[function][0] == "even"
        pointers, _ = self.rows(
            weight, bias, x, np.full(len(weight), exponent if taken is None else taken), least=4 * even, direct=direct
        )
        old = "" if into is None else "down(*y, before) + "
        by = "" if taken is None else ", int by"
        what = f"linear{'' if direct is None else '_direct'}{'' if function == 'identity' else '_' + function}"
        what += "" if into is None else "_add"
        given = "" if direct is None else "const int16_t *d, const int16_t *u, int finer, "
        straight = "" if direct is None else "(*d++ * *u++ >> finer) + "
        text = f"""\
static void {what}({self.parameters}, {given}const int16_t *x, int16_t *y, int rows, int columns\
{"" if into is None else ", int before"}{by})
{{
    const int across = columns + columns % 2;
    for (; rows > 0; rows -= 2) {{
        const int count = rows > 1 ? 2 : 1;
        int32_t sums[2] = {{bias[0], bias[count - 1]}};
        dots(w, w + across * (count - 1), x, columns, sums);
        for (int i = 0; i < count; i++) {{
            const int32_t v = scaled_by({straight}sums[i], k, coarse);
            *y = (int16_t)saturate({old}{call.format(v="v", by="by")});
            k += 2;
            y++;
        }}
        w += 2 * across;
        bias += 2;
    }}
}}
"""
        more = "" if into is None else f", {before}"
        more += "" if taken is None else f", {15 - exponent}"
        self.p.kernel(what, text)
        self.p.call(f"{what}({pointers}, {x.value.base}, {value.base}, {len(weight)}, {weight.shape[1]}{more});")
        self.p.costs.multiply_adds += weight.size
        self.p.costs.functions += len(weight)
        return Signal(value, exponent, seen)

    def _linear_glu(self, x: Signal, node: Linear, function: str, gate: str, into: Signal | None) -> Signal:
        if function != "identity":
            raise ExportError(f"layer {self.p.layer!r}: {function} behind a gate has no fixed-point C")
        half = len(node.weight) // 2
        # Each value beside its gate.
        order = np.arange(2 * half).reshape(2, half).T.reshape(-1)
        weight = np.asarray(node.weight, np.float64)
        bias = None if node.bias is None else np.asarray(node.bias, np.float64)[order]
        exact = x.seen @ weight.T + (0 if node.bias is None else node.bias)
        values = exact[:, :half]
        taken, call = self._function(gate)
        assert taken is not None
        exponent, seen, value, before = self._aim(values * _exact(gate, exact[:, half:]), into, 24)
        own = min(exponent_of(values), exponent + 12)
        exponent = min(exponent, own + 15)
        pointers, _ = self.rows(weight[order], bias, x, np.resize([own, taken], 2 * half))
        old = "" if into is None else "down(*y, before) + "
        what = f"linear_glu{'' if into is None else '_add'}"
        text = f"""\
static void {what}({self.parameters}, const int16_t *x, int16_t *y, int rows, int columns\
{"" if into is None else ", int before"}, int by)
{{
    const int across = columns + columns % 2;
    for (; rows > 0; rows--) {{
        int32_t sums[2] = {{bias[0], bias[1]}};
        dots(w, w + across, x, columns, sums);
        const int32_t v = saturate(scaled_by(sums[0], k, coarse)), u = scaled_by(sums[1], k + 2, coarse);
        *y = (int16_t)saturate({old}down(v * {call.format(v="u", by="0")}, by));
        w += 2 * across;
        bias += 2;
        k += 4;
        y++;
    }}
}}
"""
        more = "" if into is None else f", {before}"
        self.p.kernel(what, text)
        pointers += f", {x.value.base}, {value.base}"
        self.p.call(f"{what}({pointers}, {half}, {weight.shape[1]}{more}, {15 + own - exponent});")
        self.p.costs.multiply_adds += weight.size
        self.p.costs.functions += 2 * half
        return Signal(value, exponent, seen)

    @property
    def parameters(self) -> str:
        """Of a C function that takes what `rows` points to."""
        return f"const int{self.bits}_t *w, const int32_t *bias, const int16_t *k, int coarse"

    def _aim(self, exact: Array, into: Signal | None, most: int) -> tuple[int, Array, Value, int]:
        """Where values (samples, width) go, added to ``into``: exponent, all there is, buffer, the old one's shift."""
        seen = exact if into is None else into.seen + exact
        exponent = min(exponent_of(seen), most)
        if into is None:
            return exponent, seen, self.p.buffer(exact.shape[1]), 0
        exponent = min(exponent, into.exponent)
        return exponent, seen, into.value, min(into.exponent - exponent, 16)

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
        taken, call = self._function(function)
        exponent = min(exponent_of(seen), 24 if taken is None else 15)
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
            bound_of_states, HEADROOM_OF_STATES * np.maximum(peaks(system.a1, minus_of, x.seen), 1e-9)
        )
        gain_of_input = np.minimum(np.floor(2.0 ** (30 - x.exponent) / bound_of_states), 32767)
        self.fits(int(gain_of_input.min()) - 1)
        held = np.log2(gain_of_input) + x.exponent
        least = np.full(len(a), 1e-30)
        peak = np.maximum(np.abs([C1, C2]).max((0, 2)), least)
        answer = np.floor(held - 16 + np.log2(32767.0 / peak)).astype(int)
        answer = np.minimum(answer, np.floor(np.log2(2.0**30 / np.maximum(reach, least))).astype(int))
        D = system.D[0]
        fine = np.floor(np.log2(32767.0 / np.maximum(np.abs(D), 1e-9))).astype(int)
        fine = np.minimum(fine, answer - x.exponent)
        self.fits(int((answer - aim).min()) - (4 if taken is not None and TABLED[function][0] == "even" else 0))
        moves = _packed(np.rint(c * 2.0 ** (13 + k)), np.rint(-r * 2.0 ** (13 + k)))
        scale = 2.0 ** (answer - held + 16)[:, None]
        reads = _packed(np.rint(C1 * scale), np.rint(C2 * scale))
        groups, total = len(a), 2 * int(np.count_nonzero(used))
        pairs = [np.count_nonzero(used & ~minus, 1) // 2, np.count_nonzero(used & minus, 1) // 2]
        words = np.stack([moves, reads], -1)
        shift = answer - aim
        # With what the last shift rounds by.
        bias = np.rint(-truncated(c, r, k, C1 * scale, C2 * scale, minus).sum(1)) + (1 << shift >> 1)
        parts = [np.concatenate([[bias[g]], words[g][used[g]].reshape(-1)]) for g in range(groups)]
        of_D = answer - fine - x.exponent
        tables = {
            "int32_t": np.concatenate(parts),
            "uint8_t": np.concatenate([np.r_[of_D[g], k[g][used[g]], shift[g]] for g in range(groups)]),
            "int16_t": np.stack([gain_of_input, np.rint(D * 2.0**fine), *pairs], -1),
        }
        pointers = ", ".join(p.table(kind, numbers) for kind, numbers in tables.items())
        self.support("low", "held")
        for kind, source in KINDS.items():
            p.kernel(kind, source)
        what = f"modes{'' if function == 'identity' else '_' + function}"
        text = f"""\
/* Channels of modes, each a real section of second order, x1' = x1 + u + c x1 - r x2, x2' = x2 + 2^-e x1', then those
 * mirrored, in pairs; of states the upper halves are multiplied. c has the gain of u, D, and how many pairs there are
 * of both kinds, e the shifts of D, of the modes and of y. */
static void {what}(const int32_t *k, const uint8_t *e, const int16_t *c, int32_t *s, \
const int16_t *u, int16_t *out, int channels{"" if taken is None else ", int by"})
{{
    for (; channels > 0; channels--) {{
        const int32_t x = *u * c[0];
        uint32_t y = (uint32_t)*k++ + ((uint32_t)(*u++ * c[1]) << *e++);
{by_pairs("plain", "c[2]")}
{by_pairs("mirrored", "c[3]")}
        const int32_t v = (int32_t)y >> *e++;
        *out++ = (int16_t)saturate({call.format(v="v", by="by")});
        c += 4;
    }}
}}
"""
        name = p.kernel(what, text)
        value = x.value if x.value.owned else p.buffer(groups)
        more = "" if taken is None else f", {15 - exponent}"
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
        taken, call = self._function(function)
        exponent = min(exponent_of(seen), 24 if taken is None else 15)
        aim = exponent if taken is None else taken
        # c / sqrt(sum of squares) has 15 bits behind the point, and the weights sqrt(width) in them.
        gain = weight * math.sqrt(width)
        fine = min(math.floor(math.log2(32767.0 / max(float(np.abs(gain).max()), 1e-9))), aim + 15)
        self.fits(15 + fine - aim)
        table = p.table("int16_t", np.rint(gain * 2.0**fine))
        offsets = p.table("int32_t", np.rint(bias * 2.0**aim))
        eps = width * node.eps * 4.0**x.exponent
        mean = """\
    int32_t mean = 0;
    for (int i = 0; i < width; i++)
        mean += x[i];
    mean = (mean + (mean < 0 ? -width : width) / 2) / width;
"""
        self.support("down", "root")
        what = f"{node.kind}_norm{'' if function == 'identity' else '_' + function}"
        text = f"""\
/* c / sqrt(sum of c^2 + eps) k + bias, c = {"x - mean" if layer else "x"}. */
static void {what}(const int16_t *k, const int32_t *bias, const int16_t *x, int16_t *y, int width, uint32_t eps, \
int down_to{"" if taken is None else ", int by"})
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
        const int32_t v = down(down(c * inverse, 15 + up) * *k++, down_to) + *bias++;
        *y++ = (int16_t)saturate({call.format(v="v", by="by")});
    }}
}}
"""
        name = p.kernel(what, text)
        value = x.value if x.value.owned else p.buffer(width)
        more = "" if taken is None else f", {15 - exponent}"
        numbers = f"{width}, {min(round(eps), 2**32 - 1)}u, {15 + fine - aim}"
        p.call(f"{name}({table}, {offsets}, {x.value.base}, {value.base}, {numbers}{more});")
        p.costs.other += 4 * width
        return Signal(value, exponent, seen)

    def _affine(self, x: Signal, node: Norm, function: str) -> Signal:
        p, width = self.p, x.value.width
        weight = np.ones(width) if node.weight is None else np.asarray(node.weight, np.float64)
        bias = np.zeros(width) if node.bias is None else np.asarray(node.bias, np.float64)
        seen = _exact(function, x.seen * weight + bias)
        taken, call = self._function(function)
        exponent = min(exponent_of(seen), 24 if taken is None else 15)
        aim = exponent if taken is None else taken
        fine = math.floor(math.log2(32767.0 / max(float(np.abs(weight).max()), 1e-9)))
        fine = min(fine, aim - x.exponent + 24)
        self.fits(fine + x.exponent - aim)
        pointers = f"{p.table('int16_t', np.rint(weight * 2.0**fine))}, {p.table('int32_t', np.rint(bias * 2.0**aim))}"
        self.support("down")
        what = f"affine{'' if function == 'identity' else '_' + function}"
        text = f"""\
static void {what}(const int16_t *k, const int32_t *bias, const int16_t *x, int16_t *y, int width, int down_to\
{"" if taken is None else ", int by"})
{{
    for (; width > 0; width--) {{
        const int32_t v = down(*x++ * *k++, down_to) + *bias++;
        *y++ = (int16_t)saturate({call.format(v="v", by="by")});
    }}
}}
"""
        name = p.kernel(what, text)
        value = x.value if x.value.owned else p.buffer(width)
        more = "" if taken is None else f", {15 - exponent}"
        p.call(f"{name}({pointers}, {x.value.base}, {value.base}, {width}, {fine + x.exponent - aim}{more});")
        p.costs.multiply_adds += width
        return Signal(value, exponent, seen)

    def _gate(self, x: Signal, node: Gate, into: Signal | None) -> Signal:
        """What comes in, times what its right side makes of it."""
        p = self.p
        gate = Signal(Value(x.value.base, x.value.width), x.exponent, x.seen)
        for group in fused(flat(node.right)):
            gate = self.run(gate, group, None)
        exponent, seen, value, before = self._aim(x.seen * gate.seen, into, x.exponent + gate.exponent)
        old = "" if into is None else "down(*y, before) + "
        what = f"gate{'' if into is None else '_add'}"
        text = f"""\
static void {what}(const int16_t *x, const int16_t *g, int16_t *y, int width\
{"" if into is None else ", int before"}, int by)
{{
    for (; width > 0; width--) {{
        *y = (int16_t)saturate({old}down(*x++ * *g++, by));
        y++;
    }}
}}
"""
        self.support("down")
        name = p.kernel(what, text)
        by = min(x.exponent + gate.exponent - exponent, 30)
        more = "" if into is None else f", {before}"
        p.call(f"{name}({x.value.base}, {gate.value.base}, {value.base}, {x.value.width}{more}, {by});")
        p.costs.multiply_adds += x.value.width
        p.free(gate.value)
        return Signal(value, exponent, seen)

    def _pool(self, x: Signal) -> Signal:
        p, width = self.p, x.value.width
        seen = np.cumsum(x.seen, 0) / np.arange(1, len(x.seen) + 1)[:, None]
        # The first samples' means are as large as the samples; later ones need the digits.
        exponent = min(exponent_of(seen), x.exponent + 15)
        self.support("down")
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
        p = self.p
        rows, columns = node.weight.shape
        self.answers = x.seen @ np.asarray(node.weight, np.float64).T + (0 if node.bias is None else node.bias)
        pointers, unit = self.rows(node.weight, node.bias, x, None)
        text = f"""\
static void answers(const int{self.bits}_t *w, const int32_t *bias, const float *k, const int16_t *x, float *y, \
int rows, int columns)
{{
    const int across = columns + columns % 2;
    for (; rows > 0; rows -= 2) {{
        const int count = rows > 1 ? 2 : 1;
        int32_t sums[2] = {{bias[0], bias[count - 1]}};
        dots(w, w + across * (count - 1), x, columns, sums);
        for (int i = 0; i < count; i++)
            *y++ = (float)sums[i] * *k++;
        w += 2 * across;
        bias += 2;
    }}
}}
"""
        name = p.kernel("answers", text)
        p.call(f"{name}({pointers}, {p.constants(1.0 / unit)}, {x.value.base}, y, {rows}, {columns});")
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
