#!/usr/bin/env bash
# Guess: the two Lyapunov solvers take the same sign of Q, so that a Gramian is solve(A, B B^T) in both.
# What happens: solve_continuous_lyapunov solves A X + X A^H = Q, solve_discrete_lyapunov solves
# A X A^H - X + Q = 0. The continuous Gramian needs -B B^T, the discrete one +B B^T.
# For readers of trained models: a Gramian of the wrong sign has negative eigenvalues, of which
# balanced truncation wants the square roots.
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
from scipy.linalg import solve_continuous_lyapunov, solve_discrete_lyapunov

b = np.array([[1.0]])
continuous = solve_continuous_lyapunov(np.array([[-0.5]]), b @ b.T)[0, 0]  # integral of exp(-t): Gramian 1
discrete = solve_discrete_lyapunov(np.array([[0.5]]), b @ b.T)[0, 0]  # sum of 0.25**k: Gramian 4/3

print("scipy", scipy.__version__)
print("continuous, Gramian 1:", continuous, "discrete, Gramian 4/3:", discrete)

if not np.allclose([continuous, discrete], [-1, 4 / 3], rtol=1e-12):
    sys.exit("the behaviour has changed")
PY
