"""What a model is to hear, part by part: sounds, arrays, tables, and what comes through a pipe."""

from __future__ import annotations

import argparse
import csv
import sys
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import audio
from ..errors import AudioError
from ..model import Model

Array = NDArray[Any]
Item = TypeVar("Item")

# Numbers of input or output, whichever are more, that are in memory at once.
_NUMBERS = 1 << 18
_MOST_SAMPLES = 1 << 15
_SEPARATORS = "\t;,"
_PCM = ("uint8", "int8", "int16", "int32")
# What NumPy raises where bytes are no array of its formats, and zipfile where they are no archive.
_NO_ARRAY = (
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
STDIN = "-"


@dataclass(frozen=True)
class Input:
    """One input: ``rate`` samples a second and ``length`` samples, None where nobody says.

    ``groups`` are sequences side by side, one group after the other, and a group is their samples block by block:
    (sequences, n, d_input), or tokens (sequences, n). ``sequences`` is how many there are in all, and None for one
    sequence without a batch axis.
    """

    name: str
    groups: Iterator[Iterator[Array]]
    rate: float | None = None
    length: int | None = None
    sequences: int | None = None


HELP = "a sound (.wav, with soundfile .flac and others), .npy, .npz, .csv or .parquet; - for a sound from stdin"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what says how inputs are read."""
    parser.add_argument("--mono", action="store_true", help="hear the mean of the channels")
    parser.add_argument(
        "--raw",
        metavar="ENCODING[,HZ[,CHANNELS]]",
        help="the INPUT is raw samples without a header, of so many a second, by default in as many channels as the"
        f" model takes; ENCODING is one of {', '.join(audio.ENCODINGS)}",
    )
    parser.add_argument(
        "--select", metavar="NAMES", help="which array of an .npz, or which columns of a .csv or .parquet"
    )


@contextmanager
def open_input(text: str, model: Model, arguments: argparse.Namespace) -> Iterator[Input]:
    """The input of that name, closed at the end."""
    kind = Path(text).suffix.lower()
    wanted = _Wanted(text, model, arguments.mono)
    selected: list[str] | None = arguments.select.split(",") if arguments.select is not None else None
    if selected is not None and kind not in (".npz", ".csv", ".parquet"):
        raise ValueError(f"--select: expected an .npz, .csv or .parquet file to select from, found {text}")
    if arguments.raw is not None:
        with _opened(text) as file:
            encoding, rate, channels = _raw(arguments.raw, model.d_input)
            pcm = audio.Pcm(file, audio.ENCODINGS[encoding], channels, None, wanted.name)
            yield wanted.sound(pcm.read, rate)
    elif text == STDIN:
        with _opened(text) as file:
            try:
                sound = audio.stream(file, wanted.name)
            except AudioError as error:
                raise AudioError(f"{error}; samples without a wav header need --raw ENCODING") from None
            yield wanted.sound(sound.read, sound.rate, sound.length)
    elif kind in (".npy", ".npz"):
        yield wanted.array(_npy(text) if kind == ".npy" else _npz(text, selected))
    elif kind in (".csv", ".parquet"):
        table = _csv if kind == ".csv" else _parquet
        yield wanted.sequence(table(text, selected, wanted.samples, model.document.tokens))
    else:
        with audio.open_sound(text) as sound:
            yield wanted.sound(sound.read, sound.rate, sound.length)


class _Wanted:
    """Checks what an input holds against what the model takes."""

    def __init__(self, text: str, model: Model, mono: bool):
        self.name = "stdin" if text == STDIN else text
        self._tokens = model.document.tokens
        self._width = model.d_input
        self._mono = mono
        self.samples = max(1, min(_MOST_SAMPLES, _NUMBERS // max(model.d_input, model.d_output)))
        self._said = False
        if mono and (self._tokens or self._width != 1):
            takes = "tokens" if self._tokens else f"{self._width} channels"
            raise ValueError(f"--mono: expected a model that takes one channel, found one that takes {takes}")

    def sound(self, read: audio.Read, rate: float | None, length: int | None = None) -> Input:
        if self._tokens:
            raise ValueError(f"{self.name}: the model takes tokens, integers in a .npy file, found a sound")
        return self.sequence(audio.blocks(read, self.samples), rate, length)

    def sequence(self, blocks: Iterator[Array], rate: float | None = None, length: int | None = None) -> Input:
        """One sequence in blocks (n, channels)."""
        group = self._some(self._numbers(block)[None] for block in blocks)
        return Input(self.name, iter([group]), rate, length)

    def array(self, load: Callable[[], Array]) -> Input:
        """One sequence or a batch of them; ``load`` is asked anew for each part, so that a mapped file may go."""
        shape = load().shape
        one, many = (1, 2) if self._tokens else (2, 3)
        flat = len(shape) == 1 and not self._tokens and self._width == 1
        if len(shape) not in (one, many) and not flat:
            widths = "" if self._tokens else f", {self._width}"
            alone = "(length,)" if self._tokens else f"(length{widths})"
            raise ValueError(f"{self.name}: expected shape {alone} or (batch, length{widths}), found {shape}")
        if len(shape) < many:
            blocks = (load()[at : at + self.samples] for at in range(0, shape[0], self.samples))
            if flat:
                blocks = (block[:, None] for block in blocks)
            return self.sequence(blocks, length=shape[0])
        several = max(1, self.samples // max(shape[1], 1))
        starts = range(0, shape[0] if shape[1] else 0, several)
        groups = self._some(iter([self._numbers(load()[at : at + several])]) for at in starts)
        return Input(self.name, groups, None, shape[0] * shape[1], shape[0])

    def _some(self, items: Iterator[Item]) -> Iterator[Item]:
        item = None
        for item in items:
            yield item
        if item is None:
            raise ValueError(f"{self.name}: expected samples, found none")

    def _numbers(self, u: Array) -> Array:
        """Samples as the model takes them: PCM's integers with full scale at 1, of as many channels."""
        if self._tokens:
            if u.dtype.kind not in "iu":
                raise TypeError(f"{self.name}: expected integer tokens, found dtype {u.dtype}")
            return np.array(u)
        if u.dtype.kind != "f":
            if u.dtype.name not in _PCM:
                raise TypeError(f"{self.name}: expected floats, or PCM in {', '.join(_PCM)}, found dtype {u.dtype}")
            if not self._said:
                self._said = True
                warnings.warn(
                    f"{self.name}: {u.dtype.name} is taken as PCM, with full scale at 1", UserWarning, stacklevel=2
                )
            u = audio.scaled(np.asarray(u))
        if self._mono:
            return np.asarray(u.mean(axis=-1, keepdims=True))
        if u.shape[-1] != self._width:
            hint = "; --mono takes their mean" if self._width == 1 else ""
            raise ValueError(f"{self.name}: expected {self._width} channels, found {u.shape[-1]}{hint}")
        return np.array(u)


@contextmanager
def _opened(text: str) -> Iterator[Any]:
    if text == STDIN:
        yield sys.stdin.buffer
        return
    with open(text, "rb") as file:
        yield file


def _raw(text: str, d_input: int) -> tuple[str, float | None, int]:
    """Encoding, samples a second and channels."""
    encoding, *rest = text.split(",")
    try:
        rate = float(rest[0]) if rest else None
        channels = int(rest[1]) if rest[1:] else d_input
        if encoding not in audio.ENCODINGS or rest[2:] or channels < 1 or (rate is not None and not 0 < rate < np.inf):
            raise ValueError
    except ValueError:
        raise ValueError(
            f"--raw: expected ENCODING[,HZ[,CHANNELS]] with one of {', '.join(audio.ENCODINGS)}, found {text!r}"
        ) from None
    return encoding, rate, channels


def _npy(text: str) -> Callable[[], Array]:
    def load() -> Array:
        try:
            found: Array = np.load(text, mmap_mode="r", allow_pickle=False)
        except _NO_ARRAY as error:
            raise ValueError(f"{text}: expected an array of numbers, found none: {error}") from None
        return found

    return load


def _npz(text: str, selected: list[str] | None) -> Callable[[], Array]:
    with open(text, "rb") as file:
        try:
            arrays = np.lib.npyio.NpzFile(file, allow_pickle=False)
            names = arrays.files if selected is None else selected
            if len(names) == 1 and arrays.files.count(names[0]) == 1:
                array: Any = arrays[names[0]]
                if isinstance(array, np.ndarray):
                    return lambda: array
                raise ValueError(f"found {array[:16]!r}")
            known = ", ".join(arrays.files)
        except (*_NO_ARRAY, OSError) as error:
            raise ValueError(f"{text}: expected arrays of numbers: {error}") from None
    raise ValueError(f"{text}: expected --select with one of its arrays: {known}; found {', '.join(names)}")


def _csv(text: str, selected: list[str] | None, samples: int, tokens: bool) -> Iterator[Array]:
    """Rows of numbers, one sample each; the first may name the columns."""
    with open(text, newline="", encoding="utf-8-sig") as file:
        start = file.readline()
        separator = next((mark for mark in _SEPARATORS if mark in start), ",")
        file.seek(0)
        rows = csv.reader(file, delimiter=separator)
        number = int if tokens else float
        names: list[str] | None = None
        block: list[list[float]] = []
        for cells in rows:
            if not cells:
                continue
            if rows.line_num == 1 and not _is_numbers(cells):
                names = [cell.strip() for cell in cells]
                continue
            kept = cells
            if selected is not None:
                known = [str(i) for i in range(len(cells))] if names is None else names[: len(cells)]
                try:
                    kept = [cells[place] for place in _places(selected, known)]
                except ValueError as error:
                    raise ValueError(f"{text}: line {rows.line_num}: {error}") from None
            if tokens and len(kept) != 1:
                raise ValueError(f"{text}: expected one column of tokens, found {len(kept)}; --select takes one")
            try:
                block.append([number(cell) for cell in kept])
            except ValueError as error:
                raise ValueError(f"{text}: line {rows.line_num}: expected numbers, found {kept}: {error}") from None
            if len(block[-1]) != len(block[0]):
                raise ValueError(
                    f"{text}: line {rows.line_num}: expected {len(block[0])} columns, found {len(block[-1])}"
                )
            if len(block) == samples:
                yield _rows(block, tokens)
                block = []
        if block:
            yield _rows(block, tokens)


def _rows(block: list[list[float]], tokens: bool) -> Array:
    return np.array(block, np.int64)[:, 0] if tokens else np.array(block, np.float64)


def _is_numbers(cells: list[str]) -> bool:
    try:
        return bool([float(cell) for cell in cells])
    except ValueError:
        return False


def _places(selected: list[str], known: list[str]) -> list[int]:
    """Where the selected names stand among those known, of which each must stand once."""
    if unknown := [name for name in selected if name not in known]:
        raise ValueError(f"expected columns of {', '.join(known)}, found --select {', '.join(unknown)}")
    if several := [name for name in selected if known.count(name) > 1]:
        raise ValueError(f"--select: expected names of one column each, found several columns named {several[0]!r}")
    return [known.index(name) for name in selected]


def _parquet(text: str, selected: list[str] | None, samples: int, tokens: bool) -> Iterator[Array]:
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise ImportError("this needs pyarrow: pip install pyarrow") from None
    with open(text, "rb") as file:
        try:
            table = parquet.ParquetFile(file)
            if selected is not None:
                _places(selected, table.schema_arrow.names)
            for batch in table.iter_batches(samples, columns=selected):
                read = batch.schema.names
                places = range(len(read)) if selected is None else _places(selected, read)
                columns = [batch.column(place).to_numpy(zero_copy_only=False) for place in places]
                if tokens and len(columns) != 1:
                    raise ValueError(f"found {len(columns)} columns where one has tokens; --select takes one")
                yield columns[0] if tokens else np.stack(columns, axis=1)
        except (ArrowException, OSError, ValueError) as error:
            raise ValueError(f"{text}: expected a table of numbers: {error}") from None
