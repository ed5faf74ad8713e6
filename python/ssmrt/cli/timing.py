"""How long calls take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def measure(call: Callable[[], object], seconds: float, most: int) -> NDArray[np.float64]:
    """The microseconds of each of up to ``most`` calls within about ``seconds``, after a few that are not counted."""
    for _ in range(3):
        call()
    clock = time.perf_counter_ns
    times: list[int] = []
    end = clock() + int(seconds * 1e9)
    while len(times) < most and (clock() < end or len(times) < 3):
        start = clock()
        call()
        times.append(clock() - start)
    return np.asarray(times) / 1e3


def percentiles(microseconds: NDArray[np.floating[Any]]) -> dict[str, float]:
    """Median, tail and worst, in microseconds."""
    names = {"p50": 50, "p99": 99, "p99.9": 99.9, "max": 100}
    return {name: round(float(np.percentile(microseconds, q)), 3) for name, q in names.items()}
