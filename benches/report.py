"""The run as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from contests import METHODS
from goals import QUIET, Goal, goals, scale, series

# Measured once on another machine (Zen 4, 2 cores, torch 2.13, JAX 0.10): for orientation, never part of a ratio.
RECORDED = [
    ("S4D kernel, 256 heads, L=5000", "torch 2.13", "970 ms"),
    ("S4D sequence, FFT convolution, spectrum cached", "torch 2.13", "6.0 ms"),
    ("S4D step from Python, H=256", "torch 2.13", "26 us"),
    ("LSSL kernel by Krylov doubling", "torch 2.13", "680 ms"),
    ("LSSL convolution and output map, kernel cached", "torch 2.13", "29-30 ms"),
    ("S4D spotter, a whole clip, upstream's forward", "torch 2.13", "3.4 s"),
    ("S4 spotter, a whole clip, upstream's forward", "torch 2.13", "2.35 s"),
    ("S4 spotter, one sample in upstream's step mode", "torch 2.13", "1.02 ms"),
    ("S4D spotter, a whole clip, kernels cached by hand", "torch 2.13", "78 ms"),
]


def markdown(r: dict[str, Any]) -> str:
    """All tables."""
    return "\n".join([*_head(r), *_goals(goals(r)), *_contests(r), *_scaling(r), *_grid(r), *_recorded(r)]) + "\n"


def table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """A Markdown table, figures to the right."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join("---" if i == 0 else "--:" for i in range(len(head))) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _head(r: dict[str, Any]) -> Iterator[str]:
    m = r["machine"]
    yield "# ssmrt beside its peers"
    yield ""
    yield f"{r['when']}, {m['processor']}, {m['cores']} cores, {m['system']}, Python {m['python']}."
    yield "Engines: " + "; ".join(
        f"{name} ({', '.join(f'{k} {v}' for k, v in v.items() if v)})" for name, v in r["versions"].items()
    )
    if r["missing"]:
        yield "Not here: " + "; ".join(f"{name} ({why})" for name, why in r["missing"].items()) + "."
    for threads, runs in r["fma_peak"].items():
        best = {isa: max(run[isa]["best"] for run in runs) for isa in runs[0] if isinstance(runs[0][isa], dict)}
        shown = ", ".join(f"{isa} {gflops:.0f}" for isa, gflops in best.items())
        yield f"FMA peak of {threads} thread(s), float32 GFLOP/s (a multiply-add is two), best of {len(runs)}: {shown}."
    others = [c["cores_taken_by_others"] for c in r["contests"].values()]
    mean, worst = sum(others) / max(len(others), 1), max(others, default=0)
    yield (
        f"{r['rounds']} interleaved rounds of {r['seconds']} s an entry. Load average {r['load'][0]} before,"
        f" {r['load'][1]} after; other programs took {mean:.2f} cores on average, {worst:.2f} at worst."
    )
    if mean > QUIET:
        yield ""
        yield (
            "**The machine was not quiet.** Medians and tails show the queue for the processor, figures on several"
            " threads are too high, and torch's most of all: its threads spin while they wait for one that was put off."
            " Ratios to it, and of two threads to one, need a quiet run."
        )
    yield ""
    yield (
        "Times are minima and medians of all calls; ratios to peers are of medians, and that of minima stands beside;"
        " two threads over one, and shares of the machine's peak, are of minima. Every answer was compared with float64"
        " (or with another entry) before it was timed: the column error is max |difference| / max |answer|."
    )
    yield ""


def _goals(all_goals: list[Goal]) -> Iterator[str]:
    yield "## Goals"
    yield ""
    mark = {True: "pass", False: "**short**", None: "-"}
    rows = [[g.what, g.source, g.target, g.shown, mark[g.met], g.note] for g in all_goals]
    yield from table(["goal", "from", "target", "measured", "", "how"], rows)


def _contests(r: dict[str, Any]) -> Iterator[str]:
    for key, c in r["contests"].items():
        if "/" in key:
            continue
        yield f"## {c['title']}"
        yield ""
        if not c["entries"]:
            yield "Not measured: " + "; ".join(f"{k}: {v}" for k, v in c["skipped"].items())
            yield ""
            continue
        fast = min(e["p50"] for label, e in c["entries"].items() if label.startswith("ssmrt")) if _peers(c) else 0.0
        divide = c["facts"].get("samples") or c["facts"].get("streams")
        head = ["entry", "min", "median", "p99", "p99.9", "max", "calls"]
        head += ["times the fastest ssmrt"] if fast else []
        head += ["a sample, median"] if divide else []
        head += ["error"]
        rows = []
        for label, e in c["entries"].items():
            few = e["calls"] < 1000
            row = [label, scale(e["min"]), scale(e["p50"]), "" if e["calls"] < 100 else scale(e["p99"])]
            row += ["" if few else scale(e["p99.9"]), scale(e["max"]), str(e["calls"])]
            row += [f"{e['p50'] / fast:.3g}"] if fast else []
            row += [scale(e["p50"] / divide[label])] if divide else []
            row += [f"{c['errors'][label]:.1e}" if label in c["errors"] else ""]
            rows.append(row)
        yield from table(head, rows)
        for label, why in c["skipped"].items():
            yield f"- {label}: not measured, {why}"
        yield ""


def _peers(c: dict[str, Any]) -> bool:
    ours = [label.startswith("ssmrt") for label in c["entries"]]
    return any(ours) and not all(ours)


def _scaling(r: dict[str, Any]) -> Iterator[str]:
    names = {"L": "length", "N": "states", "H": "channels", "B": "batch"}
    for axis, name in names.items():
        lines = series(r, axis)
        if not lines:
            continue
        values = sorted({x for points in lines.values() for x, _ in points})
        fixed = next(c["title"].split(", ", 1)[1] for c in r["contests"].values() if c["facts"].get("axis") == axis)
        yield f"## Time against {name} ({fixed})"
        yield ""
        rows = [
            [label, *(scale(dict(points)[x]) if x in dict(points) else "" for x in values)]
            for label, points in lines.items()
        ]
        yield from table([f"{axis} =", *map(str, values)], rows)


def _grid(r: dict[str, Any]) -> Iterator[str]:
    cells = {k: c for k, c in r["contests"].items() if k.startswith("grid/")}
    if not cells:
        return
    yield "## The automatic choice of method, 1 thread"
    yield ""
    rows = []
    for c in cells.values():
        e = c["entries"]
        best = min(METHODS, key=lambda m: e[m]["min"])
        over = e["auto"]["min"] / e[best]["min"] - 1
        rows.append([c["title"], *(scale(e[m]["min"]) for m in ("auto", *METHODS)), best, f"{over:+.0%}"])
    rows.sort(key=lambda row: -int(row[-1].rstrip("%")))
    yield from table(["shape", "auto", *METHODS, "best", "auto over best"], rows)


def _recorded(r: dict[str, Any]) -> Iterator[str]:
    yield "## Recorded elsewhere, for orientation"
    yield ""
    yield "Another machine (two Zen 4 cores with half the AVX-512 width), another day: no ratio above uses these."
    yield ""
    yield from table(["work", "peer", "time"], [list(row) for row in RECORDED])
