"""C of the same models on an emulated Cortex-M4F: ssmrt's own beside that of emx-onnx-cgen from the ONNX step graph.

    python benches/generators.py

Same compiler and options (gcc -O2, multiply-adds not fused), 100 samples of white noise. emx-onnx-cgen gets the
graph in the layout that costs it the fewest instructions, with temporaries on the stack and states in place.
Needs emx-onnx-cgen and the Debian packages gcc-arm-none-eabi, libnewlib-arm-none-eabi, qemu-system-arm.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from math import prod
from pathlib import Path

import ssmrt
from ssmrt.export.c import TARGETS, measure
from ssmrt.export.onnx_export import Options, build

sys.path.append(str(Path(__file__).parents[1] / "examples" / "cortex_m"))
from run import shown, spaced

TARGET = "cortex-m4"


def by_emx(model: ssmrt.Model, folder: Path) -> measure.Run:
    """What the model takes as C by emx-onnx-cgen; ``folder`` has ssmrt's own, whose vectors it is run over."""
    from emx_onnx_cgen import compiler

    proto, contract = build(model.document, Options(layout="blocks"))
    options = compiler.CompilerOptions(
        model_name="graph", large_weight_threshold=0, large_temp_threshold_bytes=0, restrict_arrays=False
    )
    source = compiler.Compiler(options).compile(proto)
    sizes = [prod(state.shape) for state in contract.states]
    offsets = [sum(sizes[:i]) for i in range(len(sizes))]
    states = "".join(f", (void *)(model->state + {offset})" for offset in offsets)
    (folder / "ssm.h").write_text(
        f"#include <stdint.h>\n#define SSM_INPUTS {model.d_input}\n#define SSM_OUTPUTS {model.d_output}\n"
        f"typedef struct {{ float state[{max(sum(sizes), 1)}]; }} ssm_t;\n"
        "void ssm_init(ssm_t *model);\nvoid ssm_step(ssm_t *model, const float *x, float *y);\n"
    )
    (folder / "model.c").write_text(
        source + '\n#include "ssm.h"\nvoid ssm_init(ssm_t *model) { memset(model, 0, sizeof *model); }\n'
        "void ssm_step(ssm_t *model, const float *x, float *y)\n"
        f"{{ graph((const void *)x{states}, (void *)y{states}); }}\n"
    )
    target = TARGETS[TARGET]
    command = [target.compiler, *target.options, "-std=gnu11", "-w", "-ffunction-sections", "-c", "model.c"]
    subprocess.run(command, cwd=folder, check=True)
    (folder / "weights.o").unlink(missing_ok=True)
    found = measure.run(folder, "ssm", target)
    assert found is not None
    return found


def main() -> int:
    """Print the table; 1 where a tool is missing."""
    if any(shutil.which(tool) is None for tool in (TARGETS[TARGET].compiler, TARGETS[TARGET].emulator[0])):
        print(__doc__, file=sys.stderr)
        return 1
    print("| model | instructions | emx-onnx-cgen | cycles, estimated | emx-onnx-cgen | stack B | emx-onnx-cgen |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, model in shown():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            ours = ssmrt.export_c(model, folder, target=TARGET)
            theirs = by_emx(model, folder)
        numbers = (ours.instructions, theirs.instructions, ours.cycles, theirs.cycles, ours.stack, theirs.stack)
        print(f"| {name} | {' | '.join(spaced(n or 0) for n in numbers)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
