"""Wav files, good and bad, as tests need them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

GUID = bytes.fromhex("000000001000800000aa00389b71")


def pcm(samples: NDArray[Any], bits: int) -> bytes:
    """(length, channels) with full scale at 1, as PCM."""
    full = 2 ** (bits - 1)
    whole = np.clip(np.rint(samples * full), -full, full - 1).astype(np.int64)
    if bits == 8:
        return bytes((whole + 128).astype(np.uint8))
    raw = whole.astype("<i8").reshape(-1, 1).view(np.uint8)
    return bytes(np.ascontiguousarray(raw.reshape(-1, 8)[:, : bits // 8]))


def wav(
    samples: NDArray[Any],
    bits: int = 16,
    rate: int = 16000,
    *,
    tag: int = 1,
    data: bytes | None = None,
    extensible: bool = False,
    before: bytes = b"",
    size: int | None = None,
    total: int | None = None,
) -> bytes:
    """A wav file; ``size`` is what the data chunk says of its own, ``total`` the file; ``before`` stands before it.

    Floats where ``tag`` is 3, or ``data``, bytes that are encoded already.
    """
    samples = samples[:, None] if samples.ndim == 1 else samples
    if data is None:
        data = samples.astype(f"<f{bits // 8}").tobytes() if tag == 3 else pcm(samples, bits)
    channels = samples.shape[1]
    frame = channels * bits // 8
    fmt = struct.pack("<HHIIHH", 0xFFFE if extensible else tag, channels, rate, rate * frame, frame, bits)
    if extensible:
        fmt += struct.pack("<HHIH", 22, bits, 0, tag) + GUID
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + before
    chunks += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks) if total is None else total) + b"WAVE" + chunks


def rf64(samples: NDArray[Any], *, magic: bytes = b"RF64", size: int | None = None) -> bytes:
    """The same with 64-bit sizes (EBU Tech 3306)."""
    whole = wav(samples, size=0xFFFFFFFF)
    length = 2 * samples.size if size is None else size
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, len(whole) + 28, length, len(samples), 0)
    return magic + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + ds64 + whole[12:]
