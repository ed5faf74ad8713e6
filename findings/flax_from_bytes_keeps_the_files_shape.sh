#!/usr/bin/env bash
# Guess: flax.serialization.from_bytes(target, data) refuses data whose arrays have another shape or dtype
# than the target's, as it refuses data with other names.
# What happens: only the names are compared. The arrays come as they are in the file.
# For readers of trained models: a target is no check that the checkpoint fits the model.
# Packages: flax 0.12.8, jax 0.10.2, numpy 2.4.6. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 orbax-checkpoint==0.12.8 numpy==2.4.6
export JAX_PLATFORMS=cpu
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys

import flax
import numpy as np
from flax.serialization import from_bytes, to_bytes

target = {"kernel": np.zeros((2, 3), np.float32)}
restored = from_bytes(target, to_bytes({"kernel": np.ones(5, np.float16)}))["kernel"]
try:
    from_bytes(target, to_bytes({"weight": np.ones((2, 3), np.float32)}))
    names = "accepted"
except ValueError:
    names = "ValueError"

print("flax", flax.__version__, "numpy", np.__version__)
print("target", target["kernel"].shape, target["kernel"].dtype, "restored", restored.shape, restored.dtype)
print("another name:", names)

if restored.shape != (5,) or restored.dtype != np.float16 or names != "ValueError":
    sys.exit("the behaviour has changed")
PY
