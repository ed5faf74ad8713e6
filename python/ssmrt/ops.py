"""Functions on plain arrays: discretisation, HiPPO matrices, convolution, Krylov sequences."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _native

Float = NDArray[np.float64]


def discretize(
    A: ArrayLike,
    B: ArrayLike,
    dt: float,
    *,
    method: Literal["zoh", "bilinear", "euler", "backward_euler", "gbt"] = "bilinear",
    alpha: float = 0.5,
) -> tuple[Float, Float]:
    """From x' = A x + B u to x[t] = Abar x[t-1] + Bbar u[t], in float64.

    Parameters
    ----------
    A, B
        Real (N, N) and (N,), or (N, 1).
    dt
        The step size.
    method
        "zoh" (matrix exponential), or the generalised bilinear transform (Gu et al. 2021, LSSL, eq. 3) with
        ``alpha``: "bilinear" is 1/2, "euler" 0, "backward_euler" 1.

    Returns
    -------
    Abar (N, N) and Bbar, shaped as B.

    Raises
    ------
    ValueError
        Shapes that do not fit, numbers that are not finite, dt that is not positive, alpha outside [0, 1].
    """
    column = np.asarray(B, dtype=np.float64)
    a, b = _native.discretize(np.asarray(A), column.reshape(-1), float(dt), method, float(alpha))
    return a, b.reshape(column.shape)


def hippo(measure: Literal["legs", "legt", "lagt", "fourier"], N: int) -> tuple[Float, Float]:
    """The HiPPO system (A (N, N), B (N,)) of a measure (Gu et al. 2020), as upstream's S4 has it."""
    return _native.hippo(measure, N)


def causal_conv(u: ArrayLike, k: ArrayLike) -> Float:
    """y[t] = sum over j <= t of k[j] u[t-j], along the last axis, in float64 by FFT.

    ``u`` (..., L) and ``k`` (..., K) broadcast; a kernel longer than the input is cut, a shorter one padded.
    Returns (..., L).
    """
    signal, kernel = np.asarray(u), np.asarray(k)
    for name, array in (("u", signal), ("k", kernel)):
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name}: expected real numbers, found dtype {array.dtype}")
        if array.ndim == 0:
            raise ValueError(f"{name}: expected at least one axis, found none")
    length = signal.shape[-1]
    padding = [(0, 0)] * (kernel.ndim - 1) + [(0, max(length - kernel.shape[-1], 0))]
    kernel = np.pad(kernel[..., :length], padding)
    shape = np.broadcast_shapes(signal.shape, kernel.shape)
    if 0 in shape:
        return np.zeros(shape)
    rows = [np.broadcast_to(a, shape).reshape(-1, length).astype(np.float64) for a in (signal, kernel)]
    return _native.causal_conv(*rows).reshape(shape)


def krylov(A: ArrayLike, b: ArrayLike, length: int) -> Float:
    """(b, A b, A^2 b, ...) as (..., N, length) in float64, by doubling.

    ``A`` is real (..., N, N) and ``b`` (..., N); leading axes broadcast.
    """
    matrix, vector = np.asarray(A), np.asarray(b)
    if length < 0:
        raise ValueError(f"length: expected 0 or more, found {length}")
    if matrix.ndim < 2 or vector.ndim < 1 or matrix.shape[-2:] != (vector.shape[-1],) * 2:
        raise ValueError(f"A and b: expected (..., N, N) and (..., N), found {matrix.shape} and {vector.shape}")
    n = vector.shape[-1]
    lead = np.broadcast_shapes(matrix.shape[:-2], vector.shape[:-1])
    a = np.broadcast_to(matrix, (*lead, n, n)).reshape(-1, n, n)
    start = np.broadcast_to(vector, (*lead, n)).reshape(-1, n)
    return _native.krylov(a, start, length).reshape(*lead, n, length)
