"""One build of ssmrt beside another, call by call in turn: is anything slower than before?

    python benches/builds.py OLD NEW [ROUNDS]

OLD and NEW are folders with an installed ssmrt, as `pip install --target` makes them; this interpreter has NumPy. Each
build runs in a process of its own. `taskset -c 0` before the command and `SSMRT_NUM_THREADS` choose their cores.
Printed are the quartiles of OLD / NEW over the rounds, of medians of 50 ms each: above 1 the new build is faster.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from work import samples

SECONDS = 0.05


def stepped(model: Any) -> Callable[[], None]:
    """A hundred samples of one stream."""
    stream, u, y = model.stream(), samples(1, model.d_input)[:, 0], np.empty((1, model.d_output), np.float32)

    def step() -> None:
        for _ in range(100):
            stream.step(u, out=y)

    return step


def jobs() -> dict[str, Callable[[], Any]]:
    """What is timed, by its name."""
    from engine_ssmrt import layer
    from ssmrt import demo

    spotter, clip = demo.spotter(), samples(16_000, 1)
    found: dict[str, Callable[[], Any]] = {
        "spotter, 100 samples": stepped(spotter),
        "spotter, clip": lambda: spotter(clip),
    }
    for kind, h in (("s4d", 256), ("s4", 256), ("lssl", 64)):
        model, u = layer(kind, h, 64), samples(5000, h)
        found[f"{kind}, 100 samples"] = stepped(model)
        found[f"{kind}, L=5000"] = partial(model, u)
        found[f"{kind}, to plan"] = partial(layer.__wrapped__, kind, h, 64)
    return found


def work() -> None:
    """Times what it is told to on its input, for as long as there is any."""
    todo = jobs()
    print(json.dumps(list(todo)), flush=True)
    for line in sys.stdin:
        run = todo[json.loads(line)]
        run()
        times, end = [], time.perf_counter() + SECONDS
        while time.perf_counter() < end or len(times) < 3:
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        print(float(np.median(times)), flush=True)


def started(folder: str) -> subprocess.Popen[str]:
    """A process that works with the build in the folder."""
    env = {**os.environ, "PYTHONPATH": folder}
    command = [sys.executable, __file__, "--work"]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(worker: subprocess.Popen[str], name: str) -> float:
    """Seconds that the worker takes for a job."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(json.dumps(name), file=worker.stdin, flush=True)
    return float(worker.stdout.readline())


def main(old: str, new: str, rounds: int = 15) -> None:
    """Prints a line for each job."""
    times: dict[str, list[tuple[float, float]]] = {}
    for i in range(rounds):
        # New processes each time: where their memory happens to lie changes some layers' times by a quarter.
        with started(old) as before, started(new) as after:
            names = [json.loads(worker.stdout.readline()) for worker in (before, after) if worker.stdout is not None]
            for name in names[0]:
                # Whoever comes first has the colder machine.
                pair = {worker: ask(worker, name) for worker in ((before, after) if i % 2 else (after, before))}
                times.setdefault(name, []).append((pair[before], pair[after]))
    for name, pairs in times.items():
        both = np.array(pairs)
        low, middle, high = np.percentile(both[:, 0] / both[:, 1], [25, 50, 75])
        first, second = np.median(both, axis=0) * 1e6
        print(f"{name:22s} {low:.3f} {middle:.3f} {high:.3f}   {first:10.1f} us {second:10.1f} us")


if __name__ == "__main__":
    if sys.argv[1:] == ["--work"]:
        work()
    else:
        main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
