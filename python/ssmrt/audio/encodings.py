"""How samples stand in bytes: linear PCM, floats, and the logarithmic PCM of ITU-T G.711."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# (length, channels), full scale at 1; float64 where float32 would lose digits.
Samples = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class Encoding:
    """``decode`` makes numbers of bytes that are whole samples of ``size`` bytes."""

    size: int
    decode: Callable[[bytes], Samples]


def scaled(values: NDArray[Any]) -> Samples:
    """PCM's integers, int8, int16 or int32 or unsigned 8 bits around 128, with full scale at 1."""
    bits = 8 * values.dtype.itemsize
    zero = 128 if values.dtype.kind == "u" else 0
    found: Samples = (values.astype(np.float64 if bits == 32 else np.float32) - zero) / 2 ** (bits - 1)
    return found


def _integers(dtype: str) -> Encoding:
    return Encoding(np.dtype(dtype).itemsize, lambda data: scaled(np.frombuffer(data, dtype)))


def _floats(dtype: str) -> Encoding:
    # Of the machine's own byte order, as the engine takes them.
    native = np.dtype(dtype).newbyteorder("=")
    return Encoding(native.itemsize, lambda data: np.frombuffer(data, dtype).astype(native))


def _three_bytes(data: bytes) -> Samples:
    # They become the upper ones of four; 24 bits are exact in float32.
    wide = np.zeros((len(data) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
    return scaled(wide.reshape(-1).view("<i4")).astype(np.float32)


def _table(values: NDArray[Any]) -> Encoding:
    table = (values / 2.0**15).astype(np.float32)
    return Encoding(1, lambda data: table[np.frombuffer(data, np.uint8)])


def _mu_law() -> NDArray[Any]:
    """G.711, table 2: sign, exponent and mantissa, all bits inverted, of a magnitude with 132 added."""
    code = ~np.arange(256) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 132 << (code >> 4 & 7)) - 132
    return np.where(code & 0x80, -magnitude, magnitude)


def _a_law() -> NDArray[Any]:
    """G.711, table 1: as mu-law, but every other bit inverted, and the lowest exponent is linear."""
    code = np.arange(256) ^ 0x55
    exponent, mantissa = code >> 4 & 7, (code & 0x0F) << 4
    magnitude = np.where(exponent == 0, mantissa + 8, mantissa + 264 << np.maximum(exponent - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude)


ENCODINGS: dict[str, Encoding] = {
    "u8": _integers("u1"),
    "s8": _integers("i1"),
    "s16le": _integers("<i2"),
    "s24le": Encoding(3, _three_bytes),
    "s32le": _integers("<i4"),
    "f32le": _floats("<f4"),
    "f64le": _floats("<f8"),
    "alaw": _table(_a_law()),
    "mulaw": _table(_mu_law()),
}
