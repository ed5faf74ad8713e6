"""Pictures of state-space layers, of their reduction and of latencies. Needs matplotlib, the extra ``plot``.

Colours are those that colour-blind people tell apart: cividis, and Okabe and Ito's blue, orange and vermilion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import checks
from .errors import UnsupportedError
from .model import Model
from .reduction import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_BLUE, _ORANGE, _VERMILION = "#0072B2", "#E69F00", "#D55E00"
# What more rows, columns and dots would not show.
_ROWS, _BINS, _DOTS = 400, 240, 20_000
_FLOOR_DB = -60.0


@dataclass(frozen=True)
class _Layer:
    """What is drawn of a layer: kernels (rows, length), most of them and in the order of their mean times."""

    title: str
    kernels: Floats
    mean_times: Floats
    poles: NDArray[np.complex128]
    time_constants: Floats
    sample: float
    """The time between samples, in seconds where the training's sampling rate is known."""
    known: bool

    @property
    def unit(self) -> str:
        return "s" if self.known else "samples"


def figure(model: Model, length: int = 1024, *, layer: int | None = None, rate: float = 1.0) -> Figure:
    """Draw state-space layers: an overview with a row for each, or the page of one.

    Four pictures a layer. Its kernels' envelopes, a row each, ordered by the mean time of their energy (the line), over
    time on a logarithmic scale. Its discrete poles, conjugates too, in the unit circle; those outside of it are marked.
    The magnitude of its frequency responses: the median, and between the 10th and the 90th percentile. The distribution
    of its modes' time constants. In seconds and hertz where the model knows the sampling rate of its training.

    Parameters
    ----------
    model
        The model.
    length
        Samples of the kernels.
    layer
        Which layer to draw, numbered as in `Model.kernel`; None: all with fixed poles.
    rate
        Multiplies every step size.

    Raises
    ------
    UnsupportedError
        The model has no layer with fixed poles.
    ValueError, TypeError
        There is no such layer, or an argument is of another kind.
    ImportError
        matplotlib is missing.

    >>> from ssmrt import plots
    >>> plots.figure(model).savefig("layers.png")
    """
    checks.instance("model", model, Model, "a model")
    length = checks.whole("length", length, 2)
    rate = checks.positive("rate", rate)
    if layer is not None:
        layer = checks.whole("layer", layer)
    made_by = _matplotlib()
    chosen = drawable(model)
    known = len(model.layers())
    if layer is not None and layer >= known:
        raise ValueError(f"layer: expected 0 to {known - 1}, found {layer}")
    if layer is not None:
        chosen = [i for i in chosen if i == layer]
    if not chosen:
        raise UnsupportedError("the model has no state-space layer with fixed poles to draw")
    if layer is not None:
        made: Figure = made_by(figsize=(11, 8), layout="constrained")
        _draw(made.subplots(2, 2).ravel(), _look(model, layer, length, rate), brief=False)
    else:
        made = made_by(figsize=(15, 3 * len(chosen)), layout="constrained")
        rows = made.subplots(len(chosen), 4, squeeze=False, width_ratios=(2, 1, 1.4, 1.2))
        for row, i in zip(rows, chosen):
            _draw(row, _look(model, i, length, rate), brief=True)
    return made


def drawable(model: Model) -> list[int]:
    """The layers with fixed poles: of a selective layer and an SSD their input chooses them."""
    return [i for i, known in enumerate(model.layers()) if known["kind"] not in ("selective", "ssd")]


def latencies(microseconds: Mapping[str, NDArray[Any]]) -> Figure:
    """Draw how often a call took how long: for each name the times of its calls.

    The line is the share of calls that took longer, so that the tail is as easy to read as the median.

    >>> from ssmrt import plots
    >>> plots.latencies({"step": np.array([3.0, 3.1, 3.0, 9.5])}).savefig("latencies.png")
    """
    made: Figure = _matplotlib()(figsize=(8, 4.5), layout="constrained")
    axes = made.subplots()
    for (name, times), colour in zip(microseconds.items(), (_BLUE, _ORANGE, _VERMILION, "#009E73", "#CC79A7") * 9):
        ordered = np.sort(np.asarray(times, np.float64))
        longer = 1 - np.arange(len(ordered)) / len(ordered)
        label = f"{name}: median {np.median(ordered):.3g}, longest {ordered[-1]:.3g}"
        axes.step(ordered, longer, where="pre", color=colour, label=label)
    axes.set(xscale="log", yscale="log", xlabel="microseconds", ylabel="share of calls that took as long")
    axes.grid(alpha=0.3)
    axes.legend()
    return made


def _matplotlib() -> Any:
    try:
        # Not pyplot: that would choose a window system.
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ImportError("this needs matplotlib: pip install matplotlib") from None
    return Figure


def _look(model: Model, layer: int, length: int, rate: float) -> _Layer:
    facts = model.layers(rate=rate)[layer]
    kernels = model.kernel(layer, length, rate=rate).reshape(-1, length)
    energy = kernels**2
    total = energy.sum(axis=1)
    mean_times = energy @ np.arange(1.0, length + 1) / np.where(total > 0, total, 1)
    order = np.argsort(mean_times)[np.linspace(0, len(kernels) - 1, min(_ROWS, len(kernels))).astype(int)]
    modes = model.modes(layer, rate=rate)
    name = facts["name"] or f"layer {layer}"
    known = model.sample_rate is not None
    return _Layer(
        f"{name}: {facts['kind']}, {len(kernels)} kernels" + ("" if rate == 1.0 else f", rate {rate:g}"),
        kernels[order],
        mean_times[order],
        modes.poles,
        modes.time_constants,
        rate / model.sample_rate if model.sample_rate is not None else 1.0,
        known,
    )


