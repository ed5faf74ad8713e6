#!/usr/bin/env bash
# Guess: a Python number in an Equinox model comes back from the file with its value, or an error is
# raised when the template has another type, as for arrays of another dtype.
# What happens: the value is converted to the template's type. A step of 0.5 read into a template
# whose step is the integer 1 becomes 0.
# For readers of trained models: give floats in templates, and read the record itself to be sure.
# Packages: equinox 0.13.8, jax 0.10.2, numpy 2.4.6. Date: 2026-11-28.

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
import numpy as np


def there_and_back(saved, template):
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, {"step": saved})
    file.seek(0)
    try:
        return eqx.tree_deserialise_leaves(file, {"step": template})["step"]
    except RuntimeError as error:
        return type(error).__name__


number = there_and_back(0.5, 1)
array = there_and_back(np.array([0.5]), np.array([1]))

print("equinox", eqx.__version__, "jax", jax.__version__)
print("0.5 into a template with 1:", number)
print("[0.5] into a template with [1]:", array)

if number != 0 or array != "RuntimeError":
    sys.exit("the behaviour has changed")
PY
