#!/usr/bin/env bash
# Guess: soundfile.read(dtype="int16") gives about the same samples for a float WAV and a 16-bit WAV of one signal.
# What happens: the samples of the float file are rounded to integers, unscaled. Of a signal between -1 and 1
# only -1, 0 and 1 are left.
# For streaming models: read as float and scale oneself when the model wants int16.
# Packages: soundfile 0.14.0, numpy 2.4.6. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 numpy==2.4.6
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys

import numpy as np
import soundfile

samples = np.array([0.25, -0.25, 0.75, -0.75], np.float32)
soundfile.write("float.wav", samples, 16000, subtype="FLOAT")
soundfile.write("short.wav", samples, 16000, subtype="PCM_16")
from_float = soundfile.read("float.wav", dtype="int16")[0]
from_short = soundfile.read("short.wav", dtype="int16")[0]

print("soundfile", soundfile.__version__, "libsndfile", soundfile.__libsndfile_version__)
print("samples", samples, "float file as int16:", from_float, "16-bit file as int16:", from_short)

if from_float.tolist() != [0, 0, 1, -1] or from_short.tolist() != [8192, -8192, 24576, -24576]:
    sys.exit("the behaviour has changed")
PY
