"""Modes as they are, chosen jointly: orthogonal matching pursuit over what the data make of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .choice import Modes
from .systems import Complex, Real, Systems

# Directions of less than this part of the largest are rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Selected:
    """The modes of each system in the order of their choice; orders are modes."""

    mu: Complex  # (S, N)
    b: Complex  # (S, N, d)
    order: list[NDArray[np.int64]]
    losses: list[Real]

    @property
    def values(self) -> Real:
        """(S, N): what the answers lose in root mean square with so many modes, from none on."""
        out = np.zeros(self.mu.shape)
        for row, losses in zip(out, self.losses):
            row[: len(losses) - 1] = np.sqrt(losses[:-1])
        return out

    @property
    def orders(self) -> list[int]:
        """The highest order of each system: the modes that the answers need at all."""
        return [len(order) for order in self.order]

    def states(self, modes: int) -> int:
        """The order that so many modes make."""
        return modes

    def within(self, system: int, modes: int) -> Modes:
        """The first so many."""
        return self.take(system, min(modes, len(self.order[system])))

    def lost(self, system: int) -> Real:
        """The power of what no refit of C makes up for."""
        return self.losses[system]

    def take(self, system: int, order: int) -> Modes:
        """The first so many."""
        chosen = self.order[system][:order]
        return Modes(self.mu[system, chosen], self.b[system, chosen])


def select(systems: Systems, P: Real) -> Selected:
    """Choose of modes with the states' covariance P (S, 2 N, 2 N) those from which the answers are best computed.

    Greedily (Pati et al. 1993): the next mode is the one with which the least squares' residual over all outputs is
    smallest, all modes chosen before being weighted anew. All of that follows from P, for the answers are C x.
    """
    if systems.mu is None or systems.b is None:
        raise TypeError("expected systems whose states move by poles alone")
    orders, losses = zip(*(_pursue(p, c) for p, c in zip(P, systems.C)))
    return Selected(systems.mu, systems.b, list(orders), list(losses))


def _pursue(P: Real, C: Real) -> tuple[NDArray[np.int64], Real]:
    n = len(P) // 2
    # The residual's covariance with the states and its power, and the states' own residual covariance.
    left, cross = P.copy(), C @ P
    power = float(np.trace(cross @ C.T))
    scale, losses = np.abs(P).max(initial=0.0), [power]
    order: list[int] = []
    # What hears nothing is of no use.
    free = (np.diagonal(P)[:n] > 0) | (np.diagonal(P)[n:] > 0)
    while free.any():
        gains = np.full(n, -1.0)
        roots = {}
        for i in np.flatnonzero(free).tolist():
            pair = [i, n + i]
            values, vectors = np.linalg.eigh(left[np.ix_(pair, pair)])
            kept = values > _ROUNDING * scale
            roots[i] = vectors[:, kept] / np.sqrt(values[kept])
            gains[i] = float(((cross[:, pair] @ roots[i]) ** 2).sum())
        best = int(gains.argmax())
        if gains[best] <= _ROUNDING * losses[0]:
            # From here on rounding would choose.
            rest = np.flatnonzero(free)
            return np.array([*order, *rest], np.int64), np.array([*losses, *([0.0] * len(rest))])
        pair = [best, n + best]
        direction = left[:, pair] @ roots[best]
        cross = cross - cross[:, pair] @ roots[best] @ direction.T
        left = left - direction @ direction.T
        free[best] = False
        order.append(best)
        losses.append(max(losses[-1] - gains[best], 0.0))
    return np.array(order, np.int64), np.array(losses)
