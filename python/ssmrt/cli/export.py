"""Export a model as ONNX, or as C for a microcontroller.

OUT is an .onnx file that takes one sample, or with --chunk so many, a call and hands its state back; with --target it
is a directory, into which C sources, the graph and a report of flash, RAM and operations are written.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import numpy as np

from .arguments import add_json, add_model, model_of, positive


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_model(parser)
    parser.add_argument("out", metavar="OUT", help="the .onnx file to write; with --target a directory")
    parser.add_argument(
        "--mode", choices=("step", "chunk"), help="samples a call: one, or --chunk N (default: by --chunk)"
    )
    parser.add_argument("--chunk", type=positive, metavar="N", help="samples a call")
    parser.add_argument("--batch", type=positive, default=1, help="streams side by side (default: 1)")
    parser.add_argument("--rate", type=float, default=1.0, help="multiplies every step size (default: 1)")
    parser.add_argument("--opset", type=int, default=17, help="the ONNX operator set (default: 17)")
    parser.add_argument("--quantize", choices=("int8",), help="the mixing layers' weights in 8 bits")
    parser.add_argument("--calibration", metavar="NPY", help="typical input (length, d_input) for --quantize")
    parser.add_argument("--target", metavar="CORE", help="write C for this processor, such as cortex-m4")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write it, and say what it costs."""
    # The exporters are loaded only here: the other commands do without.
    from ..export import cortex_m, export_onnx

    model = model_of(arguments)
    mode = arguments.mode or ("step" if arguments.chunk is None else "chunk")
    calibration = None
    if arguments.calibration is not None:
        try:
            calibration = np.load(arguments.calibration, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"--calibration: expected a .npy array, found {arguments.calibration}: {error}") from None
    options = {
        "mode": mode,
        "chunk": arguments.chunk,
        "rate": arguments.rate,
        "quantize": arguments.quantize,
        "calibration": calibration,
    }
    if arguments.target is not None:
        if arguments.batch != 1:
            raise ValueError(f"--batch: --target writes one stream, found {arguments.batch}")
        device = cortex_m.generate(model, arguments.out, target=arguments.target, **options)
        print(json.dumps(device.as_dict()) if arguments.json else device)
        return 0
    report = export_onnx(model, arguments.out, batch=arguments.batch, opset=arguments.opset, **options)
    print(json.dumps(asdict(report), default=str) if arguments.json else report)
    return 0
