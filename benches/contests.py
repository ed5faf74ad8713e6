"""What is compared with what: each contest is one piece of work, done by several engines in turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import work

EXACT = 1e-5  # of ssmrt, relative to the largest answer
PEER = 5e-3  # of the peers' float32
LOOSE = 5e-2  # of the peers' float32 kernels by exp(z t), t up to 16 000


@dataclass(frozen=True)
class Entry:
    """One engine's way to do the work."""

    label: str
    engine: str  # as in `measure.ENGINES`
    work: str
    params: dict[str, Any]
    tolerance: float = PEER
    reference: tuple[str, dict[str, Any]] | None = None  # instead of the contest's


@dataclass(frozen=True)
class Contest:
    """Entries that do the same, timed in turn. ``each`` is what one call does, for tables."""

    key: str
    title: str
    entries: tuple[Entry, ...]
    each: str = "call"
    reference: tuple[str, dict[str, Any]] | None = None  # the NumPy engine's work
    agree_with: str | None = None  # or the entry whose answer is the reference
    most: int = 1_000_000  # calls a round
    seconds: float | None = None  # a round; None: the run's own
    facts: dict[str, Any] = field(default_factory=dict)


def ours(label: str, engine: str, name: str, params: dict[str, Any]) -> Entry:
    """An entry of ssmrt."""
    return Entry(label, engine, name, params, EXACT)


ONE, TWO = "ssmrt, 1 thread", "ssmrt, 2 threads"


def both(name: str, params: dict[str, Any]) -> tuple[Entry, Entry]:
    """Ssmrt on one thread and on two."""
    return ours(ONE, "ssmrt-1", name, params), ours(TWO, "ssmrt-2", name, params)


def issue_shape() -> Iterator[Contest]:
    """H = 256, N = 64, L = 5000: the shape of Equinox's issue 398."""
    base = {"H": 256, "N": 64, "L": 5000}
    size = "H=256, N=64, L=5000"
    for kind, name in (("s4", "S4 (DPLR, LegS)"), ("s4d", "diagonal (S4D)"), ("lssl", "LSSL (dense, LegT)")):
        p = {"kind": kind, **base}
        fft = [
            Entry("JAX, FFT convolution, spectrum ready", "jax", "fft", p),
            Entry("torch, FFT convolution, spectrum ready", "torch", "fft", p),
            Entry("NumPy, FFT convolution, spectrum ready", "numpy", "fft", p),
        ]
        scans = [
            Entry("JAX, scan, dense complex", "jax", "scan_dense", p),
            Entry("JAX, scan, dense real", "jax", "scan_dense", {**p, "basis": "real"}),
        ]
        if kind == "s4d":
            scans = [Entry("JAX, scan, diagonal", "jax", "scan_dense", p)]
        elif kind == "lssl":
            scans = []
        forced = [
            ours(f"ssmrt, 1 thread, {m}", "ssmrt-1", "forward", {**p, "method": m}) for m in ("scan", "chunk", "fft")
        ]
        yield Contest(
            f"{kind}_sequence",
            f"{name}: a sequence, {size}",
            (*both("forward", p), *forced, *fft, *scans),
            "sequence",
            ("reference", {**p, "what": "sequence"}),
            facts={"plain_fma": work.plain_fma(256, 64, 5000)},
        )
    for kind, name in (("s4", "S4"), ("s4d", "diagonal (S4D)")):
        p = {"kind": kind, "H": 256, "N": 64}
        yield Contest(
            f"{kind}_step",
            f"{name}: one step from Python, H=256, N=64",
            (
                ours("ssmrt, stream.step", "ssmrt-1", "step", p),
                ours("ssmrt, model.step", "ssmrt-1", "model_step", p),
                Entry("JAX, jitted step", "jax", "step", p),
                Entry("torch, step", "torch", "step", p),
                *([Entry("NumPy, step", "numpy", "step", p)] if kind == "s4d" else []),
            ),
            "step",
            ("reference", {**p, "what": "step"}),
            most=10_000,
        )
    for kind, name, way in (("s4d", "diagonal (S4D)", "Vandermonde"), ("lssl", "LSSL", "Krylov doubling")):
        p = {"kind": kind, **base}
        yield Contest(
            f"{kind}_kernel",
            f"{name}: the kernel, {size}",
            (
                ours("ssmrt, model.kernel (float64), 1 thread", "ssmrt-1", "kernel", p),
                ours("ssmrt, model.kernel (float64), 2 threads", "ssmrt-2", "kernel", p),
                Entry(f"JAX, {way}", "jax", "kernel", p, LOOSE),
                Entry(f"torch, {way}", "torch", "kernel", p, LOOSE),
            ),
            "kernel",
            ("reference", {**p, "what": "kernel"}),
        )
    p = {"kind": "lssl", **base}
    yield Contest(
        "lssl_kernel_and_output",
        f"LSSL: from discretised matrices to the output, {size}",
        (
            ours("ssmrt, from A, B, C, dt, 1 thread", "ssmrt-1", "kernel_and_output", p),
            ours("ssmrt, from A, B, C, dt, 2 threads", "ssmrt-2", "kernel_and_output", p),
            Entry("JAX, Krylov doubling and FFT", "jax", "kernel_and_output", p, LOOSE),
            Entry("torch, Krylov doubling and FFT", "torch", "kernel_and_output", p, LOOSE),
        ),
        "sequence",
        ("reference", {**p, "what": "sequence"}),
    )


