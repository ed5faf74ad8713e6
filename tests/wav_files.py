"""Wav files, good and bad, as tests need them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

PCM_GUID = struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")


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
    before: bytes = b"",
    size: int | None = None,
) -> bytes:
    """A wav file; ``size`` is what the data chunk says of its own, ``before`` stands before it."""
    samples = samples[:, None] if samples.ndim == 1 else samples
    data = pcm(samples, bits)
    channels = samples.shape[1]
    frame = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, bits)
    if tag == 0xFFFE:
        fmt += struct.pack("<HHI", 22, bits, 0) + PCM_GUID
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + before
    chunks += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
