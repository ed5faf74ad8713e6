"""Where answers go: .npy files, lines of JSON, tables."""

from __future__ import annotations

import json
import math
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from ..writing import replacing

Array = NDArray[Any]

STDOUT = "-"
# What was answered until somebody stops it is kept.
STOPPED = (KeyboardInterrupt,)
SUFFIXES = (".npy", ".jsonl", ".txt")
_ROWS_SHOWN = 12
_COLUMNS_SHOWN = 10


@dataclass(frozen=True)
class Answers:
    """Neighbouring answers ``y`` (n, d_output) of sequence number ``sequence``.

    They are those of its samples from number ``sample`` on, or where that is None the only one of all its samples.
    """

    y: Array
    sequence: int
    sample: int | None


@dataclass(frozen=True)
class Source:
    """Whose answers they are. ``file`` is None where there is one input only, ``sequences`` as `inputs.Input`."""

    file: str | None
    sequences: int | None


class Output(Protocol):
    """Takes what a model answers to one input after the other."""

    def write(self, source: Source, answers: Iterator[Answers]) -> None:
        """All answers to one input."""


class Npy:
    """A .npy file for one input, or where the name is that of a folder one for each, written as answers come."""

    def __init__(self, path: Path, d_output: int, dtype: np.dtype[Any], *, folder: bool):
        self._path, self._shape, self._dtype, self._folder = path, (d_output,), dtype, folder
        if folder:
            path.mkdir(exist_ok=True)

    def write(self, source: Source, answers: Iterator[Answers]) -> None:
        """(length, d_output), (sequences, length, d_output), and without length where a sequence has one answer."""
        path = self._path / f"{Path(source.file or '').stem}.npy" if self._folder else self._path
        rows, running = 0, False
        with replacing(path, keep_on=STOPPED) as file:
            start = self._header(file, (0, *self._shape))
            try:
                for answer in answers:
                    running = answer.sample is not None
                    rows += len(answer.y)
                    file.write(np.ascontiguousarray(answer.y, self._dtype).data)
            finally:
                # Also where somebody stopped it: what is there can be read.
                sequences = () if source.sequences is None else (source.sequences,)
                length = (rows // math.prod(sequences),) if running else ()
                shape = (*sequences, *length, *self._shape)
                if math.prod(shape) != rows * self._shape[0]:
                    shape = (rows, *self._shape)
                file.seek(0)
                if self._header(file, shape) != start:
                    raise ValueError(f"{path}: the header of a .npy file for {shape} has outgrown its place")

    def _header(self, file: BinaryIO, shape: tuple[int, ...]) -> int:
        """Where the numbers start. NumPy leaves room for an axis to grow."""
        facts = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, facts)
        return file.tell()


class Json:
    """A line of JSON an answer."""

    def __init__(self, file: TextIO, labels: Sequence[str] | None):
        self._file, self._labels = file, labels

    def write(self, source: Source, answers: Iterator[Answers]) -> None:
        """With its place, and the label of the largest output."""
        file = {} if source.file is None else {"file": source.file}
        for answer in answers:
            for place, row in _rows(answer):
                # JSON has no NaN and no infinity.
                numbers = [value if math.isfinite(value) else None for value in row.tolist()]
                label = {} if self._labels is None else {"label": best(row, self._labels)}
                self._file.write(json.dumps({**file, **place, **label, "y": numbers}) + "\n")
            self._file.flush()


class Table:
    """Lines for people; ``short`` shows the first and the last of many."""

    def __init__(self, file: TextIO, d_output: int, labels: Sequence[str] | None, *, short: bool):
        self._file, self._labels, self._short = file, labels, short
        self._columns = min(d_output, _COLUMNS_SHOWN) if short else d_output
        heads = [f"y{i}" for i in range(d_output)] if labels is None else list(labels)
        self._heads = heads[: self._columns]
        self._dots = ["..."] if self._columns < d_output else []
        self._header: list[str] = []

    def write(self, source: Source, answers: Iterator[Answers]) -> None:
        """Under a header, where it is another than that before."""
        lines = (line for answer in answers for line in self._lines(source, answer))
        if not self._short:
            for line in lines:
                self._file.write(line)
            return
        last: deque[str] = deque(maxlen=_ROWS_SHOWN)
        count = 0
        for count, line in enumerate(lines, 1):
            if count <= _ROWS_SHOWN:
                self._file.write(line)
            else:
                last.append(line)
        if (more := count - _ROWS_SHOWN - len(last)) > 0:
            self._file.write(f"... {more} more; --output FILE writes all\n")
        self._file.writelines(last)

    def _lines(self, source: Source, answer: Answers) -> Iterator[str]:
        running = answer.sample is not None
        names = [] if source.file is None else ["file"]
        if (source.sequences or 0) > 1 or (source.file is None and not running):
            names.append("sequence")
        names += ["sample"] if running else []
        label = [] if self._labels is None else ["label"]
        header = [*names, *label, *self._heads, *self._dots]
        if header != self._header:
            self._header = header
            self._file.write(_line(header))
        for place, row in _rows(answer):
            known = {"file": source.file, **place}
            label = [] if self._labels is None else [str(best(row, self._labels))]
            numbers = [f"{value:.6g}" for value in row[: self._columns]]
            yield _line([*(str(known[name]) for name in names), *label, *numbers, *self._dots])
        if not self._short:
            self._file.flush()


@contextmanager
def open_output(
    text: str | None,
    d_output: int,
    dtype: np.dtype[Any],
    labels: Sequence[str] | None,
    inputs: Sequence[str],
    *,
    as_json: bool,
) -> Iterator[Output]:
    """What ``--output`` names; the screen where it is None."""
    if text is None or text == STDOUT:
        yield Json(sys.stdout, labels) if as_json else Table(sys.stdout, d_output, labels, short=text is None)
        return
    path = Path(text)
    if path.is_dir() or text.endswith(os.sep):
        stems = [Path(name).stem for name in inputs]
        if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
            raise ValueError(f"--output: expected inputs of different names for {text}, found {', '.join(twice)} twice")
        yield Npy(path, d_output, dtype, folder=True)
        return
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--output: expected a file {', '.join(SUFFIXES)}, a folder or -, found {text}")
    if path.suffix == ".npy":
        if len(inputs) > 1:
            raise ValueError(
                f"--output: expected a folder, .jsonl or .txt for the answers to {len(inputs)} inputs, found {text}"
            )
        yield Npy(path, d_output, dtype, folder=False)
        return
    with replacing(path, keep_on=STOPPED) as file, open(file.fileno(), "w", encoding="utf-8", closefd=False) as lines:
        yield Json(lines, labels) if path.suffix == ".jsonl" else Table(lines, d_output, labels, short=False)


def best(row: Array, labels: Sequence[str]) -> str | None:
    """The label of the largest output; None where there is none."""
    return None if np.isnan(row).any() else labels[int(row.argmax())]


def _rows(answers: Answers) -> Iterator[tuple[dict[str, int], Array]]:
    for i, row in enumerate(answers.y):
        time = {} if answers.sample is None else {"sample": answers.sample + i}
        yield {"sequence": answers.sequence, **time}, row


def _line(cells: list[str]) -> str:
    return " ".join(f"{cell:>12}" for cell in cells) + "\n"
