"""C of the same models on an emulated Cortex-M4F: ssmrt's own, that of emx-onnx-cgen from the ONNX step graph, by hand.

    python benches/generators.py

Same compiler and options (gcc -O2, multiply-adds not fused), 100 samples of white noise. emx-onnx-cgen gets the
graph in the layout that costs it the fewest instructions, with temporaries on the stack and states in place. By hand
there is ``hand_fused.c``, for stacks of S4D layers: one loop over a channel's modes, the C library's functions.
Needs emx-onnx-cgen and the Debian packages gcc-arm-none-eabi, libnewlib-arm-none-eabi, qemu-system-arm.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import ssmrt
from numpy.typing import NDArray
from ssmrt.document import Diagonal, Linear, Norm, Pool, walk
from ssmrt.export.c import TARGETS, measure
from ssmrt.export.c.source import shortest
from ssmrt.export.onnx_export import Options, build
from ssmrt.export.systems import Modes, Systems

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
    interface(model, folder, f"float state[{max(sum(sizes), 1)}];")
    (folder / "model.c").write_text(
        source + '\n#include "ssm.h"\nvoid ssm_init(ssm_t *model) { memset(model, 0, sizeof *model); }\n'
        "void ssm_step(ssm_t *model, const float *x, float *y)\n"
        f"{{ graph((const void *)x{states}, (void *)y{states}); }}\n"
    )
    return measured(folder, "model.c")


def interface(model: ssmrt.Model, folder: Path, memory: str) -> None:
    """Writes ``ssm.h`` with this state."""
    (folder / "ssm.h").write_text(
        f"#include <stdint.h>\n#define SSM_INPUTS {model.d_input}\n#define SSM_OUTPUTS {model.d_output}\n"
        f"typedef struct {{ {memory} }} ssm_t;\n"
        "void ssm_init(ssm_t *model);\nvoid ssm_step(ssm_t *model, const float *x, float *y);\n"
    )


def measured(folder: Path, source: str) -> measure.Run:
    """What the C in ``folder`` takes, with ssmrt's vectors there."""
    target = TARGETS[TARGET]
    options = [*target.options, "-std=gnu11", "-w", "-ffunction-sections", "-I."]
    subprocess.run([target.compiler, *options, "-c", source, "-o", "model.o"], cwd=folder, check=True)
    (folder / "weights.o").unlink(missing_ok=True)
    found = measure.run(folder, "ssm", target)
    assert found is not None
    return found


def array(name: str, numbers: NDArray[Any]) -> str:
    """A C array of floats."""
    sizes = "".join(f"[{size}]" for size in numbers.shape)
    # Without inner braces, which C does not need.
    flat = ",".join(map(shortest, numbers.astype(np.float32).reshape(-1)))
    return f"static const float {name}{sizes} = {{{flat}}};\n"


def by_hand(model: ssmrt.Model, folder: Path) -> measure.Run | None:
    """What the model takes by hand; None where it is no stack of S4D layers."""
    document = model.document
    nodes = list(walk(document.root))
    layers = [node for node in nodes if isinstance(node, Diagonal)]
    linear = [node for node in nodes if isinstance(node, Linear)]
    norms = [node for node in nodes if isinstance(node, Norm)]
    if not layers or len(linear) != len(layers) + 2 or len(norms) != len(layers):
        return None
    systems = Systems(document, 1.0)
    modes, D = [], []
    for layer in layers:
        system = systems.of(layer)
        assert isinstance(system, Modes)
        a, c = 1 + system.a1, system.C[0] * system.B
        modes.append(np.stack([a.real, a.imag, c.real, c.imag], -1))
        D.append(system.D[0])
    mixes = linear[1:-1]
    arrays = {
        "encoder": linear[0].weight, "encoder_bias": linear[0].bias, "modes": np.array(modes), "D": np.array(D),
        "mix": np.array([node.weight for node in mixes]), "mix_bias": np.array([node.bias for node in mixes]),
        "norm_weight": np.array([node.weight for node in norms]), "norm_bias": np.array([node.bias for node in norms]),
        "decoder": linear[-1].weight, "decoder_bias": linear[-1].bias,
    }  # fmt: skip
    count, h, n, _ = arrays["modes"].shape
    pooled = any(isinstance(node, Pool) for node in nodes)
    memory = f"float state[{count}][{h}][{n}][2];" + (f" float count, mean[{h}];" if pooled else "")
    interface(model, folder, memory)
    text = f"#define LAYERS {count}\n#define H {h}\n#define N {n}\n" + ("#define POOLED\n" if pooled else "")
    (folder / "hand_weights.h").write_text(text + "".join(array(name, a) for name, a in arrays.items()))
    return measured(folder, str(Path(__file__).with_name("hand_fused.c")))


def main() -> int:
    """Print the table; 1 where a tool is missing."""
    if any(shutil.which(tool) is None for tool in (TARGETS[TARGET].compiler, TARGETS[TARGET].emulator[0])):
        print(__doc__, file=sys.stderr)
        return 1
    print(
        "| model | instructions | emx-onnx-cgen | by hand | cycles | emx-onnx-cgen | by hand | stack B | emx | hand |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name, model in shown():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            ours = ssmrt.export_c(model, folder, target=TARGET)
            theirs, hand = by_emx(model, folder), by_hand(model, folder)
        numbers = [
            getattr(run, what, None) for what in ("instructions", "cycles", "stack") for run in (ours, theirs, hand)
        ]
        print(f"| {name} | {' | '.join('' if n is None else spaced(n) for n in numbers)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
