"""The S6 cell of memax' models in Equinox and in linen: one real state a channel, driven by the channel's own input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Gate, Linear, Ssd

Array = NDArray[Any]


def recurrence(A: Array, B: Linear, C: Linear, dt: Linear, name: str) -> Gate:
    """The cell h = exp(dt A) h + (exp(dt A) - 1) / A B(x) x, y = C(x) h, all of it channel by channel.

    dt = softplus(dt(x)), and A is -exp(A_log). It is Mamba-2's recurrence with a zero-order hold, a head a channel:
    what it takes for x is B(x) x, and its own B and C are ones.
    """
    width = len(A)
    ones = np.array([1.0, 1.0], np.float32)
    gated = _widened(B, ones)
    plain = _widened(Linear(np.eye(width, dtype=np.float32)), ones)
    driven = Gate(gated, plain, name=f"{name}.B_x")
    core = Ssd(
        xBC=driven,
        dt=dt,
        A=A,
        dt_bias=np.zeros(width),
        D=np.zeros(width),
        d_state=1,
        groups=1,
        disc="zoh",
        name=name,
    )
    return Gate(C, core, name=f"{name}.y")


def _widened(linear: Linear, constants: Array) -> Linear:
    """``linear`` with further outputs that are always ``constants``."""
    weight = np.pad(linear.weight, ((0, len(constants)), (0, 0)))
    bias = np.zeros(len(linear.weight), weight.dtype) if linear.bias is None else linear.bias
    return Linear(weight, np.concatenate([bias, constants.astype(bias.dtype)]), name=linear.name)
