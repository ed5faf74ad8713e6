"""Measures ssmrt beside JAX, torch, ONNX Runtime and NumPy in one run.

    python benches/compare.py                    # all, about ten minutes
    python benches/compare.py --quick            # about two
    python benches/compare.py --json run.json --markdown --plots plots/

Every engine has its own process. Entries of a contest take turns, round after round, so that a busy machine
slows all of them alike, and only ratios within one run are compared with the goals.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import contests as all_contests
import work
from goals import goals
from measure import ENGINES, Bench, Failed, load, machine
from report import markdown


def arguments() -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="few rounds, few shapes")
    p.add_argument("--json", type=Path, metavar="OUT", help="write everything that was measured")
    p.add_argument("--markdown", nargs="?", const="-", metavar="OUT", help="write the tables; to stdout without OUT")
    p.add_argument("--plots", type=Path, metavar="DIR", help="draw the plots (matplotlib)")
    p.add_argument("--rounds", type=int, help="rounds (10; quick: 3)")
    p.add_argument("--seconds", type=float, help="an entry's share of a round (0.25; quick: 0.1)")
    p.add_argument(
        "--engines", help=f"only these, separated by commas, of {', '.join(sorted({e for e, _ in ENGINES.values()}))}"
    )
    p.add_argument("--only", help="only contests whose key contains one of these, separated by commas")
    p.add_argument("--torch-python", help="an interpreter that has torch and NumPy, where this one has no torch")
    p.add_argument("--rust-bin", type=Path, help="a folder with the built examples; without it cargo builds them")
    p.add_argument("--from-json", type=Path, metavar="RUN", help="measure nothing: tables and plots of an earlier run")
    return p.parse_args()


def rust_examples(given: Path | None) -> dict[str, str]:
    """Where the examples are, for the Rust engine, or why they are not."""
    if given is not None:
        return {"SSMRT_BENCH_RUST": str(given.resolve())}
    command = ["cargo", "build", "--release", "-p", "ssmrt-core", "--message-format=json"]
    command += ["--example", "latency", "--example", "fma_peak"]
    try:
        done = subprocess.run(command, cwd=work.ROOT, stdout=subprocess.PIPE, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as why:
        return {"SSMRT_BENCH_RUST_WHY": f"cargo build failed: {why}"}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "latency":
            return {"SSMRT_BENCH_RUST": str(Path(message["executable"]).parent)}
    return {"SSMRT_BENCH_RUST_WHY": "cargo built no example named latency"}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure."""
    rounds = options.rounds or (3 if options.quick else 10)
    seconds = options.seconds or (0.1 if options.quick else 0.25)
    engines = set(filter(None, (options.engines or "").split(",")))
    # NumPy computes the references, ssmrt the files for its peers.
    engines = engines | {"numpy", "ssmrt"} if engines else engines
    extra = rust_examples(options.rust_bin) if not engines or "rust" in engines else {}
    pythons = {"torch": options.torch_python} if options.torch_python else {}
    bench = Bench(rounds, seconds, pythons, extra, engines)
    before = load()
    try:
        versions = bench.versions()
        r: dict[str, Any] = {
            "when": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "machine": machine(),
            "versions": versions,
            "missing": bench.missing,
            "rounds": rounds,
            "seconds": seconds,
            "quick": options.quick,
            "fma_peak": {},
            "contests": {},
        }
        wanted = [part for part in (options.only or "").split(",") if part]
        parts = [
            list(all_contests.issue_shape()),
            list(all_contests.spotter()),
            list(all_contests.scaling(options.quick)),
            list(all_contests.grid(options.quick)),
        ]
        _peak(bench, r)
        for number, part in enumerate(parts):
            part = [c for c in part if not wanted or any(w in c.key for w in wanted)]
            if number == 1 and part:
                for model in ("kws_s4d", "kws_s4"):
                    reply = bench.engine("ssmrt-2").ask("export_spotter", params={"model": model, "L": 16_000})
                    if "skip" in reply:
                        part = [c for c in part if model not in c.key]
                        r["missing"][model] = reply["skip"]
            for contest in part:
                few = 3 if contest.key.startswith("scale/") and not options.quick else None
                r["contests"][contest.key] = result = bench.run(contest, few)
                _say(contest.key, result)
            if part:
                _peak(bench, r)
        if "rust" not in bench.missing:
            r["floors"] = bench.engine("rust").ask("floors", params={})["p99.9"]
        if not wanted:
            shape = {"H": 256, "N": 64, "L": 65_536}
            # In a process of its own: one that has worked before keeps memory that the call would then not ask for.
            r["memory"] = {
                kind: bench.alone("ssmrt-2", "memory", {"kind": kind, **shape}) for kind in ("s4d", "s4", "lssl")
            }
        r["load"] = [before, load()]
        return r
    finally:
        bench.close()


def _peak(bench: Bench, r: dict[str, Any]) -> None:
    """Measured between the parts: the clock of a machine is not the same all day."""
    if "rust" in bench.missing:
        return
    for threads in range(1, min(2, os.cpu_count() or 1) + 1):
        reply = bench.engine("rust").ask("fma_peak", params={"threads": threads})
        if "skip" in reply:
            r["missing"]["rust"] = bench.missing["rust"] = reply["skip"]
            return
        r["fma_peak"].setdefault(str(threads), []).append(reply)


def _say(key: str, result: dict[str, Any]) -> None:
    figures = ", ".join(f"{label} {e['min']:.4g}" for label, e in result["entries"].items())
    print(f"{key}: {figures} us", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, write, and say what falls short."""
    options = arguments()
    try:
        r = json.loads(options.from_json.read_text()) if options.from_json else run(options)
    except Failed as why:
        print(f"compare.py: {why}", file=sys.stderr)
        return 1
    if options.json:
        r["goals"] = [vars(g) for g in goals(r)]
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(r, separators=(",", ":")) + "\n")
    text = markdown(r)
    if options.markdown and options.markdown != "-":
        Path(options.markdown).write_text(text)
    else:
        print(text)
    if options.plots:
        try:
            from plots import draw
        except ImportError as why:
            print(f"no plots: {why}", file=sys.stderr)
        else:
            for path in draw(r, options.plots):
                print(path, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
