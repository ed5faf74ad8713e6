#!/usr/bin/env bash
# Guess: saving the same tensors with the same metadata twice gives the same bytes.
# What happens: the entries of "__metadata__" are written in an order that changes from call to call,
# even in one process. The tensors keep their order. With one entry the bytes are stable.
# For readers of trained models: a hash of the file does not tell whether two models are equal.
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
from safetensors.numpy import save

tensors = {"weight": np.zeros(2, np.float32), "bias": np.zeros(1, np.float32)}
one = {"format": "np"}
four = {"format": "np", "family": "s5", "rate": "16000", "block": "64"}
stable = {save(tensors, metadata=one) for _ in range(200)}
varying = {save(tensors, metadata=four) for _ in range(200)}

print("safetensors", safetensors.__version__, "numpy", np.__version__)
print("one entry, 200 files: different contents", len(stable))
print("four entries, 200 files: different contents more than one:", len(varying) > 1)

if len(stable) != 1 or len(varying) == 1:
    sys.exit("the behaviour has changed")
PY
