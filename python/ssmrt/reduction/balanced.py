"""Balanced truncation with a measured controllability Gramian: one-sided weighting (Moore 1981; Enns 1984)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .choice import Modes
from .systems import Real, Systems, observability

# Singular values below this part of the largest are rounding: the Gramians' square roots have half of float64's digits.
_ROUNDING = 1e-8
# Poles of modulus below this are the direct path.
_DIRECT = 1e-8
# A basis of eigenvectors worse than this would cost float32 its digits.
_CONDITION = 1e4


@dataclass(frozen=True)
class Balanced:
    """Systems in coordinates in which P and Q are both diag(values), the largest first; orders are real states.

    The leading blocks of order r are the reduced system, before C is fitted anew. It is stable whatever P is, where Q
    solves its own Lyapunov equation (Enns 1984): A_r^T diag(values) A_r - diag(values) is not positive.
    """

    A: Real  # (S, n, n)
    B: Real  # (S, n, d)
    C: Real  # (S, p, n)
    values: Real  # (S, n)

    @property
    def orders(self) -> list[int]:
        """The highest order of each system: the states that the data excite and the answers show."""
        return [int(count) for count in (self.values > _ROUNDING * self.values[:, :1]).sum(1)]

    def states(self, modes: int) -> int:
        """The order that so many modes make."""
        return 2 * modes

    def within(self, system: int, modes: int) -> Modes:
        """The poles of the highest order that has at most so many stored modes, a pair being one, as real poles are."""
        return self.take(system, min(2 * modes, self.orders[system]), modes)

    def lost(self, system: int) -> Real:
        """What each order loses of the answers' power, about: the sum of the squares of the values left out."""
        squares = np.append(self.values[system] ** 2, 0.0)
        return np.cumsum(squares[::-1])[::-1][: self.orders[system] + 1]

    def take(self, system: int, order: int, modes: int | None = None) -> Modes:
        """The poles of that order, or of the next lower one that is stable, well conditioned and within ``modes``."""
        for r in range(order, 0, -1):
            poles, vectors = np.linalg.eig(self.A[system, :r, :r])
            kept = (poles.imag >= 0) & (np.abs(poles) > _DIRECT)
            if (
                (modes is None or kept.sum() <= modes)
                and np.abs(poles).max() < 1
                and np.linalg.cond(vectors) < _CONDITION
            ):
                gains = np.linalg.solve(vectors, self.B[system, :r].astype(np.complex128))
                return Modes(poles[kept].astype(np.complex128), gains[kept])
        return Modes(np.zeros(0, np.complex128), np.zeros((0, self.B.shape[2]), np.complex128))


def balance(systems: Systems, P: Real) -> Balanced:
    """The systems in balanced coordinates, P (S, n, n) being the covariance of their states.

    By square roots (Laub et al. 1987): P = L L^T and Q = K K^T, K^T L = U diag(values) V^T; then
    T = L V diag(values)^-1/2 and its inverse diag(values)^-1/2 U^T K^T.
    """
    L, K = _root(P), _root(observability(systems))
    U, values, Vt = np.linalg.svd(K.transpose(0, 2, 1) @ L)
    kept = values > _ROUNDING * values[:, :1]
    scale = np.where(kept, 1 / np.sqrt(np.where(kept, values, 1.0)), 0.0)[:, None, :]
    T, W = L @ Vt.transpose(0, 2, 1) * scale, K @ U * scale
    inverse = W.transpose(0, 2, 1)
    return Balanced(inverse @ systems.A @ T, inverse @ systems.B, systems.C @ T, values)


def _root(P: Real) -> Real:
    """L with L L^T = P, for P that is positive but for rounding."""
    values, vectors = np.linalg.eigh(P)
    root: Real = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    return root