STREAMS = (1, 10, 100, 1000)


def spotter() -> Iterator[Contest]:
    """The keyword spotters: 4 layers, d_model 64, N = 64, one second of 16 kHz sound."""
    for model, name in (("kws_s4d", "S4D spotter"), ("kws_s4", "S4 spotter")):
        p = {"model": model, "L": 16_000}
        diagonal = model == "kws_s4d"
        peers = [
            Entry("JAX, kernels cached by hand", "jax", "spotter_clip", p),
            Entry("torch, kernels cached by hand", "torch", "spotter_clip", p),
        ]
        if diagonal:
            peers += [
                Entry("JAX, scan, diagonal", "jax", "spotter_scan", p),
                Entry("JAX, kernels in every call", "jax", "spotter_clip", {**p, "fresh": True}, LOOSE),
                Entry("torch, kernels in every call", "torch", "spotter_clip", {**p, "fresh": True}, LOOSE),
            ]
        yield Contest(
            f"{model}_clip",
            f"{name}: a whole clip, 16 000 samples",
            (*both("spotter_clip", p), *peers),
            "clip",
            ("spotter_reference", p),
            facts={"plain_fma": work.spotter_fma()},
        )
        rust = Entry("ssmrt, Rust", "rust", "latency", {"model": model, "steps": 12_000})
        entries = [
            ours("ssmrt, stream.step", "ssmrt-1", "spotter_step", p),
            ours("ssmrt, model.step", "ssmrt-1", "spotter_model_step", p),
            rust,
            Entry("ONNX Runtime, run", "onnx", "spotter_step", {**p, "binding": False}),
            Entry("ONNX Runtime, bound", "onnx", "spotter_step", {**p, "binding": True}),
        ]
        if diagonal:
            entries += [
                Entry("JAX, jitted step", "jax", "spotter_step", p),
                Entry("torch, step", "torch", "spotter_step", p),
            ]
        yield Contest(
            f"{model}_step",
            f"{name}: one sample",
            tuple(entries),
            "sample",
            agree_with="ssmrt, stream.step",
            most=12_000,
            seconds=1.5,
        )
    p = {"model": "kws_s4d"}
    yield Contest(
        "kws_s4d_push",
        "S4D spotter: blocks of samples",
        tuple(ours(f"push {b}", "ssmrt-1", "spotter_push", {**p, "block": b}) for b in (1, 64, 512))
        + tuple(ours(f"push {b}, 2 threads", "ssmrt-2", "spotter_push", {**p, "block": b}) for b in (64, 512)),
        "block",
        agree_with="push 1",
        facts={
            "samples": {
                "push 1": 1,
                "push 64": 64,
                "push 512": 512,
                "push 64, 2 threads": 64,
                "push 512, 2 threads": 512,
            }
        },
    )
    yield Contest(
        "kws_s4d_streams",
        "S4D spotter: one sample of each of S streams",
        tuple(ours(f"{s} streams", "ssmrt-1", "spotter_streams", {**p, "S": s}) for s in STREAMS)
        + tuple(ours(f"{s} streams, 2 threads", "ssmrt-2", "spotter_streams", {**p, "S": s}) for s in STREAMS[2:]),
        "step of all",
        agree_with="1 streams",
        facts={"streams": {f"{s} streams{t}": s for s in STREAMS for t in ("", ", 2 threads")}},
    )
    p = {"model": "kws_s4d", "S": 1000, "block": 64}
    yield Contest(
        "kws_s4d_streams_blocks",
        "S4D spotter: 1000 streams in blocks",
        (
            ours("a stream, one sample", "ssmrt-1", "spotter_streams", {**p, "S": 1}),
            ours("blocks of 64", "ssmrt-1", "spotter_streams_push", p),
            ours("blocks of 64, 2 threads", "ssmrt-2", "spotter_streams_push", p),
        ),
        "call",
        agree_with="a stream, one sample",
        facts={
            "samples": {
                "a stream, one sample": 1,
                "blocks of 64": 64_000,
                "blocks of 64, 2 threads": 64_000,
            }
        },
    )
    big = {"H": 256, "N": 64, "layers": 4}
    yield Contest(
        "load",
        "S4, d_model 256, 4 layers, N=64: from the file to the first answer",
        (
            ours("one sample", "ssmrt-2", "load", {**big, "L": 1}),
            ours("a sequence of 16 000", "ssmrt-2", "load", {**big, "L": 16_000}),
        ),
        "load",
    )


