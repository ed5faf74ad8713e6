"""A model is shared by threads."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import ssmrt
from numpy.typing import NDArray


def test_threads_run_one_model_at_many_rates() -> None:
    """More rates than the model keeps plans for, so that threads make and drop them under one another."""
    model = ssmrt.diagonal([[-1.0]], [[1.0]], [[1.0]], None, 0.1)
    u = np.ones((1, 1), np.float32)
    rates = np.linspace(0.1, 1, 200).tolist()
    expected = np.array([model.stream(rate=rate).step(u).item() for rate in rates])

    def run(thread: int) -> NDArray[np.float64]:
        # Each thread begins elsewhere.
        order = np.roll(rates, 25 * thread).tolist() * 50
        return np.array([model.stream(rate=rate).step(u).item() for rate in order])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(run, range(8)))
    finally:
        sys.setswitchinterval(interval)
    for thread, found in enumerate(answers):
        np.testing.assert_array_equal(found, np.tile(np.roll(expected, 25 * thread), 50))
