"""A sample of the spotter in a browser beside native code: in turn, on one machine.

    python examples/browser/build.py
    python benches/browser.py

It needs Chromium and the package websockets. A time is the mean of `UNIT` samples, since a page's clock is coarse; the
least and the median of these are printed. It is meant for a quiet machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "browser"
ROUNDS, UNITS, UNIT = 3, 200, 128
# Streams, and samples of each a call: a sample alone, an AudioWorklet's block, as many streams as the page's windows.
CALLS = ((1, 1), (1, 128), (4, 32))
SETS = ("avx512", "avx2", "neon", "scalar")

NATIVE = """
import json, sys, time
import numpy as np
from ssmrt import demo
units, unit, calls = json.loads(sys.argv[1])
model, found = demo.spotter(), []
for streams, rows in calls:
    stream = model.stream(streams)
    u = (np.random.default_rng(0).random((streams, rows, 1), np.float32) - 0.5) / 5
    y, times = np.empty((streams, rows, model.d_output), np.float32), []
    for _ in range(units + 5):
        start = time.perf_counter()
        for _ in range(unit // rows):
            stream.push(u, out=y)
        times.append(1e6 * (time.perf_counter() - start) / unit)
    found.append(times[5:])
print(json.dumps(found))
"""

BROWSER = """
globalThis.measure = async (units, unit, calls) => {
  const { Engine } = await import(new URL("engine.js", location));
  const bytes = async (name) => (await fetch(name)).arrayBuffer();
  const engine = new Engine(await WebAssembly.compile(await bytes("ssmrt.wasm")));
  const model = engine.load(new Uint8Array(await bytes("spotter.ssm.safetensors")));
  return calls.map(([streams, rows]) => {
    const opened = model.open(streams, rows);
    opened.input.forEach((_, i, input) => (input[i] = (Math.random() - 0.5) / 5));
    const times = [];
    for (let k = 0; k < units + 5; k++) {
      const start = performance.now();
      for (let i = 0; i < unit; i += rows) opened.push(rows);
      times.push((1e3 * (performance.now() - start)) / unit);
    }
    return times.slice(5);
  });
};
"""


def native(isa: str) -> list[list[float]] | None:
    """Microseconds a sample of each call; None where the machine has no such instructions."""
    arguments = [sys.executable, "-c", NATIVE, json.dumps([UNITS, UNIT, CALLS])]
    done = subprocess.run(
        arguments, env=os.environ | {"SSMRT_ISA": isa, "SSMRT_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


def main() -> None:
    """Print a table."""
    sys.path.insert(0, str(ROOT / "tests"))
    import chromium

    found: dict[str, list[list[float]]] = {}
    with (
        chromium.served(FOLDER) as address,
        tempfile.TemporaryDirectory() as folder,
        chromium.opened(Path(folder) / "profile") as page,
    ):
        name = page.call("Browser.getVersion")["product"]
        page.call("Page.navigate", url=address)
        page.wait("document.getElementById('microphone')?.disabled === false")
        page.evaluate(BROWSER)
        for _ in range(ROUNDS):
            rows = {isa: times for isa in SETS if (times := native(isa)) is not None}
            rows[name] = page.evaluate(f"measure({UNITS}, {UNIT}, {json.dumps(CALLS)})")
            for key, lists in rows.items():
                for i, times in enumerate(lists):
                    found.setdefault(key, [[] for _ in CALLS])[i] += times
    print("Microseconds a sample, least and median.\n")
    print("| | " + " | ".join(f"{streams} x {rows}" for streams, rows in CALLS) + " |")
    print("|---|" + "--:|" * len(CALLS))
    for key, lists in found.items():
        print(f"| {key} | " + " | ".join(f"{min(times):.1f}, {median(times):.1f}" for times in lists) + " |")


if __name__ == "__main__":
    main()
