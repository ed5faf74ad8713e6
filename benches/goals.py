"""The project's goals, each with what this run measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from contests import METHODS, ONE, TWO

Results = dict[str, Any]

# Cores that other programs may take before a run says nothing about tails.
QUIET = 0.1


@dataclass(frozen=True)
class Goal:
    """``measured`` None: not measured, and ``note`` says why."""

    source: str
    what: str
    target: str
    measured: float | None
    shown: str
    met: bool | None  # None: not to be judged from this run
    note: str = ""


class Missing(Exception):
    """A figure that this run does not have."""


def goals(r: Results) -> list[Goal]:
    """All goals; those that fall short first, then those that were not measured."""
    out = []
    for source, what, target, make in _all(r):
        try:
            measured, shown, met, note = make()
            out.append(Goal(source, what, target, measured, shown, met, note))
        except Missing as why:
            out.append(Goal(source, what, target, None, "not measured", None, str(why)))
    rank = {False: 0, None: 1, True: 2}
    return sorted(out, key=lambda g: rank[g.met])


def figure(r: Results, contest: str, label: str, which: str) -> float:
    """Microseconds."""
    c = r["contests"].get(contest)
    if c is None:
        raise Missing("left out of this run")
    if label not in c["entries"]:
        raise Missing(c["skipped"].get(label, "left out of this run"))
    value: float = c["entries"][label][which]
    return value


Row = tuple[str, str, str, Callable[[], tuple[float, str, bool | None, str]]]


def _all(r: Results) -> Iterator[Row]:
    def time(contest: str, label: str, which: str = "min") -> float:
        return figure(r, contest, label, which)

    def ratio(slow: tuple[str, str], fast: tuple[str, str], least: float, which: str = "p50") -> Any:
        """To peers of medians: what a caller meets. A threaded peer's quickest call may be one of hundreds."""
        other, name = ("min", "minima") if which == "p50" else ("p50", "medians")

        def make() -> tuple[float, str, bool, str]:
            a, b = time(*slow, which), time(*fast, which)
            note = f"{scale(a)} against {scale(b)}; of {name} {time(*slow, other) / time(*fast, other):.3g}x"
            return a / b, f"{a / b:.3g}x", a / b >= least, note

        return make

    def at_most(contest: str, label: str, which: str, limit: float) -> Any:
        def make() -> tuple[float, str, bool, str]:
            t = time(contest, label, which)
            return t, scale(t), t <= limit, ""

        return make

    def best_of(contest: str, labels: list[str]) -> tuple[str, str]:
        """The fastest, by medians."""
        here = [label for label in labels if label in r["contests"].get(contest, {}).get("entries", {})]
        return contest, min(here, key=lambda label: time(contest, label, "p50")) if here else labels[0]

    yield (
        "issue 2",
        "S4D spotter, one sample from Python, median",
        "<= 8 us",
        at_most("kws_s4d_step", "ssmrt, stream.step", "p50", 8),
    )
    yield "issue 2", "S4D spotter, a whole clip, 2 cores", "<= 40 ms", at_most("kws_s4d_clip", TWO, "min", 40_000)

    s4, s4d = ("s4_sequence", TWO), ("s4d_sequence", TWO)
    conv = "JAX, FFT convolution, spectrum ready"
    yield (
        "issue 3",
        "S4 sequence, times JAX's jitted scan over dense S4",
        ">= 400x",
        ratio(("s4_sequence", "JAX, scan, dense complex"), s4, 400),
    )
    yield (
        "issue 3",
        "S4 sequence, times JAX's FFT convolution with the kernel ready",
        ">= 2.2x",
        ratio(("s4_sequence", conv), s4, 2.2),
    )
    yield (
        "issue 3",
        "diagonal sequence, times JAX's FFT convolution with the kernel ready",
        ">= 4x",
        ratio(("s4d_sequence", conv), s4d, 4),
    )
    yield (
        "issue 3",
        "S4 step from Python, times JAX's jitted step",
        ">= 100x",
        ratio(("s4_step", "JAX, jitted step"), ("s4_step", "ssmrt, stream.step"), 100),
    )
    kernels = ["ssmrt, model.kernel (float64), 2 threads", "ssmrt, model.kernel (float64), 1 thread"]
    yield (
        "issue 3",
        "S4D kernel, times torch's",
        ">= 100x",
        ratio(("s4d_kernel", "torch, Vandermonde"), best_of("s4d_kernel", kernels), 100),
    )

    def lssl() -> tuple[float, str, bool, str]:
        def parts(which: str) -> tuple[float, float, float]:
            peer = time("lssl_kernel_and_output", "torch, Krylov doubling and FFT", which)
            return peer, time(*best_of("lssl_kernel", kernels), which), time("lssl_sequence", TWO, which)

        peer, kernel, output = parts("p50")
        least_peer, least_kernel, least_output = parts("min")
        fresh = time("lssl_kernel_and_output", "ssmrt, from A, B, C, dt, 2 threads", "p50")
        times = peer / (kernel + output)
        note = f"{scale(peer)} against {scale(kernel)} + {scale(output)}; of minima"
        note += f" {least_peer / (least_kernel + least_output):.3g}x; ssmrt needs no kernel for the output:"
        note += f" all from A, B, C and dt on {scale(fresh)}, {peer / fresh:.3g}x"
        return times, f"{times:.3g}x", times >= 20, note

    yield "issue 3", "LSSL kernel and output, times torch's", ">= 20x", lssl

    def peak(threads: int = 1) -> float:
        """Multiply-adds a microsecond."""
        runs = r["fma_peak"].get(str(threads), [])
        if not runs:
            raise Missing(r["missing"].get("rust", "the example fma_peak was not run"))
        isa = r["versions"]["ssmrt-1"]["isa"]
        best: float = max(run[isa]["best"] for run in runs)
        return best * 1e3 / 2

    def share() -> tuple[float, str, bool, str]:
        t = time("s4d_sequence", ONE)
        fma = r["contests"]["s4d_sequence"]["facts"]["plain_fma"]
        part = fma / t / peak()
        return (
            part,
            f"{part:.0%}",
            part >= 0.85,
            f"{scale(t)}; the peak gives {scale(fma / peak())} to {fma / 1e6:.0f} M multiply-adds",
        )

    yield (
        "issue 3",
        "diagonal sequence, one core: the plain recurrence's multiply-adds at FMA peak over the time",
        ">= 85 %",
        share,
    )

    def memory() -> tuple[float, str, bool, str]:
        runs = {kind: m for kind, m in r.get("memory", {}).items() if "beside" in m}
        if not runs:
            raise Missing(next((m["skip"] for m in r.get("memory", {}).values()), "left out of this run"))
        mb = {kind: m["beside"] / 2**20 for kind, m in runs.items()}
        worst = max(mb.values())
        note = "H=256, N=64, L=65 536, input and output 64 MB each: "
        note += ", ".join(f"{kind} {x:.1f} MB" for kind, x in mb.items())
        return worst, f"{worst:.1f} MB", worst <= 32, note

    yield "issue 3", "memory of a sequence beside its input and output", "<= 32 MB", memory

    for module in ("torch", "JAX"):
        yield (
            "issue 7",
            f"S4D spotter, a whole clip, times {module}'s with kernels cached by hand",
            ">= 4x",
            ratio(("kws_s4d_clip", f"{module}, kernels cached by hand"), ("kws_s4d_clip", TWO), 4),
        )
    upstream = ("kws_s4d_clip", "torch, kernels in every call")

    def clip_at_peak(threads: int) -> float:
        """Microseconds for a clip's multiply-adds."""
        fma: float = r["contests"]["kws_s4d_clip"]["facts"]["plain_fma"]
        return fma / peak(threads)

    def times_upstream() -> tuple[float, str, bool, str]:
        measured, shown, met, note = ratio(upstream, ("kws_s4d_clip", TWO), 150)()
        if r["fma_peak"].get("2"):
            most = time(*upstream, "p50") / clip_at_peak(2)
            note += f"; the plain recurrence's multiply-adds at FMA peak would be {most:.3g}x"
        return measured, shown, met, note

    yield (
        "issue 7",
        "S4D spotter, a whole clip, times upstream's forward (torch, kernels in every call)",
        ">= 150x",
        times_upstream,
    )
    yield (
        "issue 7",
        "S4D spotter, one sample in Rust, median",
        "<= 5 us",
        at_most("kws_s4d_step", "ssmrt, Rust", "p50", 5),
    )
    yield (
        "issue 7",
        "S4D spotter, one sample from Python, median",
        "<= 6 us",
        at_most("kws_s4d_step", "ssmrt, stream.step", "p50", 6),
    )

    def tail(label: str) -> Any:
        def make() -> tuple[float, str, bool | None, str]:
            a, b = time("kws_s4d_step", label, "p99.9"), time("kws_s4d_step", label, "p50")
            others = r["contests"]["kws_s4d_step"]["cores_taken_by_others"]
            note = f"{scale(a)} over {scale(b)}; other programs took {others:.2f} cores meanwhile"
            floors = sorted(r.get("floors", []))
            if floors:
                note += (
                    f"; a loop in registers of the same length has a p99.9 of {scale(floors[len(floors) // 2])} here"
                )
            met = True if a / b <= 4 else None if others > QUIET else False
            return a / b, f"{a / b:.3g}x", met, note

        return make

    yield "issue 7", "S4D spotter, one sample in Rust, p99.9 over median (quiet machine)", "<= 4x", tail("ssmrt, Rust")
    yield (
        "issue 7",
        "S4D spotter, one sample from Python, p99.9 over median (quiet machine)",
        "<= 4x",
        tail("ssmrt, stream.step"),
    )
    onnx = best_of("kws_s4d_step", ["ONNX Runtime, run", "ONNX Runtime, bound"])

    def times_onnx() -> tuple[float, str, bool, str]:
        measured, shown, met, note = ratio(onnx, ("kws_s4d_step", "ssmrt, stream.step"), 20)()
        plain = time("kws_s4d_step", "ONNX Runtime, run", "p50") / time("kws_s4d_step", "ssmrt, stream.step", "p50")
        return measured, shown, met, f"{note}; {onnx[1]!r}, its best: by plain run {plain:.3g}x"

    yield "issue 7", "S4D spotter, one sample, times ONNX Runtime's", ">= 20x", times_onnx
    yield (
        "issue 7",
        "S4D spotter, one sample, times JAX's jitted step",
        ">= 15x",
        ratio(("kws_s4d_step", "JAX, jitted step"), ("kws_s4d_step", "ssmrt, stream.step"), 15),
    )

    def of_peak(label: str, threads: int) -> Any:
        def make() -> tuple[float, str, bool, str]:
            t = time("kws_s4d_clip", label)
            fma = r["contests"]["kws_s4d_clip"]["facts"]["plain_fma"]
            least = clip_at_peak(threads)
            return (
                t / least,
                f"{t / least:.3g}x",
                t / least <= 1.6,
                f"{scale(t)}; the peak gives {scale(least)} to {fma / 1e6:.0f} M multiply-adds",
            )

        return make

    yield (
        "issue 7",
        "S4D spotter, a whole clip over its multiply-adds at FMA peak, 1 thread",
        "<= 1.6x",
        of_peak(ONE, 1),
    )
    yield (
        "issue 7",
        "S4D spotter, a whole clip over its multiply-adds at FMA peak, 2 threads",
        "<= 1.6x",
        of_peak(TWO, 2),
    )

    def streams(key: str, alone: str, label: str, samples: int) -> Any:
        def make() -> tuple[float, str, bool, str]:
            one = time(key, alone, "p50")
            runs = {"1 thread": label, "2 threads": f"{label}, 2 threads"}
            each = {name: time(key, run, "p50") / samples for name, run in runs.items()}
            name, best = min(each.items(), key=lambda item: item[1])
            note = ", ".join(f"{n}: {t:.2f} us" for n, t in each.items())
            note = f"a stream and sample {note}; alone {one:.2f} us"
            return best / one, f"{best / one:.0%} ({name})", best / one <= 0.4, note

        return make

    yield (
        "issue 7",
        "1000 streams, step: a stream and sample over a single stream's",
        "<= 40 %",
        streams("kws_s4d_streams", "1 streams", "1000 streams", 1000),
    )
    yield (
        "issue 7",
        "1000 streams, blocks of 64: a stream and sample over a single stream's",
        "<= 40 %",
        streams("kws_s4d_streams_blocks", "a stream, one sample", "blocks of 64", 64_000),
    )
    for key, name in (
        ("s4d_sequence", "S4D layer, L=5000"),
        ("s4_sequence", "S4 layer, L=5000"),
        ("lssl_sequence", "LSSL layer, L=5000"),
        ("kws_s4d_clip", "S4D spotter, a clip"),
    ):
        yield "issue 7", f"two threads over one: {name}", ">= 1.8x", ratio((key, ONE), (key, TWO), 1.8, "min")

    def choice() -> tuple[float, str, bool, str]:
        cells = {k: c["entries"] for k, c in r["contests"].items() if k.startswith("grid/")}
        if not cells:
            raise Missing("left out of this run")
        over = {k: e["auto"]["min"] / min(e[m]["min"] for m in METHODS) for k, e in cells.items()}
        bad = {k: v for k, v in over.items() if v > 1.1}
        worst = max(over, key=lambda k: over[k])
        note = f"{len(cells) - len(bad)} of {len(cells)} shapes within 10 %; worst {worst.removeprefix('grid/')}"
        return over[worst], f"{over[worst] - 1:+.0%}", not bad, note

    yield "issue 7", "automatic method over the best forced one, worst of the grid", "<= +10 %", choice
    for axis, name in (("L", "length"), ("N", "states"), ("H", "channels"), ("B", "batch")):

        def growth(axis: str = axis) -> tuple[float, str, bool, str]:
            worst, where, end = 0.0, "", 0
            others: dict[int, list[str]] = {}
            for label, points in series(r, axis).items():
                for (x0, t0), (x1, t1) in pairwise(points):
                    over = (t1 / t0) / (x1 / x0)
                    if not label.startswith("ssmrt"):
                        others.setdefault(x1, []).append(f"{label} {over:.2f}x")
                    elif over > worst:
                        worst, where, end = over, f"{label}, from {axis} = {x0} to {x1}", x1
            if not where:
                raise Missing("left out of this run")
            if end in others:
                where += f"; there {', '.join(others[end])}"
            return worst, f"{worst:.2f}x", worst <= 1.25, where

        yield "issue 7", f"cost grows linearly in {name}: the steepest step over a linear one", "<= 1.25x", growth

        def power(axis: str = axis) -> tuple[float, str, bool, str]:
            fits = {label: exponent(points) for label, points in series(r, axis).items() if label.startswith("ssmrt")}
            if not fits:
                raise Missing("left out of this run")
            worst = max(fits, key=lambda label: fits[label])
            each = ", ".join(f"{label.removeprefix('ssmrt ')} {p:.2f}" for label, p in fits.items())
            note = f"{axis}^p fitted over the whole range: {each}"
            return fits[worst], f"{fits[worst]:.2f}", fits[worst] <= 1.1, note

        yield "issue 7", f"cost grows linearly in {name}: the power it grows with", "<= 1.1", power

    for label in ("one sample", "a sequence of 16 000"):
        yield (
            "issue 7",
            f"4 layers of S4, d_model 256, from file to first answer: {label}",
            "<= 1 s",
            at_most("load", label, "min", 1e6),
        )


def series(r: Results, axis: str) -> dict[str, list[tuple[int, float]]]:
    """(value, microseconds) of every entry along an axis of the scaling contests."""
    out: dict[str, list[tuple[int, float]]] = {}
    for c in r["contests"].values():
        if c["facts"].get("axis") == axis:
            for label, e in c["entries"].items():
                out.setdefault(label, []).append((c["facts"]["value"], e["min"]))
    return {label: sorted(points) for label, points in out.items()}


def exponent(points: list[tuple[int, float]]) -> float:
    """The p of t = c x^p, by least squares of the logarithms."""
    x, t = (np.log(values) for values in zip(*points, strict=True))
    return float(np.polyfit(x, t, 1)[0])


def scale(us: float) -> str:
    """Microseconds in a unit that reads well."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if us >= size:
            return f"{us / size:.3g} {unit}"
    return f"{us:.3g} us"
