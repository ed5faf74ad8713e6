#!/usr/bin/env bash
# Guess: intra_op_num_threads = -1 is refused, since the documentation names 0 as "choose for me".
# What happens: -1 and -7 are kept without a word, and the session runs with as many threads as for 0.
# True is kept as 1. The script counts threads in /proc, so it needs Linux.
# For runtimes that hand such an option on: check the number first, nobody else does.
# Packages: onnxruntime 1.32.0, onnx 1.23.2, numpy 2.4.6. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$work"

"$work/venv/bin/python" - <<'PY'
import os
import sys

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ends[:1], ends[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
sessions = []


def threads(number):
    """Number as kept, threads started for it, output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = number
    before = len(os.listdir("/proc/self/task"))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    sessions.append(session)
    started = len(os.listdir("/proc/self/task")) - before
    return options.intra_op_num_threads, started, session.run(None, {"x": np.array([-1, 1], np.float32)})[0].tolist()


found = {number: threads(number) for number in (0, -1, -7)}
true = threads(True)[0]
print("onnxruntime", onnxruntime.__version__)
for number, (kept, started, output) in found.items():
    print(f"set {number}, kept {kept}, threads started as for 0: {started == found[0][1]}, output {output}")
print("set True, kept", true)

kept = [number for number, _, _ in found.values()]
if kept != [0, -1, -7] or true != 1 or len({started for _, started, _ in found.values()}) != 1:
    sys.exit("the behaviour has changed")
PY
