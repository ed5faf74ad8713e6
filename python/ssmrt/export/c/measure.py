"""What the C of a model takes on a processor: sizes by its compiler, instructions and cycles under emulation."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ExportError
from .cycles import TABLES, code_of, trace_of
from .targets import Target

Array = NDArray[Any]

BOARDS = Path(__file__).parent / "boards"
WARNINGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wmissing-prototypes", "-Werror")
STATIC = ("-ffunction-sections", "-fdata-sections", "-fstack-usage")
TRACED_STEPS = 2


@dataclass(frozen=True)
class Size:
    """Bytes of a model as compiled. ``stack`` is that of the deepest calls of a step, by the compiler."""

    flash: int
    stack: int


@dataclass(frozen=True)
class Run:
    """What the emulated processor said of a step."""

    instructions: int
    stack: int  # bytes, as measured
    error: float  # max |y - expected| / max |expected|
    cycles: int | None  # estimated from the mix of instructions


def size(folder: Path, name: str, target: Target, kernels: Iterable[str]) -> Size | None:
    """Compile ``{name}.c`` and its weights in ``folder``, leaving objects there; None without the compiler."""
    if shutil.which(target.compiler) is None:
        return None
    _compile(folder, name, target)
    table = _tool([f"{target.tools}-size", "model.o", "weights.o"], folder).splitlines()[1:]
    flash = sum(int(text) + int(data) for text, data, *_ in (line.split() for line in table))
    frames: dict[str, int] = {}
    for line in (folder / "model.su").read_text().splitlines():
        where, frame, _ = line.split("\t")
        frames[where.split(":")[-1].partition(".")[0]] = int(frame)
    called = set(kernels)
    most = max((frame for function, frame in frames.items() if function in called), default=0)
    # A function of one number calls another at most once.
    deeper = sum(frame for function, frame in frames.items() if function not in called and not _public(function, name))
    return Size(flash, frames[f"{name}_step"] + most + deeper)


def _public(function: str, name: str) -> bool:
    return function in (f"{name}_init", f"{name}_reset", f"{name}_step")


def _compile(folder: Path, name: str, target: Target) -> None:
    for source, made in ((f"{name}.c", "model.o"), (f"{name}_weights.c", "weights.o")):
        if (folder / source).exists():
            options = [*target.options, *WARNINGS, *STATIC]
            _tool([target.compiler, *options, *_library(target), "-c", source, "-o", made], folder)


def run(folder: Path, name: str, target: Target) -> Run | None:
    """Emulate the model that `size` compiled over its vectors; None where the emulator is missing."""
    if shutil.which(target.emulator[0]) is None:
        return None
    guard = name.upper()
    (folder / "model.h").write_text(
        f'#include "{name}.h"\n#include "{name}_vectors.h"\n'
        f"#define MODEL_T {name}_t\n#define MODEL_INIT {name}_init\n#define MODEL_STEP {name}_step\n"
        f"#define MODEL_INPUTS {guard}_INPUTS\n#define MODEL_OUTPUTS {guard}_OUTPUTS\n"
        f"#define MODEL_X {name}_vectors_x\n#define MODEL_Y {name}_vectors_y\n"
        f"#ifndef STEPS\n#define STEPS {guard}_VECTORS\n#endif\n"
    )
    _link(folder, target, "proof.elf", [])
    said = _emulate(folder, target, "proof.elf", [])
    facts = dict(line.split() for line in said.splitlines())
    cycles = None
    if target.cycles is not None:
        cycles = _cycles(folder, target)
    return Run(int(facts["instructions"]), int(facts["stack"]), int(facts["error_e9"]) * 1e-9, cycles)


def _cycles(folder: Path, target: Target) -> int:
    """Those of a step, on average, without the call."""
    _link(folder, target, "trace.elf", [f"-DSTEPS={TRACED_STEPS}u"])
    symbols = _tool([f"{target.tools}-nm", "trace.elf"], folder)
    begin, end = (re.search(rf"^([0-9a-f]+) \w {name}$", symbols, re.M) for name in ("model_begin", "model_end"))
    assert begin is not None
    assert end is not None
    within = f"0x{begin[1]}..0x{int(end[1], 16) - 1:x}"
    _emulate(folder, target, "trace.elf", [*_one_by_one(target.emulator[0]), "-dfilter", within, "-D", "trace.log"])
    listing = _tool([f"{target.tools}-objdump", "-d", "--no-show-raw-insn", "trace.elf"], folder)
    trace = trace_of((folder / "trace.log").read_text())
    assert target.cycles is not None
    return TABLES[target.cycles](trace, code_of(listing)) // TRACED_STEPS


def _link(folder: Path, target: Target, image: str, definitions: list[str]) -> None:
    arm = target.tools.startswith("arm")
    script = (BOARDS / "board.ld").read_text()
    code, ram = target.memory
    script = script.replace("@CODE@", hex(code)).replace("@RAM@", hex(ram)).replace("@SIZE@", f"{_ram(target)}")
    (folder / "board.ld").write_text(script)
    sources = [str(BOARDS / file) for file in ("proof.c", "board.c", "arm.c" if arm else "riscv.c")]
    link = ["-nostartfiles", "-Wl,--gc-sections", "-T", "board.ld", *_library(target), "-lm"]
    objects = [file for file in ("model.o", "weights.o") if (folder / file).exists()]
    command = [target.compiler, *target.flags, "-O2", "-std=gnu11", f"-I{BOARDS}", "-I.", *definitions]
    _tool([*command, *sources, *objects, *link, "-o", image], folder)


_HOST = """\
#include <stdio.h>
#include "{name}.h"
int main(void)
{{
    static {name}_t model;
    {name}_input x[{guard}_INPUTS];
    float y[{guard}_OUTPUTS];
    {name}_init(&model);
    while (fread(x, sizeof x, 1, stdin) == 1) {{
        {name}_step(&model, x, y);
        fwrite(y, sizeof y, 1, stdout);
    }}
    return 0;
}}
"""


def on_host(
    texts: Mapping[str, str], name: str, x: Array, outputs: int, options: Sequence[str] = ("-std=c99", "-O2")
) -> Array | None:
    """What the C answers to x (steps, d_input), of its input's type, on this machine; None without a compiler, cc."""
    if shutil.which("cc") is None:
        return None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for file, text in texts.items():
            (folder / file).write_text(text)
        (folder / "host.c").write_text(_HOST.format(name=name, guard=name.upper()))
        _tool(["cc", *options, "host.c", f"{name}.c", f"{name}_weights.c", "-lm", "-o", "host"], folder)
        done = subprocess.run([folder / "host"], input=x.tobytes(), capture_output=True, timeout=300, check=False)
    if done.returncode:
        raise ExportError(f"the C failed on this machine with status {done.returncode}")
    return np.frombuffer(done.stdout, np.float32).reshape(-1, outputs)


