"""Weights as layers hold them."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike, NDArray

from .. import checks


def real(name: str, value: ArrayLike, axes: str) -> NDArray[Any]:
    """Weights with these axes, in float32 or float64."""
    array = checks.floats(name, value)
    if array.ndim != axes.count(",") + 1:
        raise ValueError(f"{name}: expected ({axes}{'' if ',' in axes else ','}), found shape {array.shape}")
    return array


def optional(name: str, value: ArrayLike | None, axes: str) -> NDArray[Any] | None:
    """The same, where there are any."""
    return None if value is None else real(name, value, axes)
