"""C and D of reduced systems, by least squares against the answers of the full layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .. import document as doc
from .systems import Real, Signal, states

# Combinations of states that are less than this part of their own size are rounding, and are left out.
_ROUNDING = 1e-11
# So is the imaginary part of a mode, where it is less than this part of the real one.
_REAL = 1e-10
# Rows of a block, at least.
_BLOCK = 512

Reduced = doc.Diagonal | doc.DiagonalMimo


@dataclass(frozen=True)
class Fit:
    """A node with C and D, and of each of its answers (S, p) on held-back data the root mean squares."""

    node: Reduced
    error: Real
    size: Real


def refit(node: Reduced, heard: Sequence[Signal], answers: Sequence[Signal], held: int) -> Fit:
    """Choose C, C_reverse and D so that ``node`` answers ``heard`` with ``answers``, all but the last ``held`` of them.

    Sequences (1, length, d) and (1, length, p); errors are those of the last ``held``. Of solutions that fit alike the
    smallest is taken.
    """
    factors = [_factor(node, u, y) for u, y in zip(heard, answers)]
    fitted, judged = (_triangle(np.concatenate(some, 1)) for some in (factors[:-held], factors[-held:]))
    samples = sum(u.shape[1] for u in heard[-held:])
    mimo = isinstance(node, doc.DiagonalMimo)
    n = node.A.shape[-1]
    ways = 1 if node.C_reverse is None else 2
    inputs = node.B.shape[1] if isinstance(node, doc.DiagonalMimo) else 1
    outputs = len(node.C)
    first, systems = 2 * n * ways, len(fitted)
    weights = np.zeros((systems, first + inputs, outputs))
    error, size = np.zeros((2, systems, outputs))
    targets = first + inputs + np.arange(outputs)
    for s in range(systems):
        sizes = np.linalg.norm(fitted[s][:, :first], axis=0).reshape(ways, 2, n)
        read = np.flatnonzero(sizes > _REAL * sizes.max(1, keepdims=True))
        for k, target in enumerate(targets):
            # Each output has the input of its own channel.
            own = read if node.D is None else np.append(read, first + (k if mimo else 0))
            weights[s, own, k] = _solve(fitted[s], own, target)
        error[s], size[s] = _errors(judged[s], weights[s], targets, samples)
    parts = weights[:, :first].reshape(systems, ways, 2, n, outputs).transpose(1, 4, 0, 3, 2)
    # factor Re(C x) is to be the weighted sum of the real and imaginary parts.
    C = (parts[..., 0] - 1j * parts[..., 1]) / (2 if node.conjugate_pairs else 1)
    D = weights[:, first:]
    reverse = None if ways == 1 else C[1]
    if isinstance(node, doc.DiagonalMimo):
        direct = None if node.D is None else np.diagonal(D[0]).copy()
        reverse = None if reverse is None else reverse[:, 0]
        return Fit(replace(node, C=C[0][:, 0], C_reverse=reverse, D=direct), error, size)
    return Fit(replace(node, C=C[0], C_reverse=reverse, D=D[:, 0].T.copy()), error, size)


def _factor(node: Reduced, u: Signal, y: Signal) -> Real:
    """R (S, K, K) of the orthogonal-triangular factors of a system's states, inputs and answers, a column each.

    It stands for them in least squares, and keeps the digits that their products with one another would lose.
    """
    length = u.shape[1]
    out = []
    for some, x in states(node, u):
        if isinstance(node, doc.DiagonalMimo):
            inputs, answers = u[0].T[None], y[0].T[None]
        else:
            m, h = node.D.shape
            shape = (length, h, m) if node.head_major else (length, m, h)
            by_channel = y[0].reshape(shape).transpose((1, 2, 0) if node.head_major else (2, 1, 0))
            inputs, answers = u[0].T[some, None], by_channel[some]
        out.append(_triangle(np.concatenate([x, inputs, answers], 1).transpose(0, 2, 1)))
    return np.concatenate(out)


def _triangle(columns: Real) -> Real:
    """R of columns (S, length, K), block by block, each of which stays in the cache; rows of zeros change nothing."""
    systems, length, k = columns.shape
    rows = max(_BLOCK, 4 * k)
    blocks = -(-length // rows)
    if blocks > 1:
        whole = np.zeros((systems, blocks * rows, k))
        whole[:, :length] = columns
        parts = np.asarray(np.linalg.qr(whole.reshape(systems, blocks, rows, k), mode="r"))
        return _triangle(parts.reshape(systems, -1, k))
    return np.asarray(np.linalg.qr(columns, mode="r"))


def _solve(factor: Real, features: NDArray[np.int64], target: int) -> Real:
    """The weights of least squares, in units of each feature's size."""
    columns = factor[:, features]
    sizes = np.linalg.norm(columns, axis=0)
    scale = np.where(sizes > 0, 1 / np.where(sizes > 0, sizes, 1.0), 0.0)
    solution: Real = scale * np.linalg.lstsq(columns * scale, factor[:, target], rcond=_ROUNDING)[0]
    return solution


def _errors(factor: Real, weights: Real, targets: NDArray[np.int64], samples: int) -> tuple[Real, Real]:
    """Root mean squares (p,) of what is left of the targets, and of the targets."""
    left = factor[:, : len(weights)] @ weights - factor[:, targets]
    return tuple(np.sqrt((x**2).sum(0) / samples) for x in (left, factor[:, targets]))
