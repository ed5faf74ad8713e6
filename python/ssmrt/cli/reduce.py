"""Reduce a model's states to those that its data need, and write it in ssmrt's own format.

The data are a few seconds of what the model is to hear, in any form that `ssmrt run` takes. A fifth of them is held
back to judge the result: files or sequences, or of a single one its end.

    ssmrt reduce model.ssm.safetensors small.ssm.safetensors --data clips/*.wav --modes 4 --picture small.png
    ssmrt reduce model.ssm.safetensors small.ssm.safetensors --data typical.npy --tolerance 1e-2
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model import Model
from ..reduction import METHODS, Reducer
from ..writing import replacing
from . import inputs
from .arguments import add_json, add_model, byte_count, model_of, positive
from .inputs import Input, open_input


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_model(parser)
    parser.add_argument("out", metavar="OUT", type=Path, help="the file to write, by custom NAME.ssm.safetensors")
    parser.add_argument("--data", dest="inputs", metavar="FILE", nargs="+", required=True, help=inputs.HELP)
    inputs.add_arguments(parser)
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--modes", type=positive, metavar="N", help="stored modes a channel, two real states each")
    size.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="error of the answers to held-back data, by their size, such as 1e-2",
    )
    size.add_argument(
        "--flash",
        type=byte_count,
        metavar="BYTES",
        help="the most accurate model whose C fits, such as 128k; with --mhz",
    )
    parser.add_argument("--target", metavar="CORE", default="cortex-m4", help="for --flash (default: cortex-m4)")
    parser.add_argument("--mhz", type=float, help="for --flash: the processor's clock")
    parser.add_argument(
        "--rate", type=float, metavar="HZ", help="for --flash: samples a second that it must keep up with"
    )
    parser.add_argument("--method", choices=METHODS, default="balanced", help="default: balanced")
    parser.add_argument(
        "--picture", metavar="FILE", help="draw error against states, and each layer's: .png, .svg or .pdf"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Reduce, write, and say what was done."""
    if arguments.flash is None and (arguments.mhz is not None or arguments.rate is not None):
        raise ValueError("--mhz, --rate: expected --flash beside them, found none")
    model = model_of(arguments)
    data: list[NDArray[Any]] = []
    for text in arguments.inputs:
        with open_input(text, model, arguments) as given:
            data += _sequences(given, model)
    reducer = Reducer(model, data, method=arguments.method)
    if arguments.modes is not None:
        if arguments.picture is not None:
            # The curve around what was asked for.
            for modes in sorted({max(1, arguments.modes // 2), 2 * arguments.modes, 4 * arguments.modes}):
                reducer.to_modes(modes)
        reduced, report = reducer.to_modes(arguments.modes)
    elif arguments.tolerance is not None:
        reduced, report = reducer.to_tolerance(arguments.tolerance)
    else:
        reduced, report = reducer.to_fit(partial(_fits, arguments))
    reduced.save(arguments.out)
    if arguments.picture is not None:
        from .. import plots

        with replacing(Path(arguments.picture)) as file:
            plots.reduction(report).savefig(file, format=Path(arguments.picture).suffix[1:] or "png")
    print(json.dumps(report.as_dict()) if arguments.json else f"{report}\n{arguments.out}: {reduced!r}")
    return 0


def _fits(arguments: argparse.Namespace, model: Model) -> bool:
    """Whether the model's C has room, and time, by the emitter's report."""
    from ..export import export_c

    with tempfile.TemporaryDirectory() as folder:
        report = export_c(model, folder, target=arguments.target, mhz=arguments.mhz, flash=1 << 40, ram=1 << 40)
    in_time = arguments.rate is None or (report.highest_rate is not None and report.highest_rate >= arguments.rate)
    return report.flash <= arguments.flash and in_time


def _sequences(given: Input, model: Model) -> list[NDArray[Any]]:
    """What an input holds, a sequence each."""
    trained = model.sample_rate
    if given.rate is not None and trained is not None and given.rate != trained:
        raise ValueError(
            f"--data: expected sounds of {trained:g} samples a second, found {given.rate:g} in {given.name}"
        )
    groups = [np.concatenate(list(group), axis=1) for group in given.groups]
    return [sequence for group in groups for sequence in group]