def _emulate(folder: Path, target: Target, image: str, options: list[str]) -> str:
    emulator = [*target.emulator, "-nographic", "-monitor", "none", "-serial", "none", "-icount", "shift=0"]
    return _tool([*emulator, *options, "-semihosting-config", "enable=on,target=native", "-kernel", image], folder)


def _ram(target: Target) -> int:
    """Of the emulated board: what it has where the image puts it."""
    return 4 * 1024 * 1024 if target.emulator[2] == "mps2-an385" else 512 * 1024


def _library(target: Target) -> list[str]:
    return ["--specs=nosys.specs"] if target.tools.startswith("arm") else ["--specs=picolibc.specs"]


@lru_cache(maxsize=2)
def _one_by_one(emulator: str) -> tuple[str, ...]:
    """The options with which every instruction is logged."""
    version = re.search(r"version (\d+)\.(\d+)", _tool([emulator, "--version"], Path.cwd()))
    assert version is not None
    old = (int(version[1]), int(version[2])) < (8, 1)
    return ("-singlestep" if old else "-accel", *([] if old else ["tcg,one-insn-per-tb=on"]), "-d", "exec,nochain")


def _tool(command: list[str], folder: Path) -> str:
    pipe = subprocess.PIPE
    done = subprocess.run(
        command, cwd=folder, text=True, timeout=300, stdout=pipe, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        raise ExportError(f"{command[0]} failed with status {done.returncode}: {done.stdout.strip()[-800:]}")
    return done.stdout
