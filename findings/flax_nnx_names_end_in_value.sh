#!/usr/bin/env bash
# Guess: the same layer has the same parameter paths in Flax's two interfaces, linen and nnx.
# What happens: jax.tree_util.keystr gives ['kernel'] for linen and ['kernel'].value for an nnx.State,
# since each nnx leaf sits in a variable object. nnx.to_pure_dict gives linen's paths.
# For readers of trained models: files written with keystr names differ by the interface of the training code.
# Packages: flax 0.12.8, jax 0.10.2. Date: 2026-11-28.

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
import jax.numpy as jnp
from flax import linen, nnx


def paths(tree):
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
from_linen = paths(linen.Dense(3).init(jax.random.key(0), jnp.ones((1, 2)))["params"])
from_nnx, pure = paths(state), paths(nnx.to_pure_dict(state))

print("flax", flax.__version__, "jax", jax.__version__)
print("linen:", from_linen, "nnx:", from_nnx, "nnx.to_pure_dict:", pure)

if from_linen != ["['bias']", "['kernel']"] or from_nnx != ["['bias'].value", "['kernel'].value"] or pure != from_linen:
    sys.exit("the behaviour has changed")
PY
