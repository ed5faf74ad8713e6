"""Checkpoints as C on emulated microcontrollers: a table of what each takes.

    python examples/cortex_m/run.py                                   the models of the README's table, on a Cortex-M4
    python examples/cortex_m/run.py --target all                      the first of them on every processor
    python examples/cortex_m/run.py --target cortex-m3 --quantize int16   in fixed point, those that have it
    python examples/cortex_m/run.py spotter.pth --config config.json  a model of your own

Needs the Debian packages gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm; for RISC-V also
gcc-riscv64-unknown-elf, picolibc-riscv64-unknown-elf and qemu-system-misc.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import ssmrt
from ssmrt.document import Activation, Diagonal, Document, Glu, Linear, Norm, Residual, Sequential
from ssmrt.export.c import TARGETS

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
SHOWN = {
    "torch/s4d_minimal": "S4D digits classifier, 2 layers, H 32, N 64",
    "torch/s4_nplr/legs_r3": "S4 (DPLR, rank 3) layer, H 8, N 16",
    "torch/lssl/lssl_m1": "LSSL layer, H 16, N 32",
    "jax/lru_cls_batchnorm": "LRU classifier, 2 layers, d_model 24, d_hidden 32",
}
MOST_ERROR = 1e-6
# Where fixed point is calibrated with white noise, and what it must keep.
CALIBRATION = 16000
LEAST_SIGNAL_TO_NOISE = {"int16": 50.0, "int8": 35.0}


def two_layers(h: int = 16, modes: int = 16, d_input: int = 16, d_output: int = 4) -> Document:
    """Two S4D layers with GELU, GLU, residual and norm, random weights."""
    g = np.random.default_rng(0)

    def linear(name: str, d_in: int, d_out: int) -> Linear:
        weight = g.standard_normal((d_out, d_in)) / np.sqrt(d_in)
        return Linear(weight.astype(np.float32), np.zeros(d_out, np.float32), name=name)

    nodes: list[ssmrt.document.Node] = [linear("encoder", d_input, h)]
    for i in range(2):
        A = -0.5 + 1j * np.pi * np.arange(modes) * np.ones((h, 1))
        C = (g.standard_normal((1, h, modes)) + 1j * g.standard_normal((1, h, modes))) * np.sqrt(0.5)
        dt = np.exp(g.uniform(np.log(1e-3), np.log(1e-1), h))
        layer = Diagonal(C, g.standard_normal((1, h)), dt, A, np.ones((h, modes), complex), name=f"layers.{i}.kernel")
        mixed = (layer, Activation("gelu"), linear(f"layers.{i}.mix", h, 2 * h), Glu())
        nodes += [Residual(Sequential(mixed, name=f"layers.{i}")), Norm("layer", np.ones(h), np.zeros(h))]
    return Document(Sequential((*nodes, linear("decoder", h, d_output))), d_input, d_output)


def shown() -> Iterator[tuple[str, ssmrt.Model]]:
    """The models of the README's table."""
    from ssmrt.demo import clips, spotter

    yield "2 S4D layers, H 16, N 32", ssmrt.Model(two_layers())
    for row in json.loads((GOLDEN / "cases.json").read_text()):
        if row["name"] in SHOWN:
            path = GOLDEN / row["name"] / row["files"][0]
            yield SHOWN[row["name"]], ssmrt.load(path, config=row.get("config"), arch=row["arch"])
    full = spotter()
    yield "S4D keyword spotter, 4 layers, H 64, N 64", full
    small, _ = ssmrt.reduce(full, [clip.samples for clip in clips()[:2]], modes=4)
    yield "the spotter reduced to N 8 by ssmrt.reduce", small


def missing(targets: list[str]) -> str | None:
    """Why this machine cannot run them, or None."""
    tools = {tool for name in targets for tool in (TARGETS[name].compiler, TARGETS[name].emulator[0])}
    absent = sorted(tool for tool in tools if shutil.which(tool) is None)
    return f"needs {', '.join(absent)}" if absent else None


def row(name: str, report: ssmrt.export.CReport) -> str:
    """A line of the table."""
    assert report.instructions is not None
    assert report.highest_rate is not None
    assert report.error is not None
    cycles = "" if report.cycles is None else spaced(report.cycles)
    numbers = [spaced(n) for n in (report.flash, report.state, report.stack, report.instructions)]
    rate = spaced(round(report.highest_rate))
    lost = f"{report.error:.1e}" if report.quantize is None else f"{report.signal_to_noise:.1f} dB"
    return f"| {name} | {' | '.join([*numbers, cycles, rate])} | {lost} |"


def spaced(number: int) -> str:
    """With spaces between thousands."""
    return f"{number:,}".replace(",", " ")


def export(model: ssmrt.Model, folder: Path, target: str, quantize: str | None) -> ssmrt.export.CReport:
    """The model's C in ``folder``, run on the emulated processor."""
    if quantize is None:
        return ssmrt.export_c(model, folder, target=target)
    noise = np.random.default_rng(3).standard_normal((CALIBRATION, model.d_input))
    return ssmrt.export_c(model, folder, target=target, quantize=quantize, calibration=noise)


def is_right(report: ssmrt.export.CReport) -> bool:
    """Whether the answers are what they should be."""
    if report.quantize is None:
        return report.error is not None and report.error <= MOST_ERROR
    return report.signal_to_noise is not None and report.signal_to_noise >= LEAST_SIGNAL_TO_NOISE[report.quantize]


def main() -> int:
    """Print the table; 1 where a tool is missing or an answer is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--config", type=Path, help="a JSON file with the upstream constructor's arguments")
    parser.add_argument("--arch", help="the family, where the file has no names")
    parser.add_argument("--target", default="cortex-m4", help=f"all, or one of {', '.join(TARGETS)}")
    parser.add_argument(
        "--contract", choices=("off", "fast"), help="fused multiply-adds (default: what suits the core)"
    )
    parser.add_argument("--quantize", choices=("int16", "int8"), help="fixed point, of models of S4D layers")
    parser.add_argument("--out", type=Path, help="keep the C of the last model in this folder")
    arguments = parser.parse_args()
    targets = list(TARGETS) if arguments.target == "all" else [arguments.target]
    if (why := missing(targets)) is not None:
        print(why, file=sys.stderr)
        return 1
    if arguments.contract is not None:
        TARGETS.update({name: replace(TARGETS[name], contract=arguments.contract) for name in targets})
    models: Iterable[tuple[str, ssmrt.Model]]
    if arguments.checkpoint is not None:
        path = arguments.checkpoint
        models = [(path.name, ssmrt.load(path, config=arguments.config, arch=arguments.arch))]
    else:
        models = islice(shown(), 1 if len(targets) > 1 else None)
    lost = "max error" if arguments.quantize is None else "signal to noise"
    print(f"| model | flash B | state B | stack B | instructions | cycles, estimated | most samples/s | {lost} |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    right = True
    for name, model in models:
        for target in targets:
            with tempfile.TemporaryDirectory() as folder:
                try:
                    report = export(model, arguments.out or Path(folder), target, arguments.quantize)
                except ssmrt.ExportError as error:
                    if arguments.quantize is None:
                        raise
                    print(f"{name}: {error}", file=sys.stderr)
                    continue
            print(row(name if len(targets) == 1 else f"{target}, {report.mhz:g} MHz", report), flush=True)
            right &= is_right(report)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
