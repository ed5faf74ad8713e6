"""`export_c`: a Document as C99, and what it takes on a processor."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ... import _native, checks, writing
from ...document import Document, Embedding, encode, first
from ...errors import ExportError, SsmrtError
from ..contract import ssmrt_version
from ..onnx_export import HasDocument, document_of
from ..quantize import signal_to_noise
from ..report import table
from ..systems import Systems
from . import fixed, lower, measure, package, source
from .program import Costs, Program
from .targets import TARGETS, Target

Array = NDArray[Any]

VECTORS = 100

# Files of these names would stand for others: main.c, and the headers of C's library.
_HEADERS = """\
assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic \
stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype"""
_TAKEN = ("main", *_HEADERS.split())

# Instructions a step where nothing can be emulated, at or above what the tested models took at -O2.
_A_MULTIPLY_ADD = 3.3
_ANOTHER = 3.0
_A_FUNCTION = 45.0
_WITHOUT_FPU = 30.0
_A_FIXED_MULTIPLY_ADD = 12.0
_A_FIXED_FUNCTION = 80.0
_CODE_BYTES = 1024
_CODE_BYTES_A_KERNEL = 640
_STACK_BYTES = 192


@dataclass(frozen=True)
class CReport:
    """What the C of a model takes; of a step, on ``target``. Bytes, but for what says otherwise.

    ``measured``: flash and stack by the target's compiler, else estimated. ``counted``: instructions by its emulator,
    else estimated from the operations. ``cycles`` is an estimate from the instructions counted, memory without wait
    states; None: there is none for the target, and ``highest_rate`` assumes one instruction a cycle.
    """

    target: str | None
    files: tuple[Path, ...]
    source: int  # of all C
    flash: int  # code and weights
    weights: int  # of the flash
    state: int
    stack: int
    measured: bool
    instructions: int | None
    cycles: int | None
    counted: bool
    error: float | None  # emulated, max |y - expected| / max |expected|
    mhz: float | None
    highest_rate: float | None  # samples a second that the clock allows for
    costs: Costs
    quantize: str | None = None
    signal_to_noise: float | None = None  # in dB, over the last quarter of the calibration data; None: no compiler, cc

    @property
    def ram(self) -> int:
        """State and stack."""
        return self.state + self.stack

    def as_dict(self) -> dict[str, object]:
        """The report in plain types."""
        return {**asdict(self), "ram": self.ram, "files": [path.name for path in self.files]}

    def rows(self) -> list[tuple[str, str]]:
        """What there is to say, name and value."""
        how = "measured" if self.measured else "estimated"
        counted = "counted under emulation" if self.counted else "estimated from the operations"
        rows = [
            ("target", self.target or "any, by C99"),
            ("flash", f"{self.flash} bytes ({how}), {self.weights} of them weights"),
            ("RAM", f"{self.ram} bytes ({how})"),
            ("  state", f"{self.state} bytes"),
            ("  stack", f"{self.stack} bytes"),
            ("multiply-adds a step", str(self.costs.multiply_adds)),
            ("other operations a step", f"{self.costs.other}, and {self.costs.functions} functions"),
        ]
        if self.instructions is not None:
            rows.append(("instructions a step", f"{self.instructions} ({counted})"))
        if self.cycles is not None:
            rows.append(("cycles a step", f"{self.cycles} (estimated from these instructions)"))
        if self.highest_rate is not None:
            by = "cycles" if self.cycles is not None else "instructions, one a cycle"
            rows.append(("highest rate", f"{self.highest_rate:.0f} samples a second at {self.mhz:g} MHz (by {by})"))
        if self.quantize is not None:
            noise = "not measured" if self.signal_to_noise is None else f"{self.signal_to_noise:.1f} dB"
            rows.append(("fixed point", f"{self.quantize}, signal to noise {noise}"))
        if self.error is not None:
            rows.append(("error, emulated", f"{self.error:.1e}"))
        return rows

    def __str__(self) -> str:
        """The report as a table."""
        return table([*self.rows(), *(("file", str(path)) for path in self.files)])


def export_c(
    model: Document | HasDocument,
    folder: str | os.PathLike[str],
    *,
    name: str = "ssm",
    target: str | None = None,
    rate: float = 1.0,
    quantize: str | None = None,
    calibration: ArrayLike | None = None,
    method: str = "step",
    block: int | None = None,
    ram: int | None = None,
    flash: int | None = None,
    mhz: float | None = None,
    sample_rate: float | None = None,
) -> CReport:
    """Write the model as a firmware package in C99: no heap, no library, no file but those that it writes.

    Into ``folder``: ``{name}.h`` with ``{name}_init``, ``{name}_reset`` and ``{name}_step``, ``{name}.c``,
    ``{name}_weights.h`` and ``.c``, ``{name}_vectors.h`` with inputs and right answers, ``main.c``, which
    compares them, ``CMakeLists.txt``, ``library.json``, ``README.md`` and ``{name}_report.json``; on failure nothing is
    written. Models of several names may share a folder and a program.

    Parameters
    ----------
    model
        An ssmrt model, or a Document.
    folder
        Made where it is missing.
    name
        Prefix of the files and of all public C names.
    target
        A processor of `TARGETS`, such as "cortex-m4": where its compiler is installed, flash and stack are measured,
        and where QEMU is, instructions are counted. None: C for any.
    rate
        Multiplies every step size: sampling at another rate than in training, baked in.
    quantize, calibration
        None: float32. "int16", "int8": fixed point, signals in 16 bits, states in 32, weights of the mixing layers in
        as many bits, for processors without floating point; of models of `Diagonal`, `Linear`, norms, GLUs, residuals
        and a mean. Needs ``calibration``, typical input (length, d_input), the last quarter of which is held back to
        measure what is lost.
    method, block
        "step": one sample a call. "block": ``{name}_step_block`` beside it, which takes ``block`` samples a call (None:
        16) and reads the matrices once for two samples, the modes once for all of them. The report is of single steps.
    ram, flash, mhz
        Bytes and clock of the part; None: those of a common part with that processor.
    sample_rate
        Samples a second that the part must keep up with; None: it is not checked.

    Returns
    -------
    CReport
        Flash, RAM, stack, instructions, and the highest sampling rate.

    Raises
    ------
    ExportError
        A model that is not causal; a name that is no identifier of C; too little RAM, flash or time.
    TypeError
        ``model`` or ``folder`` is none.

    >>> layer = ssmrt.diagonal([[-0.5 + 3j]], [[1]], [[1]], [0.0], [0.05])
    >>> report = ssmrt.export_c(layer, "firmware/")
    >>> report.state, report.files[0].name
    (32, 'ssm.h')
    """
    document = document_of(model)
    path = checks.path("folder", folder)
    part = _checked(name, target, rate, method, block, ram, flash, mhz, sample_rate)
    systems = Systems(document, float(rate))
    exponent = samples = None
    if quantize is None:
        if calibration is not None:
            raise ExportError("calibration: only quantize='int16' and 'int8' take calibration data")
        program = _program(document, systems, float(rate), None)
    else:
        samples = _calibration(document, quantize, calibration, method)
        seen = samples[: max(1, 3 * len(samples) // 4)]
        program, exponent = fixed.lowered(document, systems, float(rate), int(quantize[3:]), seen)
    several = None
    if method == "block":
        several = _program(document, systems, float(rate), 16 if block is None else int(block))
    if part is not None:
        _fits("RAM", part.ram if ram is None else ram, 4 * program.state_size, 0, program, target)
    title = f"{document.meta.get('arch', 'A state-space model')}, written by ssmrt {ssmrt_version()}."
    i = source.interface(document, name, title, exponent)
    texts = {
        f"{name}.h": source.header(i, program, several),
        f"{name}.c": source.source(i, program, several),
        f"{name}_weights.h": source.weights_header(i, program),
        f"{name}_weights.c": source.weights(i, program),
    }
    size = sum(map(len, texts.values()))
    x = _noise(document) if samples is None or exponent is None else fixed.quantized(samples, exponent)
    y = _answers(document, float(rate), x if exponent is None else x * 2.0**-exponent)
    texts[f"{name}_vectors.h"] = package.vectors(i, x[:VECTORS], y[:VECTORS])
    report = _report(program, texts, name, target, part, size, mhz)
    if exponent is not None:
        found = measure.on_host(texts, name, x, document.d_output)
        kept = (len(x) + 3) // 4
        noise = None if found is None else signal_to_noise(y[-kept:], found[-kept:])
        report = replace(report, quantize=quantize, signal_to_noise=noise)
    if part is not None:
        _fits("RAM", part.ram if ram is None else ram, report.state, report.stack, program, target)
        _fits(
            "flash",
            part.flash if flash is None else flash,
            report.weights,
            report.flash - report.weights,
            program,
            target,
        )
        _keeps_up(report, sample_rate, program)
    facts = "".join(f"- {key.strip()}: {value}\n" for key, value in report.rows())
    flags = () if part is None else (*part.flags, f"-ffp-contract={part.contract}")
    texts |= package.files(i, x[:VECTORS], y[:VECTORS], flags, facts, logarithm="logf(" in texts[f"{name}.c"])
    report = replace(report, files=tuple(path / file for file in (*texts, f"{name}_report.json")))
    _write(path, {**texts, f"{name}_report.json": json.dumps(report.as_dict(), indent=2) + "\n"})
    return report


def _checked(
    name: str,
    target: str | None,
    rate: float,
    method: str,
    block: int | None,
    ram: int | None,
    flash: int | None,
    mhz: float | None,
    sample_rate: float | None,
) -> Target | None:
    """The target. Raises `ExportError` where an argument is of another kind or out of range."""
    try:
        checks.positive("rate", rate)
        checks.word("method", method, ("step", "block"))
        if block is not None:
            checks.whole("block", block, 1)
            if method == "step":
                raise ValueError(f"block: has no meaning in method='step', found {block!r}; pass method='block'")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", checks.text("name", name)) or name.lower() in _TAKEN:
            raise ValueError(f"name: expected an identifier of C that is no header of its library, found {name!r}")
        for what, value in (("ram", ram), ("flash", flash)):
            if value is not None:
                checks.whole(what, value, 1)
        for what, number in (("mhz", mhz), ("sample_rate", sample_rate)):
            if number is not None:
                checks.positive(what, number)
        if target is None:
            given = [("ram", ram), ("flash", flash), ("mhz", mhz), ("sample_rate", sample_rate)]
            for what, number in given:
                if number is not None:
                    raise ValueError(f"{what}: has no meaning without a target; pass one, such as 'cortex-m4'")
            return None
        if target not in TARGETS:
            raise ValueError(f"target: expected one of {', '.join(map(repr, TARGETS))}, found {target!r}")
    except (TypeError, ValueError) as error:
        raise ExportError(str(error)) from None
    return TARGETS[target]


def _program(document: Document, systems: Systems, rate: float, samples: int | None) -> Program:
    program = Program(systems, rate, samples)
    x, y = program.signal("x", document.d_input), program.signal("y", document.d_output)
    lower.run(program, x, document.root, y)
    return program


def _noise(document: Document) -> Array:
    """(steps, d_input), or tokens (steps,)."""
    rng = np.random.default_rng(0)
    head = first(document.root)
    x: Array
    if isinstance(head, Embedding):
        x = rng.integers(0, len(head.weight), VECTORS)
    else:
        x = rng.standard_normal((VECTORS, document.d_input)).astype(np.float32)
    return x


def _calibration(document: Document, quantize: str, calibration: ArrayLike | None, method: str) -> Array:
    """The calibration data, float64 (length, d_input). Raises `ExportError` where they are none."""
    if quantize not in ("int16", "int8"):
        raise ExportError(f"quantize: expected None, 'int16' or 'int8', found {quantize!r}")
    if method != "step":
        raise ExportError(f"method: quantize={quantize!r} has single steps only, found {method!r}")
    if document.tokens:
        raise ExportError(f"quantize={quantize!r}: a model of tokens has no fixed-point C; export with quantize=None")
    if calibration is None:
        raise ExportError(f"calibration: quantize={quantize!r} needs typical input (length, {document.d_input})")
    data = np.asarray(calibration)
    if data.ndim != 2 or data.shape[1] != document.d_input or data.dtype.kind not in "fiu" or not data.size:
        raise ExportError(
            f"calibration: expected numbers (length, {document.d_input}), found {data.dtype} {data.shape}"
        )
    data = data.astype(np.float64)
    if not np.isfinite(data).all():
        raise ExportError("calibration: expected finite numbers, found NaN or infinity")
    if not data[: max(1, 3 * len(data) // 4)].any():
        raise ExportError("calibration: expected typical input, found zeros alone in its first three quarters")
    return data


def _answers(document: Document, rate: float, x: Array) -> Array:
    """What the model answers to x (steps, d_input), or tokens (steps,), in float64."""
    tree, tensors = encode(document)
    try:
        held = _native.Document(tree, list(tensors.items()))
        stream = _native.Model(held, "float64", "as given").plan(rate).stream(1, None, rate)
    except SsmrtError as error:
        raise ExportError(str(error)) from None
    y: Array = stream.push(x[None] if x.ndim == 1 else x.astype(np.float64)[None])[0]
    return y


def _report(
    program: Program,
    texts: dict[str, str],
    name: str,
    target: str | None,
    part: Target | None,
    size: int,
    mhz: float | None,
) -> CReport:
    costs = Costs(
        *(
            sum(getattr(c, kind) for c in program.layer_costs.values())
            for kind in ("multiply_adds", "functions", "other")
        )
    )
    weights = sum(program.table_bytes.values())
    flash = weights + _CODE_BYTES + _CODE_BYTES_A_KERNEL * len(program.kernels)
    stack = (4 if program.number == "float" else 2) * program.work + _STACK_BYTES
    compiled = run = None
    clock = None
    instructions: int | None = None
    if part is not None:
        compiled, run = _measured(texts, name, part, program)
        clock = part.mhz if mhz is None else float(mhz)
        instructions = _estimate(costs, part, program.number) if run is None else run.instructions
    cycles = None if run is None else run.cycles
    per_step = cycles or instructions
    return CReport(
        target=target,
        files=(),
        source=size,
        flash=flash if compiled is None else compiled.flash,
        weights=weights,
        state=4 * max(program.state_size, 1),
        stack=stack if compiled is None else compiled.stack,
        measured=compiled is not None,
        instructions=instructions,
        cycles=cycles,
        counted=run is not None,
        error=None if run is None else run.error,
        mhz=clock,
        highest_rate=None if clock is None or per_step is None else clock * 1e6 / per_step,
        costs=costs,
    )


def _estimate(costs: Costs, part: Target, number: str) -> int:
    if number != "float":
        return round(_A_FIXED_MULTIPLY_ADD * costs.multiply_adds + _A_FIXED_FUNCTION * costs.functions)
    float_operations = _A_MULTIPLY_ADD * costs.multiply_adds + _ANOTHER * costs.other + _A_FUNCTION * costs.functions
    soft = "-mfloat-abi=soft" in part.flags or "-mabi=ilp32" in part.flags
    return round(float_operations * (_WITHOUT_FPU if soft else 1.0))


def _measured(
    texts: dict[str, str], name: str, part: Target, program: Program
) -> tuple[measure.Size | None, measure.Run | None]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for file, text in texts.items():
            (folder / file).write_text(text)
        size = measure.size(folder, name, part, program.kernels)
        return size, None if size is None else measure.run(folder, name, part)


def _fits(what: str, limit: int, main: int, rest: int, program: Program, target: str | None) -> None:
    if main + rest <= limit:
        return
    by_layer: dict[str, int] = {}
    if what == "RAM":
        for held in program.states:
            by_layer[held.layer] = by_layer.get(held.layer, 0) + 4 * held.size
        parts, of = f"state {main}, stack {rest}", "state"
    else:
        by_layer = program.table_bytes
        parts, of = f"weights {main}, code {rest}", "weights"
    largest = max(by_layer, key=by_layer.__getitem__, default=None)
    where = "" if largest is None else f"; the largest {of}, {by_layer[largest]}, is in layer {largest!r}"
    raise ExportError(
        f"{target}: the model needs {main + rest} bytes of {what} and the part has {limit}: {parts}{where};"
        f" take a smaller d_model or d_state, or pass {what.lower()}= of a larger part"
    )


def _keeps_up(report: CReport, sample_rate: float | None, program: Program) -> None:
    if sample_rate is None or report.highest_rate is None or sample_rate <= report.highest_rate:
        return
    assert report.mhz is not None
    weight = {layer: _A_MULTIPLY_ADD * c.multiply_adds + _ANOTHER * c.other + _A_FUNCTION * c.functions
              for layer, c in program.layer_costs.items()}  # fmt: skip
    largest = max(weight, key=weight.__getitem__)
    share = weight[largest] / sum(weight.values())
    raise ExportError(
        f"{report.target}: at {report.mhz:g} MHz the model runs {report.highest_rate:.0f} samples a second, and"
        f" {sample_rate:g} are asked for, which would take {report.mhz * sample_rate / report.highest_rate:.0f} MHz;"
        f" layer {largest!r} takes {share:.0%} of the time; sample at {report.highest_rate:.0f} Hz or less (rate= makes"
        " up for it), take a smaller d_model or d_state, or pass mhz= of a faster part"
    )


def _write(folder: Path, texts: dict[str, str]) -> None:
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        writing.write({folder / file: text.encode() for file, text in texts.items()})
    except BaseException:
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        raise
