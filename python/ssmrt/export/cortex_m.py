"""C for Cortex-M microcontrollers: ONNX, C by emx-onnx-cgen, a streaming interface, and what it will take."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from .. import writing
from ..document import Document
from ..errors import ExportError
from . import c_memory, c_source
from .contract import Contract, pairs
from .onnx_export import HasDocument, Options, document_of, make
from .optional import require
from .report import Cost, Quantization, count, table

COMPILER = "arm-none-eabi-gcc"


@dataclass(frozen=True)
class Target:
    """A processor and how much memory a common part with it has."""

    flags: tuple[str, ...]
    flash: int
    ram: int


_FLOAT = ("-mthumb", "-mfloat-abi=hard")
TARGETS = {
    "cortex-m4": Target(("-mcpu=cortex-m4", *_FLOAT, "-mfpu=fpv4-sp-d16"), 1024 * 1024, 192 * 1024),
    "cortex-m7": Target(("-mcpu=cortex-m7", *_FLOAT, "-mfpu=fpv5-d16"), 2048 * 1024, 512 * 1024),
    "cortex-m33": Target(("-mcpu=cortex-m33", *_FLOAT, "-mfpu=fpv5-sp-d16"), 512 * 1024, 256 * 1024),
}

# What is assumed where no compiler is at hand, at or above what the tested models took at -O2.
_CODE_BYTES = 512
_CODE_BYTES_A_NODE = 48
_LIBM_BYTES = 4096
_LIBM_DATA_BYTES = 1088
_STACK_BYTES = 512
_STACK_BYTES_OF_LIBM = 128


@dataclass(frozen=True)
class DeviceReport:
    """What the model takes on the device, in bytes. Flash, library and stack are estimates unless ``measured``."""

    target: str
    files: tuple[Path, ...]
    flash: int  # code, libm's too, and weights
    weights: int  # of the flash
    state: int
    work: int
    library: int  # static data of the C library
    stack: int  # of one step
    measured: bool  # by arm-none-eabi-gcc at -O2
    cost: Cost  # of one step
    quantization: Quantization | None = None

    @property
    def ram(self) -> int:
        """State, work area, the library's data and stack."""
        return self.state + self.work + self.library + self.stack

    def as_dict(self) -> dict[str, object]:
        """The report in plain types."""
        return {**asdict(self), "ram": self.ram, "files": [path.name for path in self.files]}

    def __str__(self) -> str:
        """The report as a table."""
        how = "measured" if self.measured else "estimated"
        rows = [
            ("target", self.target),
            ("flash", f"{self.flash} bytes ({how}), {self.weights} of them weights"),
            ("RAM", f"{self.ram} bytes ({how})"),
            ("  state", f"{self.state} bytes"),
            ("  work area", f"{self.work} bytes"),
            ("  C library", f"{self.library} bytes"),
            ("  stack", f"{self.stack} bytes"),
            ("multiply-adds a step", str(self.cost.multiply_adds)),
            ("other operations a step", f"{self.cost.elementwise}, {self.cost.functions} of them functions"),
        ]
        if self.quantization is not None:
            rows.append(("int8", f"{self.quantization.scheme}, {self.quantization.signal_to_noise:.1f} dB"))
        rows += [("file", str(path)) for path in self.files]
        return table(rows)


def generate(
    model: Document | HasDocument,
    out_dir: str | os.PathLike[str],
    *,
    target: str = "cortex-m4",
    name: str = "ssm",
    mode: str = "step",
    chunk: int | None = None,
    rate: float = 1.0,
    quantize: str | None = None,
    calibration: ArrayLike | None = None,
    ram: int | None = None,
    flash: int | None = None,
) -> DeviceReport:
    """Write the model as C with three functions, ``{name}_init``, ``{name}_reset`` and ``{name}_step``.

    Into ``out_dir``: ``{name}.onnx``, ``{name}.h``, ``{name}.c``, ``{name}_graph.c``, ``main.c`` (an example) and
    ``report.json``; on failure nothing is written. One instance holds the states and the work area; nothing is
    allocated, and little stack is used.

    Parameters
    ----------
    model
        An ssmrt model, or a Document.
    out_dir
        A folder, made where it is missing.
    target
        "cortex-m4", "cortex-m7" or "cortex-m33", all with their floating-point unit.
    name
        Prefix of the files and of all C names.
    mode, chunk, rate, quantize, calibration
        As `export_onnx` takes them.
    ram, flash
        Bytes that the part has; None: those of a common part with that processor.

    Returns
    -------
    DeviceReport
        Flash, RAM, stack and operations a step: measured where arm-none-eabi-gcc is installed, else estimated.

    Raises
    ------
    ExportError
        What `export_onnx` raises; an unknown target; more RAM or flash than there is.
    """
    if target not in TARGETS:
        raise ExportError(f"target: expected one of {', '.join(map(repr, TARGETS))}, found {target!r}")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name == "main":
        raise ExportError(f"name: expected an identifier of C other than 'main', found {name!r}")
    part = TARGETS[target]
    options = Options(mode, chunk, 1, rate, layout="blocks")
    proto, contract, quantization = make(document_of(model), options, quantize, calibration)
    sizes = [4 * prod(state.shape) for state in contract.states]
    _check_ram(contract, sizes, 0, part.ram if ram is None else ram, target)
    cost = count(proto, sum(sizes))
    placed = c_memory.place(generated_c(proto, f"{name}_graph"), f"{name}_graph", pairs(contract.states))
    texts = c_source.files(contract, name, placed)
    compiled = _compiled(texts, name, part)
    size = compiled or Size(
        flash=cost.weight_bytes + _CODE_BYTES + _CODE_BYTES_A_NODE * cost.nodes + _LIBM_BYTES * (cost.functions > 0),
        library=_LIBM_DATA_BYTES * (cost.functions > 0),
        stack=_STACK_BYTES,
    )
    folder = Path(out_dir)
    report = DeviceReport(
        target=target,
        files=tuple(folder / file for file in (f"{name}.onnx", *texts, "report.json")),
        flash=size.flash,
        weights=cost.weight_bytes,
        state=sum(sizes),
        work=4 * max(placed.work, 1),
        library=size.library,
        stack=size.stack,
        measured=compiled is not None,
        cost=cost,
        quantization=quantization,
    )
    _check_ram(contract, sizes, report.ram - report.state, part.ram if ram is None else ram, target)
    _check_flash(report, part.flash if flash is None else flash)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    contents = {folder / file: text.encode() for file, text in texts.items()}
    contents[folder / f"{name}.onnx"] = proto.SerializeToString()
    contents[folder / "report.json"] = json.dumps(report.as_dict(), indent=2).encode() + b"\n"
    try:
        writing.write(contents)
    except BaseException:
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return report