def _draw(panels: Any, layer: _Layer, *, brief: bool) -> None:
    heat, circle, response, spread = panels
    _kernels(heat, layer, brief)
    _circle(circle, layer.poles)
    _response(response, layer)
    _spread(spread, layer)
    heat.set_title(layer.title, loc="left", fontsize="medium")
    if not brief:
        # Where it is mostly dark, for the kernels that last least are below; else its own ground is.
        heat.legend(loc="lower right", labelcolor="white", facecolor="#00224e", edgecolor="none")
        response.legend(loc="lower left")
        for axes, title in zip(panels[1:], ("poles", "frequency response", "time constants")):
            axes.set_title(title, loc="left", fontsize="medium")


def _kernels(axes: Axes, layer: _Layer, brief: bool) -> None:
    rows, length = layer.kernels.shape
    # The largest magnitude between two times is what an envelope is, and all of it that a column can show.
    edges = np.unique(np.geomspace(1, length + 1, _BINS).astype(int))
    envelopes = np.maximum.reduceat(np.abs(layer.kernels), edges[:-1] - 1, axis=1)
    peaks = envelopes.max(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        level = np.maximum(20 * np.log10(envelopes / np.where(peaks > 0, peaks, 1)), _FLOOR_DB)
    drawn = axes.pcolormesh(
        edges * layer.sample, np.arange(rows + 1), level, cmap="cividis", vmin=_FLOOR_DB, vmax=0, rasterized=True
    )
    axes.plot(layer.mean_times * layer.sample, np.arange(rows) + 0.5, color="white", linewidth=1, label="mean time")
    axes.set(xscale="log", xlabel=f"time ({layer.unit})", ylabel="kernel", ylim=(0, rows))
    axes.figure.colorbar(drawn, ax=axes, label="dB" if brief else "envelope, dB of each kernel's largest")


def _circle(axes: Axes, poles: NDArray[np.complex128]) -> None:
    turn = np.exp(2j * np.pi * np.linspace(0, 1, 361))
    axes.plot(turn.real, turn.imag, color="0.4", linewidth=1)
    # A family may store one of a pair; a circle with both looks the same for all.
    both = np.concatenate([poles, np.conj(poles)])
    both = both[:: len(both) // _DOTS + 1]
    outside = np.abs(both) > 1
    size = float(np.clip(4000 / len(both), 4, 30))
    axes.scatter(both[~outside].real, both[~outside].imag, s=size, color=_BLUE, alpha=0.4, linewidths=0)
    if outside.any():
        grows = both[outside]
        axes.scatter(grows.real, grows.imag, s=40, marker="x", color=_VERMILION, label="unstable")
        axes.legend(loc="center")
    axes.set(aspect="equal", xlabel="Re", ylabel="Im")


def _response(axes: Axes, layer: _Layer) -> None:
    length = layer.kernels.shape[1]
    magnitude = np.abs(np.fft.rfft(layer.kernels, axis=1))[:, 1:]
    frequency = np.fft.rfftfreq(length, layer.sample)[1:]
    low, middle, high = 20 * np.log10(np.maximum(np.percentile(magnitude, (10, 50, 90), axis=0), 1e-12))
    axes.fill_between(frequency, low, high, color=_BLUE, alpha=0.25, linewidth=0, label="8 of 10 kernels")
    axes.plot(frequency, middle, color=_BLUE, label="their median")
    per = "Hz" if layer.known else "turns a sample"
    axes.set(xscale="log", xlabel=f"frequency ({per})", ylabel="dB", xlim=(frequency[0], frequency[-1]))
    axes.grid(alpha=0.3)


def _spread(axes: Axes, layer: _Layer) -> None:
    constants = layer.time_constants
    lasting = constants[np.isfinite(constants) & (constants > 0)]
    if len(lasting):
        low, high = lasting.min(), lasting.max()
        bins = np.geomspace(low / 1.1, high * 1.1, 40)
        axes.hist(lasting, bins=bins.tolist(), color=_ORANGE)
    # On the unit circle a mode stays, and outside of it it has none.
    endless = len(constants) - len(lasting)
    if endless:
        axes.set_title(f"{endless} of {len(constants)} do not decay", loc="right", fontsize="small", color=_VERMILION)
    axes.set(xscale="log", xlabel=f"time constant ({layer.unit})", ylabel="modes")


def reduction(report: Report) -> Figure:
    """Draw what `ssmrt.reduce` did: error against states, and each layer's states and error.

    Raises ImportError where matplotlib is missing, TypeError where ``report`` is none.

    >>> from ssmrt import plots
    >>> layer = ssmrt.diagonal([[-0.5 + 3j, -1 + 9j]], [[1, 1]], [[1, 0.1]], None, 0.1)
    >>> small, report = ssmrt.reduce(layer, np.sin(np.arange(1000.0) / 30), modes=1)
    >>> plots.reduction(report).savefig("reduction.png")
    """
    checks.instance("report", report, Report, "the report of ssmrt.reduce")
    made: Figure = _matplotlib()(figsize=(10, 4), layout="constrained")
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
