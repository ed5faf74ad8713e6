#!/usr/bin/env bash
# Guess: a list of layers saved by Flax and restored without a target has its leaves in the same order.
# What happens: Flax turns the list into a dict with the keys "0", "1", ... "11", and JAX flattens dicts
# sorted by key as text: 0, 1, 10, 11, 2, ... From eleven layers on the leaves are permuted.
# For readers of trained models: sort such keys as numbers, and never pair leaves by position.
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
from flax.serialization import msgpack_restore, to_bytes

layers = [np.float32(index) for index in range(12)]
restored = msgpack_restore(to_bytes(layers))
before = [int(leaf) for leaf in jax.tree_util.tree_leaves(layers)]
after = [int(leaf) for leaf in jax.tree_util.tree_leaves(restored)]

print("flax", flax.__version__, "jax", jax.__version__)
print("leaves before:", before)
print("leaves after: ", after)

if before != list(range(12)) or after != [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]:
    sys.exit("the behaviour has changed")
PY
