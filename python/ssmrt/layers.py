"""Models of one layer from plain arrays, for people with their own training code."""

from __future__ import annotations

from typing import Literal

from numpy.typing import ArrayLike

from . import nn
from .document import Discretization, Scheme
from .model import Dtype, Model


def diagonal(
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None,
    dt: ArrayLike | None,
    *,
    disc: Discretization = "zoh",
    alpha: float = 0.5,
    conjugate_pairs: bool = True,
    allow_unstable: bool = False,
    dtype: Dtype = "float32",
) -> Model:
    """A diagonal layer alone: S4D, S5, LRU. Shapes, units and errors are those of `nn.diagonal`.

    >>> ssmrt.diagonal([[-0.5 + 3j]], [[1]], [[1]], None, 0.1)
    <ssmrt.Model diagonal: 1 -> 1, 8 parameters, float32>
    """
    layer = nn.diagonal(
        A,
        B,
        C,
        D,
        dt,
        disc=disc,
        alpha=alpha,
        conjugate_pairs=conjugate_pairs,
        allow_unstable=allow_unstable,
        name="diagonal",
    )
    return nn.model(layer, dtype=dtype)


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
    """An S4 layer alone. Shapes, units and errors are those of `nn.dplr`.

    >>> ssmrt.dplr([[-0.5 + 3j]], [[0.5]], [[1]], [[1]], None, 0.1)
    <ssmrt.Model dplr: 1 -> 1, 10 parameters, float32>
    """
    layer = nn.dplr(A, P, B, C, D, dt, conjugate_pairs=conjugate_pairs, allow_unstable=allow_unstable, name="dplr")
    return nn.model(layer, dtype=dtype)


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
    dtype: Dtype = "float32",
) -> Model:
    """A layer of full real matrices alone: LSSL. Shapes, units and errors are those of `nn.dense`.

    >>> A, B = ssmrt.hippo("legs", 4)
    >>> ssmrt.dense(A, B, [[[1, 1, 1, 1]]], None, 0.1)
    <ssmrt.Model dense: 1 -> 1, 26 parameters, float32>
    """
    layer = nn.dense(A, B, C, D, dt, disc=disc, alpha=alpha, allow_unstable=allow_unstable, name="dense")
    return nn.model(layer, dtype=dtype)


def linoss(
    A: ArrayLike,
    B: ArrayLike,
    C: ArrayLike,
    D: ArrayLike | None,
    dt: ArrayLike,
    *,
    G: ArrayLike | None = None,
    disc: Scheme = "imex",
    allow_unstable: bool = False,
    dtype: Dtype = "float32",
) -> Model:
    """A LinOSS layer alone. Shapes, units and errors are those of `nn.linoss`.

    >>> ssmrt.linoss([4.0], [[1]], [[1]], None, 0.1)
    <ssmrt.Model linoss: 1 -> 1, 6 parameters, float32>
    """
    layer = nn.linoss(A, B, C, D, dt, G=G, disc=disc, allow_unstable=allow_unstable, name="linoss")
    return nn.model(layer, dtype=dtype)


def selective(
    A: ArrayLike,
    x_proj: ArrayLike,
    dt_proj: ArrayLike,
    dt_bias: ArrayLike,
    D: ArrayLike | None,
    *,
    dtype: Dtype = "float32",
) -> Model:
    """Mamba's S6 alone. Shapes, units and errors are those of `nn.selective`.

    >>> ssmrt.selective([[-1.0, -2.0]], [[0.1]] * 5, [[1.0]], [0.0], None)
    <ssmrt.Model selective: 1 -> 1, 10 parameters, float32>
    """
    return nn.model(nn.selective(A, x_proj, dt_proj, dt_bias, D, name="selective"), dtype=dtype)
