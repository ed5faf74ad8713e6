"""ssmrt. The number of threads is the process's: SSMRT_NUM_THREADS."""

from __future__ import annotations

import os
import resource
import time
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import ssmrt
import work
from ssmrt import document as doc
from worker import Job, Skip


def versions() -> dict[str, str]:
    """What runs."""
    model = layer("s4d", 16, 4)
    return {"ssmrt": ssmrt.__version__, "isa": model.isa, "threads": os.environ.get("SSMRT_NUM_THREADS", "all")}


def prepare(name: str, p: dict[str, Any], folder: Path) -> Job:
    """The job of a piece of work."""
    makers = {
        "forward": _forward,
        "step": _step,
        "model_step": _model_step,
        "kernel": _kernel,
        "kernel_and_output": _kernel_and_output,
        "spotter_clip": _spotter_clip,
        "spotter_step": _spotter_step,
        "spotter_model_step": _spotter_model_step,
        "spotter_push": _spotter_push,
        "spotter_streams": _spotter_streams,
        "spotter_streams_push": _spotter_streams_push,
        "load": _load,
    }
    if name not in makers:
        raise Skip(f"no {name} in ssmrt")
    return makers[name](p, folder)


@lru_cache(maxsize=2)
def layer(kind: str, h: int, n: int) -> ssmrt.Model:
    """The layer of `work` as a model; planned once, for later calls."""
    x = work.layer(kind, h, n)
    if kind == "s4d":
        return ssmrt.diagonal(x.A, x.B, x.C, x.D, x.dt)
    if kind == "s4":
        assert x.P is not None
        return ssmrt.dplr(x.A, x.P, x.B, x.C, x.D, x.dt)
    return ssmrt.dense(x.A, x.B, x.C[:, None], x.D[:, None], x.dt)


@lru_cache(maxsize=2)
def _spotter(name: str) -> ssmrt.Model:
    path = work.spotter_file(f"{name}.pth")
    if path is None:
        raise Skip(f"{name}.pth is neither beside the checkout nor in it")
    return ssmrt.load(path, config={})


def _forward(p: dict[str, Any], folder: Path) -> Job:
    model = layer(p["kind"], p["H"], p["N"])
    u = work.samples(p["L"], p["H"], p.get("B", 1))
    call = partial(model, method=p.get("method", "auto"))
    return Job(call, [u], lambda: call(u))


def _step(p: dict[str, Any], folder: Path) -> Job:
    model = layer(p["kind"], p["H"], p["N"])
    stream = model.stream()
    u = [v[None] for v in work.samples(64, p["H"])[0]]
    call = partial(stream.step, out=np.empty((1, model.d_output), np.float32))

    def output() -> work.Array:
        stream.reset()
        return np.concatenate([call(v).copy() for v in u])[None]

    return Job(call, u, output, warm_calls=64)


def _model_step(p: dict[str, Any], folder: Path) -> Job:
    model = layer(p["kind"], p["H"], p["N"])
    state = model.default_state()
    u = list(work.samples(64, p["H"])[0])

    def call(u: work.Array) -> work.Array:
        nonlocal state
        y, state = model.step(u, state)
        return y

    def output() -> work.Array:
        nonlocal state
        state = model.default_state()
        return np.stack([call(v) for v in u])[None]

    return Job(call, u, output, warm_calls=64)


def _kernel(p: dict[str, Any], folder: Path) -> Job:
    model = layer(p["kind"], p["H"], p["N"])
    return Job(lambda _: model.kernel(0, p["L"]), [None], lambda: model.kernel(0, p["L"])[0])


def _kernel_and_output(p: dict[str, Any], folder: Path) -> Job:
    """From plain parameters to the output: discretised, planned and run anew in every call."""
    u = work.samples(p["L"], p["H"])
    x = work.layer(p["kind"], p["H"], p["N"])

    def call(u: work.Array) -> work.Array:
        y: work.Array = ssmrt.dense(x.A, x.B, x.C[:, None], x.D[:, None], x.dt)(u)
        return y

    return Job(call, [u], lambda: call(u))


