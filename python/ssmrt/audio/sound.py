"""A sound as blocks of samples, from a file or from a pipe."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError
from .encodings import Encoding, Samples
from .wav import MAGIC, OtherEncoding, read_header

_BLOCK = 1 << 16
_INSTALL = "other sound files need soundfile: pip install soundfile"

Read = Callable[[int], Samples]


@dataclass(frozen=True)
class Sound:
    """A sound while it is read: ``rate`` samples a second, ``length`` samples (None: who wrote it did not know).

    ``read(most)`` gives the next samples (n, channels), as many as have come, one at least; none at the end.
    """

    name: str
    rate: int
    channels: int
    length: int | None
    read: Read

    def blocks(self, size: int) -> Iterator[Samples]:
        """What is left of it, (n, channels) with n up to ``size``."""
        return blocks(self.read, size)


def blocks(read: Read, size: int) -> Iterator[Samples]:
    """What ``read`` has left, (n, channels) with n up to ``size``."""
    while len(block := read(size)):
        yield block


@dataclass(frozen=True)
class Recording:
    """A whole sound. ``samples`` (length, channels) float32 with full scale at 1; ``rate`` samples a second."""

    samples: NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        """Its duration."""
        return len(self.samples) / self.rate

    def mono(self) -> NDArray[np.float32]:
        """The mean of the channels (length,)."""
        return np.ascontiguousarray(self.samples.mean(axis=1, dtype=np.float32))


def read(path: str | os.PathLike[str]) -> Recording:
    """A whole sound file. Raises as `open_sound`."""
    with open_sound(path) as sound:
        parts = [block.astype(np.float32) for block in sound.blocks(_BLOCK)]
        if not parts:
            raise AudioError(f"{sound.name}: truncated: expected samples, found none")
        return Recording(np.concatenate(parts), sound.rate)


@contextmanager
def open_sound(path: str | os.PathLike[str]) -> Iterator[Sound]:
    """A sound file of any rate and number of channels, closed at the end.

    Wav and RF64 with PCM of 8 to 32 bits, floats, A-law or mu-law are read here, anything else by soundfile.
    Raises `AudioError` where it is no sound, is damaged or truncated, or soundfile is needed and not installed.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        sound, why = None, f"{name}: an empty file"
        if file.peek(4)[:4] in MAGIC:
            try:
                sound = _wav(file, name, os.fstat(file.fileno()).st_size if file.seekable() else None)
            except OtherEncoding as error:
                why = str(error)
        elif start := file.read(12):
            why = f"{name}: expected a wav file, found {start!r}"
        if sound is not None:
            yield sound
            return
    with _by_soundfile(name, why) as sound:
        yield sound


def stream(file: BinaryIO, name: str) -> Sound:
    """A sound from a pipe that starts with a wav header, read as it comes.

    Where it ends before its header says, or within a sample, a warning says so, and the sound ends there.
    """
    return _wav(file, name, None)


def _wav(file: BinaryIO, name: str, bytes_of_file: int | None) -> Sound:
    header = read_header(file, name, bytes_of_file)
    if bytes_of_file is not None and (header.size or 0) % header.frame:
        raise AudioError(
            f"{name}: truncated: expected samples in whole frames of {header.frame} bytes, found {header.size} bytes"
        )
    length = None if header.size is None else header.size // header.frame
    pcm = Pcm(file, header.encoding, header.channels, header.size, name)
    return Sound(name, header.rate, header.channels, length, pcm.read)


class Pcm:
    """Samples without a header, from where the file stands: ``size`` bytes of them, or all there are.

    What is less than a sample at the end is dropped, and a warning says so.
    """

    def __init__(self, file: Any, encoding: Encoding, channels: int, size: int | None, name: str):
        self._file, self._encoding, self._channels, self._name = file, encoding, channels, name
        self._left, self._size = size, size
        self._rest = b""

    def read(self, most: int) -> Samples:
        """As `Sound` has it."""
        frame = self._encoding.size * self._channels
        data = self._rest
        while len(data) < frame:
            wanted = most * frame - len(data)
            more = self._file.read1(wanted if self._left is None else min(wanted, self._left))
            if not more:
                self._ended(data, frame)
                return np.empty((0, self._channels), np.float32)
            self._left = None if self._left is None else self._left - len(more)
            data += more
        whole = len(data) // frame * frame
        self._rest = data[whole:]
        return self._encoding.decode(data[:whole]).reshape(-1, self._channels)

    def _ended(self, rest: bytes, frame: int) -> None:
        if self._left:
            met = (self._size or 0) - self._left
            warnings.warn(
                f"{self._name}: ended after {met // frame} of the {(self._size or 0) // frame} samples that its header"
                " promises",
                UserWarning,
                stacklevel=4,
            )
        if rest:
            warnings.warn(
                f"{self._name}: ended within a sample: of its {frame} bytes the last {len(rest)} came, and are dropped",
                UserWarning,
                stacklevel=4,
            )
        self._rest, self._left = b"", 0


@contextmanager
def _by_soundfile(name: str, why: str) -> Iterator[Sound]:
    try:
        import soundfile  # type: ignore[import-untyped]
    except (ImportError, OSError):
        # OSError: the library behind it is missing.
        raise AudioError(f"{why}; {_INSTALL}") from None
    try:
        file = soundfile.SoundFile(name)
    except (soundfile.SoundFileError, TypeError, ValueError) as error:
        raise AudioError(f"{why}; soundfile says: {error}") from None
    dtype = "float64" if file.subtype in ("PCM_32", "DOUBLE") else "float32"

    def read(most: int) -> Samples:
        try:
            found: Samples = file.read(most, dtype=dtype, always_2d=True)
        except soundfile.SoundFileError as error:
            raise AudioError(f"{name}: damaged; soundfile says: {error}") from None
        return found

    with file:
        yield Sound(name, file.samplerate, file.channels, file.frames or None, read)
