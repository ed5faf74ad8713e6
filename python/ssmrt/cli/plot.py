"""Draw the convolution kernels and the poles of a model's state-space layers."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..writing import replacing
from .arguments import add_checkpoint, model_of, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_checkpoint(parser)
    parser.add_argument(
        "--output", "-o", default="ssmrt.png", metavar="FILE", help=".png, .svg or .pdf (default: ssmrt.png)"
    )
    parser.add_argument("--length", type=positive, default=1024, help="samples of the kernels (default: 1024)")
    parser.add_argument("--layer", type=int, metavar="I", help="only state-space layer number I, from 0")


def run(arguments: argparse.Namespace) -> int:
    """Draw."""
    from .. import plots

    figure = plots.figure(model_of(arguments), arguments.length, layer=arguments.layer)
    path = Path(arguments.output)
    if not path.suffix:
        path = path.with_name(path.name + ".png")
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix[1:])
    print(path)
    return 0
