#!/usr/bin/env bash
# Guess: jax.scipy.linalg.expm gives what scipy.linalg.expm gives, up to float32.
# What happens: it squares at most 16 times by default and returns nan beyond, for the whole matrix.
# A stable system with one very fast mode, exp(diag(-1e6, -1)), is nan; SciPy gives 0 and exp(-1).
# max_squarings=32 gives numbers, of few digits.
# For readers of trained models: zero-order hold by expm needs float64 and a library without that bound
# when the time scales of a model lie far apart.
# Packages: jax 0.10.2, scipy 1.17.1, numpy 2.4.6. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 scipy==1.17.1 numpy==2.4.6
export JAX_PLATFORMS=cpu
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys

import jax
import numpy as np
import scipy
from jax.scipy.linalg import expm

a = np.diag([-1e6, -1.0])
exact = scipy.linalg.expm(a)
default = np.asarray(expm(a))
longer = np.asarray(expm(a, max_squarings=32))

print("jax", jax.__version__, "scipy", scipy.__version__)
print("scipy:", np.diag(exact), "jax:", np.diag(default), "jax, 32 squarings:", np.diag(longer))

right = np.allclose(exact, np.diag([0, np.exp(-1)]), rtol=1e-6)
if not right or not np.isnan(default).all() or not np.isfinite(longer).all():
    sys.exit("the behaviour has changed")
PY
