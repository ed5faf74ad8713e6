"""Convert a checkpoint to ssmrt's own format.

One safetensors file that holds everything needed to run: ssmrt and its Rust crate read it, no configuration beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .arguments import add_checkpoint, model_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_checkpoint(parser)
    parser.add_argument("out", metavar="OUT", type=Path, help="the file to write, by custom NAME.ssm.safetensors")


def run(arguments: argparse.Namespace) -> int:
    """Write it."""
    model = model_of(arguments)
    model.save(arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes, {model!r}")
    return 0
