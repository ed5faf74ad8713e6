"""Run a model over sounds and arrays, or let a language model go on from a prompt.

An INPUT is a sound, whose sampling rate may be another than that of the training; an array .npy or .npz of shape
(length, d_input) or (batch, length, d_input), tokens without the last axis; a table .csv or .parquet with a row a
sample; or - for a sound from stdin. They are read block by block. 8, 16 and 32 bit integers are PCM with full scale
at 1, wherever they stand. The answers are printed as a table, whole where --output is -, or written to a file.

    ssmrt run spotter.ssm.safetensors recording.wav
    arecord -f S16_LE -r 16000 | ssmrt run spotter.ssm.safetensors - --stream --output -
    ssmrt run mamba-130m-hf --generate "The state of a" --tokens 50
    ssmrt run mamba-130m-hf --generate "Once" "Twice" --temperature 0.8 --top-p 0.95 --seed 7
    ssmrt run mamba-130m-hf --generate tokens.npy --stop 0,2 --json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model import Model
from . import generate, inputs
from .arguments import add_model, model_of
from .console import progress
from .inputs import Input, open_input
from .outputs import SUFFIXES, Answers, Source, open_output

Array = NDArray[Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    add_model(parser)
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help=inputs.HELP)
    inputs.add_arguments(parser)
    parser.add_argument(
        "--stream",
        action="store_true",
        help="answer every sample: a model that pools then answers as if the sequence ended there",
    )
    rates = parser.add_mutually_exclusive_group()
    rates.add_argument("--rate", type=float, help="multiplies every step size (default: as the sampling rates say)")
    rates.add_argument(
        "--sample-rate",
        "--trained-at",
        type=float,
        metavar="HZ",
        help="the sampling rate of the training, where the model's file does not say it",
    )
    parser.add_argument(
        "--output",
        "-o",
        metavar="FILE",
        help=f"write {', '.join(SUFFIXES)}; a .npy file an input into a folder; - for all lines to stdout",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one line an answer")
    generate.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Answer each input."""
    texts: list[str] = arguments.inputs
    if texts.count(inputs.STDIN) > 1:
        raise ValueError(f"INPUT: expected {inputs.STDIN} once at most, found it {texts.count(inputs.STDIN)} times")
    model = model_of(arguments)
    if arguments.generate:
        return generate.run(arguments, model)
    generate.check_absent(arguments)
    facts = (arguments.output, model.d_output, model.dtype, model.labels, texts)
    with open_output(*facts, as_json=arguments.json) as output:
        for text in texts:
            with open_input(text, model, arguments) as given, progress(given.name, given.length) as advance:
                rate = _rate(model, given, arguments)
                answers = _answers(model, given, rate, arguments.stream, advance)
                output.write(Source(text if len(texts) > 1 else None, given.sequences), answers)
    return 0


def _rate(model: Model, given: Input, arguments: argparse.Namespace) -> float:
    """How far apart the samples are, in those of the training."""
    told, trained = arguments.sample_rate, model.sample_rate
    if told is not None and trained is not None and told != trained:
        raise ValueError(f"--sample-rate: expected {trained:g}, as the model's file says, found {told:g}")
    if arguments.rate is not None:
        return float(arguments.rate)
    if given.rate is None:
        if told is not None:
            raise ValueError(f"--sample-rate: {given.name} does not say its own sampling rate; pass --rate instead")
        return 1.0
    trained = told if trained is None else trained
    if trained is None:
        raise ValueError(
            f"{given.name} has {given.rate:g} samples a second, and the model's file does not say how many the training"
            " had: pass --sample-rate HZ, that of the training, or --rate 1 where it was the same"
        )
    return trained / given.rate


def _answers(
    model: Model, given: Input, rate: float, stream: bool, advance: Callable[[int], None]
) -> Iterator[Answers]:
    """An answer a sample, but for models that pool; theirs are an answer a sequence unless they ``stream``."""
    if stream:
        hear = _stream
    else:
        hear = _forward if model.streamable else _whole
    first = 0
    for group in given.groups:
        at = 0
        for y in hear(model, _counted(group, advance), rate):
            if y.ndim == 2:
                yield from (Answers(row[None], first + i, None) for i, row in enumerate(y))
            else:
                yield from (Answers(rows, first + i, at) for i, rows in enumerate(y))
                at += y.shape[1]
        first += len(y)


def _counted(group: Iterator[Array], advance: Callable[[int], None]) -> Iterator[Array]:
    for u in group:
        yield u
        advance(u.shape[0] * u.shape[1])


def _stream(model: Model, group: Iterator[Array], rate: float) -> Iterator[Array]:
    stream = None
    for u in group:
        stream = stream or model.stream(len(u), rate=rate)
        yield stream.push(u)


def _forward(model: Model, group: Iterator[Array], rate: float) -> Iterator[Array]:
    y, state = None, None
    for u in group:
        y, state = model.forward(u, state=state, rate=rate, return_state=True)
        if y.ndim == 3:
            yield y
    if y is not None and y.ndim == 2:
        yield y


def _whole(model: Model, group: Iterator[Array], rate: float) -> Iterator[Array]:
    """A model that looks ahead hears nothing before all of it is there."""
    yield model(np.concatenate(list(group), axis=1), rate=rate)
