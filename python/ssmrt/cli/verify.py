"""Compare all ways to run a model: step = push = forward = float64 = ONNX.

The exit code is 0 where every error is within its tolerance, else 1.

    ssmrt verify spotter.ssm.safetensors
    ssmrt verify spotter.ssm.safetensors --onnx spotter.onnx
"""

from __future__ import annotations

import argparse
import json

from .. import verify as compare
from .arguments import add_json, add_model, model_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_model(parser)
    parser.add_argument("--onnx", metavar="FILE", help="a graph that `ssmrt export` made of the model")
    parser.add_argument("--layers", action="store_true", help="compare layer by layer too")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare, and say whether all is well."""
    found = compare(model_of(arguments), arguments.onnx, layers=arguments.layers)
    print(json.dumps(found.as_dict()) if arguments.json else found)
    return 0 if found.ok else 1
