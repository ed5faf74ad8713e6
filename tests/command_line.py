"""The command line as tests call it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Arguments; exit code, stdout and stderr.
Run = Callable[..., tuple[int, str, str]]


def environment(**env: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **env}


def process(*argv: object, **env: str) -> subprocess.CompletedProcess[str]:
    """A process of its own."""
    command = [sys.executable, "-m", "ssmrt", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**env), timeout=60, check=False)


def at_rate(samples: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """One second at another rate, by its Fourier series."""
    spectrum: NDArray[Any] = np.fft.rfft(samples)
    return np.asarray(np.fft.irfft(spectrum[: rate // 2 + 1], rate) * (rate / len(samples)))
