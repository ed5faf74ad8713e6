#!/usr/bin/env bash
# Guess: "skip_deserialize": true in Orbax's _METADATA marks a leaf that has no value in the checkpoint.
# What happens: with the save arguments that Flax's guide recommended, and in flax's save_checkpoint, every
# array is put into the one msgpack file "checkpoint", and _METADATA marks every leaf as skipped.
# For readers of trained models: skipped means "not in a file of its own": look into "checkpoint".
# Packages: orbax-checkpoint 0.5.10, flax 0.8.3, jax 0.4.26, numpy 1.26.4. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check orbax-checkpoint==0.5.10 flax==0.8.3 jax==0.4.26 jaxlib==0.4.26 \
    numpy==1.26.4 scipy==1.12.0 ml_dtypes==0.5.4 tensorstore==0.1.86 chex==0.1.86 optax==0.2.2 msgpack==1.2.4
export JAX_PLATFORMS=cpu
cd "$work"

"$work/venv/bin/python" - <<'PY'
import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from flax.serialization import msgpack_restore
from flax.training import checkpoints, orbax_utils
from orbax.checkpoint import PyTreeCheckpointer

params = {"dense": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, np.float32)}}
here = Path.cwd()
PyTreeCheckpointer().save(here / "guide", params, save_args=orbax_utils.save_args_from_target(params))
checkpoints.save_checkpoint(here / "flax", params, 0)

print("orbax-checkpoint", version("orbax-checkpoint"), "flax", version("flax"), "jax", version("jax"))
as_expected = True
for folder in (here / "guide", here / "flax" / "checkpoint_0"):
    leaves = json.loads((folder / "_METADATA").read_text())["tree_metadata"]
    skipped = {name: leaf["value_metadata"]["skip_deserialize"] for name, leaf in leaves.items()}
    kernel = msgpack_restore((folder / "checkpoint").read_bytes())["dense"]["kernel"]
    print(folder.name, "skip_deserialize:", skipped, "kernel in the file checkpoint:", kernel.tolist())
    as_expected &= len(skipped) == 2 and all(skipped.values()) and np.array_equal(kernel, params["dense"]["kernel"])

if not as_expected:
    sys.exit("the behaviour has changed")
PY
