"""Pictures of state-space layers, and of their reduction. Needs matplotlib, the extra ``plot``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from . import checks
from .errors import UnsupportedError
from .model import Model
from .reduction import Report

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
    layers = model.layers()
    if layer is not None and layer >= len(layers):
        raise ValueError(f"layer: expected 0 to {len(layers) - 1}, found {layer}")
    # A selective layer and an SSD have no kernel: their input chooses their poles.
    chosen = [i for i, known in enumerate(layers) if known["kind"] not in ("selective", "ssd") and layer in (None, i)]
    if not chosen:
        raise UnsupportedError("the model has no state-space layer with fixed poles to draw")
    made = _figure((10, 3 * len(chosen)))
    axes = made.subplots(len(chosen), 2, squeeze=False, width_ratios=(2, 1))
    for (left, right), i in zip(axes, chosen):
        _kernels(left, model, i, length)
        left.set_title(layers[i]["name"] or f"layer {i}", loc="left", fontsize="medium")
        _circle(right, _poles(model, i))
    return made


def _figure(size: tuple[float, float]) -> Figure:
    try:
        # Not pyplot: that would choose a window system.
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ImportError("this needs matplotlib: pip install 'ssmrt[plot]'") from None
    return Figure(figsize=size, layout="constrained")


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


def reduction(report: Report) -> Figure:
    """Draw what `ssmrt.reduce` did: error against states, and each layer's states and error.

    Raises ImportError where matplotlib is missing, TypeError where ``report`` is none.
    """
    checks.instance("report", report, Report, "the report of ssmrt.reduce")
    made = _figure((10, 4))
    left, right = made.subplots(1, 2, width_ratios=(1, 1))
    tries = sorted(report.tries, key=lambda one: (one.states, one.error))
    left.plot([one.states for one in tries], [one.error for one in tries], "o-", linewidth=0.8)
    left.axvline(report.states_before, color="0.7", linewidth=0.8)
    left.set(xlabel=f"states of {report.states_before}", ylabel="error of the model's answers", xscale="log")
    if any(one.error > 0 for one in tries):
        left.set_yscale("log")
    names = [layer.name or f"layer {i}" for i, layer in enumerate(report.layers)]
    right.barh(names, [layer.states_before for layer in report.layers], color="0.85")
    bars = right.barh(names, [layer.states for layer in report.layers])
    right.bar_label(
        bars, [layer.left or f"{layer.relative:.1e}" for layer in report.layers], fontsize="small", padding=3
    )
    right.invert_yaxis()
    right.set(xlabel="states; beside them the layer's error")
    return made
