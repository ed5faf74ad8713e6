"""Checkpoints on an emulated Cortex-M4: a table of what each takes.

    python examples/cortex_m/run.py                                  the models of the README's table
    python examples/cortex_m/run.py spotter.pth --config config.json  a model of your own

Needs ssmrt[mcu] and the Debian packages gcc-arm-none-eabi, libnewlib-arm-none-eabi, qemu-system-arm.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import ssmrt
from prove import Proof, missing, prove
from ssmrt.document import Activation, Diagonal, Document, Glu, Linear, Norm, Residual, Sequential

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
SHOWN = {
    "torch/s4d_minimal": "S4D digits classifier, 2 layers, H 32, N 64",
    "torch/s4_nplr/legs_r3": "S4 (DPLR, rank 3) layer, H 8, N 16",
    "torch/lssl/lssl_m1": "LSSL layer, H 16, N 32",
    "jax/lru_cls_batchnorm": "LRU classifier, 2 layers, d_model 24, d_hidden 32",
}
STEPS = 100


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
    yield "2 S4D layers, H 16, N 32", ssmrt.Model(two_layers(), dtype="float64")
    for row in json.loads((GOLDEN / "cases.json").read_text()):
        if row["name"] in SHOWN:
            path = GOLDEN / row["name"] / row["files"][0]
            model = ssmrt.load(path, config=row.get("config"), arch=row["arch"], dtype="float64")
            yield SHOWN[row["name"]], model


def on_device(model: ssmrt.Model, folder: Path) -> Proof:
    """The model's stream on the device against ssmrt's in float64, over white noise."""
    g = np.random.default_rng(1)
    document = model.document
    if document.tokens:
        x = g.integers(0, 2, (1, STEPS))
    else:
        x = g.standard_normal((1, STEPS, document.d_input)).astype(np.float32)
    y = model.stream().push(x)
    return prove(document, x[0], y[0], folder)


def main() -> int:
    """Print the table; 1 where a tool is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--config", type=Path, help="a JSON file with the upstream constructor's arguments")
    parser.add_argument("--arch", help="the family, where the file has no names")
    parser.add_argument("--out", type=Path, help="keep the C, the objects and the image in this folder")
    arguments = parser.parse_args()
    if (why := missing()) is not None:
        print(why, file=sys.stderr)
        return 1
    if arguments.checkpoint is None:
        models = shown()
    else:
        path = arguments.checkpoint
        models = iter([(path.name, ssmrt.load(path, config=arguments.config, arch=arguments.arch, dtype="float64"))])
    print("| model | flash B | state B | work area B | stack B | instructions a step | max error |")
    print("|---|---|---|---|---|---|---|")
    for name, model in models:
        with tempfile.TemporaryDirectory() as folder:
            proof = on_device(model, arguments.out or Path(folder))
        report = proof.report
        numbers = (report.flash, report.state, report.work, proof.stack, proof.instructions)
        print(f"| {name} | {' | '.join(f'{n:,}'.replace(',', ' ') for n in numbers)} | {proof.error:.1e} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
