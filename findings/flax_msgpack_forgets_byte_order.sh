#!/usr/bin/env bash
# Guess: an array read from a big-endian file goes through Flax's msgpack with its values.
# What happens: the bytes are written as they are, and beside them the name "float32", which has no byte
# order. Reading takes them as little-endian: other numbers, no error. x.astype("=f4") before cures it.
# For readers of trained models: absurdly small or large weights in a Flax file may be a swapped byte order.
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
from flax.serialization import msgpack_restore, msgpack_serialize

big_endian = np.arange(3, dtype=">f4")
back = msgpack_restore(msgpack_serialize({"w": big_endian}))["w"]
cured = msgpack_restore(msgpack_serialize({"w": big_endian.astype("=f4")}))["w"]

print("flax", flax.__version__, "numpy", np.__version__)
print("saved:", big_endian, "loaded:", back, "loaded after astype:", cured)

swapped = back.tobytes() == big_endian.tobytes() and back.tolist() != big_endian.tolist()
if not swapped or cured.tolist() != big_endian.tolist():
    sys.exit("the behaviour has changed")
PY
