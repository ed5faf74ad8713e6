"""Pictures of state-space layers. Needs matplotlib, the extra ``plot``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import checks
from .document import Dense, Diagonal, DiagonalMimo, Dplr, Node, StateSpace, walk
from .errors import UnsupportedError
from .model import Model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Poles = NDArray[np.complex128]

_SYSTEMS_SHOWN = 64
_ALPHA = {"bilinear": 0.5, "euler": 0.0, "backward_euler": 1.0}


def figure(model: Model, length: int = 1024, *, layer: int | None = None) -> Figure:
    """Draw each state-space layer: its kernels, one line a channel, and its discrete poles in the unit circle.

    ``layer`` draws one of them alone. Raises `UnsupportedError` where the model has none with fixed poles,
    ValueError where ``layer`` is none of its, TypeError where an argument is of another kind, ImportError where
    matplotlib is missing.
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
    nodes = [node for node in walk(model.document.root) if isinstance(node, StateSpace | DiagonalMimo)]
    if not nodes:
        raise UnsupportedError("the model has no state-space layer with fixed poles to draw")
    if layer is not None and layer >= len(nodes):
        raise ValueError(f"layer: expected 0 to {len(nodes) - 1}, found {layer}")
    chosen = range(len(nodes)) if layer is None else [layer]
    made = Figure(figsize=(10, 3 * len(chosen)), layout="constrained")
    axes = made.subplots(len(chosen), 2, squeeze=False, width_ratios=(2, 1))
    for (left, right), i in zip(axes, chosen):
        _kernels(left, model, i, length)
        left.set_title(nodes[i].name or f"layer {i}", loc="left", fontsize="medium")
        _circle(right, poles(nodes[i]))
    return made


def _kernels(axes: Axes, model: Model, layer: int, length: int) -> None:
    kernels = model.kernel(layer, length)
    lines = kernels.reshape(-1, length)[:_SYSTEMS_SHOWN]
    axes.plot(lines.T, linewidth=0.6, alpha=0.6)
    axes.set(xlabel="sample", ylabel="kernel", xlim=(0, max(1, length - 1)))


def _circle(axes: Axes, points: Poles) -> None:
    turn = np.exp(2j * np.pi * np.linspace(0, 1, 361))
    axes.plot(turn.real, turn.imag, color="0.7", linewidth=0.8)
    axes.scatter(points.real, points.imag, s=2, alpha=0.5, linewidths=0)
    axes.set(aspect="equal", xlabel="Re", ylabel="Im")
    axes.set_title("poles", fontsize="medium")


def poles(node: Node) -> Poles:
    """The discrete poles (n,) of the first systems of a state-space layer."""
    if isinstance(node, DiagonalMimo):
        return _discrete(node.A, node.dt, node.disc, node.alpha)
    if not isinstance(node, Diagonal | Dplr | Dense):
        raise UnsupportedError(f"{node.name}: expected a state-space layer with fixed poles")
    channels = np.arange(min(node.C.shape[1], _SYSTEMS_SHOWN))
    step: Any = None if node.dt is None else node.dt[channels].reshape(len(channels), -1)
    if isinstance(node, Diagonal):
        return _discrete(node.A[channels % len(node.A)], step, node.disc, node.alpha).ravel()
    if isinstance(node, Dense):
        values = np.linalg.eigvals(node.A)[channels % len(node.A)]
        return _discrete(values, step, node.disc, node.alpha).ravel()
    return _discrete(np.linalg.eigvals(_full(node))[channels % len(node.A)], step, "bilinear", 0.5).ravel()


def _full(node: Dplr) -> Poles:
    """diag(A) - sum_r P_r Q_r^H of every system, with the conjugates that it stands for."""
    q = node.P if node.Q is None else node.Q
    a, p = node.A, node.P
    if node.conjugate_pairs:
        a, p, q = (np.concatenate([x, x.conj()], axis=-1) for x in (a, p, q))
    matrix: Poles = a[:, :, None] * np.eye(a.shape[1]) - np.einsum("rsi,rsj->sij", p, q.conj())
    return matrix


def _discrete(A: Any, dt: Any, disc: str, alpha: float) -> Poles:
    """Abar of each eigenvalue: Gu et al. 2021b, eq. 3; by zero-order hold exp(dt A)."""
    if disc == "discrete":
        return np.asarray(A, np.complex128)
    z = np.asarray(A * dt, np.complex128)
    if disc in ("zoh", "dss"):
        return np.exp(z)
    part = _ALPHA.get(disc, alpha)
    return (1 + (1 - part) * z) / (1 - part * z)
