"""Small pictures of layers as SVG, and tables that hold them as HTML: what a notebook shows of a model."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 120, 28
_DOTS = 500
_CELL = 'style="text-align:left;white-space:pre;padding:0 0.8em 0 0"'


def envelope(kernels: NDArray[Any]) -> str:
    """Kernels (..., length) as one shape: between the 10th and the 90th percentile of their magnitudes, and the median.

    Each kernel's largest magnitude is 1.
    """
    lines = np.abs(kernels.reshape(-1, kernels.shape[-1]))
    peaks = lines.max(axis=1, keepdims=True)
    low, middle, high = np.percentile(lines / np.where(peaks > 0, peaks, 1), (10, 50, 90), axis=0)
    x = np.linspace(0, WIDTH, lines.shape[1])
    area = _points(np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]]))
    parts = f'<polygon points="{area}" fill="#9ecae1"/>'
    return _svg(WIDTH, parts + f'<polyline points="{_points(x, middle)}" fill="none" stroke="#08519c"/>')


def circle(poles: NDArray[Any]) -> str:
    """Discrete poles (n,), or some where they are many, with their conjugates in the unit circle; red outside of it."""
    both = np.concatenate([poles, np.conj(poles)])
    both = both[:: len(both) // _DOTS + 1]
    radius, outside = HEIGHT / 2 - 2, np.abs(both) > 1
    dots = ""
    for chosen, colour in ((both[~outside], "#08519c"), (both[outside], "#d7301f")):
        places = "".join(f"M{HEIGHT / 2 + radius * z.real:.1f} {HEIGHT / 2 - radius * z.imag:.1f}h0" for z in chosen)
        dots += f'<path d="{places}" stroke="{colour}" stroke-width="1.5" stroke-linecap="round"/>' if places else ""
    rim = f'<circle cx="{HEIGHT / 2}" cy="{HEIGHT / 2}" r="{radius}" fill="none" stroke="#999"/>'
    return _svg(HEIGHT, rim + dots)


def table(title: str, head: Sequence[str], rows: Sequence[tuple[Sequence[str], str]]) -> str:
    """An HTML table: a row's cells are text, and the last is what its pictures are."""
    lines = ["".join(f"<th {_CELL}>{escape(name)}</th>" for name in head)]
    lines += [
        "".join(f"<td {_CELL}>{escape(cell)}</td>" for cell in cells) + f"<td>{drawn}</td>" for cells, drawn in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div><code>{escape(title)}</code><table>{body}</table></div>"


def _points(x: NDArray[Any], y: NDArray[Any]) -> str:
    return " ".join(f"{a:.1f},{HEIGHT - 1 - (HEIGHT - 2) * b:.1f}" for a, b in zip(x, y))


def _svg(width: int, parts: str) -> str:
    size = f'width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{parts}</svg>'
