"""Layers without a state of their own, and the convolution."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from .. import checks
from .. import document as doc
from ._arrays import optional, real


def linear(weight: ArrayLike, bias: ArrayLike | None = None, *, name: str = "") -> doc.Linear:
    """The affine map y = weight x + bias; weight (d_out, d_in), bias (d_out,).

    So have PyTorch and Equinox them; a kernel of Flax is transposed.
    """
    return doc.Linear(real("weight", weight, "d_out, d_in"), optional("bias", bias, "d_out"), name=name)


def embedding(weight: ArrayLike, *, name: str = "") -> doc.Embedding:
    """The row y = weight[token]; weight (vocabulary, d_out). Stands first: the input is one integer a sample."""
    return doc.Embedding(real("weight", weight, "vocabulary, d_out"), name=name)


def layer_norm(
    weight: ArrayLike | None = None, bias: ArrayLike | None = None, *, eps: float = 1e-5, name: str = ""
) -> doc.Norm:
    """Layer norm y = (x - mean) / sqrt(var + eps) * weight + bias over the channels of a sample; weight, bias (d,).

    PyTorch's and Equinox' eps is 1e-5, Flax' 1e-6.
    """
    return doc.Norm(
        "layer", optional("weight", weight, "d"), optional("bias", bias, "d"), checks.number("eps", eps), name=name
    )


def rms_norm(
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    size: int | None = None,
    name: str = "",
) -> doc.Norm:
    """RMS norm y = x / sqrt(mean(x^2) + eps) * weight + bias over the channels of a sample; weight, bias (d,).

    ``size``: over each run of that many channels by itself, as Mamba-2's over the channels of a group.
    """
    weight, bias = optional("weight", weight, "d"), optional("bias", bias, "d")
    runs = None if size is None else checks.whole("size", size, 1)
    return doc.Norm("rms", weight, bias, checks.number("eps", eps), size=runs, name=name)


def batch_norm(
    mean: ArrayLike,
    var: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    name: str = "",
) -> doc.Norm:
    """Batch norm y = (x - mean) / sqrt(var + eps) * weight + bias.

    All are (d,); mean and var are the running statistics of the training.
    """
    eps = checks.number("eps", eps)
    centre, spread = (np.asarray(real(n, x, "d"), np.float64) for n, x in (("mean", mean), ("var", var)))
    if not (spread + eps > 0).all():
        raise ValueError(f"var: expected numbers above -eps = {-eps:g}, found {spread.min():g}")
    scale = 1 / np.sqrt(spread + eps)
    if weight is not None:
        scale = scale * real("weight", weight, "d")
    shift = -centre * scale
    if bias is not None:
        shift = shift + real("bias", bias, "d")
    return doc.Norm("affine", scale, shift, name=name)


def activation(function: doc.Function, *, size: int | None = None, name: str = "") -> doc.Activation:
    """An element-wise function; "softmax" and "log_softmax" go over runs of ``size`` channels, None: over all.

    "identity", "gelu" (by erf), "gelu_tanh" (its approximation, the default of JAX and Flax), "relu", "leaky_relu",
    "silu", "sigmoid", "tanh", "softplus", "elu", "sqrelu".
    """
    return doc.Activation(function, size, name=name)


def glu(gate: doc.Function = "sigmoid", *, name: str = "") -> doc.Glu:
    """First half of the channels times ``gate`` of the second half (Dauphin et al. 2017, eq. 1)."""
    return doc.Glu(gate, name=name)


def pool(mode: Literal["mean", "sum", "last", "first"], *, name: str = "") -> doc.Pool:
    """One sample from a sequence; streamed, as if the sequence ended with it. Only in the outermost `sequential`."""
    return doc.Pool(mode, name=name)


def conv1d(
    weight: ArrayLike, bias: ArrayLike | None = None, *, x0: ArrayLike | None = None, name: str = ""
) -> doc.Conv1d:
    """Causal depthwise convolution: y[t] = sum_k weight[:, K-1-k] x[t-k] + bias.

    weight (d, K), or (d, 1, K) as PyTorch has it where groups = d and K - 1 zeros are put before the sequence.
    ``x0`` (d, K - 1): the inputs before a stream's first sample, the oldest first; None: those zeros.
    """
    array = checks.floats("weight", weight)
    if array.ndim == 3 and array.shape[1] == 1:
        array = array[:, 0]
    return doc.Conv1d(
        real("weight", array, "d, K"), optional("bias", bias, "d"), x0=optional("x0", x0, "d, K - 1"), name=name
    )
