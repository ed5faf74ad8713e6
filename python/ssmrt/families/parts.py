"""Pieces that several families are made of."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Activation, Linear, Node
from .config import Config
from .tensors import Tensors

# S4, S4D and S5 (clip_eigs) keep the real part of every eigenvalue at or below this.
CLIP = -1e-4


def layer_count(tensors: Tensors, before: str, after: str) -> int:
    """How many layers there are, named ``before``, the index, ``after``. Raises where the indices have gaps."""
    pattern = re.compile(rf"{re.escape(before)}(\d{{1,9}}){re.escape(after)}")
    found = {int(m[1]) for n in tensors.names if (m := pattern.match(n))}
    for index in range(len(found)):
        if index not in found:
            raise tensors.misfit(f"{before}{index}{after}", "tensors of this layer", "nothing")
    return len(found)


def exp(tensors: Tensors, name: str, *shape: int | str) -> NDArray[np.float64]:
    """The exponential of a stored logarithm, float64; raises where it overflows."""
    stored = tensors.f64(name, *shape)
    with np.errstate(over="ignore"):
        value = np.exp(stored)
    if not np.isfinite(value).all():
        raise tensors.misfit(name, "logarithms of finite numbers", f"{stored.max():.3g}")
    return np.asarray(value)


def side_by_side(*several: Linear) -> Linear:
    """Linears of the same input as one, the outputs of the first first: what a `Glu` splits."""

    def bias(one: Linear) -> NDArray[Any]:
        return np.zeros(one.weight.shape[0], one.weight.dtype) if one.bias is None else one.bias

    weight = np.concatenate([one.weight for one in several])
    return Linear(weight, np.concatenate([bias(one) for one in several]), name=several[0].name)


def log_softmax(name: str, size: int | None = None) -> Node:
    """The head of every classifier here: it answers with log-probabilities."""
    return Activation("log_softmax", size, name=name)


def check_sizes(config: Config, sizes: Mapping[str, tuple[int, str]]) -> None:
    """Hold what config says against the tensors; ``sizes`` has (value, the tensor that says it)."""
    for name, (value, tensor) in sizes.items():
        config.agree(name, value, tensor)
