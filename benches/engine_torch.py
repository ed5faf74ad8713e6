"""PyTorch on the CPU, inference mode, all its threads; the forms of upstream's S4 repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import work
from worker import Job, Skip

torch.set_grad_enabled(False)


def versions() -> dict[str, str]:
    """What runs."""
    return {"torch": torch.__version__, "threads": str(torch.get_num_threads())}


def prepare(name: str, p: dict[str, Any], folder: Path) -> Job:
    """The job of a piece of work."""
    makers = {
        "fft": _fft,
        "step": _step,
        "kernel": _kernel,
        "kernel_and_output": _kernel_and_output,
        "spotter_clip": _spotter_clip,
        "spotter_step": _spotter_step,
    }
    if name not in makers:
        raise Skip(f"no {name} in torch")
    return makers[name](p, folder)


def tensors(*arrays: work.Array, device: str = "cpu") -> list[torch.Tensor]:
    """In single precision."""
    kind = {"f": np.float32, "c": np.complex64}
    return [torch.from_numpy(np.ascontiguousarray(a.astype(kind[a.dtype.kind]))).to(device) for a in arrays]


def convolve(kf: torch.Tensor, d: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Of u (..., H, L) the convolution with a kernel whose spectrum is ready, plus D u."""
    n = 2 * u.shape[-1]
    y = torch.fft.irfft(torch.fft.rfft(u, n=n) * kf, n=n)[..., : u.shape[-1]]
    return y + d[:, None] * u


def _fft(p: dict[str, Any], folder: Path) -> Job:
    x = work.layer(p["kind"], p["H"], p["N"])
    u = torch.from_numpy(np.ascontiguousarray(work.samples(p["L"], p["H"], p.get("B", 1)).transpose(0, 2, 1)))
    kf, d = tensors(work.spectrum(work.kernel(x, p["L"]), p["L"]), x.D)
    return Job(lambda u: convolve(kf, d, u), [u], lambda: convolve(kf, d, u).numpy().transpose(0, 2, 1))


