"""Draw a model's state-space layers: kernels, poles, frequency responses, time constants.

An overview with a row a layer, or with --layer the page of one; --pages writes those of all layers beside it. A .pdf
has all of them in one file.

    ssmrt plot spotter.ssm.safetensors --output layers.png
    ssmrt plot spotter.ssm.safetensors --layer 1 --output page.svg
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ..writing import replacing
from .arguments import add_checkpoint, model_of, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_checkpoint(parser)
    parser.add_argument(
        "--output", "-o", default="ssmrt.png", metavar="FILE", type=Path, help=".png, .svg or .pdf (default: ssmrt.png)"
    )
    parser.add_argument("--length", type=positive, default=1024, help="samples of the kernels (default: 1024)")
    parser.add_argument("--rate", type=float, default=1.0, help="multiplies every step size (default: 1)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--layer", type=int, metavar="I", help="only state-space layer number I, from 0")
    which.add_argument(
        "--pages", action="store_true", help="write a page a layer too: ssmrt-0.png and so on beside ssmrt.png"
    )


def run(arguments: argparse.Namespace) -> int:
    """Draw."""
    from .. import plots

    path = Path(arguments.output)
    if not path.suffix:
        path = path.with_name(path.name + ".png")
    model = model_of(arguments)
    said = {"length": arguments.length, "rate": arguments.rate}
    first = plots.figure(model, layer=arguments.layer, **said)
    whole = arguments.layer is None and (arguments.pages or path.suffix == ".pdf")
    pages = {number: plots.figure(model, layer=number, **said) for number in plots.drawable(model)} if whole else {}
    if path.suffix == ".pdf":
        from matplotlib.backends.backend_pdf import PdfPages

        with replacing(path) as file, PdfPages(file) as book:
            for page in (first, *pages.values()):
                book.savefig(page)
        print(path)
        return 0
    named = {path: first} | {path.with_stem(f"{path.stem}-{number}"): page for number, page in pages.items()}
    for name, page in named.items():
        with replacing(name) as file:
            page.savefig(file, format=name.suffix[1:])
        print(name)
    return 0
