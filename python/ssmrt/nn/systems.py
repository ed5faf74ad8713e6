"""State-space systems, by their continuous-time parameters."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import checks
from .. import document as doc
from ._arrays import optional, real
from .compose import Layer, as_node

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
    x0: ArrayLike | None = None,
    name: str = "",
) -> doc.Diagonal | doc.DiagonalMimo:
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
    x0
        For all inputs to all outputs: the state (N,) before a stream's first sample, x[0] = Abar x0 + Bbar u[0]. None:
        zero.

    Raises
    ------
    ValueError
        Shapes that do not fit, an ``x0`` of independent channels; by `model` also numbers that are not finite, dt that
        is not positive, an unstable system.
    TypeError
        An argument of another kind.

    >>> layer = ssmrt.nn.diagonal([[-0.5 + 3j]], [[1]], [[1]], [0.0], [0.05], name="first")
    >>> ssmrt.nn.model(layer)
    <ssmrt.Model diagonal: 1 -> 1, 8 parameters, float32>

    >>> layer = ssmrt.nn.diagonal([0.5], [[1]], [[0.5]], None, None, disc="discrete", x0=[3])
    >>> ssmrt.nn.model(layer)(np.zeros((3, 1)))[:, 0]
    array([1.5  , 0.75 , 0.375], dtype=float32)
    """
    a, b, c = (checks.complexes(n, x) for n, x in (("A", A), ("B", B), ("C", C)))
    steps = None if dt is None else checks.reals("dt", dt)
    checks.text("disc", disc)
    alpha = checks.number("alpha", alpha)
    conjugate_pairs = checks.flag("conjugate_pairs", conjugate_pairs)
    allow_unstable = checks.flag("allow_unstable", allow_unstable)
    if a.ndim == 1 and b.ndim == 2 and c.ndim == 2:
        return doc.DiagonalMimo(
            a,
            b,
            c,
            None if D is None else checks.reals("D", D),
            _steps(steps, len(a)),
            disc,
            alpha,
            conjugate_pairs,
            allow_unstable=allow_unstable,
            x0=None if x0 is None else checks.complexes("x0", x0),
            name=name,
        )
    if x0 is not None:
        raise ValueError("x0: expected None, for channels that are independent of one another start at zero")
    read, direct, width = _outputs(c, D)
    return doc.Diagonal(
        read,
        direct,
        _steps(steps, width),
        _systems("A", a),
        _systems("B", b),
        disc,
        alpha,
        conjugate_pairs,
        allow_unstable=allow_unstable,
        name=name,
    )


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
    name: str = "",
) -> doc.Dplr:
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

    >>> layer = ssmrt.nn.dplr([[-0.5 + 3j]], [[0.5]], [[1]], [[1]], None, [0.1])
    >>> ssmrt.nn.model(layer)
    <ssmrt.Model dplr: 1 -> 1, 10 parameters, float32>
    """
    a, p, b, c = (checks.complexes(n, x) for n, x in (("A", A), ("P", P), ("B", B), ("C", C)))
    conjugate_pairs = checks.flag("conjugate_pairs", conjugate_pairs)
    allow_unstable = checks.flag("allow_unstable", allow_unstable)
    read, direct, width = _outputs(c, D)
    return doc.Dplr(
        read,
        direct,
        _steps(checks.reals("dt", dt), width),
        _systems("A", a),
        p[None] if p.ndim == 2 else p,
        _systems("B", b),
        None,
        conjugate_pairs,
        allow_unstable=allow_unstable,
        name=name,
    )


def dense(
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None,
    dt: ArrayLike | None,
    *,
    disc: Literal["gbt", "zoh", "discrete"] = "gbt",
    alpha: float = 0.5,
    allow_unstable: bool = False,
    x0: ArrayLike | None = None,
    name: str = "",
) -> doc.Dense:
    """LSSL (Gu et al. 2021b): a full real matrix.

    Parameters
    ----------
    A
        Real (N, N), or (H, N, N).
    B
        Real (N,), or (H, N).
    C, D
        Real (H, M, N) and (H, M), or None for D. The answers are (..., H M), h major.
    dt
        A number or (H,). None with disc "discrete".
    disc
        "gbt", the generalised bilinear transform with ``alpha``; "zoh", the zero-order hold; or "discrete": A and B
        as they stand.
    x0
        Real (H, N): the state before a stream's first sample, x[0] = Abar x0 + Bbar u[0]; None: zero.

    Raises
    ------
    ValueError, TypeError
        As `diagonal`.

    >>> A, B = ssmrt.hippo("legs", 4)
    >>> ssmrt.nn.model(ssmrt.nn.dense(A, B, np.ones((1, 1, 4)), None, [0.1]))
    <ssmrt.Model dense: 1 -> 1, 26 parameters, float32>
    """
    a, b, c = (checks.reals(n, x) for n, x in (("A", A), ("B", B), ("C", C)))
    checks.word("disc", disc, ("gbt", "zoh", "discrete"))
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
    direct = np.zeros((h, m)) if D is None else checks.reals("D", D)
    if direct.shape != (h, m):
        raise ValueError(f"D: expected shape {(h, m)}, found {direct.shape}")
    return doc.Dense(
        np.ascontiguousarray(c.transpose(1, 0, 2)),
        np.ascontiguousarray(direct.T),
        None if dt is None else _steps(checks.reals("dt", dt), h),
        a,
        b,
        alpha,
        disc=disc,
        head_major=True,
        allow_unstable=allow_unstable,
        x0=None if x0 is None else np.asarray(real("x0", x0, "H, N"), np.float64),
        name=name,
    )


def linoss(
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None,
    dt: ArrayLike,
    *,
    G: ArrayLike | None = None,
    disc: doc.Scheme = "imex",
    allow_unstable: bool = False,
    name: str = "",
) -> doc.Linoss:
    """LinOSS (Rusch & Rus 2025): P oscillators x'' = -A x - G x' + B u, all inputs to all outputs; y = Re(C x) + D u.

    Each is stepped by its own dt, the velocity v first and then x' = x + dt v'.

    Parameters
    ----------
    A
        Real (P,), never negative: the square of each angular frequency. relu(A_diag) of what LinOSS stores.
    B, C
        Complex (P, d_input) and (d_output, P).
    D
        The direct path: (d_output,) where d_output = d_input. None: none.
    dt
        Step sizes: a number or (P,); sigmoid(steps) of what LinOSS stores. ``rate`` and ``dt`` of a call multiply them.
    G
        The damping, real (P,), never negative; None: none.
    disc
        "imex", v' = v + dt (-A x - G v' + B u), stable for dt^2 A < 4 + 2 dt G; or "im", which has no G:
        v' = v + dt (-A x' + B u), which loses energy.
    allow_unstable
        Whether eigenvalues outside the unit circle are let through.

    Raises
    ------
    ValueError, TypeError
        As `diagonal`; by `model` also a negative A or G, and a G with "im".

    >>> layer = ssmrt.nn.linoss([4.0, 9.0], np.ones((2, 1)), np.ones((1, 2)), None, 0.1, G=[0.0, 0.5])
    >>> ssmrt.nn.model(layer).modes(0).frequencies.round(2)
    array([0.03, 0.03, 0.05, 0.05])
    """
    checks.word("disc", disc, ("im", "imex"))
    a = np.asarray(real("A", A, "P"), np.float64)
    return doc.Linoss(
        a,
        checks.complexes("B", B),
        checks.complexes("C", C),
        None if D is None else checks.reals("D", D),
        _steps(checks.reals("dt", dt), len(a)),
        None if G is None else np.asarray(real("G", G, "P"), np.float64),
        disc,
        allow_unstable=checks.flag("allow_unstable", allow_unstable),
        name=name,
    )


def selective(
    A: ArrayLike,
    x_proj: ArrayLike,
    dt_proj: ArrayLike,
    dt_bias: ArrayLike,
    D: ArrayLike | None,
    *,
    norm_eps: float | None = None,
    dt_norm: ArrayLike | None = None,
    B_norm: ArrayLike | None = None,
    C_norm: ArrayLike | None = None,
    x0: ArrayLike | None = None,
    name: str = "",
) -> doc.Selective:
    """Mamba's S6 (Gu & Dao 2023, alg. 2): the input chooses dt, B and C at each sample.

    (r, B, C) = split(x_proj x); dt = softplus(dt_proj r + dt_bias); h = exp(dt A) h + dt B x; y = C h + D x.

    Parameters
    ----------
    A
        Real (d, N), never positive: -exp(A_log) of what Mamba stores.
    x_proj
        Real (R + 2 N, d): r first, then B, then C.
    dt_proj, dt_bias
        Real (d, R) and (d,).
    D
        Real (d,), or None.
    norm_eps
        Where given, r, B and C go each through an RMS norm of that eps first, as in FalconMamba and Jamba.
    dt_norm, B_norm, C_norm
        The weights of these norms, real (R,), (N,) and (N,); None: 1.
    x0
        Real (d, N): the state h before a stream's first sample; None: zero.

    Raises
    ------
    ValueError, TypeError
        As `diagonal`; by `model` also a positive A.

    >>> layer = ssmrt.nn.selective([[-1.0, -2.0]], [[0.1]] * 5, [[1.0]], [0.0], None)
    >>> ssmrt.nn.model(layer)
    <ssmrt.Model selective: 1 -> 1, 10 parameters, float32>
    """
    a = np.asarray(real("A", A, "d, N"), np.float64)
    direct = np.zeros(len(a)) if D is None else np.asarray(real("D", D, "d"), np.float64)
    inputs, steps = real("x_proj", x_proj, "R + 2 N, d"), real("dt_proj", dt_proj, "d, R")
    return doc.Selective(
        a,
        inputs,
        steps,
        real("dt_bias", dt_bias, "d"),
        direct,
        None if norm_eps is None else checks.number("norm_eps", norm_eps),
        optional("dt_norm", dt_norm, "R"),
        optional("B_norm", B_norm, "N"),
        optional("C_norm", C_norm, "N"),
        x0=optional("x0", x0, "d, N"),
        name=name,
    )


def ssd(
    xBC: Layer,
    dt: Layer,
    A: ArrayLike,
    dt_bias: ArrayLike,
    D: ArrayLike,
    *,
    d_state: int,
    groups: int = 1,
    dt_min: float = 0.0,
    dt_max: float | None = None,
    disc: doc.Discretization = "euler",
    x0: ArrayLike | None = None,
    name: str = "",
) -> doc.Ssd:
    """Mamba-2's state-space duality (Dao & Gu 2024): the input chooses dt, B and C; one dt and one A a head.

    (x, B, C) = split(xBC(u)); dt = softplus(dt(u) + dt_bias), kept within dt_min and dt_max; of each head
    h = exp(dt A) h + dt x B^T; y = h C + D x.

    Parameters
    ----------
    xBC
        The layer that gives x, B and C, d + 2 groups d_state numbers: Mamba-2's rows of ``in_proj``, its convolution
        and its activation.
    dt
        The layer that gives a number a head: other rows of ``in_proj``.
    A
        Real (heads,), never positive: -exp(A_log) of what Mamba-2 stores.
    dt_bias
        Real (heads,).
    D
        Real (d,), one a channel; Mamba-2 has one a head, which is repeated for the channels of each.
    d_state, groups
        Numbers in B and C, and groups of neighbouring heads that share them.
    dt_min, dt_max
        Step sizes are kept within them; None: unbounded.
    disc
        "euler", as above, or "zoh": (exp(dt A) - 1) / A multiplies x B^T, which a zero-order hold makes of B.
    x0
        Real (d, d_state): the state h before a stream's first sample, such as the ``init_states`` of Mamba2Simple with
        their first two axes as one; None: zero.

    Raises
    ------
    ValueError, TypeError
        As `diagonal`; by `model` also a positive A, and layers of other widths.

    >>> xBC, dt = ssmrt.nn.linear(np.ones((4 + 2 * 3, 2))), ssmrt.nn.linear(np.ones((2, 2)))
    >>> ssmrt.nn.model(ssmrt.nn.ssd(xBC, dt, [-1, -2], [0, 0], np.ones(4), d_state=3))
    <ssmrt.Model ssd: 2 -> 4, 32 parameters, float32>
    """
    return doc.Ssd(
        as_node(xBC),
        as_node(dt),
        np.asarray(real("A", A, "heads"), np.float64),
        real("dt_bias", dt_bias, "heads"),
        np.asarray(real("D", D, "d"), np.float64),
        checks.whole("d_state", d_state, 1),
        checks.whole("groups", groups, 1),
        checks.number("dt_min", dt_min),
        None if dt_max is None else checks.number("dt_max", dt_max),
        disc=disc,
        x0=optional("x0", x0, "d, N"),
        name=name,
    )


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
    direct = np.zeros((m, h)) if D is None else checks.reals("D", D)
    if direct.ndim == 1:
        direct = direct[None]
    if direct.shape != (m, h):
        raise ValueError(f"D: expected shape {(m, h) if m > 1 else (h,)}, found {np.asarray(D).shape}")
    return read, direct, h


def _steps(dt: Any, width: int) -> Any:
    return np.broadcast_to(dt, (width,)).copy() if dt is not None and dt.ndim == 0 else dt
