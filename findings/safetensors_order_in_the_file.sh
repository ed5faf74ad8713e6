#!/usr/bin/env bash
# Guess: the tensors lie in the file in the order of the dict, as the training code named them.
# What happens: they are sorted, wide dtypes first, then by name as text. Two dicts in different order
# give the same bytes, and "layers.10" lies before "layers.2".
# For readers of trained models: neither the offsets nor the order of the header tell the order of layers.
# Packages: safetensors 0.8.0, numpy 2.4.6. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 safetensors==0.8.0
cd "$work"

"$work/venv/bin/python" - <<'PY'
import json
import sys

import numpy as np
import safetensors
from safetensors.numpy import save

tensors = {
    "half": np.zeros(3, np.float16),
    "layers.2": np.zeros(2, np.float32),
    "layers.10": np.ones(2, np.float32),
    "steps": np.zeros(1, np.int64),
}
content = save(tensors)
header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
order = sorted(header, key=lambda name: header[name]["data_offsets"])
same = content == save(dict(reversed(tensors.items())))

print("safetensors", safetensors.__version__, "numpy", np.__version__)
print("order of the dict:", list(tensors))
print("order in the file:", order)
print("same bytes from the reversed dict:", same)

if order != ["steps", "layers.10", "layers.2", "half"] or list(header) != order or not same:
    sys.exit("the behaviour has changed")
PY
