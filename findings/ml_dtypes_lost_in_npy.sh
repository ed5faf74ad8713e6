#!/usr/bin/env bash
# Guess: np.save of an ml_dtypes array keeps its dtype, or refuses.
# What happens: bfloat16 comes back as raw two-byte void (V2) and float8_e4m3fn as V1: nothing in the file
# tells which type it was. float8_e5m2 is written too, but as "<f1", which np.load refuses.
# For readers of trained models: a V2 array is probably bfloat16, but that has to be said by someone.
# Packages: numpy 2.4.6, ml_dtypes 0.6.0. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 ml_dtypes==0.6.0
cd "$work"

"$work/venv/bin/python" - <<'PY'
import io
import sys

import ml_dtypes
import numpy as np


def there_and_back(dtype):
    file = io.BytesIO()
    np.save(file, np.array([1, 2], dtype))
    file.seek(0)
    try:
        return np.load(file).dtype.str
    except ValueError as error:
        return f"ValueError: {error}"


print("numpy", np.__version__, "ml_dtypes", ml_dtypes.__version__)
found = {name: there_and_back(getattr(ml_dtypes, name)) for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")}
for name, dtype in found.items():
    print(f"saved {name}, loaded {dtype}")

if found["bfloat16"] != "|V2" or found["float8_e4m3fn"] != "|V1" or "<f1" not in found["float8_e5m2"]:
    sys.exit("the behaviour has changed")
PY
