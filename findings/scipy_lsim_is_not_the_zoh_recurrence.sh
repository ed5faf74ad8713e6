#!/usr/bin/env bash
# Guess: lsim of a continuous system and dlsim of its cont2discrete, both by default, agree at the samples.
# What happens: cont2discrete holds the input (zoh), lsim draws lines between the samples. On a jumping input
# they are far apart. lsim(interp=False) agrees to rounding.
# For readers of trained models: lsim by default is no reference for a model with zero-order hold.
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

system = tuple(np.array([[value]]) for value in (-1.0, 1.0, 1.0, 0.0))
step = 0.5
u = np.array([1.0, 0.0, 1.0, 0.0, 1.0])
t = step * np.arange(len(u))
held = signal.dlsim(signal.cont2discrete(system, step), u)[1].ravel()
default = np.abs(signal.lsim(system, u, t)[1] - held).max()
without = np.abs(signal.lsim(system, u, t, interp=False)[1] - held).max()

print("scipy", scipy.__version__)
print("difference from the zoh recurrence: lsim", default, "lsim(interp=False)", without)

if default < 0.1 or without > 1e-12:
    sys.exit("the behaviour has changed")
PY
