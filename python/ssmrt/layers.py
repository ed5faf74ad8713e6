"""Layers from plain arrays, for people with their own training code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks
from . import document as doc
from .errors import CheckpointError
from .model import Dtype, Model

Complex = NDArray[np.complex128]


def diagonal(
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None,
    dt: ArrayLike | None,
    *,
    disc: doc.Discretization = "zoh",
    alpha: float = 0.5,
    conjugate_pairs: bool = True,
    allow_unstable: bool = False,
    dtype: Dtype = "float32",
) -> Model:
    """A diagonal layer: S4D (Gu et al. 2022), or with dense B and C S5 (Smith et al. 2023) and LRU.

    Parameters
    ----------
    A, B, C
        One input and M outputs a channel: complex (H, N), or (S, N) for A and B shared by the channels
        h with h % S equal; C (H, N) or (M, H, N).
        All inputs to all outputs: A (N,), B (N, d_input), C (d_output, N).
    D
        The direct path: (H,) or (M, H); (d_output,) where d_output = d_input. None: none.
    dt
        Step sizes: a number, (H,) or (H, N); (N,) for all inputs to all outputs. None with disc "discrete".
    disc
        "zoh", "bilinear", "euler", "backward_euler", "gbt" with ``alpha``, or "discrete": A and B as they stand.
    conjugate_pairs
        Whether each mode stands for itself and its conjugate: y = 2 Re(C x), else Re(C x).
    allow_unstable
        Whether eigenvalues outside the unit circle are let through.

    Raises
    ------
    ValueError
        Shapes that do not fit, numbers that are not finite, dt that is not positive, an unstable system.
    TypeError
        An argument of another kind.
    """
    a, b, c = checks.complexes("A", A), checks.complexes("B", B), checks.complexes("C", C)
    steps = None if dt is None else checks.reals("dt", dt)
    checks.text("disc", disc)
    alpha = checks.number("alpha", alpha)
    conjugate_pairs = checks.flag("conjugate_pairs", conjugate_pairs)
    allow_unstable = checks.flag("allow_unstable", allow_unstable)
    if a.ndim == 1 and b.ndim == 2 and c.ndim == 2:
        if steps is not None:
            steps = _steps(steps, len(a))
        skip = None if D is None else checks.reals("D", D)
        node: doc.Node = doc.DiagonalMimo(
            a, b, c, skip, steps, disc, alpha, conjugate_pairs, allow_unstable=allow_unstable, name="diagonal"
        )
        return _model(node, b.shape[1], c.shape[0], dtype)
    read, skip, width = _outputs(c, D)
    modes = _systems("A", a), _systems("B", b)
    node = doc.Diagonal(
        read,
        skip,
        _steps(steps, width),
        *modes,
        disc,
        alpha,
        conjugate_pairs,
        allow_unstable=allow_unstable,
        name="diagonal",
    )
    return _model(node, width, read.shape[0] * width, dtype)


def dplr(
    A: ArrayLike,
    P: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None,
    dt: ArrayLike,
    *,
    conjugate_pairs: bool = True,
    allow_unstable: bool = False,
    dtype: Dtype = "float32",
) -> Model:
    """S4 (Gu et al. 2021): the full matrix is diag(A) - sum_r P_r P_r^H, discretised by the bilinear transform.

    Parameters
    ----------
    A, B
        Complex (H, N), or (S, N) shared by the channels h with h % S equal.
    P
        Complex (R, H, N) or (H, N); S for H as above.
    C
        Complex (H, N) or (M, H, N): the true C, not the stored C (I - Abar^L).
    D
        (H,) or (M, H), or None.
    dt
        A number or (H,).
    conjugate_pairs
        Whether the system also has the conjugates of all modes.

    Raises
    ------
    ValueError, TypeError
        As `diagonal`.
    """
    a, p = checks.complexes("A", A), checks.complexes("P", P)
    b, c = checks.complexes("B", B), checks.complexes("C", C)
    conjugate_pairs = checks.flag("conjugate_pairs", conjugate_pairs)
    allow_unstable = checks.flag("allow_unstable", allow_unstable)
    read, skip, width = _outputs(c, D)
    if p.ndim == 2:
        p = p[None]
    steps = _steps(checks.reals("dt", dt), width)
    node = doc.Dplr(
        read,
        skip,
        steps,
        _systems("A", a),
        p,
        _systems("B", b),
        None,
        conjugate_pairs,
        allow_unstable=allow_unstable,
        name="dplr",
    )
    return _model(node, width, read.shape[0] * width, dtype)


def dense(
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None,
    dt: ArrayLike,
    *,
    alpha: float = 0.5,
    allow_unstable: bool = False,
    dtype: Dtype = "float32",
) -> Model:
    """LSSL (Gu et al. 2021b): a full real matrix, discretised by the generalised bilinear transform.

    Parameters
    ----------
    A
        Real (N, N), or (H, N, N).
    B
        Real (N,), or (H, N).
    C, D
        Real (H, M, N) and (H, M), or None for D. The answers are (..., H M), h major.
    dt
        A number or (H,).

    Raises
    ------
    ValueError, TypeError
        As `diagonal`.
    """
    a, b, c = checks.reals("A", A), checks.reals("B", B), checks.reals("C", C)
    alpha = checks.number("alpha", alpha)
    allow_unstable = checks.flag("allow_unstable", allow_unstable)
    if c.ndim != 3:
        raise ValueError(f"C: expected (H, M, N), found shape {c.shape}")
    h, m, _ = c.shape
    a = a[None] if a.ndim == 2 else a
    b = b[None] if b.ndim == 1 else b
    systems = max(len(a), len(b))
    a = np.broadcast_to(a, (systems, *a.shape[1:])).copy()
    b = np.broadcast_to(b, (systems, *b.shape[1:])).copy()
    skip = np.zeros((h, m)) if D is None else checks.reals("D", D)
    if skip.shape != (h, m):
        raise ValueError(f"D: expected shape {(h, m)}, found {skip.shape}")
    node = doc.Dense(
        np.ascontiguousarray(c.transpose(1, 0, 2)),
        np.ascontiguousarray(skip.T),
        _steps(checks.reals("dt", dt), h),
        a,
        b,
        alpha,
        head_major=True,
        allow_unstable=allow_unstable,
        name="dense",
    )
    return _model(node, h, h * m, dtype)


def _model(node: doc.Node, d_input: int, d_output: int, dtype: Dtype) -> Model:
    meta: Mapping[str, str] = {"arch": doc.KIND_OF[type(node)]}
    try:
        return Model(doc.Document(node, d_input, d_output, meta), dtype)
    except CheckpointError as error:
        # There is no checkpoint here: the arrays are the caller's arguments.
        raise ValueError(str(error)) from None


def _systems(name: str, array: Complex) -> Complex:
    if array.ndim not in (1, 2):
        raise ValueError(f"{name}: expected (H, N) or (N,), found shape {array.shape}")
    return np.atleast_2d(array)


def _outputs(C: Complex, D: ArrayLike | None) -> tuple[Complex, NDArray[np.float64], int]:
    """C as (M, H, N), D as (M, H), and H."""
    if C.ndim not in (2, 3):
        raise ValueError(f"C: expected (H, N) or (M, H, N), found shape {C.shape}")
    read = C[None] if C.ndim == 2 else C
    m, h, _ = read.shape
    skip = np.zeros((m, h)) if D is None else checks.reals("D", D)
    if skip.ndim == 1:
        skip = skip[None]
    if skip.shape != (m, h):
        raise ValueError(f"D: expected shape {(m, h) if m > 1 else (h,)}, found {np.asarray(D).shape}")
    return read, skip, h


def _steps(dt: Any, width: int) -> Any:
    return np.broadcast_to(dt, (width,)).copy() if dt is not None and dt.ndim == 0 else dt