def powers(first: int, last: int, step: int = 2) -> list[int]:
    """From first to last, each ``step`` times the one before."""
    out = [first]
    while out[-1] * step <= last:
        out.append(out[-1] * step)
    return out


def scaling(quick: bool) -> Iterator[Contest]:
    """Time against length, states, channels and batch."""
    step = 4 if quick else 2
    axes = {
        "L": ({"H": 64, "N": 64}, powers(256, 65_536, step)),
        "N": ({"H": 256, "L": 2048}, powers(16, 256, step)),
        "H": ({"N": 64, "L": 2048}, powers(16, 1024, step)),
        "B": ({"H": 64, "N": 64, "L": 1024}, powers(1, 64, step)),
    }
    for axis, (fixed, values) in axes.items():
        for value in values:
            entries: list[Entry] = []
            for kind, name in (("s4d", "S4D"), ("s4", "S4")):
                p = {"kind": kind, **fixed, axis: value}
                truth = ("reference", {**p, "what": "sequence"})
                for threads, engine in (("1 thread", "ssmrt-1"), ("2 threads", "ssmrt-2")):
                    entries.append(Entry(f"ssmrt {name}, {threads}", engine, "forward", p, EXACT, truth))
                    if axis == "N" and kind == "s4":
                        convolved = {**p, "method": "fft"}
                        entries.append(
                            Entry(f"ssmrt {name}, FFT, {threads}", engine, "forward", convolved, EXACT, truth)
                        )
            p = {"kind": "s4d", **fixed, axis: value}
            entries.append(Entry("JAX, FFT convolution", "jax", "fft", p))
            if axis != "N":
                entries.append(Entry("NumPy, copying the samples", "numpy", "copy", p))
            yield Contest(
                f"scale/{axis}/{value}",
                f"{axis} = {value}, {', '.join(f'{k} = {v}' for k, v in fixed.items())}",
                tuple(entries),
                "sequence",
                ("reference", {**p, "what": "sequence"}),
                facts={"axis": axis, "value": value},
            )


METHODS = ("scan", "chunk", "fft")


def grid(quick: bool) -> Iterator[Contest]:
    """The automatic choice of method beside each forced one."""
    lengths: tuple[int, ...] = (64, 512, 4096, 32_768)
    widths: tuple[int, ...] = (16, 64, 256, 1024)
    states: tuple[int, ...] = (16, 64, 256)
    if quick:
        lengths, widths, states = (512, 4096), (16, 256, 1024), (64,)
    for kind, name in (("s4d", "S4D"), ("s4", "S4")):
        for h in widths:
            for n in states:
                for length in lengths:
                    if work.plain_fma(h, n, length) > 2_000_000_000:
                        continue
                    p = {"kind": kind, "H": h, "N": n, "L": length}
                    entries = [ours(m, "ssmrt-1", "forward", {**p, "method": m}) for m in ("auto", *METHODS)]
                    yield Contest(
                        f"grid/{kind}/{h}/{n}/{length}",
                        f"{name}, H={h}, N={n}, L={length}",
                        tuple(entries),
                        "sequence",
                        agree_with="scan",
                        most=200,
                        seconds=0.06,
                        facts={"grid": p},
                    )
