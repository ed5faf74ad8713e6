"""NumPy: FFT convolution and steps as one would write them without any framework; and the references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import work
from worker import Job, Skip


def versions() -> dict[str, str]:
    """What runs."""
    return {"numpy": np.__version__}


def prepare(name: str, p: dict[str, Any], folder: Path) -> Job:
    """The job of a piece of work."""
    makers = {"fft": _fft, "step": _step, "copy": _copy, "reference": _reference, "spotter_reference": _spotter}
    if name not in makers:
        raise Skip(f"NumPy has no {name}")
    return makers[name](p, folder)


def _reference(p: dict[str, Any], folder: Path) -> Job:
    x = work.layer(p["kind"], p["H"], p["N"])
    if p["what"] == "kernel":
        answer = work.kernel(x, p["L"])
    else:
        length = 64 if p["what"] == "step" else p["L"]
        answer = work.convolve(work.kernel(x, length), x.D, work.samples(length, p["H"], p.get("B", 1)))
    return Job(lambda _: None, [None], lambda: answer)


def _spotter(p: dict[str, Any], folder: Path) -> Job:
    model = work.Spotter.load(folder / f"{p['model']}.npz")
    answer = model.float64(work.clip()[:, : p["L"]])
    upstream = work.spotter_logits(p["model"]) if p["L"] == 16_000 else None
    if upstream is not None and np.abs(answer - upstream).max() > 1e-6 * np.abs(upstream).max():
        raise ValueError(f"the reference {answer} is not upstream's {upstream}")
    return Job(lambda _: None, [None], lambda: answer)


def _copy(p: dict[str, Any], folder: Path) -> Job:
    """What any layer must do at least: read its samples and write as many."""
    u = work.samples(p["L"], p["H"], p.get("B", 1))
    y = np.empty_like(u)
    return Job(lambda u: np.copyto(y, u), [u])


def _fft(p: dict[str, Any], folder: Path) -> Job:
    x = work.layer(p["kind"], p["H"], p["N"])
    u = np.ascontiguousarray(work.samples(p["L"], p["H"], p.get("B", 1)).transpose(0, 2, 1))
    kf = work.spectrum(work.kernel(x, p["L"]), p["L"]).astype(np.complex64)
    d = x.D.astype(np.float32)[:, None]

    def call(u: work.Array) -> work.Array:
        n = 2 * u.shape[-1]
        y = np.fft.irfft(np.fft.rfft(u, n) * kf, n)[..., : u.shape[-1]]
        return y + d * u

    return Job(call, [u], lambda: call(u).transpose(0, 2, 1))


def _step(p: dict[str, Any], folder: Path) -> Job:
    if p["kind"] != "s4d":
        raise Skip("only the diagonal step is written in NumPy")
    x = work.layer(p["kind"], p["H"], p["N"])
    a_bar, c = (v.astype(np.complex64) for v in work.zoh(x))
    c = 2 * c
    d = x.D.astype(np.float32)
    u = work.samples(64, p["H"])[0]
    state = np.zeros_like(a_bar)

    def call(u: work.Array) -> work.Array:
        nonlocal state
        state = a_bar * state + u[:, None]
        y: work.Array = np.einsum("hn,hn->h", c, state).real + d * u
        return y

    def output() -> work.Array:
        nonlocal state
        state = np.zeros_like(a_bar)
        return np.stack([call(v) for v in u])[None]

    return Job(call, list(u), output, warm_calls=64)
