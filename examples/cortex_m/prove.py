"""A model on an emulated Cortex-M4: exported, compiled, streamed under QEMU and compared there."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ssmrt.document import Document
from ssmrt.export import cortex_m

HERE = Path(__file__).parent
TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm")
QEMU = "qemu-system-arm -M mps2-an386 -nographic -monitor none -serial none -icount shift=0"
SEMIHOSTING = "enable=on,target=native"
# The two that stay off are about what emx-onnx-cgen writes: unused helpers, arrays made const in a call.
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-incompatible-pointer-types")


@dataclass(frozen=True)
class Proof:
    """What the device said."""

    error: float  # max |y - expected| / max |expected|
    instructions: int  # a step, at -O2, on average
    stack: int  # bytes of a step
    report: cortex_m.DeviceReport


def missing() -> str | None:
    """Why this machine cannot run the proof, or None."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"needs {', '.join(absent)}" if absent else None


def prove(document: Document, x: NDArray[Any], y: NDArray[Any], folder: Path) -> Proof:
    """Stream ``x`` (steps, d_input), or tokens (steps,), on the device and compare with ``y`` (steps, d_output).

    Writes the C, the objects and the image into ``folder``. Raises CalledProcessError where a tool fails or the
    device finds an error above 1e-5.
    """
    report = cortex_m.generate(document, folder, target="cortex-m4")
    (folder / "vectors.h").write_text(vectors(x, y))
    options = [*cortex_m.TARGETS["cortex-m4"].flags, "-O2", "-std=gnu11", *WARNINGS]
    options += ["-ffunction-sections", "-fdata-sections", f"-I{HERE}", "-I."]
    sources = ["ssm.c", "ssm_graph.c", str(HERE / "proof.c"), str(HERE / "startup.c")]
    link = ["-nostartfiles", "--specs=nosys.specs", "-Wl,--gc-sections", "-T", str(HERE / "mps2.ld"), "-lm"]
    run(["arm-none-eabi-gcc", *options, *sources, *link, "-o", "proof.elf"], folder)
    said = run([*QEMU.split(), "-semihosting-config", SEMIHOSTING, "-kernel", "proof.elf"], folder)
    facts = dict(line.split() for line in said.splitlines())
    return Proof(int(facts["error_e9"]) * 1e-9, int(facts["instructions"]), int(facts["stack"]), report)


def run(command: list[str], folder: Path) -> str:
    """What the command printed; its errors in the exception where it fails."""
    pipe = subprocess.PIPE
    done = subprocess.run(
        command, cwd=folder, text=True, timeout=120, stdout=pipe, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed with status {done.returncode}:\n{done.stdout}")
    return done.stdout


def vectors(x: NDArray[Any], y: NDArray[Any]) -> str:
    """C arrays of the input and the expected output, exact."""

    def array(kind: str, name: str, values: NDArray[Any]) -> str:
        text = ", ".join(str(v) if kind != "float" else f"{float(v).hex()}f" for v in values.reshape(-1).tolist())
        return f"static const {kind} {name}[] = {{{text}}};\n"

    inputs = (
        array("int64_t", "vectors_x", x) if x.dtype.kind in "iu" else array("float", "vectors_x", x.astype(np.float32))
    )
    return f"#define STEPS {len(x)}u\n" + inputs + array("float", "vectors_y", y.astype(np.float32))
