"""Reduced systems as nodes of continuous-time parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import document as doc
from .choice import Modes
from .systems import Complex, Node


def node_of(node: Node, modes: Sequence[Modes]) -> doc.Diagonal | doc.DiagonalMimo:
    """A diagonal node with the poles of ``modes``, one a system, in place of ``node``'s; its C and D are zero.

    Discretised as ``node`` is, and with its step sizes, so that it follows ``rate`` and ``dt`` as ``node`` does. By
    zero-order hold a negative real pole has no real exponent: as a pair of conjugates it is a decaying oscillation at
    half the sampling rate, i pi / dt; one beyond that is the one below that sounds the same. Where ``node``'s own
    transform would make a mode grow at other rates, all are by the bilinear one, by which stable is stable at any.
    """
    disc, alpha = _discretization(node)
    if disc != "discrete" and any((_continuous(one.mu, 1.0, disc, alpha).real > 0).any() for one in modes):
        disc, alpha = "bilinear", 0.5
    if isinstance(node, doc.DiagonalMimo):
        (only,) = modes
        # Any step size would do: A is what it must be for it.
        step = None if node.dt is None else np.full(len(only.mu), np.exp(np.log(node.dt).mean()))
        a = _continuous(only.mu, step, disc, alpha)
        b = only.b / _gain(a, step, disc, alpha)[:, None]
        c = np.zeros((len(node.C), len(only.mu)), np.complex128)
        square = len(node.C) == node.B.shape[1]
        return doc.DiagonalMimo(
            a,
            b,
            c,
            np.zeros(len(node.C)) if square else None,
            step,
            disc,
            alpha,
            C_reverse=None if node.C_reverse is None else c.copy(),
            reverse_over_padding=node.reverse_over_padding,
            name=node.name,
        )
    m, h, _ = node.C.shape
    n = max(1, *(len(one.mu) for one in modes))
    dt = node.dt if node.dt is None or node.dt.ndim == 1 else np.exp(np.log(node.dt).mean(1))
    a, b = np.zeros((2, h, n), np.complex128)
    for i, one in enumerate(modes):
        count = len(one.mu)
        mu = one.mu if count else np.zeros(1, np.complex128) + 0.5
        # What is beyond a channel's own number of modes repeats its last pole, and hears and says nothing.
        a[i] = _continuous(np.pad(mu, (0, n - len(mu)), "edge"), None if dt is None else dt[i], disc, alpha)
        b[i, :count] = 1.0
    c = np.zeros((m, h, n), np.complex128)
    return doc.Diagonal(
        c,
        np.zeros((m, h)),
        dt,
        a,
        b,
        disc,
        alpha,
        C_reverse=None if node.C_reverse is None else c.copy(),
        kernel_length=node.kernel_length,
        head_major=node.head_major,
        name=node.name,
    )


def _discretization(node: Node) -> tuple[doc.Discretization, float]:
    if isinstance(node, doc.Dplr):
        return "bilinear", 0.5
    return node.disc, node.alpha


# Of the transforms (1 + (1 - alpha) z) / (1 - alpha z).
_ALPHA = {"bilinear": 0.5, "euler": 0.0, "backward_euler": 1.0}


def _continuous(mu: Complex, dt: Any, disc: doc.Discretization, alpha: float) -> Complex:
    """The exponents A of which ``disc`` makes the poles ``mu``."""
    if disc == "discrete":
        return mu
    if disc == "zoh":
        # The principal branch: a mode turns by half a circle a sample at most.
        return np.asarray(np.log(mu) / dt)
    alpha = _ALPHA.get(disc, alpha)
    found: Complex = (mu - 1) / (1 - alpha + alpha * mu) / dt
    return found


def _gain(a: Complex, dt: Any, disc: doc.Discretization, alpha: float) -> Complex:
    """What ``disc`` multiplies B by."""
    if disc == "discrete":
        return np.ones_like(a)
    z = a * dt
    if disc == "zoh":
        # expm1 of a complex number, without cancellation near 0.
        less = 2 * np.sin(z.imag / 2) ** 2
        grown = np.expm1(z.real) * np.cos(z.imag) - less + 1j * np.exp(z.real) * np.sin(z.imag)
        gain: Complex = np.where(z == 0, dt, dt * grown / np.where(z == 0, 1, z))
        return gain
    bilinear: Complex = dt / (1 - _ALPHA.get(disc, alpha) * z)
    return bilinear
