"""Pictures of state-space layers. Needs matplotlib, the extra ``plot``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from . import checks
from .errors import UnsupportedError
from .model import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Poles = NDArray[np.complex128]

_SYSTEMS_SHOWN = 64


def figure(model: Model, length: int = 1024, *, layer: int | None = None) -> Figure:
    """Draw each state-space layer: its kernels, one line a channel, and its discrete poles in the unit circle.

    ``layer`` draws one of them alone, numbered as in `Model.kernel`. Raises `UnsupportedError` where the model has none
    with fixed poles, ValueError where ``layer`` is none of its, TypeError where an argument is of another kind,
    ImportError where matplotlib is missing.
    """
    checks.instance("model", model, Model, "a model")
    length = checks.whole("length", length, 1)
    if layer is not None:
        layer = checks.whole("layer", layer)
    try:
        # Not pyplot: that would choose a window system.
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ImportError("this needs matplotlib: pip install 'ssmrt[plot]'") from None
    layers = model.layers()
    if layer is not None and layer >= len(layers):
        raise ValueError(f"layer: expected 0 to {len(layers) - 1}, found {layer}")
    # A selective layer and an SSD have no kernel: their input chooses their poles.
    chosen = [i for i, known in enumerate(layers) if known["kind"] not in ("selective", "ssd") and layer in (None, i)]
    if not chosen:
        raise UnsupportedError("the model has no state-space layer with fixed poles to draw")
    made = Figure(figsize=(10, 3 * len(chosen)), layout="constrained")
    axes = made.subplots(len(chosen), 2, squeeze=False, width_ratios=(2, 1))
    for (left, right), i in zip(axes, chosen):
        _kernels(left, model, i, length)
        left.set_title(layers[i]["name"] or f"layer {i}", loc="left", fontsize="medium")
        _circle(right, _poles(model, i))
    return made


def _kernels(axes: Axes, model: Model, layer: int, length: int) -> None:
    kernels = model.kernel(layer, length)
    lines = kernels.reshape(-1, length)[:_SYSTEMS_SHOWN]
    axes.plot(lines.T, linewidth=0.6, alpha=0.6)
    axes.set(xlabel="sample", ylabel="kernel", xlim=(0, max(1, length - 1)))


def _poles(model: Model, layer: int) -> Poles:
    """Those of the first systems."""
    poles = model.poles(layer)
    if model.layers()[layer]["kind"] in ("diagonal_mimo", "linoss"):
        return poles
    channels = model.kernel(layer, 0).shape[1]
    return poles[: len(poles) // channels * _SYSTEMS_SHOWN]


def _circle(axes: Axes, points: Poles) -> None:
    turn = np.exp(2j * np.pi * np.linspace(0, 1, 361))
    axes.plot(turn.real, turn.imag, color="0.7", linewidth=0.8)
    axes.scatter(points.real, points.imag, s=2, alpha=0.5, linewidths=0)
    axes.set(aspect="equal", xlabel="Re", ylabel="Im")
    axes.set_title("poles", fontsize="medium")
