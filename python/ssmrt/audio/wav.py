"""The header of RIFF/WAVE and RF64 (EBU Tech 3306), read forwards only, so that a pipe will do."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from ..errors import AudioError
from .encodings import ENCODINGS, Encoding

_PCM, _FLOAT, _A_LAW, _MU_LAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
# The bytes of an extensible format's identifier that follow the tag.
_GUID = bytes.fromhex("000000001000800000aa00389b71")
_NAMES = {2: "ADPCM", 0x11: "IMA ADPCM", 0x31: "GSM", 0x55: "MP3"}
_ENCODINGS = {
    (_PCM, 8): "u8",
    (_PCM, 16): "s16le",
    (_PCM, 24): "s24le",
    (_PCM, 32): "s32le",
    (_FLOAT, 32): "f32le",
    (_FLOAT, 64): "f64le",
    (_A_LAW, 8): "alaw",
    (_MU_LAW, 8): "mulaw",
}
_LONGEST_FORMAT = 1 << 16
_IN_DS64 = 0xFFFFFFFF
# A program that cannot go back to the header writes 0, 0xFFFFFFFF (ffmpeg), 0x7fffff00 (arecord) or 0x7ffff000 (sox).
_UNKNOWN_FROM = 0x7FFF0000

MAGIC = (b"RIFF", b"RF64", b"BW64")


class OtherEncoding(AudioError):
    """A wav file whose samples are compressed, or in any other form that is not read here."""


@dataclass(frozen=True)
class Header:
    """What stands before the samples; ``size`` is the number of their bytes, None where nobody knew it."""

    encoding: Encoding
    channels: int
    rate: int
    size: int | None

    @property
    def frame(self) -> int:
        """The bytes of one sample of every channel."""
        return self.encoding.size * self.channels


def read_header(file: BinaryIO, name: str, length: int | None) -> Header:
    """Read up to the first sample. ``length`` is the number of the file's bytes; None in a pipe.

    Raises `AudioError` where there is no wav header, a damaged one, or one that promises more than the file has.
    """
    start = file.read(12)
    if start[:4] not in MAGIC or start[8:] != b"WAVE":
        raise AudioError(f"{name}: expected a wav file, found {f'{start!r}' if start else 'an empty file'}")
    total, at = int.from_bytes(start[4:8], "little"), len(start)
    form: tuple[Encoding, int, int] | None = None
    long_size: int | None = None
    while len(head := file.read(8)) == 8:
        kind, size = head[:4], int.from_bytes(head[4:], "little")
        at += 8
        if kind == b"data":
            if form is None:
                raise AudioError(f"{name}: expected a chunk b'fmt ' before the samples, found none")
            if size == _IN_DS64 and long_size is not None:
                return Header(*form, _known(long_size, name, None if length is None else length - at))
            # A header that ends with this chunk, with samples behind it, was never filled in.
            if size == 0 and (length is None or total >= _UNKNOWN_FROM or total + 8 <= at):
                return Header(*form, None)
            if size >= _UNKNOWN_FROM and (length is None or size > length - at):
                return Header(*form, None)
            return Header(*form, _known(size, name, None if length is None else length - at))
        if length is not None and size > length - at:
            raise AudioError(f"{name}: truncated: chunk {kind!r} should have {size} bytes, found {length - at}")
        body = _pass(file, size + size % 2, keep=kind in (b"fmt ", b"ds64"))
        at += size + size % 2
        if kind == b"fmt ":
            form = _format(body[:size], name)
        elif kind == b"ds64" and size >= 16:
            long_size = int.from_bytes(body[8:16], "little")
    raise AudioError(f"{name}: truncated: expected a chunk b'data' with samples, found none")


def _known(size: int, name: str, left: int | None) -> int:
    if left is not None and size > left:
        raise AudioError(f"{name}: truncated: chunk b'data' should have {size} bytes, found {left}")
    return size


def _pass(file: BinaryIO, size: int, *, keep: bool) -> bytes:
    if keep:
        return file.read(min(size, _LONGEST_FORMAT))
    while size > 0 and (piece := file.read(min(size, 1 << 16))):
        size -= len(piece)
    return b""


def _format(body: bytes, name: str) -> tuple[Encoding, int, int]:
    """Encoding, channels and samples a second."""
    if len(body) < 16:
        raise AudioError(f"{name}: damaged: chunk b'fmt ' should have 16 bytes or more, found {len(body)}")
    tag, channels, rate, _, frame, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _EXTENSIBLE and body[26:40] == _GUID:
        tag = int.from_bytes(body[24:26], "little")
    if tag in (_PCM, _FLOAT, _A_LAW, _MU_LAW) and (tag, bits) not in _ENCODINGS:
        widths = [str(width) for known, width in _ENCODINGS if known == tag]
        raise AudioError(f"{name}: expected samples of {' or '.join(widths)} bits in format {tag}, found {bits}")
    if (tag, bits) not in _ENCODINGS:
        raise OtherEncoding(f"{name}: found samples in {_NAMES.get(tag, 'another form')} (format {tag})")
    encoding = ENCODINGS[_ENCODINGS[tag, bits]]
    if not channels or not rate or frame != encoding.size * channels:
        raise AudioError(
            f"{name}: damaged: found {channels} channels of {bits} bits in frames of {frame} bytes at {rate} Hz"
        )
    return encoding, channels, rate
