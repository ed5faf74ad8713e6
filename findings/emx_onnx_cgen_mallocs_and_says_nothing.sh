#!/usr/bin/env bash
# Guess: C that emx-onnx-cgen makes for microcontrollers takes no memory from the heap, or says so when there is none.
# What happens: temporaries above 1 kB come from malloc by default (large_temp_threshold_bytes), and where that fails the
# generated function returns, void, with its outputs as they were: the caller reads the answer before.
# For users on devices: pass --large-temp-threshold 0, and give the stack room.
# Packages: emx-onnx-cgen 1.4.0, onnx 1.23.2, numpy 2.4.6; any C compiler, cc. Date: 2026-11-29.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check emx-onnx-cgen==1.4.0 onnx==1.23.2 numpy==2.4.6
cd "$work"

"$work/venv/bin/python" - <<'PY'
from onnx import TensorProto, helper
from emx_onnx_cgen import compiler

ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1000]) for name in "xy"]
nodes = [helper.make_node("Neg", ["x"], ["between"]), helper.make_node("Neg", ["between"], ["y"])]
graph = helper.make_graph(nodes, "twice", ends[:1], ends[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
options = compiler.CompilerOptions(model_name="twice", large_weight_threshold=0)
source = compiler.Compiler(options).compile(model)
main = """
static void *none(unsigned long size) { (void)size; return 0; }
#define malloc(size) none(size)
"""
with open("twice.c", "w") as file:
    file.write(source.replace("#include <stdlib.h>", "#include <stdlib.h>" + main, 1) if "#include <stdlib.h>" in source else source)
    file.write("""
#include <stdio.h>
int main(void)
{
    static float x[1000], y[1000];
    x[0] = 1.0f;
    y[0] = 77.0f;
    twice(x, y);
    printf("y without a heap: %g\\n", (double)y[0]);
    return y[0] == 77.0f ? 0 : 1;
}
""")
PY

grep -n "malloc(" twice.c | tail -2
cc -O1 -w twice.c -lm -o twice
./twice || { echo "the behaviour has changed"; exit 1; }
