"""Arguments that several commands take."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from ..families import FAMILIES
from ..load import load
from ..model import Dtype, Model


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Which model, and what its file does not say."""
    parser.add_argument("model", metavar="MODEL", help="a checkpoint file or directory of any supported format")
    parser.add_argument(
        "--config",
        metavar="JSON",
        help="what the file does not hold, under upstream's argument names: a JSON file, or the object itself;"
        " '{}' means upstream's defaults",
    )
    parser.add_argument("--arch", metavar="NAME", help=f"the model's family: {', '.join(FAMILIES)}")
    parser.add_argument("--prefix", metavar="TEXT", help="the part of the file whose tensors' names start so")
    parser.add_argument("--step", type=int, metavar="N", help="which checkpoint of a directory; default: the latest")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which model, and in which precision it runs."""
    add_checkpoint(parser)
    parser.add_argument(
        "--dtype", choices=("float32", "float64"), default="float32", help="the engine's precision (default: float32)"
    )
    add_weights(parser)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """How the matrices of mixing layers are held."""
    parser.add_argument(
        "--weights",
        choices=("float32", "bfloat16", "int8"),
        help="how the matrices of mixing layers are held; bfloat16 and int8 round them (default: as they are)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Whether a program reads the answer."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def config_of(arguments: argparse.Namespace) -> Mapping[str, Any] | str | None:
    """What ``--config`` says: the object, or the path of its file."""
    text: str | None = arguments.config
    if text is None or not text.lstrip().startswith("{"):
        return text
    try:
        value: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--config: expected a JSON object, found {text!r}: {error}") from None
    return value


def model_of(arguments: argparse.Namespace) -> Model:
    """The model that the arguments name."""
    dtype: Dtype = getattr(arguments, "dtype", "float32")
    return load(
        arguments.model,
        config=config_of(arguments),
        arch=arguments.arch,
        dtype=dtype,
        step=arguments.step,
        prefix=arguments.prefix,
        weights=getattr(arguments, "weights", None),
    )


def positive(text: str) -> int:
    """An integer above zero, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text}")
    return value


def byte_count(text: str) -> int:
    """Bytes, for argparse: 128k is 128 * 1024."""
    units = {"k": 1 << 10, "m": 1 << 20}
    unit = units.get(text[-1:].lower())
    return positive(text) if unit is None else positive(text[:-1]) * unit
