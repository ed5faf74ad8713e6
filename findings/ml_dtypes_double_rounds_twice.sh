#!/usr/bin/env bash
# Guess: a float64 becomes the nearest bfloat16.
# What happens: it is rounded to float32 first and to bfloat16 then. A number just above the middle
# of two bfloat16 numbers is rounded down. NumPy's own float64 -> float16 rounds once.
# For readers of trained models: weights converted from float64 can differ in the last bit from those
# of a converter that rounds once, so comparing bytes fails.
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

above_middle = np.array([1 + 2**-8 + 2**-30])  # bfloat16 has 1 and 1 + 2**-7 next to it
bfloat16 = float(above_middle.astype(ml_dtypes.bfloat16)[0])
float16 = float(np.array([1 + 2**-11 + 2**-30]).astype(np.float16)[0])  # float16 has 1 and 1 + 2**-10

print("numpy", np.__version__, "ml_dtypes", ml_dtypes.__version__)
print("float64 -> bfloat16:", bfloat16, "nearest", 1 + 2**-7)
print("float64 -> float16: ", float16, "nearest", 1 + 2**-10)

if not (bfloat16 == 1 and float16 == 1 + 2**-10):
    sys.exit("the behaviour has changed")
PY
