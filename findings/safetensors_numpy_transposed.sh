#!/usr/bin/env bash
# Guess: saving a transposed NumPy array saves the transposed matrix, or fails as safetensors.torch does
# for a tensor that is not contiguous.
# What happens: the memory is written as it lies, under the transposed shape. The matrix that comes
# back is another one. np.ascontiguousarray before saving cures it.
# For readers of trained models: a weight that was transposed on the way into a file may be scrambled
# in the file, with the right shape.
# Packages: safetensors 0.8.0, numpy 2.4.6. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 safetensors==0.8.0
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load, save

kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
back = load(save({"kernel": kernel.T}))["kernel"]
cured = load(save({"kernel": np.ascontiguousarray(kernel.T)}))["kernel"]

print("safetensors", safetensors.__version__, "numpy", np.__version__)
print("saved: ", kernel.T.tolist())
print("loaded:", back.tolist())
print("loaded after ascontiguousarray:", cured.tolist())

if back.tolist() != kernel.reshape(3, 2).tolist() or cured.tolist() != kernel.T.tolist():
    sys.exit("the behaviour has changed")
PY
