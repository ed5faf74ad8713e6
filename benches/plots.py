"""Plots of a run: latency, and time against length, states, channels, batch and streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from goals import series

WIDTH, HEIGHT = 8.0, 4.2


def draw(r: dict[str, Any], folder: Path) -> list[Path]:
    """All plots that the run has figures for."""
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for key in ("kws_s4d_step", "kws_s4_step"):
        if r["contests"].get(key, {}).get("histograms"):
            out.append(_latency(r["contests"][key], folder / f"latency_{key.removesuffix('_step')}.png"))
    names = {"L": "length L", "N": "states N", "H": "channels H", "B": "batch B"}
    for axis, name in names.items():
        lines = series(r, axis)
        if lines:
            out.append(_against(lines, name, "ms", 1e-3, folder / f"time_against_{axis}.png"))
    if "kws_s4d_streams" in r["contests"]:
        out.append(_streams(r["contests"]["kws_s4d_streams"], folder / "time_against_streams.png"))
    return out


def _latency(c: dict[str, Any], path: Path) -> Path:
    """Densities on the left, shares of calls that last longer on the right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH * 1.3, HEIGHT))
    for label, h in c["histograms"].items():
        edges, counts = np.array(h["edges"]), np.array(h["counts"])
        share = counts / counts.sum()
        (line,) = left.step(edges[:-1], share, where="post", label=label)
        beyond = 1 - np.cumsum(share)
        right.step(edges[1:], np.maximum(beyond, 0.5 / counts.sum()), where="post", color=line.get_color())
    left.set(xscale="log", xlabel="one sample, us", ylabel="share of calls", title=c["title"])
    right.set(xscale="log", yscale="log", xlabel="one sample, us", ylabel="share of calls that last longer")
    right.axvline(62.5, color="black", linestyle=":", linewidth=1)
    right.text(62.5, 0.5, " a sample at 16 kHz", fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3, which="both", linewidth=0.5)
    left.legend(fontsize=8)
    return _save(figure, path)


def _against(lines: dict[str, list[tuple[int, float]]], name: str, unit: str, factor: float, path: Path) -> Path:
    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT))
    for label, points in lines.items():
        x, t = np.array(points).T
        axes.plot(
            x, t * factor, marker="o", markersize=3, label=label, linestyle="-" if label.startswith("ssmrt") else "--"
        )
    first = next(iter(lines.values()))
    x = np.array([p[0] for p in first])
    axes.plot(x, first[0][1] * factor * x / x[0], color="black", linestyle=":", linewidth=1, label="linear")
    axes.set(xscale="log", yscale="log", xlabel=name, ylabel=f"time, {unit}")
    axes.set_xscale("log", base=2)
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    axes.legend(fontsize=8)
    return _save(figure, path)


def _streams(c: dict[str, Any], path: Path) -> Path:
    lines: dict[str, list[tuple[int, float]]] = {}
    for label, e in c["entries"].items():
        count = c["facts"]["streams"][label]
        name = "ssmrt, 2 threads" if label.endswith("2 threads") else "ssmrt, 1 thread"
        lines.setdefault(name, []).append((count, e["p50"] / count))
    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT))
    for name, points in lines.items():
        x, t = np.array(points).T
        axes.plot(x, t, marker="o", label=name)
    axes.set(xscale="log", xlabel="streams", ylabel="a stream and sample, us", ylim=(0, None), title=c["title"])
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    axes.legend(fontsize=8)
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return path
