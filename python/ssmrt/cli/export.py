"""Export a model as ONNX, or as C99 for microcontrollers.

OUT is an .onnx file that takes one sample, or with --chunk so many, a call and hands its state back; with --target it
is a directory, into which a firmware package is written: C without a heap, a self-test, and a report of flash, RAM,
instructions and the highest sampling rate.

    ssmrt export spotter.ssm.safetensors spotter.onnx
    ssmrt export spotter.ssm.safetensors small.onnx --quantize int8 --calibration typical.npy
    ssmrt export spotter.ssm.safetensors firmware --target cortex-m4 --block 16
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

import numpy as np

from .arguments import add_json, add_model, byte_count, model_of, positive

# What only one of the two takes, by the name of its argument.
_ONNX = ("mode", "chunk", "batch", "opset", "dtype")
_C = ("name", "block", "ram", "flash", "mhz", "sample_rate")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_model(parser)
    parser.set_defaults(dtype=None)
    parser.add_argument("out", metavar="OUT", help="the .onnx file to write; with --target a directory")
    parser.add_argument("--rate", type=float, default=1.0, help="multiplies every step size (default: 1)")
    parser.add_argument(
        "--quantize",
        choices=("int8", "int16"),
        help="ONNX: int8, the mixing layers' weights in 8 bits; C: fixed point, with those in as many bits",
    )
    parser.add_argument("--calibration", metavar="NPY", help="typical input (length, d_input) for --quantize")
    onnx = parser.add_argument_group("ONNX")
    onnx.add_argument(
        "--mode", choices=("step", "chunk"), help="samples a call: one, or --chunk N (default: by --chunk)"
    )
    onnx.add_argument("--chunk", type=positive, metavar="N", help="samples a call")
    onnx.add_argument("--batch", type=positive, help="streams side by side (default: 1)")
    onnx.add_argument("--opset", type=int, help="the ONNX operator set (default: 17)")
    c = parser.add_argument_group("C")
    c.add_argument("--target", metavar="CORE", help="c for any processor, or one such as cortex-m4, which is measured")
    c.add_argument("--name", help="prefix of the files and of all public C names (default: ssm)")
    c.add_argument("--block", type=positive, metavar="N", help="a function for N samples a call, too")
    c.add_argument("--ram", type=byte_count, metavar="BYTES", help="that the part has (default: a common part's)")
    c.add_argument("--flash", type=byte_count, metavar="BYTES", help="that the part has (default: a common part's)")
    c.add_argument("--mhz", type=float, help="the part's clock (default: a common part's)")
    c.add_argument("--sample-rate", type=float, metavar="HZ", help="that the part must keep up with")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write it, and say what it costs."""
    # The exporters are loaded only here: the other commands do without.
    from ..export import export_c, export_onnx

    to_c = arguments.target is not None
    for other in _ONNX if to_c else _C:
        if (value := getattr(arguments, other)) is not None:
            why = "has no meaning with --target" if to_c else "needs --target"
            raise ValueError(f"--{other.replace('_', '-')}: {why}, found {value!r}")
    arguments.dtype = arguments.dtype or "float32"
    model = model_of(arguments)
    if to_c:
        target = None if arguments.target == "c" else arguments.target
        given = {name: getattr(arguments, name) for name in _C if getattr(arguments, name) is not None}
        method = "step" if arguments.block is None else "block"
        options = {"rate": arguments.rate, "quantize": arguments.quantize, "calibration": _calibration(arguments)}
        device = export_c(model, arguments.out, target=target, method=method, **options, **given)
        print(json.dumps(device.as_dict()) if arguments.json else device)
        return 0
    report = export_onnx(model, arguments.out, **_onnx_options(arguments))
    print(json.dumps(asdict(report), default=str) if arguments.json else report)
    return 0


def _calibration(arguments: argparse.Namespace) -> Any:
    if arguments.calibration is None:
        return None
    try:
        return np.load(arguments.calibration, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"--calibration: expected a .npy array, found {arguments.calibration}: {error}") from None


def _onnx_options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "mode": arguments.mode or ("step" if arguments.chunk is None else "chunk"),
        "chunk": arguments.chunk,
        "batch": 1 if arguments.batch is None else arguments.batch,
        "rate": arguments.rate,
        "opset": 17 if arguments.opset is None else arguments.opset,
        "quantize": arguments.quantize,
        "calibration": _calibration(arguments),
    }
