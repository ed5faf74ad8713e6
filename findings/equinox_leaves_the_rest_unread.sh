#!/usr/bin/env bash
# Guess: tree_deserialise_leaves complains when the file holds more arrays than the template.
# What happens: it reads as many records as the template has leaves and stops. A file of four layers
# loads into a model of two, which then has the first two.
# For readers of trained models: that a .eqx file loads does not show that the template is the right one;
# compare where the reading stopped with the length of the file.
# Packages: equinox 0.13.8, jax 0.10.2. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 equinox==0.13.8 numpy==2.4.6
export JAX_PLATFORMS=cpu
cd "$work"

"$work/venv/bin/python" - <<'PY'
import io
import sys

import equinox as eqx
import jax
import jax.numpy as jnp

file = io.BytesIO()
eqx.tree_serialise_leaves(file, [jnp.full(2, float(layer)) for layer in range(4)])
length = file.tell()
file.seek(0)
loaded = eqx.tree_deserialise_leaves(file, [jnp.zeros(2), jnp.zeros(2)])
read = file.tell()

print("equinox", eqx.__version__, "jax", jax.__version__)
print("loaded:", [leaf.tolist() for leaf in loaded], "bytes read:", read, "of", length)

if [leaf.tolist() for leaf in loaded] != [[0, 0], [1, 1]] or read >= length:
    sys.exit("the behaviour has changed")
PY
