"""Layers put together, and made a model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from .. import _native, checks
from .. import document as doc
from ..errors import CheckpointError
from ..model import Dtype, Model
from ._arrays import real

Layer = doc.Node | Model


def model(
    layer: Layer,
    *,
    sample_rate: float | None = None,
    labels: Sequence[str] | None = None,
    dtype: Dtype = "float32",
) -> Model:
    """The model that ``layer`` is; how wide its inputs and outputs are follows from the layers in it.

    Parameters
    ----------
    layer
        The outermost layer, by custom a `sequential`.
    sample_rate
        Samples a second in training, for who runs the model on a sound.
    labels
        What each output stands for.
    dtype
        The engine's precision, "float32" or "float64".

    Raises
    ------
    ValueError
        Layers that do not fit one another, numbers that are not finite, an unstable system; the message names the
        layer. Layers none of which says how wide it is.

    >>> ssmrt.nn.model(ssmrt.nn.linear(np.ones((2, 3))), sample_rate=16000)
    <ssmrt.Model linear: 3 -> 2, 6 parameters, float32>
    """
    node = as_node(layer)
    try:
        d_input, d_output = widths(node)
    except CheckpointError as error:
        raise ValueError(str(error)) from None
    document = doc.Document(
        node,
        d_input,
        d_output,
        {"arch": doc.KIND_OF[type(node)]},
        None if sample_rate is None else checks.positive("sample_rate", sample_rate),
        # A string is no row of labels, though Python could make one of it.
        labels if labels is None or isinstance(labels, str) else tuple(labels),  # type: ignore[arg-type]
    )
    try:
        return Model(document, dtype)
    except CheckpointError as error:
        # There is no checkpoint here: the arrays are the caller's arguments.
        raise ValueError(str(error)) from None


def widths(node: doc.Node, d_input: int | None = None) -> tuple[int, int]:
    """Numbers in a sample and in an answer, as the engine finds them from the layers; the first may be given."""
    tree, tensors = doc.encode(doc.Document(node, 0, 0))
    unknown = {**json.loads(tree), "d_input": d_input, "d_output": None}
    held = _native.Document(json.dumps(unknown), list(tensors.items()))
    return held.d_input, held.d_output


def sequential(layers: Iterable[Layer], *, name: str = "") -> doc.Sequential:
    """One layer after the other; of none, the identity.

    >>> layers = [ssmrt.nn.linear(np.ones((4, 3))), ssmrt.nn.activation("gelu"), ssmrt.nn.pool("mean")]
    >>> ssmrt.nn.model(ssmrt.nn.sequential(layers))
    <ssmrt.Model sequential: 3 -> 4, 12 parameters, float32>
    """
    return doc.Sequential(tuple(as_node(layer) for layer in layers), name=name)


def residual(
    layer: Layer,
    *,
    skip: Layer | None = None,
    alpha: float = 1.0,
    beta: float | ArrayLike = 1.0,
    name: str = "",
) -> doc.Residual:
    """The sum y = alpha skip(x) + beta layer(x); skip is the identity unless given, beta a number or (d,).

    >>> ssmrt.nn.model(ssmrt.nn.residual(ssmrt.nn.linear(np.zeros((3, 3)))))(np.ones((1, 3)))
    array([[1., 1., 1.]], dtype=float32)
    """
    scale = checks.number("beta", beta) if np.ndim(beta) == 0 else real("beta", beta, "d")
    around = None if skip is None else as_node(skip)
    return doc.Residual(as_node(layer), around, checks.number("alpha", alpha), scale, name=name)


def gate(left: Layer, right: Layer, *, name: str = "") -> doc.Gate:
    """The product y = left(x) * right(x), element by element.

    >>> left = ssmrt.nn.linear(np.ones((3, 2)))
    >>> right = ssmrt.nn.sequential([ssmrt.nn.linear(np.ones((3, 2))), ssmrt.nn.activation("silu")])
    >>> ssmrt.nn.model(ssmrt.nn.gate(left, right))
    <ssmrt.Model gate: 2 -> 3, 12 parameters, float32>
    """
    return doc.Gate(as_node(left), as_node(right), name=name)


def as_node(layer: Layer) -> doc.Node:
    """The node that a layer is."""
    node = layer.document.root if isinstance(layer, Model) else layer
    if not isinstance(node, doc.Node):
        raise TypeError(f"expected a layer, as the functions of ssmrt.nn make them, found {type(layer).__name__}")
    return node
