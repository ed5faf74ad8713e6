"""Long runs: memory stays flat, and errors do not grow, however long streams last.

    python tests/soak.py [--samples 50_000_000] [--minutes M] [MODEL ...]

A sample is one sample of one stream: 64 streams run side by side, so that each hears 781 250 of 50 million. They hear
noise that is loud, soft or silent, in chunks and now and then sample by sample. At each of 20 checkpoints the first
streams' answers since the last one are compared with those of the same streams in float64 (within 1e-5 of the largest
answer), and the process' memory with what it was at the second (within 1 MB).
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ssmrt
from ssmrt import demo

GOLDEN = Path(__file__).parent / "golden"
MODELS = {
    "spotter": None,
    "S4": "torch/s4_nplr/legs_r3",
    "LRU": "jax/lru_cls_batchnorm",
    "LSSL": "torch/lssl/lssl_m1",
    "Mamba-2": "torch/hf_mamba2",
}
STREAMS = 64
# Of which so many are also run in float64.
COMPARED = 2
CHUNK = 500
# The least vocabulary of a language model here.
TOKENS = 8
CHECKPOINTS = 20
ERROR = 1e-5
MEMORY = 1 << 20


def model(name: str, dtype: Any) -> ssmrt.Model:
    """The model of that name."""
    folder = MODELS[name]
    if folder is None:
        return ssmrt.Model(demo.spotter().document, dtype)
    rows = {row["name"]: row for row in json.loads((GOLDEN / "cases.json").read_text())}
    row = rows[folder]
    return ssmrt.load(GOLDEN / folder / row["files"][0], config=row.get("config"), dtype=dtype)


def memory() -> int:
    """Bytes of the process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def soak(name: str, samples: int, until: float) -> bool:
    """Run one model for so many samples, or until the time is over; whether memory and errors kept to their bounds."""
    single, double = model(name, "float32"), model(name, "float64")
    streams, exact = single.stream(STREAMS), double.stream(COMPARED)
    g = np.random.default_rng(0)
    chunks = -(-samples // (STREAMS * CHUNK))
    checks = {round((i + 1) * chunks / CHECKPOINTS) - 1 for i in range(CHECKPOINTS)}
    error = largest = worst = 0.0
    least = most = heard = checked = 0
    for number in range(chunks):
        if single.document.tokens:
            u: Any = g.integers(0, TOKENS, (STREAMS, CHUNK))
        else:
            loudness = [1.0, 1e-3, 0.0][number % 7 % 3]
            u = loudness * g.standard_normal((STREAMS, CHUNK, single.d_input), np.float32)
        if number % 50:
            y = streams.push(u)
        else:
            y = np.stack([streams.step(np.ascontiguousarray(u[:, t])) for t in range(CHUNK)], 1)
        wanted = exact.push(u[:COMPARED])
        heard += STREAMS * CHUNK
        error = max(error, float(np.abs(y[:COMPARED] - wanted).max()))
        largest = max(largest, float(np.abs(wanted).max()))
        late = time.monotonic() > until
        if number in checks or late:
            now = memory()
            checked += 1
            # The first comes before the interpreter has all that it keeps.
            least = now if checked <= 2 else least
            most = now if checked <= 2 else max(most, now)
            worst = max(worst, error / max(largest, 1e-30))
            error = largest = 0.0
            if late:
                break
    grown = most - least
    print(
        f"{name:8} {heard:10} samples, {heard // STREAMS} a stream, {checked} checkpoints:"
        f" error {worst:.1e}, memory +{grown / 1024:.0f} KiB",
        flush=True,
    )
    return worst <= ERROR and grown <= MEMORY


def main(argv: Sequence[str] | None = None) -> int:
    """Run the models, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="all of them if none is named")
    parser.add_argument("--samples", type=int, default=50_000_000, help="of each model, over all streams")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for each model at most")
    arguments = parser.parse_args(argv)
    kept = [
        soak(name, arguments.samples, time.monotonic() + 60 * arguments.minutes) for name in arguments.models or MODELS
    ]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
