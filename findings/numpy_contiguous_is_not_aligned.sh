#!/usr/bin/env bash
# Guess: np.ascontiguousarray gives an array that C code may read as double*, and keeps its shape.
# What happens: an array that is contiguous but not aligned comes back as it is, no copy, not aligned.
# A 0-d array comes back with one axis. np.require(x, requirements="CA") does both things right.
# For readers of trained models: numbers mapped behind a header of 44 bytes stay misaligned up to
# the native code, and a scalar parameter gains an axis.
# Package: numpy 2.4.6. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys
from pathlib import Path

import numpy as np

Path("numbers.bin").write_bytes(bytes(44) + np.arange(8, dtype="<f8").tobytes())
mapped = np.memmap("numbers.bin", dtype="<f8", mode="r", offset=44)
contiguous = np.ascontiguousarray(mapped)
required = np.require(mapped, requirements="CA")
scalar = np.array(3.0)
shapes = np.ascontiguousarray(scalar).shape, np.require(scalar, requirements="CA").shape

print("numpy", np.__version__)
print("ascontiguousarray: same memory", np.shares_memory(contiguous, mapped), "aligned", contiguous.flags.aligned)
print("require CA:        same memory", np.shares_memory(required, mapped), "aligned", required.flags.aligned)
print("shape of a 0-d array: ascontiguousarray", shapes[0], "require CA", shapes[1])

same = np.shares_memory(contiguous, mapped) and not contiguous.flags.aligned and required.flags.aligned
if not same or shapes != ((1,), ()):
    sys.exit("the behaviour has changed")
PY
