"""Mixing layers (`Linear`) in float32 or int8. Recurrences and states are always float32."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .builder import GraphBuilder

Array = NDArray[Any]
Range = tuple[float, float]


class Mixing(Protocol):
    """How weight x + bias is written."""

    def __call__(self, b: GraphBuilder, x: str, weight: Array, bias: Array | None, *, row: bool) -> str:
        """``row``: x is (batch, d_in), else (batch, samples, d_in)."""
        ...


def product(b: GraphBuilder, x: str, weight: str, bias: Array | None, *, row: bool) -> str:
    """One Gemm with ``weight`` (d_out, d_in) for a row; a MatMul with (d_in, d_out) otherwise."""
    inputs = [] if bias is None else [b.weight(bias, "bias")]
    if row:
        return b.op("Gemm", x, weight, *inputs, what="y", transB=1)
    y = b.op("MatMul", x, weight, what="product")
    return b.op("Add", y, *inputs, what="y") if inputs else y


@dataclass
class Float:
    """Weights as they are. ``inputs`` collects what enters the mixing layers, (name, width), for calibration."""

    inputs: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, b: GraphBuilder, x: str, weight: Array, bias: Array | None, *, row: bool) -> str:
        """See `Mixing`."""
        self.inputs.append((x, weight.shape[1]))
        return product(b, x, b.weight(weight if row else weight.T, "weight"), bias, row=row)


@dataclass
class Int8:
    """Weights in int8, one scale an output channel; with ``ranges`` (in order) inputs in int8 too, one scale each."""

    ranges: list[Range] | None = None
    count: int = 0

    def __call__(self, b: GraphBuilder, x: str, weight: Array, bias: Array | None, *, row: bool) -> str:
        """See `Mixing`."""
        if self.ranges is not None:
            x = self._activation(b, x, self.ranges[self.count])
        self.count += 1
        peak = np.abs(weight).max(1)
        scale = np.where(peak > 0, peak / 127.0, 1.0).astype(np.float32)
        levels = np.clip(np.rint(weight / scale[:, None]), -127, 127).astype(np.int8)
        name = b.op(
            "DequantizeLinear",
            b.int8(levels if row else levels.T, "weight_int8"),
            b.weight(scale, "weight_scale"),
            b.int8(np.zeros(len(scale)), "weight_zero"),
            what="weight",
            axis=0 if row else 1,
        )
        return product(b, x, name, bias, row=row)

    @staticmethod
    def _activation(b: GraphBuilder, x: str, span: Range) -> str:
        low, high = min(span[0], 0.0), max(span[1], 0.0)
        scale = (high - low) / 255.0 or 1.0
        zero = int(np.clip(np.rint(-128 - low / scale), -128, 127))
        constants = b.weight(np.asarray(scale), "x_scale"), b.int8(np.asarray(zero), "x_zero")
        levels = b.op("QuantizeLinear", x, *constants, what="x_int8")
        return b.op("DequantizeLinear", levels, *constants, what="x")


def signal_to_noise(reference: Array, found: Array) -> float:
    """10 log10 of the power of ``reference`` over that of the difference, in dB."""
    noise = float(np.mean(np.square(found - reference, dtype=np.float64)))
    signal = float(np.mean(np.square(reference, dtype=np.float64)))
    return float("inf") if noise == 0 else 10.0 * float(np.log10(signal / noise))
