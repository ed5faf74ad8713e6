"""Put beside the page what it loads: the engine as WebAssembly, and the model of the demo.

    python examples/browser/build.py
    python -m http.server --directory examples/browser

It needs Rust, with the target wasm32-unknown-unknown (`rustup target add wasm32-unknown-unknown`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TARGET = "wasm32-unknown-unknown"


def main() -> None:
    """Build, and copy."""
    cargo = ["cargo", "build", "--locked", "--package", "ssmrt-wasm", "--profile", "browser", "--target", TARGET]
    # Vectors of 128 bits, which every browser has had since 2023.
    environment = os.environ | {"RUSTFLAGS": "-C target-feature=+simd128"}
    built = subprocess.run(
        [*cargo, "--message-format", "json-render-diagnostics"],
        cwd=ROOT,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    files = [name for line in built.stdout.splitlines() for name in json.loads(line).get("filenames", ())]
    (module,) = (name for name in files if name.endswith(".wasm"))
    shutil.copyfile(module, HERE / "ssmrt.wasm")
    shutil.copyfile(ROOT / "python/ssmrt/data/spotter.ssm.safetensors", HERE / "spotter.ssm.safetensors")
    for path in sorted(HERE.iterdir()):
        if path.suffix not in (".py", ".md"):
            print(f"{path.stat().st_size:>9} bytes  {path.name}")


if __name__ == "__main__":
    main()
