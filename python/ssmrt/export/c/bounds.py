"""What bounds the states of real sections of second order, and what their fixed point leaves out.

A section of pole p: x1' = x1 + u + c x1 - r x2, x2' = x2 + x1', with x2 in units of 2^k.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_MOST_HALVINGS = 20

# What a state may exceed the calibration data by before it saturates, where its bound is beyond that.
HEADROOM_OF_STATES = 4.0

# Samples over which responses are summed as they are; what comes after is taken to fade as the slowest mode does.
SUMMED = 4096


def _total(partial: Array, late: Array, radius: Array) -> Array:
    """The sum over all time, of the sum so far, that of its second half and how much a sample leaves of it."""
    fade = radius ** (SUMMED // 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = np.where(late > 0, late * fade / (1 - fade), 0.0)
    return np.where(radius < 1, partial + rest, np.inf)


def most(p: Array, k: Array) -> Array:
    """Of each section (..., N) of pole p: over time, the sum of its states' moduli after an impulse, the greater."""
    power, x2 = np.array(p), np.ones(p.shape)
    sums = late = np.abs([x2, x2 * 2.0**-k])
    for t in range(1, SUMMED):
        # x2 answers with the sum of p^i conj(p)^(t-i), x1 with its increments.
        following = (p.conj() * x2 + power).real
        power = power * p
        sizes = np.abs([following - x2, following * 2.0**-k])
        sums = sums + sizes
        late = sizes if t == SUMMED // 2 else late + sizes
        x2 = following
    return np.asarray(_total(sums, late, np.abs(p)).max(0))


def halvings(turn: Array) -> Array:
    """The least e with 2^e `turn` >= 1, of a section's |p - 1| (0 .. 2).

    With x2 in units of 2^e both states are alike, x1 the greater, and so are c 2^e and r 4^e, to what 16 bits hold.
    """
    return np.asarray(np.clip(np.floor(-np.log2(np.maximum(turn, 1e-9))) + 1, 0, _MOST_HALVINGS).astype(int))


def peaks(a1: Array, minus: Array, u: Array) -> Array:
    """Of each channel the greatest that u (samples, H) makes of its modes' states."""
    sign = np.where(minus, -1.0, 1.0)
    p = sign * (1 + a1)
    c, r = np.abs(p) ** 2 - 1, np.abs(p - 1) ** 2
    half = 2.0 ** -halvings(np.abs(p - 1))
    x1, x2, peak = np.zeros(p.shape), np.zeros(p.shape), np.zeros(p.shape)
    for sample in u:
        x1 = sample[:, None] + sign * (x1 + c * x1 - r * x2)
        x2 = sign * x2 + x1
        np.maximum(peak, np.maximum(np.abs(x1), np.abs(x2) * half), out=peak)
    return np.asarray(peak.max(1))


def truncated(c: Array, r: Array, k: Array, C1: Array, C2: Array, minus: Array) -> Array:
    """What modes read, in C's units, because the lower halves of their states are left out: half a unit of each.

    That half drives the mode itself, too, and comes to rest where x1' = x1 and x2' = x2.
    """
    drive = -0.5 * (c - r)
    half = 2.0**-k
    with np.errstate(divide="ignore", invalid="ignore"):
        mirrored = drive / (2 - c + r * half / 2)
        x1 = np.where(minus, mirrored, 0.0)
        x2 = np.where(minus, mirrored * half / 2, np.where(r > 0, drive / r, 0.0))
    return np.asarray(C1 * (x1 - 0.5) + C2 * (x2 - 0.5))


def reach_of(kernel: Array, D: Array, radius: Array) -> Array:
    """Of each channel the sum over time of the modulus of its response (H, time), D included."""
    sizes = np.abs(kernel)
    return np.asarray(_total(sizes.sum(1), sizes[:, SUMMED // 2 :].sum(1), radius)) + np.abs(D)


def bits_over(sums: Array) -> int:
    """How many bits sums up to these have beyond the 18 that are multiplied."""
    return max(math.ceil(math.log2(max(float(sums.max()), 1.0) / (2**18 - 2**8))), 0)
