"""What is measured: parameters and inputs, the same in every process, and float64 answers to check against.

NumPy only, so that every engine's interpreter can import it. Symbols as in the package: H channels, N states
(N / 2 conjugate pairs), L samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SEED = 398
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Layer:
    """One state-space layer in continuous time, y = 2 Re(C x) + D u or y = C x + D u."""

    kind: str  # "s4d", "s4", "lssl"
    A: Array  # (H, N/2) complex for s4d and s4; (N, N) real for lssl
    B: Array  # (H, N/2); (N,)
    C: Array  # (H, N/2); (H, N)
    D: Array  # (H,)
    dt: Array  # (H,)
    P: Array | None = None  # (H, N/2), s4
    # The same system as dense real matrices (s4 and lssl): A (N, N), B (N,), C (H, N).
    real: tuple[Array, Array, Array] | None = None


def hippo_legs(n: int) -> tuple[Array, Array]:
    """HiPPO-LegS (Gu et al. 2020): A (N, N) and B (N,)."""
    q = np.sqrt(2 * np.arange(n) + 1.0)
    return -np.tril(np.outer(q, q), -1) - np.diag(np.arange(n) + 1.0), q


def hippo_legt(n: int) -> tuple[Array, Array]:
    """HiPPO-LegT (Gu et al. 2020) at half speed, as upstream's S4 repository has it."""
    i, j = np.ogrid[:n, :n]
    q = np.sqrt(2 * np.arange(n) + 1.0)
    return -0.5 * np.where(i < j, (-1.0) ** (i - j), 1.0) * np.outer(q, q), 0.5 * q


@lru_cache(maxsize=8)
def legs_modes(n: int) -> tuple[Array, Array, Array, Array]:
    """LegS as conjugate pairs plus rank one: Lambda, P, B (N/2,) and the modes V (N, N/2)."""
    a, b = hippo_legs(n)
    p = np.sqrt(np.arange(n) + 0.5)
    skew = a + np.outer(p, p) + 0.5 * np.eye(n)
    imag, v = np.linalg.eigh(-1j * (skew - skew.T) / 2)
    v = v[:, imag > 0]
    imag = imag[imag > 0]
    return -0.5 + 1j * imag, v.conj().T @ p, v.conj().T @ b, v


