"""Sound files: PCM in RIFF/WAVE, read with nothing but NumPy."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import AudioError

_PCM, _EXTENSIBLE = 0x0001, 0xFFFE
_FORMATS = {2: "ADPCM", 3: "IEEE float", 6: "A-law", 7: "mu-law", 0x11: "IMA ADPCM", 0x55: "MP3"}
# What a program writes that does not know the length yet, as ffmpeg into a pipe.
_UNKNOWN_SIZE = 0xFFFFFFFF


@dataclass(frozen=True)
class Recording:
    """Sound. ``samples`` (length, channels) float32 with full scale at 1; ``rate`` samples a second."""

    samples: NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        """Its duration."""
        return len(self.samples) / self.rate

    def mono(self) -> NDArray[np.float32]:
        """The mean of the channels (length,)."""
        return np.ascontiguousarray(self.samples.mean(axis=1, dtype=np.float32))


@dataclass(frozen=True)
class _Format:
    channels: int
    rate: int
    bits: int

    @property
    def frame(self) -> int:
        return self.channels * self.bits // 8


def read_wav(path: str | os.PathLike[str]) -> Recording:
    """A wav file with PCM samples of 8, 16, 24 or 32 bits, any rate and number of channels.

    Raises `AudioError` where the file is no wav, is truncated, or holds samples of another kind.
    """
    name = os.fspath(path)
    data = Path(path).read_bytes()
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise AudioError(f"{name}: expected a wav file, found {f'{data[:12]!r}' if data else 'an empty file'}")
    wave: _Format | None = None
    at = 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + size]
        if kind == b"data" and size == _UNKNOWN_SIZE and wave is not None:
            body = body[: len(body) // wave.frame * wave.frame]
        elif len(body) < size:
            raise AudioError(f"{name}: truncated: chunk {kind!r} should have {size} bytes, found {len(body)}")
        if kind == b"fmt ":
            wave = _format(body, name)
        elif kind == b"data":
            if wave is None:
                raise AudioError(f"{name}: expected a chunk b'fmt ' before the samples, found none")
            return Recording(_samples(body, wave, name), wave.rate)
        at += 8 + size + size % 2
    raise AudioError(f"{name}: truncated: expected a chunk b'data' with samples, found none")


def _format(body: bytes, name: str) -> _Format:
    if len(body) < 16:
        raise AudioError(f"{name}: damaged: chunk b'fmt ' should have 16 bytes or more, found {len(body)}")
    tag, channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and len(body) >= 26:
        tag = int.from_bytes(body[24:26], "little")
    if tag != _PCM:
        raise AudioError(
            f"{name}: expected PCM samples, found {_FORMATS.get(tag, 'others')} (format {tag});"
            " convert it first: ffmpeg -i in.wav -c:a pcm_s16le out.wav"
        )
    if bits not in (8, 16, 24, 32):
        raise AudioError(f"{name}: expected samples of 8, 16, 24 or 32 bits, found {bits}")
    found = _Format(channels, rate, bits)
    if not channels or not rate or frame != found.frame:
        raise AudioError(
            f"{name}: damaged: found {channels} channels of {bits} bits in frames of {frame} bytes at {rate} Hz"
        )
    return found


def _samples(body: bytes, wave: _Format, name: str) -> NDArray[np.float32]:
    if not body or len(body) % wave.frame:
        raise AudioError(
            f"{name}: truncated: expected samples in whole frames of {wave.frame} bytes, found {len(body)} bytes"
        )
    if wave.bits == 8:
        values = np.frombuffer(body, np.uint8).astype(np.float64) - 128
    elif wave.bits == 24:
        # The three bytes become the upper ones of four.
        wide = np.zeros((len(body) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(body, np.uint8).reshape(-1, 3)
        values = wide.reshape(-1).view("<i4").astype(np.float64) / 256
    else:
        values = np.frombuffer(body, f"<i{wave.bits // 8}").astype(np.float64)
    return (values / 2.0 ** (wave.bits - 1)).astype(np.float32).reshape(-1, wave.channels)