def _step(p: dict[str, Any], folder: Path) -> Job:
    x = work.layer(p["kind"], p["H"], p["N"])
    u = list(torch.from_numpy(work.samples(64, p["H"])[0]))
    if p["kind"] == "s4d":
        a_bar, c = work.zoh(x)
        a, c, d = tensors(a_bar, 2 * c, x.D)

        def advance(state: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
            return a * state + u[:, None]
    else:
        a, b, c, d = tensors(*work.complex_dense(x), x.D)

        def advance(state: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
            return torch.bmm(a, state[..., None])[..., 0] + b * u[:, None]

    state = torch.zeros_like(c)

    def call(u: torch.Tensor) -> torch.Tensor:
        nonlocal state
        state = advance(state, u)
        return (c * state).sum(-1).real + d * u

    def output() -> work.Array:
        nonlocal state
        state = torch.zeros_like(c)
        return np.stack([call(v).numpy() for v in u])[None]

    return Job(call, u, output, warm_calls=64)


def vandermonde(z: torch.Tensor, c: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """2 Re sum_n c_n exp(z_n t): (H, L), as upstream's minimal S4D."""
    return 2 * torch.einsum("hn,hnl->hl", c, torch.exp(z[..., None] * t)).real


def krylov(a: torch.Tensor, b: torch.Tensor, length: int) -> torch.Tensor:
    """(H, N, length) of b, A b, A^2 b, ..., by doubling, as upstream's LSSL."""
    x = b[..., None]
    while x.shape[-1] < length:
        x = torch.cat([x, a @ x], -1)
        if x.shape[-1] < length:
            a = a @ a
    return x[..., :length]


def _kernel(p: dict[str, Any], folder: Path) -> Job:
    x = work.layer(p["kind"], p["H"], p["N"])
    length = p["L"]
    if p["kind"] == "s4d":
        z, c, t = tensors(x.A * x.dt[:, None], work.zoh(x)[1], np.arange(length, dtype=float))
        return Job(lambda _: vandermonde(z, c, t), [None], lambda: vandermonde(z, c, t).numpy())
    assert x.real is not None
    a, b, c = tensors(*work.bilinear(x.real[0], x.real[1], x.dt), x.real[2])

    def call(_: None) -> torch.Tensor:
        return torch.einsum("hn,hnl->hl", c, krylov(a, b, length))

    return Job(call, [None], lambda: call(None).numpy())


def _kernel_and_output(p: dict[str, Any], folder: Path) -> Job:
    x = work.layer(p["kind"], p["H"], p["N"])
    assert x.real is not None
    length = p["L"]
    a, b, c, d = tensors(*work.bilinear(x.real[0], x.real[1], x.dt), x.real[2], x.D)
    u = torch.from_numpy(np.ascontiguousarray(work.samples(length, p["H"]).transpose(0, 2, 1)))

    def call(u: torch.Tensor) -> torch.Tensor:
        k = torch.einsum("hn,hnl->hl", c, krylov(a, b, length))
        return convolve(torch.fft.rfft(k, n=2 * length), d, u)

    return Job(call, [u], lambda: call(u).numpy().transpose(0, 2, 1))


class Mixing:
    """GELU, linear, GLU, residual and norm."""

    def __init__(self, layer: dict[str, work.Array], eps: float, device: str = "cpu"):
        arrays = [layer[n] for n in ("weight", "bias", "norm_weight", "norm_bias")]
        self.weight, self.bias, self.norm_weight, self.norm_bias = tensors(*arrays, device=device)
        self.eps = eps

    def over_time(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Of x and y (1, H, L)."""
        x = x + F.glu(F.conv1d(F.gelu(y), self.weight[..., None], self.bias), dim=-2)
        x = x.transpose(-1, -2)
        return F.layer_norm(x, x.shape[-1:], self.norm_weight, self.norm_bias, self.eps).transpose(-1, -2)

    def one(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Of x and y (1, H)."""
        x = x + F.glu(F.linear(F.gelu(y), self.weight, self.bias), dim=-1)
        return F.layer_norm(x, x.shape[-1:], self.norm_weight, self.norm_bias, self.eps)


def _spotter_clip(p: dict[str, Any], folder: Path) -> Job:
    """Convolution mode: kernel spectra ready, or with ``fresh`` computed in every call as upstream's forward does."""
    model = work.Spotter.load(folder / f"{p['model']}.npz")
    length, fresh = p["L"], p.get("fresh", False)
    if fresh and "a_bar" not in model.layers[0]:
        raise Skip("the Vandermonde kernel is the diagonal layer's")
    encoder, decoder = tensors(*model.encoder), tensors(*model.decoder)
    mixing = [Mixing(layer, model.eps) for layer in model.layers]
    if fresh:
        systems = [tensors(np.log(layer["a_bar"]), layer["c"], layer["d"]) for layer in model.layers]
    else:
        systems = [tensors(work.spectrum(layer["kernel"], length), layer["d"]) for layer in model.layers]
    t = torch.arange(length, dtype=torch.float32)

    def call(u: torch.Tensor) -> torch.Tensor:
        x = F.linear(u, *encoder).transpose(-1, -2)
        for system, mix in zip(systems, mixing):
            kf = torch.fft.rfft(vandermonde(system[0], system[1], t), n=2 * length) if fresh else system[0]
            x = mix.over_time(x, convolve(kf, system[-1], x))
        return F.linear(x.mean(-1), *decoder)

    u = torch.from_numpy(work.clip()[:, :length])
    return Job(call, [u], lambda: call(u).numpy())


def _spotter_step(p: dict[str, Any], folder: Path) -> Job:
    model = work.Spotter.load(folder / f"{p['model']}.npz")
    if "a_bar" not in model.layers[0]:
        raise Skip("written for the diagonal layer only")
    encoder, decoder = tensors(*model.encoder), tensors(*model.decoder)
    mixing = [Mixing(layer, model.eps) for layer in model.layers]
    systems = [tensors(layer["a_bar"], 2 * layer["c"], layer["d"]) for layer in model.layers]
    states: list[torch.Tensor] = []
    total, count = torch.zeros(1, 1), 0

    def start() -> None:
        nonlocal states, total, count
        states = [torch.zeros((1, *a.shape), dtype=torch.complex64) for a, _, _ in systems]
        total, count = torch.zeros(1, len(decoder[0][0])), 0

    def call(u: torch.Tensor) -> torch.Tensor:
        nonlocal total, count
        x = F.linear(u, *encoder)
        for i, ((a, c, d), mix) in enumerate(zip(systems, mixing)):
            states[i] = a * states[i] + x[..., None]
            x = mix.one(x, (c * states[i]).sum(-1).real + d * x)
        total, count = total + x, count + 1
        return F.linear(total / count, *decoder)

    u = list(torch.from_numpy(work.clip()[0, :1000, None]))

    def output() -> work.Array:
        start()
        return np.stack([call(v).numpy()[0] for v in u[:200]])[None]

    start()
    return Job(call, u, output, warm_calls=64)
