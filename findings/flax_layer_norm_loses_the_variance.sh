#!/usr/bin/env bash
# Guess: Flax's LayerNorm in float32 is good to a few units of float32 for any harmless input.
# What happens: by default the variance is mean(x^2) - mean(x)^2. With a mean of 10000 and a spread of 1
# nothing is left of it and the output is far off. use_fast_variance=False is right.
# For readers of trained models: a runtime with the two-pass variance differs from Flax on inputs with
# a large mean, and it is the better of the two.
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
import jax
import numpy as np
from flax import linen

x = (10000 + np.linspace(-2, 2, 8)).astype(np.float32)
wide = x.astype(np.float64)
exact = (wide - wide.mean()) / np.sqrt(wide.var() + 1e-6)
errors = {}
for fast in (True, False):
    norm = linen.LayerNorm(use_fast_variance=fast)
    y = norm.apply(norm.init(jax.random.key(0), x), x)
    errors[fast] = float(np.abs(y - exact).max())
norm = linen.LayerNorm()
default = float(np.abs(norm.apply(norm.init(jax.random.key(0), x), x) - exact).max())

print("flax", flax.__version__, "jax", jax.__version__)
print("largest output in float64:", exact.max())
print("error: by default", default, "fast variance", errors[True], "two passes", errors[False])

if default != errors[True] or errors[True] < 0.1 or errors[False] > 2e-3:
    sys.exit("the behaviour has changed")
PY
