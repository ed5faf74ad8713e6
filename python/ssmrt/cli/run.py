"""Run a model over a sound or an array.

INPUT is a .wav, whose samples have full scale at 1 and whose channels are averaged unless the model takes as many, or
a .npy of shape (length, d_input) or (batch, length, d_input), tokens without the last axis. The answers are printed
as a table, or written by --output as .npy, .jsonl or .txt.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ..audio import read_wav
from ..model import Model
from .arguments import add_model, model_of

Array = NDArray[Any]

_ROWS_SHOWN = 12
_COLUMNS_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_model(parser)
    parser.add_argument("input", metavar="INPUT", type=Path, help="a .wav or .npy file")
    parser.add_argument(
        "--stream",
        action="store_true",
        help="sample by sample: a model that pools then answers at each sample as if the sequence ended there",
    )
    rates = parser.add_mutually_exclusive_group()
    rates.add_argument("--rate", type=float, default=1.0, help="multiplies every step size (default: 1)")
    rates.add_argument(
        "--trained-at", type=float, metavar="HZ", help="the sampling rate of the training, of which a .wav may differ"
    )
    parser.add_argument("--output", "-o", type=Path, metavar="FILE", help="write .npy, .jsonl or .txt")
    parser.add_argument("--json", action="store_true", help="print JSON, one line an answer")


def run(arguments: argparse.Namespace) -> int:
    """Answer the input."""
    out: Path | None = arguments.output
    if out is not None and out.suffix not in (".npy", ".jsonl", ".txt"):
        raise ValueError(f"--output: expected a file .npy, .jsonl or .txt, found {out}")
    model = model_of(arguments)
    u, rate = _input(model, arguments)
    bare = u.ndim == (1 if model.document.tokens else 2)
    batch = u[None] if bare else u
    y = _stream(model, batch, rate) if arguments.stream else model(batch, rate=rate)
    running = y.ndim == 3
    if out is not None and out.suffix == ".npy":
        np.save(out, y[0] if bare else y)
    elif out is not None:
        with out.open("w") as file:
            _write(file, y, running, out.suffix == ".jsonl")
    else:
        _write(sys.stdout, y, running, arguments.json, short=True)
    return 0


def _input(model: Model, arguments: argparse.Namespace) -> tuple[Array, float]:
    path: Path = arguments.input
    tokens = model.document.tokens
    if path.suffix.lower() == ".wav":
        if tokens:
            raise ValueError(f"{path}: the model takes tokens, integers in a .npy file, found a sound")
        recording = read_wav(path)
        rate = arguments.rate if arguments.trained_at is None else arguments.trained_at / recording.rate
        mix = recording.samples.shape[1] != model.d_input
        return recording.mono()[:, None] if mix else recording.samples, rate
    if path.suffix.lower() != ".npy":
        raise ValueError(f"INPUT: expected a .wav or .npy file, found {path}")
    if arguments.trained_at is not None:
        raise ValueError("--trained-at: only a .wav says its sampling rate; pass --rate for a .npy file")
    try:
        u: Array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: expected an array of numbers, found none: {error}") from None
    if u.ndim == 1 and not tokens and model.d_input == 1:
        u = u[:, None]
    if u.dtype.kind in "iu" and not tokens:
        u = u.astype(np.float64)
    wanted = (
        "(length,) or (batch, length)" if tokens else f"(length, {model.d_input}) or (batch, length, {model.d_input})"
    )
    axes = (1, 2) if tokens else (2, 3)
    if u.ndim not in axes or (not tokens and u.shape[-1] != model.d_input):
        raise ValueError(f"{path}: expected shape {wanted}, found {u.shape}")
    return u, arguments.rate


def _stream(model: Model, u: Array, rate: float) -> Array:
    stream = model.stream(len(u), rate=rate)
    y = np.empty((*u.shape[:2], model.d_output), model.dtype)
    answer = np.empty((len(u), model.d_output), model.dtype)
    for t in range(u.shape[1]):
        y[:, t] = stream.step(u[:, t], out=answer)
    return y


def _write(file: TextIO, y: Array, running: bool, as_json: bool, *, short: bool = False) -> None:
    if as_json:
        for place, row in _rows(y, running):
            # JSON has no NaN and no infinity.
            numbers = [value if math.isfinite(value) else None for value in row.tolist()]
            file.write(json.dumps({**place, "y": numbers}) + "\n")
        return
    count = y.shape[0] * y.shape[1] if running else y.shape[0]
    columns = min(y.shape[-1], _COLUMNS_SHOWN) if short else y.shape[-1]
    names = (["sequence"] if len(y) > 1 or not running else []) + (["sample"] if running else [])
    dots = ["..."] if columns < y.shape[-1] else []
    file.write(_line([*names, *(f"y{i}" for i in range(columns)), *dots]))
    for i, (place, row) in enumerate(_rows(y, running)):
        if short and count > 2 * _ROWS_SHOWN and i == _ROWS_SHOWN:
            file.write(f"... {count - 2 * _ROWS_SHOWN} more; --output FILE writes all\n")
        if short and count > 2 * _ROWS_SHOWN and _ROWS_SHOWN <= i < count - _ROWS_SHOWN:
            continue
        file.write(_line([*(str(place[name]) for name in names), *(f"{v:.6g}" for v in row[:columns]), *dots]))


def _rows(y: Array, running: bool) -> Iterator[tuple[dict[str, int], Array]]:
    for sequence, answers in enumerate(y):
        if running:
            yield from (({"sequence": sequence, "sample": t}, row) for t, row in enumerate(answers))
        else:
            yield {"sequence": sequence}, answers


def _line(cells: list[str]) -> str:
    return " ".join(f"{cell:>12}" for cell in cells) + "\n"
