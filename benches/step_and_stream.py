"""How long `model.step` takes beside `stream.step`, and beside that and a copy of the state: in turn, in one process.

    python benches/step_and_stream.py

`model.step` leaves the state that it is given as it is, and so has to copy it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import ssmrt
from ssmrt import demo

ROUNDS = 301


def layer(channels: int, modes: int) -> ssmrt.Model:
    """A diagonal layer of this size."""
    A = -0.5 + 1j * np.pi * np.tile(np.arange(modes), (channels, 1))
    ones = np.ones((channels, modes))
    return ssmrt.diagonal(A, ones, ones, np.zeros(channels), np.full(channels, 0.01))


def ratios(model: ssmrt.Model, batch: int | None, rate: float) -> tuple[float, float, int]:
    """`model.step` in `stream.step`, the same in `stream.step` and a copy, and the state's bytes."""
    shape = () if batch is None else (batch,)
    u, state, stream = np.zeros((*shape, model.d_input), model.dtype), model.default_state(*shape), None
    stream = model.stream(batch or 1, rate=rate)
    model.step(u, state, rate=rate)
    times: list[list[float]] = [[], [], []]
    calls: list[Callable[[], object]] = [
        lambda: model.step(u, state, rate=rate),
        lambda: stream.step(u),
        lambda: (stream.step(u), state.copy()),
    ]
    repeats = max(1, 20_000 // (batch or 1) // 100)
    for _ in range(ROUNDS):
        for call, taken in zip(calls, times):
            start = time.perf_counter_ns()
            for _ in range(repeats):
                call()
            taken.append((time.perf_counter_ns() - start) / repeats)
    step, plain, both = times
    return (
        statistics.median(a / b for a, b in zip(step, plain)),
        statistics.median(a / b for a, b in zip(step, both)),
        state.nbytes,
    )


def main() -> None:
    """Print a table."""
    models = {"spotter": demo.spotter(), "layer 64 x 32": layer(64, 32), "layer 1 x 16": layer(1, 16)}
    print(f"{'model':<16}{'batch':>6}{'rate':>6}{'state B':>10}{'/ stream.step':>15}{'/ with a copy':>15}")
    for name, model in models.items():
        for batch, rate in ((None, 1.0), (None, 0.9), (1, 1.0), (32, 1.0)):
            alone, copied, size = ratios(model, batch, rate)
            print(f"{name:<16}{batch or '-':>6}{rate:>6}{size:>10}{alone:>15.2f}{copied:>15.2f}")


if __name__ == "__main__":
    main()
