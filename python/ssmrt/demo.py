"""The keyword spotter that ships with ssmrt: upstream's S4D example, trained on raw audio at 16 kHz."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from ._native import Stream
from .document import from_bytes
from .model import Model

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
RATE = 16000
SURE = 0.9
# The greatest sample of every clip that the spotter was trained on.
PEAK = 0.704

Samples = NDArray[np.float32]

_WINDOW = 1.0
_STARTS = 4
_QUIET = 0.1


@dataclass(frozen=True)
class Clip:
    """A recorded word: ``samples`` (length,) at `RATE`."""

    word: str
    samples: Samples


@dataclass(frozen=True)
class Heard:
    """What the spotter made of a clip, and the nanoseconds that each sample took.

    ``sure_after`` is the time in seconds from which on the answer was ``word`` with a probability of `SURE` or
    more until the end; None where it was not at the end.
    """

    word: str
    probability: float
    sure_after: float | None
    nanoseconds: NDArray[np.int64]


@dataclass(frozen=True)
class Spotted:
    """A word in a longer recording, between two times in seconds."""

    word: str
    probability: float
    start: float
    end: float


def spotter() -> Model:
    """The model: one sample of sound in, the ten scores of `WORDS` out."""
    data = resources.files("ssmrt").joinpath("data", "spotter.ssm.safetensors").read_bytes()
    return Model(from_bytes(data, "the demo's spotter"))


def clips() -> list[Clip]:
    """Twelve clips of one second, of voices that the spotter was not trained on."""
    with resources.files("ssmrt").joinpath("data", "clips.npz").open("rb") as file, np.load(file) as arrays:
        mulaw, labels = arrays["mulaw"], arrays["labels"]
    level = mulaw / 127
    samples = np.sign(level) * (256 ** np.abs(level) - 1) / 255
    return [Clip(WORDS[label], sound) for label, sound in zip(labels, samples.astype(np.float32))]


def level(samples: Samples) -> Samples:
    """The sound as loud as the clips of the training."""
    peak = np.abs(samples).max()
    return (samples * (PEAK / peak)).astype(np.float32) if peak > 0 else samples


def listen(stream: Stream, samples: Samples, rate: float = RATE) -> Heard:
    """Hear ``samples`` (length,) from the start, one by one as they would come from a microphone."""
    answers = np.empty((len(samples), 1, len(WORDS)), np.float32)
    nanoseconds = np.empty(len(samples), np.int64)
    inputs, outputs = list(samples.reshape(-1, 1, 1)), list(answers)
    step, clock = stream.step, time.perf_counter_ns
    stream.reset()
    for i, (u, y) in enumerate(zip(inputs, outputs)):
        start = clock()
        step(u, out=y)
        nanoseconds[i] = clock() - start
    chances = _softmax(answers[:, 0])
    best = int(chances[-1].argmax())
    unsure = np.flatnonzero((chances.argmax(1) != best) | (chances[:, best] < SURE))
    samples_needed = int(unsure[-1]) + 2 if len(unsure) else 1
    sure_after = samples_needed / rate if samples_needed <= len(samples) else None
    return Heard(WORDS[best], float(chances[-1, best]), sure_after, nanoseconds)


def spot(model: Model, samples: Samples, rate: float) -> Iterator[Spotted]:
    """The words of a long recording (length,).

    The spotter knows clips of one second. So windows of one second, a new one every quarter of a second, each
    get a stream of their own; a word counts that two neighbouring windows are sure of, unless they are quiet.
    """
    hop = max(1, round(rate * _WINDOW / _STARTS))
    hops = -(-len(samples) // hop)
    sound = np.zeros((max(hops, _STARTS) * hop, 1), np.float32)
    sound[: len(samples), 0] = samples
    power = np.convolve((sound.reshape(-1, hop) ** 2).sum(1), np.ones(_STARTS))[_STARTS - 1 : len(sound) // hop]
    stream = model.stream(_STARTS, rate=RATE / rate)
    open_word: Spotted | None = None
    votes = 0
    for block in range(len(sound) // hop):
        stream.reset(np.arange(_STARTS) == block % _STARTS)
        part = np.ascontiguousarray(np.broadcast_to(sound[block * hop : (block + 1) * hop], (_STARTS, hop, 1)))
        answers = stream.push(part)
        first = block + 1 - _STARTS
        if first < 0:
            continue
        chances = _softmax(answers[first % _STARTS, -1])
        best = int(chances.argmax())
        chance = float(chances[best])
        if chance < SURE or power[first] < _QUIET**2 * power.max():
            found = None
        else:
            found = Spotted(WORDS[best], chance, first * hop / rate, (block + 1) * hop / rate)
        if found and open_word and found.word == open_word.word:
            votes += 1
            open_word = Spotted(found.word, max(found.probability, open_word.probability), open_word.start, found.end)
            continue
        if open_word and votes > 1:
            yield open_word
        open_word, votes = found, 1
    if open_word and votes > 1:
        yield open_word


def _softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    chances: NDArray[np.float32] = powers / powers.sum(-1, keepdims=True)
    return chances
