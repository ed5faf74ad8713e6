"""Draw the convolution kernels and the poles of a model's state-space layers."""

from __future__ import annotations

import argparse

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
    figure.savefig(arguments.output)
    print(arguments.output)
    return 0