def _check_ram(contract: Contract, sizes: list[int], rest: int, limit: int, target: str) -> None:
    needed = sum(sizes) + rest
    if needed <= limit:
        return
    largest = max(range(len(sizes)), key=sizes.__getitem__, default=None)
    state = (
        "no state" if largest is None else f"the largest, {sizes[largest]}, in layer {contract.states[largest].layer!r}"
    )
    raise ExportError(
        f"{target}: the model needs {needed} bytes of RAM and the part has {limit}: state {sum(sizes)} ({state}),"
        f" work area and stack {rest}; take a smaller d_model or d_state, or pass ram= of a larger part"
    )


def _check_flash(report: DeviceReport, limit: int) -> None:
    if report.flash > limit:
        raise ExportError(
            f"{report.target}: the model needs {report.flash} bytes of flash, {report.weights} of them weights,"
            f" and the part has {limit}; try quantize='int8', or pass flash= of a larger part"
        )


@lru_cache(maxsize=4)
def _generator(entry: str) -> Any:
    """emx-onnx-cgen's compiler, which takes a second to get ready."""
    compiler = require("emx_onnx_cgen").compiler
    # Weights in a file of their own and temporaries on the heap are for hosts, not for microcontrollers;
    # restrict would forbid a next state in the place of the old.
    options = compiler.CompilerOptions(
        model_name=entry, large_weight_threshold=0, large_temp_threshold_bytes=0, restrict_arrays=False
    )
    return compiler.Compiler(options)


def generated_c(model: Any, entry: str) -> str:
    """The C source that emx-onnx-cgen makes of a ``ModelProto``, all weights and temporaries in it."""
    generator = _generator(entry)
    try:
        source: str = generator.compile(model)
    except Exception as error:
        raise ExportError(f"emx-onnx-cgen could not translate the graph: {error}") from error
    return source


@dataclass(frozen=True)
class Size:
    """Bytes of a linked model."""

    flash: int
    library: int
    stack: int


def _compiled(texts: dict[str, str], name: str, part: Target) -> Size | None:
    """The size by the cross compiler; None where it is not installed."""
    if shutil.which(COMPILER) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        for file, text in texts.items():
            Path(folder, file).write_text(text)

        def tool(*command: str) -> str:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ExportError(f"{command[0]} refused the generated C: {done.stderr.strip()[-500:]}")
            return done.stdout

        sources = [f"{name}.c", f"{name}_graph.c"]
        tool(COMPILER, *part.flags, "-O2", "-std=gnu11", "-ffunction-sections", "-fstack-usage", "-c", *sources)
        kept = ",".join(["-Wl,--gc-sections", "-e", f"{name}_step", "-u", f"{name}_init", "-u", f"{name}_reset"])
        objects = [f"{name}.o", f"{name}_graph.o"]
        tool(COMPILER, *part.flags, "-nostartfiles", "--specs=nosys.specs", kept, *objects, "-lm", "-o", "model.elf")
        code, data, bss = map(int, tool("arm-none-eabi-size", "model.elf").splitlines()[1].split()[:3])
        frames = [
            int(line.split("\t")[1]) for path in Path(folder).glob("*.su") for line in path.read_text().splitlines()
        ]
        return Size(code + data, data + bss, sum(frames) + _STACK_BYTES_OF_LIBM)
