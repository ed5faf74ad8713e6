#!/usr/bin/env bash
# Guess: cont2discrete changes A and B and leaves C and D, as it does for zoh.
# What happens: with "bilinear" C changes and D becomes non-zero. State-space layers take A and B by the
# same formulas, keep C and D and put out C x after the update. That is another filter: its response
# to an impulse starts with another number and is no shifted copy.
# For readers of trained models: SciPy's A and B may be used for such a layer, its C and D may not.
# Packages: scipy 1.17.1, numpy 2.4.6. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check scipy==1.17.1 numpy==2.4.6
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys

import numpy as np
import scipy
from scipy import signal

a, b, c, d = (np.array([[value]]) for value in (-1.0, 1.0, 1.0, 0.0))
step = 0.5
zoh = signal.cont2discrete((a, b, c, d), step)
bilinear = signal.cont2discrete((a, b, c, d), step, method="bilinear")
da, db, dc, dd, _ = bilinear
with_scipy = signal.dimpulse(bilinear, n=4)[1][0].ravel()
layer = np.array([(c @ np.linalg.matrix_power(da, k) @ db).item() for k in range(4)])
same = np.allclose([da.item(), db.item()], [(1 - step / 2) / (1 + step / 2), step / (1 + step / 2)], rtol=1e-14)

print("scipy", scipy.__version__)
print("zoh: C", zoh[2].item(), "D", zoh[3].item(), "bilinear: C", dc.item(), "D", dd.item())
print("A and B of the layers' formulas:", same)
print("impulse response: scipy", with_scipy, "layer", layer)

changed = not np.allclose([zoh[2].item(), zoh[3].item(), dc.item(), dd.item()], [1, 0, 0.8, 0.2], rtol=1e-12)
if changed or not same or np.allclose(with_scipy, layer) or np.allclose(with_scipy[1:], layer[:-1]):
    sys.exit("the behaviour has changed")
PY
