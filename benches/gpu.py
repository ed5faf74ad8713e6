"""The spotter on a GPU beside ssmrt on the processor: a clip, and a sample of so many streams.

    python benches/gpu.py [--json run.json]

Needs torch and a GPU. There a clip is an FFT convolution with the spectra of the kernels ready, and a sample one step
of the recurrence for all streams, captured in a CUDA graph once, so that a step is one launch; inputs are there.
ssmrt has all threads that SSMRT_NUM_THREADS allows. Medians; both answers are checked against float64 first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ssmrt
import torch
import work
from engine_ssmrt import export_spotter
from engine_torch import Mixing, convolve, tensors
from torch.nn import functional as F

NAME, LENGTH, SECONDS = "kws_s4d", 16_000, 0.5
CLIPS, STREAMS = (1, 16, 64), (1, 64, 1000, 10_000)


def median(call: Callable[[], Any], finish: Callable[[], Any] = lambda: None) -> float:
    """Seconds of a call, of as many as take so long."""
    call()
    finish()
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        call()
        finish()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


class OnGpu:
    """The spotter as a programmer of PyTorch would run it there."""

    def __init__(self, model: work.Spotter):
        self.encoder = tensors(*model.encoder, device="cuda")
        self.decoder = tensors(*model.decoder, device="cuda")
        self.mixing = [Mixing(layer, model.eps, "cuda") for layer in model.layers]
        spectra = [(work.spectrum(layer["kernel"], LENGTH), layer["d"]) for layer in model.layers]
        self.spectra = [tensors(*pair, device="cuda") for pair in spectra]
        systems = [(layer["a_bar"], 2 * layer["c"], layer["d"]) for layer in model.layers]
        self.systems = [tensors(*system, device="cuda") for system in systems]

    def clip(self, u: torch.Tensor) -> torch.Tensor:
        """Logits of clips (batch, length, 1)."""
        x = F.linear(u, *self.encoder).transpose(-1, -2)
        for (kf, d), mix in zip(self.spectra, self.mixing, strict=True):
            x = mix.over_time(x, convolve(kf, d, x))
        return F.linear(x.mean(-1), *self.decoder)

    def captured(self, batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.cuda.CUDAGraph, Callable[[], None]]:
        """A step of so many streams: its input, its logits, the graph that takes it, what starts the streams anew."""
        states = [torch.zeros((batch, *a.shape), dtype=torch.complex64, device="cuda") for a, _, _ in self.systems]
        total, count = torch.zeros(batch, len(self.decoder[0][0]), device="cuda"), torch.zeros(1, device="cuda")
        u, y = torch.zeros(batch, 1, device="cuda"), torch.zeros(batch, len(self.decoder[1]), device="cuda")

        def step() -> None:
            x = F.linear(u, *self.encoder)
            for state, (a, c, d), mix in zip(states, self.systems, self.mixing, strict=True):
                state.mul_(a).add_(x[..., None])
                x = mix.one(x, (c * state).sum(-1).real + d * x)
            total.add_(x)
            count.add_(1)
            y.copy_(F.linear(total / count, *self.decoder))

        def start() -> None:
            for x in (*states, total, count):
                x.zero_()

        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        start()
        return u, y, graph, start


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU that torch could use")
    torch.set_grad_enabled(False)
    path = work.spotter_file(f"{NAME}.pth")
    if path is None:
        raise SystemExit(f"{NAME}.pth is neither beside the checkout nor in it")
    model = ssmrt.load(path, config={})
    with tempfile.TemporaryDirectory() as folder:
        export_spotter(NAME, LENGTH, Path(folder))
        parts = work.Spotter.load(Path(folder) / f"{NAME}.npz")
    gpu = OnGpu(parts)
    u = work.clip()[:, :LENGTH]
    exact, scale = parts.float64(u), np.abs(parts.float64(u)).max()
    captured, logits, graph, start = gpu.captured(1)
    for sample in torch.from_numpy(u[0]).cuda():
        captured.copy_(sample[None])
        graph.replay()
    answers = {
        "ssmrt, clip": model(u),
        "ssmrt, samples": model.stream().push(u[0])[-1:],
        "GPU, clip": gpu.clip(torch.from_numpy(u).cuda()).cpu().numpy(),
        "GPU, samples": logits.cpu().numpy(),
    }
    errors = {name: float(np.abs(y - exact).max() / scale) for name, y in answers.items()}
    if max(errors.values()) > 1e-2:
        raise SystemExit(f"wrong answers, off by {errors}")
    found: dict[str, dict[str, float]] = {}
    for batch in CLIPS:
        host = np.repeat(u, batch, axis=0)
        there = torch.from_numpy(host).cuda()
        found[f"{batch} clips, ms"] = {
            "ssmrt": 1e3 * median(lambda host=host: model(host)),
            "GPU": 1e3 * median(lambda there=there: gpu.clip(there), torch.cuda.synchronize),
        }
    for batch in STREAMS:
        stream, samples = model.stream(batch=batch), np.repeat(u[:, 100], batch, axis=0)
        y = np.empty((batch, model.d_output), np.float32)
        _, _, graph, start = gpu.captured(batch)
        start()
        found[f"{batch} streams, a stream and sample, us"] = {
            "ssmrt": 1e6 / batch * median(lambda s=stream, u=samples, y=y: s.step(u, out=y)),
            "GPU": 1e6 / batch * median(graph.replay, torch.cuda.synchronize),
        }
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; ssmrt {ssmrt.__version__}")
    print("off by " + ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    print(f"{'':44s}{'ssmrt':>10s}{'GPU':>10s}")
    for name, row in found.items():
        print(f"{name:44s}{row['ssmrt']:10.3f}{row['GPU']:10.3f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"errors": errors, "found": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
