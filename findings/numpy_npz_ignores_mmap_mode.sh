#!/usr/bin/env bash
# Guess: np.load("x.npz", mmap_mode="r") maps the arrays, or says that it cannot.
# What happens: the argument has no effect on an .npz. Each array is read into memory, without a word,
# though an uncompressed member lies in the file as a plain .npy, which np.load would map.
# For readers of trained models: a large .npz costs its size in memory whatever one asks for.
# Package: numpy 2.4.6. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys

import numpy as np

weights = np.arange(6.0)
np.save("one.npy", weights)
np.savez("many.npz", weights=weights)
from_npy = np.load("one.npy", mmap_mode="r")
with np.load("many.npz", mmap_mode="r") as archive:
    from_npz = archive["weights"]

print("numpy", np.__version__)
print(".npy:", type(from_npy).__name__, "writeable", from_npy.flags.writeable)
print(".npz:", type(from_npz).__name__, "writeable", from_npz.flags.writeable)

if not (isinstance(from_npy, np.memmap) and not isinstance(from_npz, np.memmap) and from_npz.flags.writeable):
    sys.exit("the behaviour has changed")
PY
