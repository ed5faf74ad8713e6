"""What loading a model takes: memory and processor time, by the size of its file.

    python benches/load_memory.py [--mib 363] [--dtype float32] [--weights bfloat16] [--json run.json]

Writes a folder as transformers writes Mamba's (`model.safetensors` and `config.json`), of random numbers and about so
large, into a temporary place, and loads it in new processes. Memory is what a process has beyond what it had after
``import ssmrt``, by the size of the file: ``resident`` after the load, and ``peak`` while it lasted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from mamba import CONFIGS, D_MODEL, VOCABULARY, weights

ROUNDS = 3
DTYPES = {"float32": "F32", "bfloat16": "BF16"}


def write(folder: Path, mib: float, dtype: str) -> int:
    """A Mamba of about so many MiB, of as many layers as that takes; the bytes of its file."""
    tensors = weights("mamba")
    first = "backbone.layers.0."
    layer = {name.removeprefix(first): x for name, x in tensors.items() if name.startswith(first)}
    width = {"float32": 4, "bfloat16": 2}[dtype]
    per_layer = sum(x.size for x in layer.values()) * width
    layers = max(1, round((mib * 2**20 - VOCABULARY * D_MODEL * width) / per_layer))
    names = {name: x for name, x in tensors.items() if ".layers." not in name}
    names |= {f"backbone.layers.{i}.{name}": x for i in range(layers) for name, x in layer.items()}
    header: dict[str, Any] = {}
    end = 0
    for name, x in names.items():
        header[name] = {"dtype": DTYPES[dtype], "shape": list(x.shape), "data_offsets": [end, end + x.size * width]}
        end += x.size * width
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for x in names.values():
            file.write((x if dtype == "float32" else (x.view(np.uint32) >> 16).astype(np.uint16)).tobytes())
    config = {**CONFIGS["mamba"], "num_hidden_layers": layers, "model_type": "mamba"}
    (folder / "config.json").write_text(json.dumps(config))
    return 8 + len(text) + end


def memory(what: str) -> int:
    """Bytes that the process has in memory (RSS), or had at most (HWM)."""
    # Not getrusage: its peak is also that of the parent, before this program began.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"Vm{what}:"))
    return int(line.split()[1]) * 1024


def load(folder: str, kept: str) -> None:
    """Loads in this process, and prints what that took."""
    import ssmrt

    before, start, begin = memory("RSS"), time.process_time(), time.perf_counter()
    model = ssmrt.load(folder, weights=kept or None)  # type: ignore[arg-type]
    seconds, wall = time.process_time() - start, time.perf_counter() - begin
    found = {"resident": memory("RSS") - before, "peak": memory("HWM") - before}
    assert model.d_output == VOCABULARY
    print(json.dumps({**found, "cpu_seconds": seconds, "seconds": wall}))


def main() -> None:
    """Write, load, print."""
    if sys.argv[1:2] == ["--worker"]:
        load(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=float, default=363 * 1e6 / 2**20, help="size of the file")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the file's numbers")
    parser.add_argument("--weights", default="", help="as of ssmrt.load")
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        size = write(Path(folder), arguments.mib, arguments.dtype)
        command = [sys.executable, __file__, "--worker", folder, arguments.weights]
        runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(ROUNDS)]
    found = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    print(f"file {size / 1e6:.0f} MB {arguments.dtype}, weights {arguments.weights or 'as loaded'}")
    print(f"resident {found['resident'] / size:.2f} of the file, peak {found['peak'] / size:.2f}")
    print(f"{found['cpu_seconds']:.2f} s of processors, {found['seconds']:.2f} s in all")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"file": size, **found}, indent=1))


if __name__ == "__main__":
    main()
