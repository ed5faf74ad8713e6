"""Wav files: every PCM format is the same sound, and what is none is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from ssmrt.audio import read_wav
from ssmrt.errors import AudioError
from wav_files import wav


def sound(length: int = 100, channels: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(0).uniform(-1, 1, (length, channels))


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("tag", [1, 0xFFFE])
def test_every_width_is_the_same_sound(tmp_path: Path, bits: int, channels: int, tag: int) -> None:
    path = tmp_path / "a.wav"
    samples = sound(channels=channels)
    path.write_bytes(wav(samples, bits, 44100, tag=tag))
    found = read_wav(path)
    assert found.rate == 44100
    assert found.samples.shape == samples.shape
    assert found.samples.dtype == np.float32
    assert np.abs(found.samples - samples).max() <= 0.5 * 2.0 ** (1 - bits) + 2**-24 + (samples.max() > 1 - 2.0**-bits)
    np.testing.assert_allclose(found.mono(), found.samples.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_full_scale_is_one(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(np.array([-1.0, 0.0, 0.5]), bits))
    assert read_wav(path).samples[:, 0].tolist() == [-1.0, 0.0, 0.5]


def test_other_chunks_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    path.write_bytes(wav(sound(), before=odd))
    assert read_wav(path).samples.shape == (100, 1)


def test_unknown_length_is_all_there_is(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(sound(), size=0xFFFFFFFF) + b"x")
    assert read_wav(path).samples.shape == (100, 1)


WHOLE = wav(sound())
BAD = {
    "empty": (b"", "an empty file"),
    "text": (b"no sound at all", "expected a wav file"),
    "float": (wav(sound(), 32, tag=3), "IEEE float"),
    "mulaw": (wav(sound(), 8, tag=7), "mu-law"),
    "adpcm": (wav(sound(), tag=2), "ADPCM"),
    "unknown": (wav(sound(), tag=0x1234), "format 4660"),
    "short data": (WHOLE[:-10], "truncated"),
    "no data": (WHOLE[:36], "truncated"),
    "no samples": (wav(np.zeros(0)), "truncated"),
    "no format": (WHOLE[:12] + WHOLE[36:], "b'fmt '"),
    "short format": (WHOLE[:30], "truncated"),
    "tiny format": (WHOLE[:12] + b"fmt " + struct.pack("<I", 2) + b"\1\0", "damaged"),
    "12 bits": (WHOLE[:34] + struct.pack("<H", 12) + WHOLE[36:], "8, 16, 24 or 32 bits"),
    "no channels": (WHOLE[:22] + struct.pack("<H", 0) + WHOLE[24:], "damaged"),
    "no rate": (WHOLE[:24] + struct.pack("<I", 0) + WHOLE[28:], "damaged"),
    "half a frame": (wav(sound(), size=199)[:-1], "whole frames"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_pcm_wav_is_refused(tmp_path: Path, case: str) -> None:
    data, says = BAD[case]
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"a\.wav") as error:
        read_wav(path)
    assert says in str(error.value)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    for end in range(len(WHOLE)):
        path.write_bytes(WHOLE[:end])
        with pytest.raises(AudioError):
            read_wav(path)
