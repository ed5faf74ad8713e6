"""Time against threads: the same work on 1, 2, 4, 8 and 16 threads, in turn, in one run.

    python benches/threads.py [--threads 1,2,4,8,16] [--rounds 3] [--only clip,streams] [--json run.json]
    python benches/threads.py --from-json run.json --plot threads.svg

Each number of threads has processes of its own, new ones each round, with SSMRT_NUM_THREADS. Printed are minima over
all rounds, medians in the file, and beside the long sequences a copy of the same arrays by as many threads. The ssmrt
that is measured is the interpreter's own; another build's place goes into PYTHONPATH. Where SSMRT_BENCH_RUST names the
folder of `cargo build --release -p ssmrt-core --example fma_peak`, target/release/examples, the table shows how far the
machine's own arithmetic goes with threads: two thousand million multiply-adds in registers.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from work import samples

SECONDS = 0.3

REGISTERS = "multiply-adds alone, ms"

Found = dict[str, dict[str, list[tuple[float, float]]]]


def copied(u: np.ndarray[Any, Any], threads: int) -> Callable[[], None]:
    """Copies an array into a new one, rows shared out."""
    pool, parts = ThreadPoolExecutor(threads), np.linspace(0, u.shape[1], threads + 1).astype(int)

    def copy() -> None:
        y = np.empty_like(u)
        list(pool.map(lambda a, b: np.copyto(y[:, a:b], u[:, a:b]), parts[:-1], parts[1:]))

    return copy


def registers(threads: int) -> float | None:
    """Milliseconds of two thousand million multiply-adds in registers, shared out; None without the program."""
    program = Path(os.environ.get("SSMRT_BENCH_RUST", "")) / "fma_peak"
    if not program.is_file():
        return None
    done = subprocess.run([str(program.resolve()), str(threads)], capture_output=True, text=True, check=True)
    return 4e3 / max(found["best"] for found in json.loads(done.stdout).values() if isinstance(found, dict))


def streamed(model: Any, streams: int, rows: int, calls: int) -> tuple[Callable[[], None], float]:
    """Some calls for many streams, and how many streams and samples that is."""
    stream = model.stream(batch=streams)
    u = samples(rows, model.d_input, streams)
    y = np.empty((streams, rows, model.d_output), np.float32)

    def run() -> None:
        for _ in range(calls):
            if rows == 1:
                stream.step(u[:, 0], out=y[:, 0])
            else:
                stream.push(u, out=y)

    return run, streams * rows * calls


def jobs(threads: int) -> dict[str, Callable[[], tuple[Callable[[], Any], float]]]:
    """What is timed, by its name: each makes a call, and says by what its seconds are divided."""
    from engine_ssmrt import layer
    from ssmrt import demo

    def sequence(kind: str, length: int, batch: int = 1) -> tuple[Callable[[], Any], float]:
        return partial(layer(kind, 256, 64), samples(length, 256, batch)), 1e-3

    def clips(batch: int, seconds: int = 1) -> tuple[Callable[[], Any], float]:
        return partial(demo.spotter(), samples(16_000 * seconds, 1, batch)), 1e-3

    found: dict[str, Callable[[], tuple[Callable[[], Any], float]]] = {
        "spotter, one clip, ms": partial(clips, 1),
        "spotter, 4 clips, ms": partial(clips, 4),
        "spotter, 16 clips, ms": partial(clips, 16),
        "spotter, ten minutes, ms": partial(clips, 1, 600),
    }
    for kind in ("s4d", "s4", "lssl"):
        found[f"{kind}, L=5000, ms"] = partial(sequence, kind, 5000)
        found[f"{kind}, L=65536, ms"] = partial(sequence, kind, 65_536)
        found[f"{kind}, 16 of L=5000, ms"] = partial(sequence, kind, 5000, 16)
    found["copy, L=65536, ms"] = lambda: (copied(samples(65_536, 256), threads), 1e-3)

    def streams(batch: int, rows: int, calls: int) -> tuple[Callable[[], Any], float]:
        run, count = streamed(demo.spotter(), batch, rows, calls)
        return run, count * 1e-6

    for batch in (1, 64, 1000, 10_000):
        found[f"{batch} streams, step, us"] = partial(streams, batch, 1, max(64, 6400 // batch))
        found[f"{batch} streams, blocks of 8, us"] = partial(streams, batch, 8, max(16, 800 // batch))
        found[f"{batch} streams, blocks of 64, us"] = partial(streams, batch, 64, max(2, 100 // batch))
    return found


def work(threads: int, wanted: list[str]) -> None:
    """Prints medians and minima of all jobs."""

    def chosen(name: str) -> bool:
        return not wanted or any(part in name for part in wanted)

    times = {}
    if chosen(REGISTERS) and (alone := registers(threads)) is not None:
        times[REGISTERS] = [alone, alone]
    for name, make in jobs(threads).items():
        if not chosen(name):
            continue
        run, unit = make()
        run()
        found, end = [], time.perf_counter() + SECONDS
        while time.perf_counter() < end or len(found) < 2:
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
        times[name] = [float(np.median(found)) / unit, min(found) / unit]
    print(json.dumps(times))


def main() -> None:
    """Prints a table: a line for each job, a column for each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1,2,4,8,16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path, help="where all minima and medians go")
    parser.add_argument("--from-json", type=Path, help="an earlier run instead of a new one")
    parser.add_argument("--plot", type=Path, help="a picture of time against threads; needs matplotlib")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    wanted = [part for part in args.only.split(",") if part]
    if args.work:
        work(args.work, wanted)
        return
    if args.from_json:
        found: Found = json.loads(args.from_json.read_text())
    else:
        found = measured(args.threads.split(","), args.rounds, args.only)
    threads = list(next(iter(found.values())))
    print(f"{'':32s}" + "".join(f"{n:>10s}" for n in threads) + "   gain")
    for name, by_threads in found.items():
        best = least(by_threads)
        print(f"{name:32s}" + "".join(f"{x:10.3f}" for x in best) + f"{best[0] / best[-1]:7.1f}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    if args.plot:
        draw(found, args.plot)


def measured(threads: list[str], rounds: int, only: str) -> Found:
    """The median and the minimum of each job, by its name and the number of threads, once a round."""
    found: Found = {}
    for _ in range(rounds):
        for n in threads:
            env = {**os.environ, "SSMRT_NUM_THREADS": n}
            command = [sys.executable, __file__, "--work", n, "--only", only]
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
            for name, pair in json.loads(done.stdout).items():
                found.setdefault(name, {}).setdefault(n, []).append(pair)
    return found


def least(by_threads: dict[str, list[tuple[float, float]]]) -> list[float]:
    """The minimum for each number of threads."""
    return [min(low for _, low in rounds) for rounds in by_threads.values()]


# What the picture shows, from the jobs above: sequences, and streams.
SHOWN = (
    (
        "ten minutes, ms",
        "lssl, L=65536, ms",
        "s4, L=65536, ms",
        "s4d, L=65536, ms",
        "copy, L=65536, ms",
        "one clip, ms",
        REGISTERS,
    ),
    ("1 streams, step, us", "10000 streams, step, us", "1000 streams, step, us", "1000 streams, blocks of 64, us"),
)


def draw(found: Found, path: Path) -> None:
    """Draws time against threads: sequences on the left, streams on the right."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter

    mpl.rcParams["svg.hashsalt"] = "ssmrt"
    figure, both = plt.subplots(1, 2, figsize=(10, 4.2))
    for axes, shown, label in zip(both, SHOWN, ("ms", "us a stream and sample"), strict=True):
        for part in shown:
            for name in (name for name in found if name.endswith(part)):
                x = [int(n) for n in found[name]]
                axes.plot(x, least(found[name]), marker="o", markersize=4, label=name.rpartition(", ")[0])
        axes.set_xscale("log", base=2)
        axes.set(yscale="log", xlabel="threads", ylabel=label)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3, linewidth=0.5)
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
