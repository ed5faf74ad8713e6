#!/usr/bin/env bash
# Guess: GELU without further arguments is one function.
# What happens: jax.nn.gelu takes the tanh approximation by default, the ONNX operator Gelu the exact one
# with erf. They differ by up to 4.7e-4.
# For readers of trained models: "gelu" in a config means two functions, and the difference is
# too small to see in an accuracy and far too large for a comparison in float32.
# Packages: jax 0.10.2, onnx 1.23.2, onnxruntime 1.32.0. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
export JAX_PLATFORMS=cpu
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys

import jax
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

x = np.linspace(-4, 4, 801, dtype=np.float32)
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name in "xy"]
graph = helper.make_graph([helper.make_node("Gelu", ["x"], ["y"])], "gelu", ends[:1], ends[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
with_onnx = session.run(None, {"x": x})[0]
default = float(np.abs(jax.nn.gelu(x) - with_onnx).max())
exact = float(np.abs(jax.nn.gelu(x, approximate=False) - with_onnx).max())

print("jax", jax.__version__, "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
print("largest difference: jax.nn.gelu(x)", default, "with approximate=False", exact)

if not 4e-4 < default < 5e-4 or exact > 2e-6:
    sys.exit("the behaviour has changed")
PY
