"""PyTorch's element-wise and linear modules as nodes, under the names that upstream's options give them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Activation, Embedding, Function, Glu, Linear, Node, Norm
from ..errors import CheckpointError, UnsupportedError
from .config import Config
from .tensors import Dim, Tensors

Array = NDArray[Any]

FUNCTIONS: dict[str | None, Function] = {
    None: "identity",
    "id": "identity",
    "identity": "identity",
    "linear": "identity",
    "none": "identity",
    "tanh": "tanh",
    "relu": "relu",
    "gelu": "gelu",
    "elu": "elu",
    "swish": "silu",
    "silu": "silu",
    "sigmoid": "sigmoid",
    "softplus": "softplus",
    "sqrelu": "sqrelu",
    "relu2": "sqrelu",
}


# What a caller may choose from, each once.
CHOICES = ("gelu", "relu", "silu", "tanh", "elu", "sigmoid", "softplus", "sqrelu", "id", "glu")


def option(config: Config, name: str, default: str | None, why: str) -> Any:
    """The activation that config calls ``name``, asked for where nothing at all was said."""
    if name not in config and config.silent:
        config.get(name, default, choices=CHOICES, why=why)
    return config.get(name, default)


def is_glu(option: Any) -> bool:
    """Whether an activation of that name halves the channels."""
    return isinstance(option, str) and option.startswith("glu")


def activation(option: Any, name: str, source: str) -> tuple[Node, ...]:
    """What upstream calls ``option``, as no or one node called ``name``."""
    if is_glu(option):
        gate = "sigmoid" if option == "glu" else option[len("glu-") :]
        return (Glu(_function(gate, source), name=name),)
    function = _function(option, source)
    return () if function == "identity" else (Activation(function, name=name),)


def _function(option: Any, source: str) -> Function:
    if option in ("laplace", "modrelu"):
        raise UnsupportedError(f"{source}: activation {option!r} is not supported")
    if not isinstance(option, str | None) or option not in FUNCTIONS:
        known = ", ".join(map(repr, FUNCTIONS))
        raise CheckpointError(f"{source}: activation: expected one of {known}, 'glu'; found {option!r}")
    return FUNCTIONS[option]


def linear(t: Tensors, name: str, d_out: Dim, d_in: Dim, node_name: str, *, bias: bool = True) -> Linear:
    """``nn.Linear``, or a convolution of width one; weight-normalised ones are multiplied out.

    ``bias``: whether there must be one.

    Raises `CheckpointError` where the shape is not (d_out, d_in), (d_out, d_in, 1).
    """
    scope = t.scope(f"{name}.")
    if "weight_v" in scope:
        weight = _weight_norm(scope, "weight_g", "weight_v", d_out, d_in)
    elif "parametrizations.weight.original1" in scope:
        weight = _weight_norm(
            scope, "parametrizations.weight.original0", "parametrizations.weight.original1", d_out, d_in
        )
    else:
        weight = _flat(scope, "weight", d_out, d_in)
    shift = _flat(scope, "bias", weight.shape[0]) if bias or "bias" in scope else None
    return Linear(weight, shift, name=node_name)


def _flat(t: Tensors, name: str, *shape: Dim) -> Array:
    """The tensor in this shape, where the file may have an axis of length one behind it."""
    if name in t and len(t.shape(name)) == len(shape) + 1:
        return t.take(name, *shape, 1)[..., 0]
    return t.take(name, *shape)


def _weight_norm(t: Tensors, g: str, v: str, d_out: Dim, d_in: Dim) -> Array:
    """Each output's g v / |v| (Salimans & Kingma 2016, eq. 2)."""
    direction = _flat(t, v, d_out, d_in).astype(np.float64)
    length = t.f64(g, direction.shape[0], *[1] * (len(t.shape(g)) - 1)).reshape(-1, 1)
    norm = np.linalg.norm(direction, axis=1, keepdims=True)
    if not norm.all():
        raise t.misfit(v, "rows other than zero", f"{int((norm == 0).sum())} rows of zeros")
    return np.asarray(length * direction / norm)


def layer_norm(t: Tensors, name: str, d: Dim, node_name: str, eps: float = 1e-5) -> Norm:
    """``nn.LayerNorm`` over the channels."""
    return Norm("layer", t.take(f"{name}.weight", d), t.take(f"{name}.bias", d), eps, name=node_name)


def batch_norm(t: Tensors, name: str, d: int, node_name: str, eps: float = 1e-5) -> Norm:
    """``nn.BatchNorm1d`` in evaluation: its running statistics and weights as one scale and shift a channel."""
    scope = t.scope(f"{name}.")
    scope.ignore("num_batches_tracked")
    mean, var = scope.f64("running_mean", d), scope.f64("running_var", d)
    if (var < 0).any():
        raise scope.misfit("running_var", "no negative number", f"{int((var < 0).sum())} of them")
    scale = 1 / np.sqrt(var + eps)
    shift = -mean * scale
    if "weight" in scope:
        weight, bias = scope.f64("weight", d), scope.f64("bias", d)
        scale, shift = scale * weight, shift * weight + bias
    return Norm("affine", scale, shift, name=node_name)


def transposed_layer_norm(t: Tensors, name: str, d: int, node_name: str) -> Norm:
    """Upstream's norm for the (batch, channel, length) layout: s (x - mean + m) / std, without an eps."""
    scope = t.scope(f"{name}.")
    m, s = float(scope.f64("m", 1)[0]), scope.f64("s", 1)
    return Norm("layer", np.repeat(s, d), eps=0.0, shift=m, name=node_name)


def embedding(t: Tensors, name: str, d: Dim, node_name: str) -> Embedding:
    """``nn.Embedding``, of any number of tokens."""
    return Embedding(t.take(f"{name}.weight", f"{name} tokens", d), name=node_name)
