#!/usr/bin/env bash
# Guess: writing a float32 array to a .wav keeps the float32 samples, or both writers treat it alike.
# What happens: soundfile writes 16-bit integers, so 1.0 comes back as 0.99997, 1e-6 as 0 and 1.5 is
# clipped. scipy.io.wavfile writes floats and keeps all of them.
# For streaming models: recordings of a model's input and output for a comparison need subtype="FLOAT".
# Packages: soundfile 0.14.0, scipy 1.17.1, numpy 2.4.6. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check soundfile==0.14.0 scipy==1.17.1 numpy==2.4.6
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys

import numpy as np
import scipy
import soundfile
from scipy.io import wavfile

samples = np.array([1.0, 1e-6, 1.5], np.float32)
soundfile.write("soundfile.wav", samples, 16000)
wavfile.write("scipy.wav", 16000, samples)
found = {name: (soundfile.info(name).subtype, soundfile.read(name)[0]) for name in ("soundfile.wav", "scipy.wav")}

print("soundfile", soundfile.__version__, "scipy", scipy.__version__)
for name, (subtype, back) in found.items():
    print(name, subtype, back)

kinds = [subtype for subtype, _ in found.values()]
kept = np.array_equal(found["scipy.wav"][1], samples)
if kinds != ["PCM_16", "FLOAT"] or not kept or found["soundfile.wav"][1].tolist() != [32767 / 32768, 0, 32767 / 32768]:
    sys.exit("the behaviour has changed")
PY
