#!/usr/bin/env bash
# Guess: the sum and the mean of a bfloat16 array are accumulated wider, as NumPy does for the mean of float16.
# What happens: the running sum is a bfloat16. A thousand ones add up to 256, and their mean is 0.256,
# because 256 + 1 rounds to 256. dtype=np.float32 gives 1000 and 1.
# For readers of trained models: a check or a normalisation by the mean of bfloat16 weights is badly wrong.
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

ones = np.ones(1000, ml_dtypes.bfloat16)
wide = ones.sum(dtype=np.float32)

print("numpy", np.__version__, "ml_dtypes", ml_dtypes.__version__)
print("1000 ones of bfloat16: sum", ones.sum(), "mean", ones.mean(), "sum in float32", wide)
print("1000 ones of float16:  mean", np.ones(1000, np.float16).mean())

if not (ones.sum() == 256 and 0.25 < float(ones.mean()) < 0.26 and wide == 1000):
    sys.exit("the behaviour has changed")
PY
