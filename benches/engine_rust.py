"""The engine in a process without Python: rust/core/examples, built by cargo."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import work
from worker import Job, Skip

FLOORS: list[float] = []


def versions() -> dict[str, str]:
    """What runs."""
    return {"examples": "latency, fma_peak"}


def _run(name: str, *args: str) -> dict[str, Any]:
    folder = os.environ.get("SSMRT_BENCH_RUST", "")
    program = Path(folder) / name
    if not folder or not program.is_file():
        raise Skip(os.environ.get("SSMRT_BENCH_RUST_WHY", f"the example {name} was not built"))
    done = subprocess.run([str(program), *args], capture_output=True, text=True, check=True)
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply


def prepare(name: str, p: dict[str, Any], folder: Path) -> Job:
    """The job of a piece of work; the example times itself."""
    if name != "latency":
        raise Skip(f"no {name} in Rust")
    model = str(folder / f"{p['model']}.ssm.safetensors")
    args = ["--block", str(p.get("block", 1)), "--streams", str(p.get("S", 1))]
    if p.get("silence"):
        args.append("--silence")
    _run("latency", model, "--steps", "10", *args)
    raw = folder / "latency.raw"

    def measure(seconds: float, most: int) -> work.Array:
        steps = min(p.get("steps", 20_000), most)
        reply = _run("latency", model, "--steps", str(steps), "--raw", str(raw), *args)
        if not reply["finite"]:
            raise ValueError("the engine's answers are not finite")
        FLOORS.append(reply["floor_p99.9"] / 1e3)
        return np.fromfile(raw, "<u4").astype(np.int64)

    return Job(lambda _: None, [None], measure=measure)


def special(name: str, p: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The machine's multiply-adds, and how long it interrupts a loop in registers (p99.9 of each round, us)."""
    if name == "floors":
        return {"p99.9": FLOORS}
    if name != "fma_peak":
        raise Skip(f"no {name} in Rust")
    return _run("fma_peak", str(p["threads"]))
