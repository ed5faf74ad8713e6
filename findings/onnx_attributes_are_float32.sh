#!/usr/bin/env bash
# Guess: a node on float64 tensors computes with the float64 number that was given as its attribute.
# What happens: a number in an ONNX attribute is a float32. LeakyRelu with alpha=0.1 on doubles multiplies
# by 0.10000000149, a relative error of 1.5e-8 in a model that is otherwise good to 1e-16.
# For readers and writers of models: in a float64 graph a number has to be a float64 initializer to be exact.
# Packages: onnx 1.23.2, onnxruntime 1.32.0, numpy 2.4.6. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.1)], "leaky", ends[:1], ends[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnx.checker.check_model(model)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
y = session.run(None, {"x": np.array([-1.0])})[0]

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
print("dtype of the output", y.dtype, "LeakyRelu(-1) with alpha=0.1:", float(y[0]))

if y.dtype != np.float64 or y[0] != -float(np.float32(0.1)):
    sys.exit("the behaviour has changed")
PY
