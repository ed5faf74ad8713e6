#!/usr/bin/env bash
# Guess: the JAX libraries agree on the default epsilon of LayerNorm, so that weights can be moved over.
# What happens: Flax adds 1e-6 to the variance, Equinox 1e-5. For inputs of size 1e-3 the outputs
# differ by more than a factor of two. Neither writes epsilon into its checkpoint.
# For readers of trained models: the library that trained the model decides, and the file does not say which.
# Packages: flax 0.12.8, equinox 0.13.8, jax 0.10.2. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 orbax-checkpoint==0.12.8 numpy==2.4.6 equinox==0.13.8
export JAX_PLATFORMS=cpu
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys

import equinox as eqx
import flax
import jax
import jax.numpy as jnp
from flax import linen

x = jnp.array([-1e-3, 1e-3])
norm = linen.LayerNorm()
with_flax = norm.apply(norm.init(jax.random.key(0), x), x)
with_equinox = eqx.nn.LayerNorm(2)(x)

print("flax", flax.__version__, "equinox", eqx.__version__, "jax", jax.__version__)
print("epsilon: flax", linen.LayerNorm().epsilon, "equinox", eqx.nn.LayerNorm(2).eps)
print("output:  flax", with_flax, "equinox", with_equinox)

if norm.epsilon != 1e-6 or eqx.nn.LayerNorm(2).eps != 1e-5 or not with_flax[1] > 2 * with_equinox[1]:
    sys.exit("the behaviour has changed")
PY
