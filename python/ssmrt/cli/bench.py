"""Measure how fast a model runs on this machine.

One sample by `stream.step` (median, tail, worst), blocks by `stream.push`, a whole sequence by `forward`. Input is
noise. All from Python, on one stream.

    ssmrt bench spotter.ssm.safetensors --seconds 0.1 --plot latencies.png
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Embedding, first
from ..model import Model
from ..writing import replacing
from .arguments import add_json, add_model, model_of, positive
from .timing import measure, percentiles

_BLOCKS = (64, 512)
_MOST = 200_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_model(parser)
    parser.add_argument("--length", type=positive, default=16000, help="samples of the whole sequence (default: 16000)")
    parser.add_argument("--seconds", type=float, default=1.0, help="spent on each measurement (default: 1)")
    parser.add_argument("--rate", type=float, default=1.0, help="multiplies every step size (default: 1)")
    parser.add_argument(
        "--plot", metavar="FILE", type=Path, help="draw how often a call took how long: .png, .svg or .pdf"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure."""
    model = model_of(arguments)
    seconds: float = arguments.seconds
    times: dict[str, NDArray[np.float64]] = {}
    result: dict[str, Any] = {"model": repr(model), "isa": model.isa, "dtype": str(model.dtype)}
    if model.streamable:
        stream = model.stream(rate=arguments.rate)
        sample = _noise(model, 1)[:, 0]
        answer = np.empty((1, model.d_output), model.dtype)
        times["step"] = measure(lambda: stream.step(sample, out=answer), seconds, _MOST)
        for block in _BLOCKS:
            chunk = _noise(model, block)
            answers = np.empty((1, block, model.d_output), model.dtype)
            call = partial(stream.push, chunk, out=answers)
            times[f"push_{block}"] = measure(call, seconds, _MOST)
    sequence = _noise(model, arguments.length)
    times[f"forward_{arguments.length}"] = measure(lambda: model(sequence, rate=arguments.rate), seconds, _MOST)
    result |= {f"{name}_us": percentiles(taken) for name, taken in times.items()}
    print(json.dumps(result) if arguments.json else _table(result))
    if arguments.plot is not None:
        from .. import plots

        with replacing(arguments.plot) as file:
            plots.latencies(times).savefig(file, format=arguments.plot.suffix[1:] or "png")
    return 0


def _noise(model: Model, length: int) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    head = first(model.document.root)
    if isinstance(head, Embedding):
        return rng.integers(0, len(head.weight), (1, length))
    return rng.standard_normal((1, length, model.d_input)).astype(model.dtype)


def _table(result: dict[str, Any]) -> str:
    lines = [
        f"{result['model']} on {result['isa']}",
        "",
        f"{'microseconds':<16}" + "".join(f"{n:>12}" for n in _COLUMNS),
    ]
    for name, value in result.items():
        if isinstance(value, dict):
            call, _, size = name.removesuffix("_us").partition("_")
            samples = int(size or 1)
            cells = [*(f"{value[n]:.1f}" for n in _COLUMNS[:-1]), f"{value['p50'] / samples:.3f}"]
            lines.append(f"{call} {samples:<10}".ljust(16) + "".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


_COLUMNS = ("p50", "p99", "p99.9", "max", "a sample")