def _spotter_clip(p: dict[str, Any], folder: Path) -> Job:
    model = _spotter(p["model"])
    u = work.clip()[:, : p["L"]]
    call = partial(model, method=p.get("method", "auto"))
    return Job(call, [u], lambda: call(u))


def _spotter_step(p: dict[str, Any], folder: Path) -> Job:
    model = _spotter(p["model"])
    stream = model.stream()
    u = list(work.clip()[:, :1000].transpose(1, 0, 2))
    call = partial(stream.step, out=np.empty((1, model.d_output), np.float32))

    def output() -> work.Array:
        stream.reset()
        return np.concatenate([call(v).copy() for v in u[:200]])[None]

    return Job(call, u, output, warm_calls=2000)


def _spotter_model_step(p: dict[str, Any], folder: Path) -> Job:
    model = _spotter(p["model"])
    state = model.default_state()
    u = list(work.clip()[0, :1000])

    def call(u: work.Array) -> work.Array:
        nonlocal state
        y, state = model.step(u, state)
        return y

    def output() -> work.Array:
        nonlocal state
        state = model.default_state()
        return np.stack([call(v) for v in u[:200]])[None]

    return Job(call, u, output, warm_calls=2000)


def _spotter_push(p: dict[str, Any], folder: Path) -> Job:
    """Blocks of the clip, one after the other; ``output`` answers for the first of 1024 samples."""
    model, block = _spotter(p["model"]), p["block"]
    stream = model.stream()
    u = np.split(work.clip()[:, : 16_000 // block * block], 16_000 // block, axis=1)
    u = [np.ascontiguousarray(v) for v in u]
    call = partial(stream.push, out=np.empty((1, block, model.d_output), np.float32))

    def output() -> work.Array:
        stream.reset()
        return np.concatenate([call(v).copy() for v in u], 1)[:, :200]

    return Job(call, u, output, warm_calls=8)


def _spotter_streams(p: dict[str, Any], folder: Path) -> Job:
    """S streams at once, each hearing the clip; stream s starts s samples later. ``output``: the first stream's."""
    model, count = _spotter(p["model"]), p["S"]
    stream = model.stream(count)
    sound = np.concatenate([work.clip()[0]] * 2)
    u = [np.ascontiguousarray(sound[i : i + count]) for i in range(200)]
    call = partial(stream.step, out=np.empty((count, model.d_output), np.float32))

    def output() -> work.Array:
        stream.reset()
        return np.stack([call(v)[0].copy() for v in u])[None]

    return Job(call, u, output, warm_calls=4)


def _spotter_streams_push(p: dict[str, Any], folder: Path) -> Job:
    """As `_spotter_streams`, in blocks. ``output``: the first stream's answers to the first samples."""
    model, count, block = _spotter(p["model"]), p["S"], p["block"]
    stream = model.stream(count)
    sound = np.concatenate([work.clip()[0]] * 2)
    u = [np.stack([sound[i + s : i + s + block] for s in range(count)]) for i in range(0, 256, block)]
    call = partial(stream.push, out=np.empty((count, block, model.d_output), np.float32))

    def output() -> work.Array:
        stream.reset()
        return np.concatenate([call(v)[0].copy() for v in u])[None, :200]

    return Job(call, u, output, warm_calls=4)


def big_model(d_model: int, layers: int, n: int) -> doc.Document:
    """S4 blocks as in the spotter's family: S4, GELU, linear, GLU, residual, norm; LegS everywhere."""
    rng = np.random.default_rng(work.SEED)
    x = work.layer("s4", d_model, n)
    assert x.P is not None
    nodes: list[doc.Node] = [doc.Linear(rng.standard_normal((d_model, 1)), np.zeros(d_model))]
    for _ in range(layers):
        ssm = doc.Dplr(x.C[None], x.D[None], x.dt, x.A, x.P[None], x.B)
        mix = doc.Linear(rng.standard_normal((2 * d_model, d_model)) / np.sqrt(d_model), np.zeros(2 * d_model))
        nodes.append(doc.Residual(doc.Sequential((ssm, doc.Activation("gelu"), mix, doc.Glu()))))
        nodes.append(doc.Norm("layer", np.ones(d_model), np.zeros(d_model)))
    nodes += [doc.Pool("mean"), doc.Linear(rng.standard_normal((10, d_model)), np.zeros(10))]
    return doc.Document(doc.Sequential(tuple(nodes)), 1, 10)


def _load(p: dict[str, Any], folder: Path) -> Job:
    """From a file to the first answer: of one sample, or of a sequence."""
    path = folder / "big.ssm.safetensors"
    path.write_bytes(doc.to_bytes(big_model(p["H"], p["layers"], p["N"])))
    u = work.samples(max(p["L"], 1), 1)

    def call(u: work.Array) -> work.Array:
        model = ssmrt.load(path)
        y: work.Array = model.stream().step(u[:, 0]) if p["L"] == 1 else model(u)
        return y

    return Job(call, [u])


def special(name: str, p: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What is not a timing: files for the peers, and memory."""
    if name == "export_spotter":
        return export_spotter(p["model"], p["L"], folder)
    if name == "memory":
        return _memory(p)
    raise Skip(f"no {name} in ssmrt")


def export_spotter(name: str, length: int, folder: Path) -> dict[str, Any]:
    """The spotter as arrays, as ssmrt's file and as an ONNX graph."""
    model = _spotter(name)
    nodes = list(doc.walk(model.document.root))
    ssms = [n for n in nodes if isinstance(n, doc.StateSpace)]
    linears = [n for n in nodes if isinstance(n, doc.Linear)]
    norms = [n for n in nodes if isinstance(n, doc.Norm)]
    parts: dict[str, Any] = {"n_layers": len(ssms), "eps": norms[0].eps}
    for role, node in ("encoder", linears[0]), ("decoder", linears[-1]):
        parts |= {f"{role}_weight": node.weight, f"{role}_bias": node.bias}
    for i, (ssm, linear, norm) in enumerate(zip(ssms, linears[1:-1], norms)):
        layer: dict[str, Any] = {
            "kernel": model.kernel(i, length)[0],
            "d": ssm.D[0],
            "weight": linear.weight,
            "bias": linear.bias,
            "norm_weight": norm.weight,
            "norm_bias": norm.bias,
        }
        if isinstance(ssm, doc.Diagonal):
            assert ssm.dt is not None
            plain = work.Layer("s4d", ssm.A, ssm.B, ssm.C[0], ssm.D[0], ssm.dt)
            layer["a_bar"], layer["c"] = work.zoh(plain)
        parts |= {f"{i}.{key}": value for key, value in layer.items()}
    np.savez(folder / f"{name}.npz", **parts)
    model.save(folder / f"{name}.ssm.safetensors")
    reply: dict[str, Any] = {"parameters": model.num_parameters}
    try:
        from ssmrt.export import export_onnx

        export_onnx(model, folder / f"{name}.onnx")
    except ImportError as why:
        reply["onnx"] = str(why)
    return reply


def _memory(p: dict[str, Any]) -> dict[str, Any]:
    """What a sequence needs beside its input and output, in bytes: the peak of the resident set."""
    model = layer(p["kind"], p["H"], p["N"])
    u = work.samples(p["L"], p["H"])
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError as why:
        raise Skip(f"the peak cannot be reset here: {why}") from None
    before = _status("VmRSS")
    start = time.perf_counter()
    y = model(u)
    return {
        "input": u.nbytes,
        "output": y.nbytes,
        "beside": max(0, _status("VmHWM") - before - y.nbytes),
        "seconds": time.perf_counter() - start,
        "max_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise Skip(f"no {key} in /proc/self/status")
