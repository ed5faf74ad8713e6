"""Sounds: every encoding is the same sound, from files and from pipes, and what is none is refused."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from ssmrt import audio
from ssmrt.audio.encodings import ENCODINGS, scaled
from ssmrt.errors import AudioError
from wav_files import rf64, wav


def sound(length: int = 100, channels: int = 1) -> NDArray[np.float64]:
    return np.random.default_rng(0).uniform(-1, 1, (length, channels))


def piped(data: bytes, most: int = 1 << 16) -> NDArray[Any]:
    """What a pipe with these bytes gives, in blocks of up to ``most`` samples."""
    found = audio.stream(io.BufferedReader(io.BytesIO(data)), "a pipe")
    return np.concatenate([*found.blocks(most), np.empty((0, found.channels))])


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("extensible", [False, True])
def test_every_width_is_the_same_sound(tmp_path: Path, bits: int, channels: int, extensible: bool) -> None:
    path = tmp_path / "a.wav"
    samples = sound(channels=channels)
    path.write_bytes(wav(samples, bits, 44100, extensible=extensible))
    found = audio.read(path)
    assert found.rate == 44100
    assert found.samples.shape == samples.shape
    assert found.samples.dtype == np.float32
    assert np.abs(found.samples - samples).max() <= 0.5 * 2.0 ** (1 - bits) + 2**-24 + (samples.max() > 1 - 2.0**-bits)
    np.testing.assert_allclose(found.mono(), found.samples.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_full_scale_is_one(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(np.array([-1.0, 0.0, 0.5]), bits))
    assert audio.read(path).samples[:, 0].tolist() == [-1.0, 0.0, 0.5]


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("bits", [32, 64])
def test_floats_are_as_they_stand(tmp_path: Path, bits: int, extensible: bool) -> None:
    path = tmp_path / "a.wav"
    samples = np.stack([3 * sound()[:, 0], np.full(100, np.nan)], 1).astype(f"f{bits // 8}")
    path.write_bytes(wav(samples, bits, tag=3, extensible=extensible))
    with audio.open_sound(path) as found:
        (block,) = found.blocks(1000)
    assert block.dtype == samples.dtype
    assert_array_equal(block, samples)


def test_the_widest_integers_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(np.array([1 + 2.0**-31]) / 2, 32))
    with audio.open_sound(path) as found:
        assert found.read(10).tolist() == [[0.5]]
    path.write_bytes(wav(np.array([0.5 + 2.0**-31]), 32))
    with audio.open_sound(path) as found:
        assert found.read(10).tolist() == [[0.5 + 2.0**-31]]


# ITU-T G.711's tables 1a and 2a, positive values at the ends of segments, in 16 bits of full scale.
A_LAW = {0xD5: 8, 0xD4: 24, 0xC5: 264, 0xF5: 528, 0xE5: 1056, 0xAA: 32256, 0x55: -8, 0x2A: -32256}
MU_LAW = {0xFF: 0, 0xFE: 8, 0xEF: 132, 0xDF: 396, 0x80: 32124, 0x7F: 0, 0x7E: -8, 0x00: -32124}


@pytest.mark.parametrize(("tag", "codes"), [(6, A_LAW), (7, MU_LAW)])
def test_the_logarithmic_laws_are_g711s(tmp_path: Path, tag: int, codes: dict[int, int]) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(np.zeros(len(codes)), 8, 8000, tag=tag, data=bytes(codes)))
    assert (audio.read(path).samples[:, 0] * 2**15).tolist() == list(codes.values())


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64"])
def test_it_reads_what_libsndfile_writes(tmp_path: Path, form: str, subtype: str) -> None:
    soundfile = pytest.importorskip("soundfile", reason="needs ssmrt[audio]")
    path = tmp_path / "a.wav"
    soundfile.write(path, sound(channels=2), 22050, subtype, format=form)
    found = audio.read(path)
    assert found.rate == 22050
    assert_array_equal(found.samples, soundfile.read(path, dtype="float32", always_2d=True)[0])


@pytest.mark.parametrize(("suffix", "subtype"), [("flac", "PCM_16"), ("aiff", "PCM_24"), ("wav", "IMA_ADPCM")])
def test_other_files_are_read_by_soundfile(tmp_path: Path, suffix: str, subtype: str) -> None:
    soundfile = pytest.importorskip("soundfile", reason="needs ssmrt[audio]")
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, sound(channels=2), 22050, subtype)
    expected = soundfile.read(path, dtype="float32")[0]
    with audio.open_sound(path) as found:
        assert (found.rate, found.channels, found.length) == (22050, 2, len(expected))
        blocks = list(found.blocks(33))
    assert max(map(len, blocks)) <= 33
    assert_array_equal(np.concatenate(blocks), expected)


@pytest.mark.parametrize("content", [b"fLaC", wav(sound(), tag=2)])
def test_without_soundfile_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    path = tmp_path / "a.flac"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"a\.flac: .*pip install soundfile"):
        audio.read(path)


def test_other_chunks_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    path.write_bytes(wav(sound(), before=odd) + odd)
    assert audio.read(path).samples.shape == (100, 1)


@pytest.mark.parametrize("magic", [b"RF64", b"BW64"])
def test_long_files_have_64_bit_sizes(tmp_path: Path, magic: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(rf64(sound(), magic=magic) + b"LIST" + bytes(4))
    assert_array_equal(audio.read(path).samples, piped(wav(sound())))
    path.write_bytes(rf64(sound(), size=1 << 40))
    with pytest.raises(AudioError, match="truncated: chunk b'data' should have 1099511627776 bytes, found 200"):
        audio.read(path)


# As ffmpeg, arecord, sox, and who leaves the header for later.
UNKNOWN = {
    "ffmpeg": wav(sound(), size=0xFFFFFFFF, total=0xFFFFFFFF),
    "arecord": wav(sound(), size=0x7FFFFF00, total=0x7FFFFF24),
    "sox": wav(sound(), size=0x7FFFF000, total=0x7FFFF024),
    "zeros": wav(sound(), size=0, total=0),
    "empty so far": wav(sound(), size=0, total=36),
    "one unknown": wav(sound(), size=0, total=0xFFFFFFFF),
}


@pytest.mark.parametrize("writer", UNKNOWN)
def test_unknown_length_is_all_there_is(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(UNKNOWN[writer])
    assert_array_equal(audio.read(path).samples, piped(wav(sound())))
    assert_array_equal(piped(UNKNOWN[writer]), piped(wav(sound())))
    # What is no whole sample is dropped, and said.
    path.write_bytes(UNKNOWN[writer] + b"x")
    with pytest.warns(UserWarning, match=r"a\.wav: ended within a sample: of its 2 bytes the last 1 came"):
        assert audio.read(path).samples.shape == (100, 1)


@given(st.integers(0, 30), st.integers(1, 12), st.sampled_from(sorted(ENCODINGS)), st.integers(1, 3))
def test_a_pipe_gives_every_whole_sample(length: int, most: int, encoding: str, channels: int) -> None:
    frame = ENCODINGS[encoding].size * channels
    data = np.random.default_rng(length).integers(0, 64, length, np.uint8).tobytes()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        pcm = audio.Pcm(io.BufferedReader(io.BytesIO(data)), ENCODINGS[encoding], channels, None, "a pipe")
        found = np.concatenate([*audio.blocks(pcm.read, most), np.empty((0, channels))])
    whole = length // frame * frame
    assert_array_equal(found, ENCODINGS[encoding].decode(data[:whole]).reshape(-1, channels))
    assert ["ended within a sample" in str(warning.message) for warning in said] == [True] * (length != whole)


@pytest.mark.parametrize("end", [0, 1, 7, 100])
def test_a_pipe_that_ends_early_says_so(end: int) -> None:
    whole = wav(sound())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = piped(whole[: 44 + end])
    early, *rest = (str(warning.message) for warning in said)
    assert f"a pipe: ended after {end // 2} of the 100 samples that its header promises" in early
    assert len(rest) == end % 2
    assert_array_equal(found, piped(whole)[: end // 2])


def test_a_pipe_is_read_as_it_comes() -> None:
    source, sink = os.pipe()
    with open(source, "rb") as end, open(sink, "wb", buffering=0) as writer:
        writer.write(wav(sound(), size=0xFFFFFFFF)[:44] + bytes(6))
        found = audio.stream(end, "a pipe")
        assert found.length is None
        # More samples than have come are asked for, and nobody writes any while they are.
        assert len(found.read(1000)) == 3
        threading.Timer(0.05, writer.write, [bytes(4)]).start()
        assert len(found.read(1000)) == 2


def test_a_named_pipe_is_a_file_of_unknown_length(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=[wav(sound())])
    writer.start()
    assert_array_equal(audio.read(path).samples, piped(wav(sound())))
    writer.join()


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4"])
def test_integers_have_full_scale_at_one(dtype: str) -> None:
    facts = np.iinfo(dtype)
    found = scaled(np.array([facts.min, facts.max], dtype))
    assert found[0] == -1
    assert found[1] == 1 - 2.0 ** (1 - facts.bits)


WHOLE = wav(sound())
BAD = {
    "empty": (b"", "an empty file"),
    "text": (b"no sound at all", "expected a wav file"),
    "adpcm": (wav(sound(), tag=2), "ADPCM"),
    "unknown": (wav(sound(), tag=0x1234), "format 4660"),
    "another guid": (wav(sound(), extensible=True).replace(b"\x80\0\0\xaa", b"\x80\0\0\xab"), "format 65534"),
    "short data": (WHOLE[:-10], "truncated"),
    "no data": (WHOLE[:36], "truncated"),
    "no samples": (wav(np.zeros(0)), "truncated"),
    "no samples but more": (wav(np.zeros(0), total=44) + b"LIST" + bytes(4), "found none"),
    "no format": (WHOLE[:12] + WHOLE[36:], "b'fmt '"),
    "short format": (WHOLE[:30], "truncated"),
    "tiny format": (WHOLE[:12] + b"fmt " + struct.pack("<I", 2) + b"\1\0", "damaged"),
    "12 bits": (WHOLE[:34] + struct.pack("<H", 12) + WHOLE[36:], "8 or 16 or 24 or 32 bits"),
    "16 bits of float": (wav(sound(), 16, tag=3), "32 or 64 bits"),
    "no channels": (WHOLE[:22] + struct.pack("<H", 0) + WHOLE[24:], "damaged"),
    "no rate": (WHOLE[:24] + struct.pack("<I", 0) + WHOLE[28:], "damaged"),
    "half a frame": (wav(sound(), size=199)[:-1], "whole frames"),
    "a format of gigabytes": (WHOLE[:16] + struct.pack("<I", 0xFFFFFFF0) + WHOLE[20:], "truncated"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_sound_is_refused(tmp_path: Path, case: str) -> None:
    data, says = BAD[case]
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"a\.wav") as error:
        audio.read(path)
    assert says in str(error.value)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    for end in range(len(WHOLE)):
        path.write_bytes(WHOLE[:end])
        with pytest.raises(AudioError):
            audio.read(path)


@given(st.data())
def test_a_damaged_header_is_read_or_refused(data: st.DataObject) -> None:
    header = bytearray(rf64(sound(4)))
    for at in data.draw(st.lists(st.integers(0, 79), max_size=4)):
        header[at] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with contextlib.suppress(AudioError):
            assert piped(bytes(header)).ndim == 2
