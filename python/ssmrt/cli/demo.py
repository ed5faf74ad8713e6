"""Hear twelve spoken words, one sample at a time.

An S4D keyword spotter that ships with ssmrt listens to raw 16 kHz audio, sample by sample as from a microphone. Of
each clip: the word spoken, the word heard, and when it became sure, that is, from when on the running answer was
that word with 90 % or more until the end of the clip.

    ssmrt demo --wav recording.wav
    ssmrt demo --save spotter.ssm.safetensors
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from .. import demo as spotting
from ..audio import read
from ..model import Model
from .arguments import add_json
from .console import BARS, Console
from .timing import percentiles

_BARS_A_CLIP = 40
# Recordings up to here are one word, which the spotter hears as it hears its clips.
_ONE_WORD_SECONDS = 1.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument(
        "--wav",
        metavar="FILE",
        help="hear your own recording instead: a sound file of any sampling rate, which needs no resampling, for an S4D"
        " runs at another rate by its step size; one word (up to 1.5 s), or many; the mean of its channels",
    )
    parser.add_argument("--save", metavar="FILE", type=Path, help="write the spotter too, for other commands to try on")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo."""
    console = Console()
    model = spotting.spotter()
    quiet: bool = arguments.json
    if arguments.save is not None:
        model.save(arguments.save)
    if arguments.wav is not None:
        result = _wav(model, arguments.wav, console, quiet)
    else:
        result = _clips(model, console, quiet)
    if quiet:
        print(json.dumps(result))
    elif arguments.save is not None:
        console.line(f"\nwritten: {arguments.save}")
    return 0


def _clips(model: Model, console: Console, quiet: bool) -> dict[str, Any]:
    if not quiet:
        console.line(("ssmrt", "bold"), f" {__version__}: an S4D keyword spotter, {model.num_parameters} parameters,")
        console.line("hears voices that are new to it in raw 16 kHz audio, one sample at a time.\n")
        _header(console, "spoken")
    stream = model.stream()
    rows, times = [], []
    for clip in spotting.clips():
        heard = spotting.listen(stream, clip.samples)
        rows.append({"spoken": clip.word, **_facts(heard)})
        times.append(heard.nanoseconds)
        if not quiet:
            _line(console, clip.word, heard, clip.samples, spotting.RATE)
    return _closing(console, quiet, rows, np.concatenate(times), spotting.RATE, model)


def _wav(model: Model, path: str, console: Console, quiet: bool) -> dict[str, Any]:
    recording = read(path)
    sound = spotting.level(recording.mono())
    rate = recording.rate
    if not quiet:
        channels = recording.samples.shape[1]
        mixed = f", the mean of {channels} channels" if channels > 1 else ""
        console.line(f"{path}: {recording.seconds:.2f} s at {rate} Hz{mixed}, run at rate={spotting.RATE / rate:g}\n")
    with warnings.catch_warnings():
        # That modes alias below 16 kHz is true, and no news to who records at 8 kHz.
        warnings.simplefilter("ignore", UserWarning)
        if recording.seconds <= _ONE_WORD_SECONDS:
            heard = spotting.listen(model.stream(rate=spotting.RATE / rate), sound, rate)
            if not quiet:
                _header(console, "")
                _line(console, "", heard, sound, rate)
            return _closing(console, quiet, [_facts(heard)], heard.nanoseconds, rate, model)
        words = []
        for word in spotting.spot(model, sound, rate):
            words.append(
                {"word": word.word, "probability": round(word.probability, 4), "start": word.start, "end": word.end}
            )
            if not quiet:
                console.line(f"{word.start:8.2f} s - {word.end:6.2f} s   ", (f"{word.word:<7}", "bold green"))
    if not quiet:
        console.line(f"\n{len(words)} words, each within the time given.")
    return {"words": words}


def _facts(heard: spotting.Heard) -> dict[str, Any]:
    sure = None if heard.sure_after is None else round(1e3 * heard.sure_after, 1)
    return {"heard": heard.word, "probability": round(heard.probability, 4), "sure_after_ms": sure}


def _header(console: Console, first: str) -> None:
    console.line((f"{first:>9}   {'heard':<7}{'sure after':>11}   the sound", "dim"))


def _line(console: Console, spoken: str, heard: spotting.Heard, sound: spotting.Samples, rate: int) -> None:
    bars = _bars(sound)
    seconds = len(sound) / rate
    at = len(bars) if heard.sure_after is None else min(int(heard.sure_after / seconds * len(bars)), len(bars))
    right = spoken in ("", heard.word)
    when = f"{100 * heard.probability:.0f} % only" if heard.sure_after is None else f"{1e3 * heard.sure_after:.0f} ms"
    console.line(
        f"{spoken:>9}   ",
        (f"{heard.word:<7}", "bold green" if right else "bold red"),
        f"{when:>11}   ",
        (bars[:at], "dim"),
        ("" if at == len(bars) else "|", "bold"),
        (bars[at:], "green"),
    )


def _bars(sound: spotting.Samples) -> str:
    """The loudness over time, one bar for each part."""
    parts = np.array_split(sound, _BARS_A_CLIP)
    loud = np.sqrt(np.array([np.mean(part**2) if part.size else 0.0 for part in parts]))
    scale = loud.max() or 1.0
    return "".join(BARS[int(value)] for value in np.sqrt(loud / scale) * (len(BARS) - 1))


def _closing(
    console: Console,
    quiet: bool,
    rows: list[dict[str, Any]],
    nanoseconds: NDArray[np.int64],
    rate: int,
    model: Model,
) -> dict[str, Any]:
    microseconds = nanoseconds / 1e3
    per_sample = percentiles(microseconds)
    budget = 1e6 / rate
    faster = budget / float(microseconds.mean())
    right = sum(row.get("spoken", row["heard"]) == row["heard"] for row in rows)
    if not quiet:
        console.line(f"\nsure after: from then on it answered so with {100 * spotting.SURE:.0f} % or more.")
        if "spoken" in rows[0]:
            console.line((f"{right} of {len(rows)} words right", "bold"))
        console.line(
            f"one sample: p50 {per_sample['p50']:.1f} us, p99 {per_sample['p99']:.1f} us,"
            f" worst {per_sample['max']:.0f} us, of the {budget:.1f} us that it lasts"
        )
        console.line(
            (f"{faster:.1f} times faster than real time", "bold green"),
            f": {len(microseconds) / rate:.1f} s of sound in {microseconds.sum() / 1e6:.2f} s,"
            f" one core ({model.isa}, {model.dtype})",
        )
    return {
        "clips": rows,
        "samples": len(microseconds),
        "sample_us": per_sample,
        "times_faster_than_real_time": round(faster, 2),
        "isa": model.isa,
    }
