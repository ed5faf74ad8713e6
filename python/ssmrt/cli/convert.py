"""Convert a checkpoint to ssmrt's own format.

One safetensors file that holds everything needed to run: ssmrt and its Rust crate read it, no configuration beside it.

    ssmrt convert model.pth model.ssm.safetensors --config '{"prenorm": false}' --sample-rate 16000
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ..model import Model
from .arguments import add_checkpoint, model_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_checkpoint(parser)
    parser.add_argument("out", metavar="OUT", type=Path, help="the file to write, by custom NAME.ssm.safetensors")
    parser.add_argument(
        "--sample-rate", type=float, metavar="HZ", help="samples a second in training, for who runs it on a sound"
    )
    parser.add_argument(
        "--labels",
        metavar="NAMES",
        help="what each output stands for: names with commas between, or a file with one a line",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write it."""
    model = model_of(arguments)
    facts = {}
    if arguments.sample_rate is not None:
        facts["sample_rate"] = arguments.sample_rate
    if arguments.labels is not None:
        facts["labels"] = _labels(arguments.labels)
    if facts:
        model = Model(replace(model.document, **facts))
    model.save(arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes, {model!r}")
    return 0


def _labels(text: str) -> tuple[str, ...]:
    path = Path(text)
    if "," not in text and path.is_file():
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(label.strip() for label in text.split(","))