@lru_cache(maxsize=4)
def layer(kind: str, h: int, n: int) -> Layer:
    """A layer with its paper's initialisation, dt log-uniform in [1e-3, 1e-1], C and D normal."""
    rng = np.random.default_rng(SEED)
    dt = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), h))
    d = rng.standard_normal(h)
    if kind == "s4d":
        a = np.broadcast_to(-0.5 + 1j * np.pi * np.arange(n // 2), (h, n // 2)).copy()
        c = (rng.standard_normal(a.shape) + 1j * rng.standard_normal(a.shape)) * np.sqrt(0.5)
        return Layer(kind, a, np.ones_like(a), c, d, dt)
    c_real = rng.standard_normal((h, n)) * np.sqrt(2.0 / n)
    if kind == "s4":
        lam, p, b, v = legs_modes(n)
        wide = [np.broadcast_to(x, (h, n // 2)).copy() for x in (lam, p, b)]
        return Layer(kind, wide[0], wide[2], c_real @ v, d, dt, P=wide[1], real=(*hippo_legs(n), c_real))
    a, b = hippo_legt(n)
    return Layer(kind, a, b, c_real, d, dt, real=(a, b, c_real))


def samples(length: int, width: int, batch: int = 1) -> Array:
    """Normal noise (batch, length, width) float32."""
    return np.random.default_rng(SEED + 1).standard_normal((batch, length, width), dtype=np.float32)


def zoh(x: Layer) -> tuple[Array, Array]:
    """Abar and C B (Abar - 1) / A, (H, N/2) complex: zero-order hold of a diagonal layer, B folded into C."""
    z = x.A * x.dt[:, None]
    return np.exp(z), x.C * x.B * np.expm1(z) / x.A


def bilinear(a: Array, b: Array, dt: Array) -> tuple[Array, Array]:
    """Abar (H, N, N) and Bbar (H, N) of one dense system at every step size."""
    eye = np.eye(len(a))
    half = dt[:, None, None] / 2 * a
    return np.linalg.solve(eye - half, eye + half), np.linalg.solve(eye - half, (dt[:, None] * b)[..., None])[..., 0]


def complex_dense(x: Layer) -> tuple[Array, Array, Array]:
    """S4 discretised as annotated-s4 and Equinox's S4 hold it: Abar (H, N, N), Bbar, C (H, N), complex, y = Re(C x)."""
    assert x.P is not None
    lam, p, b, c = (np.concatenate([v, v.conj()], -1) for v in (x.A, x.P, x.B, x.C))
    full = lam[0][:, None] * np.eye(lam.shape[1]) - np.outer(p[0], p[0].conj())
    a_bar, b_bar = bilinear(full, b[0], x.dt)
    return a_bar, b_bar, c


def kernel(x: Layer, length: int) -> Array:
    """The convolution kernel (H, L) float64 without D, by powers split as t = i + j T."""
    split = int(np.ceil(np.sqrt(length)))
    if x.kind == "s4d":
        a_bar, c = zoh(x)
        fine = a_bar[..., None] ** np.arange(split)
        coarse = c[..., None] * (a_bar**split)[..., None] ** np.arange(split)
        k = 2 * np.einsum("hnj,hni->hji", coarse, fine, optimize=True).real
        return np.ascontiguousarray(k.reshape(len(k), -1)[:, :length])
    assert x.real is not None
    a_bar, b_bar = bilinear(x.real[0], x.real[1], x.dt)
    fine_, coarse_ = [b_bar], [x.real[2]]
    for _ in range(split - 1):
        fine_.append((a_bar @ fine_[-1][..., None])[..., 0])
    jump = np.linalg.matrix_power(a_bar, split)
    for _ in range(split - 1):
        coarse_.append((coarse_[-1][:, None] @ jump)[:, 0])
    k = np.stack(coarse_, 1) @ np.stack(fine_, 2)
    return np.ascontiguousarray(k.reshape(len(k), -1)[:, :length])


def convolve(k: Array, d: Array, u: Array) -> Array:
    """Causal convolution of u (..., L, H) with k (H, L), plus D u, in float64."""
    u = np.asarray(u, np.float64)
    n = 2 * u.shape[-2]
    y = np.fft.irfft(np.fft.rfft(u, n, axis=-2) * np.fft.rfft(k, n).T, n, axis=-2)
    y = y[..., : u.shape[-2], :] + d * u
    return np.asarray(y)


def spectrum(k: Array, length: int) -> Array:
    """The kernel's spectrum (H, L + 1) for convolution with sequences of ``length``, complex128."""
    return np.fft.rfft(k, 2 * length)


def plain_fma(h: int, n: int, length: int) -> int:
    """Multiply-adds of the plain diagonal recurrence: x' = a x + u (4 and an add), y = Re(c x) (2) a pair."""
    return h * (n // 2) * length * 6


SPOTTERS = [ROOT.parent / "shared/checkpoints/kws", ROOT / "tests/golden/kws", ROOT / "python/ssmrt/data"]


def spotter_file(name: str) -> Path | None:
    """A keyword spotter's file, or the file of its references or clips; None where the checkout has none."""
    for folder in SPOTTERS:
        if (folder / name).is_file():
            return folder / name
    for folder in (ROOT / "tests", ROOT / "python"):
        for found in sorted(folder.rglob(name)):
            return found
    return None


def clip() -> Array:
    """One second of 16 kHz sound (1, 16000, 1) float32: the first test clip, or noise where there is none."""
    path = spotter_file("test_clips.npz")
    if path is None:
        return samples(16_000, 1) * np.float32(0.1)
    with np.load(path) as clips:
        q = clips["mulaw"][0].astype(np.float64) / 127
    sound = np.sign(q) * (256.0 ** np.abs(q) - 1) / 255
    return np.asarray(sound, np.float32).reshape(1, -1, 1)


def spotter_logits(name: str) -> Array | None:
    """The first test clip's float64 logits (1, 10) where the reference stands beside the checkout."""
    path = spotter_file(f"{name}_ref64.npz")
    if path is None or spotter_file("test_clips.npz") is None:
        return None
    with np.load(path) as ref:
        at = np.flatnonzero(ref["clip_index"] == 0)
        logits: Array = ref["logits64"][at]
        return logits if len(at) else None


@dataclass(frozen=True)
class Spotter:
    """A keyword spotter taken apart for engines that do not know ssmrt."""

    encoder: tuple[Array, Array]
    layers: list[dict[str, Array]]  # a_bar, c, d, kernel, weight, bias, norm_weight, norm_bias
    decoder: tuple[Array, Array]
    eps: float

    @staticmethod
    def load(path: Path) -> Spotter:
        """Read what the ssmrt engine wrote for its peers."""
        with np.load(path) as z:
            parts = {name: z[name] for name in z.files}
        layers = [
            {n.split(".", 1)[1]: v for n, v in parts.items() if n.startswith(f"{i}.")}
            for i in range(int(parts["n_layers"]))
        ]
        pair = [(parts[f"{n}_weight"], parts[f"{n}_bias"]) for n in ("encoder", "decoder")]
        return Spotter(pair[0], layers, pair[1], float(parts["eps"]))

    def float64(self, u: Array) -> Array:
        """The logits (1, d_output) of u (1, L, 1), in float64 by FFT: the answer that every engine must give."""
        x = np.asarray(u[0], np.float64) @ self.encoder[0].T + self.encoder[1]
        for layer in self.layers:
            y = convolve(layer["kernel"][:, : len(x)], layer["d"], x)
            y = y * (1 + erf(y * np.sqrt(0.5))) / 2 @ layer["weight"].T + layer["bias"]
            x = x + y[:, : y.shape[1] // 2] / (1 + np.exp(-y[:, y.shape[1] // 2 :]))
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + self.eps)
            x = x * layer["norm_weight"] + layer["norm_bias"]
        return np.asarray(x.mean(0) @ self.decoder[0].T + self.decoder[1])[None]


def erf(x: Array) -> Array:
    """The error function, element by element in float64."""
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x))


def spotter_fma(d_model: int = 64, n: int = 64, layers: int = 4, length: int = 16_000) -> int:
    """Multiply-adds of a whole clip by the plain recurrence: recurrence, D, output linear; encoder."""
    return layers * (plain_fma(d_model, n, length) + length * (d_model + 2 * d_model * d_model)) + length * d_model
