#!/usr/bin/env bash
# Guess: a training config says "dt_min: 1e-3", and a YAML reader takes it as a number.
# What happens: PyYAML gives the text "1e-3", since it wants a point in a float with an exponent. OmegaConf,
# which reads through PyYAML, gives 0.001. The same file has two contents.
# For readers of trained models: float() the numbers of a config, and say so when one is a text.
# Packages: PyYAML 6.0.4, omegaconf 2.4.0. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check PyYAML==6.0.4 omegaconf==2.4.0
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import yaml
from omegaconf import OmegaConf

config = "dt_min: 1e-3\ndt_max: 1.0e-1\n"
with_yaml = yaml.safe_load(config)
with_omegaconf = OmegaConf.to_container(OmegaConf.create(config))

print("PyYAML", version("PyYAML"), "omegaconf", version("omegaconf"))
print("PyYAML:", with_yaml, "omegaconf:", with_omegaconf)

if with_yaml != {"dt_min": "1e-3", "dt_max": 0.1} or with_omegaconf != {"dt_min": 0.001, "dt_max": 0.1}:
    sys.exit("the behaviour has changed")
PY
