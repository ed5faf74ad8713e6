"""Processors: how to compile for them, what a common part with one has, and how to emulate it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A processor. Flash and RAM in bytes, and the clock, are those of the part named in ``part``."""

    tools: str  # prefix of the compiler's name
    flags: tuple[str, ...]
    part: str
    flash: int
    ram: int
    mhz: float
    emulator: tuple[str, ...]  # without the program
    memory: tuple[int, int]  # where the emulated board has code and RAM
    contract: str = "fast"  # -ffp-contract: "off" where a fused multiply-add takes longer than both alone
    cycles: str | None = None  # the table of cycles, where there is one

    @property
    def compiler(self) -> str:
        """The name of the compiler."""
        return f"{self.tools}-gcc"

    @property
    def options(self) -> tuple[str, ...]:
        """What the compiler is given, beside the language."""
        return (*self.flags, "-O2", f"-ffp-contract={self.contract}")


def _arm(cpu: str, machine: str, *flags: str, **kw: object) -> Target:
    emulator = ("qemu-system-arm", "-M", machine)
    memory = kw.pop("memory", (0, 0x20000000))
    options = (f"-mcpu={cpu}", "-mthumb", *(flags or ("-mfloat-abi=soft",)))
    return Target("arm-none-eabi", options, emulator=emulator, memory=memory, **kw)  # type: ignore[arg-type]


def _riscv(arch: str, abi: str, **kw: object) -> Target:
    emulator = ("qemu-system-riscv32", "-M", "virt", "-bios", "none")
    flags = (f"-march={arch}", f"-mabi={abi}", "-mcmodel=medany")
    return Target("riscv64-unknown-elf", flags, emulator=emulator, memory=(0x80000000, 0x80400000), **kw)  # type: ignore[arg-type]


_HARD = "-mfloat-abi=hard"
KB = 1024

TARGETS = {
    "cortex-m0plus": _arm(
        "cortex-m0plus", "mps2-an385", part="RP2040", flash=2048 * KB, ram=264 * KB, mhz=133, contract="off"
    ),
    "cortex-m3": _arm(
        "cortex-m3", "mps2-an385", part="STM32F103ZG", flash=1024 * KB, ram=96 * KB, mhz=72, contract="off"
    ),
    "cortex-m4": _arm(
        "cortex-m4", "mps2-an386", _HARD, "-mfpu=fpv4-sp-d16",
        part="STM32F407", flash=1024 * KB, ram=192 * KB, mhz=168, contract="off", cycles="cortex-m4",
    ),
    "cortex-m7": _arm(
        "cortex-m7", "mps2-an500", _HARD, "-mfpu=fpv5-d16",
        part="STM32H743", flash=2048 * KB, ram=512 * KB, mhz=480, cycles="cortex-m7",
    ),
    "cortex-m33": _arm(
        "cortex-m33", "mps2-an505", _HARD, "-mfpu=fpv5-sp-d16",
        part="STM32L552", flash=512 * KB, ram=256 * KB, mhz=110, contract="off", memory=(0x10000000, 0x38000000),
    ),
    "cortex-m55": _arm(
        "cortex-m55", "mps3-an547", _HARD,
        part="Alif Ensemble E3", flash=5632 * KB, ram=1024 * KB, mhz=400,
    ),
    "rv32imc": _riscv("rv32imac", "ilp32", part="ESP32-C3", flash=4096 * KB, ram=400 * KB, mhz=160, contract="off"),
    "rv32imafc": _riscv("rv32imafc", "ilp32f", part="ESP32-P4", flash=16384 * KB, ram=768 * KB, mhz=400),
}  # fmt: skip
