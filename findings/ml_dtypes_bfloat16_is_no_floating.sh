#!/usr/bin/env bash
# Guess: NumPy counts bfloat16 among the floating dtypes.
# What happens: its kind is "V", that of raw bytes, np.issubdtype(bfloat16, np.floating) is False and
# np.isdtype raises a TypeError. ml_dtypes' own float8_e5m2 has kind "f".
# For readers of trained models: a check "are these weights floating point" by kind refuses bfloat16.
# Packages: numpy 2.4.6, ml_dtypes 0.6.0. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 ml_dtypes==0.6.0
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys

import ml_dtypes
import numpy as np

bfloat16 = np.dtype(ml_dtypes.bfloat16)
float8 = np.dtype(ml_dtypes.float8_e5m2)
try:
    answer = str(np.isdtype(bfloat16, "real floating"))
except TypeError as error:
    answer = f"TypeError: {error}"

print("numpy", np.__version__, "ml_dtypes", ml_dtypes.__version__)
print("kind of bfloat16", bfloat16.kind, "of float8_e5m2", float8.kind)
print("issubdtype(bfloat16, floating)", np.issubdtype(bfloat16, np.floating))
print("isdtype(bfloat16, 'real floating')", answer)

changed = np.issubdtype(bfloat16, np.floating) or not answer.startswith("TypeError")
if changed or bfloat16.kind != "V" or float8.kind != "f":
    sys.exit("the behaviour has changed")
PY
