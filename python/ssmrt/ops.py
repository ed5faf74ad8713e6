"""Functions on plain arrays: discretisation, HiPPO matrices, convolution, Krylov sequences."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _native, checks

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
        "zoh" (matrix exponential), or the generalised bilinear transform (Gu et al. 2021, LSSL) with
        ``alpha``: "bilinear" is 1/2, "euler" 0, "backward_euler" 1.

    Returns
    -------
    Abar (N, N) and Bbar, shaped as B.

    Raises
    ------
    ValueError, TypeError
        Shapes that do not fit, numbers that are not finite or not real, dt that is not positive, alpha outside [0, 1].

    >>> Abar, Bbar = ssmrt.discretize([[-1.0]], [1.0], 0.1, method="zoh")
    >>> Abar.round(4), Bbar.round(4)
    (array([[0.9048]]), array([0.0952]))
    """
    matrix, column = checks.reals("A", A), checks.reals("B", B)
    step, part = checks.number("dt", dt), checks.number("alpha", alpha)
    a, b = _native.discretize(matrix, column.reshape(-1), step, checks.text("method", method), part)
    return a, b.reshape(column.shape)


def hippo(measure: Literal["legs", "legt", "lagt", "fourier"], N: int) -> tuple[Float, Float]:
    """The HiPPO system of a measure (Gu et al. 2020), as upstream's S4 has it.

    Parameters
    ----------
    measure
        What of the past is remembered: "legs" all of it alike, scaled to its length, "legt" a window, "lagt" the recent
        past by an exponential weight, "fourier" a window by sines and cosines.
    N
        How many states, at most 8192; an even number for "fourier".

    Returns
    -------
    A (N, N) and B (N,) float64, in continuous time.

    Raises
    ------
    ValueError, TypeError
        There is no such measure, or ``N`` is no number of states.

    >>> A, B = ssmrt.hippo("legs", 2)
    >>> A.round(4)
    array([[-1.    ,  0.    ],
           [-1.7321, -2.    ]])
    """
    return _native.hippo(checks.text("measure", measure), checks.whole("N", N))


def causal_conv(u: ArrayLike, k: ArrayLike) -> Float:
    """y[t] = sum over j <= t of k[j] u[t-j], along the last axis, in float64 by FFT.

    ``u`` (..., L) and ``k`` (..., K) broadcast; a kernel longer than the input is cut, a shorter one padded.
    Returns (..., L). Raises ValueError or TypeError where axes do not broadcast or numbers are not real.

    >>> ssmrt.ops.causal_conv([1.0, 0.0, 0.0, 2.0], [4.0, 2.0, 1.0])
    array([4., 2., 1., 8.])
    """
    signal, kernel = checks.reals("u", u), checks.reals("k", k)
    for name, array in (("u", signal), ("k", kernel)):
        if array.ndim == 0:
            raise ValueError(f"{name}: expected at least one axis, found none")
    length = signal.shape[-1]
    padding = [(0, 0)] * (kernel.ndim - 1) + [(0, max(length - kernel.shape[-1], 0))]
    kernel = np.pad(kernel[..., :length], padding)
    shape = _broadcast("u and k", signal.shape, kernel.shape)
    if 0 in shape:
        return np.zeros(shape)
    rows = [np.broadcast_to(a, shape).reshape(-1, length) for a in (signal, kernel)]
    return _native.causal_conv(*rows).reshape(shape)


def krylov(A: ArrayLike, b: ArrayLike, length: int) -> Float:
    """(b, A b, A^2 b, ...) as (..., N, length) in float64, by doubling.

    ``A`` is real (..., N, N) and ``b`` (..., N); leading axes broadcast. Raises ValueError or TypeError where
    shapes do not fit or numbers are not real.

    >>> ssmrt.ops.krylov([[0.5]], [8.0], 4)
    array([[8., 4., 2., 1.]])
    """
    matrix, vector, length = checks.reals("A", A), checks.reals("b", b), checks.whole("length", length)
    if matrix.ndim < 2 or vector.ndim < 1 or matrix.shape[-2:] != (vector.shape[-1],) * 2:
        raise ValueError(f"A and b: expected (..., N, N) and (..., N), found {matrix.shape} and {vector.shape}")
    n = vector.shape[-1]
    lead = _broadcast("A and b", matrix.shape[:-2], vector.shape[:-1])
    a = np.broadcast_to(matrix, (*lead, n, n)).reshape(-1, n, n)
    start = np.broadcast_to(vector, (*lead, n)).reshape(-1, n)
    return _native.krylov(a, start, length).reshape(*lead, n, length)


def _broadcast(names: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        found = " and ".join(map(str, shapes))
        raise ValueError(f"{names}: expected axes that broadcast, found {found}") from None
