"""Cycles that a trace of instructions takes, estimated by the processor's tables: memory without wait states.

Cortex-M4 by its Technical Reference Manual (instruction set summary, FPU instruction set): loads and stores 2, multiple
ones 1 and one a register, a taken branch 3, VFMA 3, VDIV and VSQRT 14, all else 1. Cortex-M7 has no such table: it is
taken to issue two instructions a cycle where one of them is the FPU's, division as above, a taken branch 1 more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

Code = Mapping[int, tuple[str, str]]  # address to (mnemonic, operands)

LISTED = re.compile(r"^ *([0-9a-f]+):\t(\S+)(?:\t([^\t\n]*))?", re.M)
TRACED = re.compile(r"^Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/", re.M)


def code_of(listing: str) -> Code:
    """The instructions of a disassembly by objdump."""
    return {int(at, 16): (mnemonic, operands) for at, mnemonic, operands in LISTED.findall(listing)}


def trace_of(log: str) -> list[int]:
    """The addresses in a log of the emulator, one an instruction."""
    return [int(address, 16) for address in TRACED.findall(log)]


@dataclass(frozen=True)
class _Class:
    """What a processor has to do for an instruction."""

    kind: str  # "memory", "fpu", "divide", "fused", "branch" or "other"
    registers: int = 1  # that go to or come from memory


def _classify(mnemonic: str, operands: str) -> _Class:
    name = mnemonic.partition(".")[0]
    if name in ("ldm", "stm", "ldmia", "stmia", "stmdb", "ldmdb", "push", "pop", "vldmia", "vstmia", "vpush", "vpop"):
        inside = operands.partition("{")[2].partition("}")[0]
        return _Class("memory", sum(_registers(part) for part in inside.split(",")))
    if name.startswith(("vldr", "vstr")):
        return _Class("memory", 2 if operands.startswith("d") else 1)
    if name.startswith(("ldr", "str")):
        return _Class("memory", 2 if name in ("ldrd", "strd") else 1)
    if name.startswith(("vdiv", "vsqrt")):
        return _Class("divide")
    if name.startswith(("vfma", "vfms", "vfnma", "vfnms", "vmla", "vmls")):
        return _Class("fused")
    if name.startswith("v"):
        return _Class("fpu")
    if re.fullmatch(r"b(l|x|lx)?(eq|ne|cs|cc|mi|pl|vs|vc|hi|ls|ge|lt|gt|le)?|cbn?z", name):
        return _Class("branch")
    return _Class("other")


def _registers(part: str) -> int:
    first, _, last = part.strip().partition("-")
    count = int(last[1:]) - int(first[1:]) + 1 if last else 1
    return 2 * count if first.startswith("d") else count


def _classes(trace: Iterable[int], code: Code) -> Iterator[tuple[_Class, bool]]:
    """Each instruction's class, and whether it is a branch that is taken."""
    known: dict[int, _Class] = {}
    before: tuple[int, _Class] | None = None
    for at in trace:
        if before is not None:
            yield before[1], before[1].kind == "branch" and not 0 < at - before[0] <= 4
        if at not in known:
            known[at] = _classify(*code[at])
        before = at, known[at]
    if before is not None:
        yield before[1], before[1].kind == "branch"


def cortex_m4(trace: Iterable[int], code: Code) -> int:
    """The estimate for a Cortex-M4."""
    cycles = 0
    for found, taken in _classes(trace, code):
        if found.kind == "memory":
            cycles += 1 + found.registers
        else:
            cycles += 3 if taken else {"fused": 3, "divide": 14}.get(found.kind, 1)
    return cycles


def cortex_m7(trace: Iterable[int], code: Code) -> int:
    """The estimate for a Cortex-M7."""
    fpu = rest = extra = 0
    for found, taken in _classes(trace, code):
        if found.kind in ("fpu", "fused", "divide"):
            fpu += 1
            extra += 13 if found.kind == "divide" else 0
        else:
            rest += found.registers if found.kind == "memory" else 1
            extra += taken
    return max(fpu, rest) + extra


TABLES = {"cortex-m4": cortex_m4, "cortex-m7": cortex_m7}
