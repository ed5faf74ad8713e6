"""JAX on the CPU, jitted, arguments on the device, layouts as suit it; all cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import work
from jax import lax
from worker import Job, Skip

F32, C64 = np.float32, np.complex64


def versions() -> dict[str, str]:
    """What runs."""
    return {"jax": jax.__version__, "jaxlib": jax.lib.__version__ if hasattr(jax.lib, "__version__") else ""}


def prepare(name: str, p: dict[str, Any], folder: Path) -> Job:
    """The job of a piece of work."""
    makers = {
        "scan_dense": _scan_dense,
        "fft": _fft,
        "step": _step,
        "kernel": _kernel,
        "kernel_and_output": _kernel_and_output,
        "spotter_clip": _spotter_clip,
        "spotter_scan": _spotter_scan,
        "spotter_step": _spotter_step,
    }
    if name not in makers:
        raise Skip(f"no {name} in JAX")
    return makers[name](p, folder)


def _device(*arrays: work.Array) -> list[Any]:
    kind = {"f": F32, "c": C64}
    return [jnp.asarray(a.astype(kind[a.dtype.kind])) for a in arrays]


def convolve(kf: Any, d: Any, u: Any) -> Any:
    """Of u (..., H, L) the convolution with a kernel whose spectrum is ready, plus D u."""
    n = 2 * u.shape[-1]
    return jnp.fft.irfft(jnp.fft.rfft(u, n) * kf, n)[..., : u.shape[-1]] + d[:, None] * u


def _fft(p: dict[str, Any], folder: Path) -> Job:
    x = work.layer(p["kind"], p["H"], p["N"])
    # (H, L) with time innermost: a transform along rows is what XLA does best.
    u = jnp.asarray(np.ascontiguousarray(work.samples(p["L"], p["H"], p.get("B", 1)).transpose(0, 2, 1)))
    kf, d = _device(work.spectrum(work.kernel(x, p["L"]), p["L"]), x.D)
    run = jax.jit(convolve)

    def call(u: Any) -> Any:
        return run(kf, d, u).block_until_ready()

    return Job(call, [u], lambda: np.asarray(call(u)).transpose(0, 2, 1))


def _dense_step(p: dict[str, Any]) -> tuple[list[Any], Any, Any]:
    """Parameters, one step and the zero state of the recurrence in the form that is usual for the layer."""
    x = work.layer(p["kind"], p["H"], p["N"])
    if p["kind"] == "s4d":
        a_bar, c = work.zoh(x)
        a, c, d = _device(a_bar, 2 * c, x.D)

        def diagonal(params: Any, state: Any, u: Any) -> tuple[Any, Any]:
            a, c, d = params
            state = a * state + u[:, None]
            return state, (c * state).real.sum(-1) + d * u

        return [a, c, d], diagonal, jnp.zeros(a.shape, C64)
    if p["kind"] == "s4" and p.get("basis", "complex") == "complex":
        params = _device(*work.complex_dense(x), x.D)
    else:
        assert x.real is not None
        params = _device(*work.bilinear(x.real[0], x.real[1], x.dt), x.real[2], x.D)

    def dense(params: Any, state: Any, u: Any) -> tuple[Any, Any]:
        a, b, c, d = params
        state = jnp.einsum("hij,hj->hi", a, state) + b * u[:, None]
        return state, (c * state).sum(-1).real + d * u

    return params, dense, jnp.zeros(params[1].shape, params[1].dtype)


def _scan_dense(p: dict[str, Any], folder: Path) -> Job:
    params, step, zero = _dense_step(p)
    u = jnp.asarray(work.samples(p["L"], p["H"])[0])
    run = jax.jit(lambda params, u: lax.scan(lambda s, v: step(params, s, v), zero, u)[1])

    def call(u: Any) -> Any:
        return run(params, u).block_until_ready()

    return Job(call, [u], lambda: np.asarray(call(u))[None], warm_calls=0)


def _step(p: dict[str, Any], folder: Path) -> Job:
    params, step, zero = _dense_step(p)
    run = jax.jit(step, donate_argnums=1)
    u = [jnp.asarray(v) for v in work.samples(64, p["H"])[0]]
    state = jnp.copy(zero)

    def call(u: Any) -> Any:
        nonlocal state
        state, y = run(params, state, u)
        return y.block_until_ready()

    def output() -> work.Array:
        nonlocal state
        state = jnp.copy(zero)
        return np.stack([np.asarray(call(v)) for v in u])[None]

    return Job(call, u, output, warm_calls=64)


def vandermonde(z: Any, c: Any, t: Any) -> Any:
    """2 Re sum_n c_n exp(z_n t): (H, L)."""
    return 2 * jnp.einsum("hn,hnl->hl", c, jnp.exp(z[..., None] * t)).real


def krylov(a: Any, b: Any, length: int) -> Any:
    """(H, N, length) of b, A b, A^2 b, ..., by doubling."""
    x = b[..., None]
    while x.shape[-1] < length:
        x = jnp.concatenate([x, a @ x], -1)
        a = a @ a
    return x[..., :length]


def _kernel(p: dict[str, Any], folder: Path) -> Job:
    x = work.layer(p["kind"], p["H"], p["N"])
    length = p["L"]
    if p["kind"] == "s4d":
        params = _device(x.A * x.dt[:, None], work.zoh(x)[1], np.arange(length, dtype=float))
        run = jax.jit(vandermonde)
    else:
        assert x.real is not None
        params = _device(*work.bilinear(x.real[0], x.real[1], x.dt), x.real[2])
        run = jax.jit(lambda a, b, c: jnp.einsum("hn,hnl->hl", c, krylov(a, b, length)))

    def call(_: None) -> Any:
        return run(*params).block_until_ready()

    return Job(call, [None], lambda: np.asarray(call(None)))


def _kernel_and_output(p: dict[str, Any], folder: Path) -> Job:
    x = work.layer(p["kind"], p["H"], p["N"])
    assert x.real is not None
    length = p["L"]
    params = _device(*work.bilinear(x.real[0], x.real[1], x.dt), x.real[2], x.D)
    u = jnp.asarray(np.ascontiguousarray(work.samples(length, p["H"]).transpose(0, 2, 1)))

    @jax.jit
    def run(a: Any, b: Any, c: Any, d: Any, u: Any) -> Any:
        k = jnp.einsum("hn,hnl->hl", c, krylov(a, b, length))
        return convolve(jnp.fft.rfft(k, 2 * length), d, u)

    def call(u: Any) -> Any:
        return run(*params, u).block_until_ready()

    return Job(call, [u], lambda: np.asarray(call(u)).transpose(0, 2, 1))


def _after(x: Any, y: Any, layer: Any, eps: float, axis: int) -> Any:
    """GELU, linear, GLU, residual and norm; channels along ``axis`` (0: (H, L), -1: (H,))."""
    weight, bias, norm_weight, norm_bias = layer
    column = (slice(None), None) if axis == 0 and y.ndim == 2 else (slice(None),)
    y = weight @ jax.nn.gelu(y, approximate=False) + bias[column]
    left, right = jnp.split(y, 2, axis=0)
    x = x + left * jax.nn.sigmoid(right)
    mean = x.mean(0, keepdims=True)
    var = ((x - mean) ** 2).mean(0, keepdims=True)
    return (x - mean) / jnp.sqrt(var + eps) * norm_weight[column] + norm_bias[column]


def _mixing(model: work.Spotter) -> list[list[Any]]:
    return [_device(*(layer[n] for n in ("weight", "bias", "norm_weight", "norm_bias"))) for layer in model.layers]


def _spotter_clip(p: dict[str, Any], folder: Path) -> Job:
    """Convolution mode: kernel spectra ready, or with ``fresh`` computed in every call as upstream's forward does."""
    model = work.Spotter.load(folder / f"{p['model']}.npz")
    length, eps, fresh = p["L"], model.eps, p.get("fresh", False)
    if fresh and "a_bar" not in model.layers[0]:
        raise Skip("the Vandermonde kernel is the diagonal layer's")
    encoder, decoder, mixing = _device(*model.encoder), _device(*model.decoder), _mixing(model)
    if fresh:
        systems = [_device(np.log(layer["a_bar"]), layer["c"], layer["d"]) for layer in model.layers]
    else:
        systems = [_device(work.spectrum(layer["kernel"], length), layer["d"]) for layer in model.layers]
    t = jnp.arange(length, dtype=F32)

    @jax.jit
    def run(encoder: Any, systems: Any, mixing: Any, decoder: Any, u: Any) -> Any:
        x = encoder[0] @ u + encoder[1][:, None]
        for system, mix in zip(systems, mixing):
            kf = jnp.fft.rfft(vandermonde(system[0], system[1], t), 2 * length) if fresh else system[0]
            x = _after(x, convolve(kf, system[-1], x), mix, eps, 0)
        return decoder[0] @ x.mean(1) + decoder[1]

    u = jnp.asarray(work.clip()[0, :length].T)

    def call(u: Any) -> Any:
        return run(encoder, systems, mixing, decoder, u).block_until_ready()

    return Job(call, [u], lambda: np.asarray(call(u))[None])


def _recurrence(model: work.Spotter) -> tuple[list[Any], Any, Any]:
    """Parameters, one sample of the trunk and the zero state (layers, H, N/2)."""
    if "a_bar" not in model.layers[0]:
        raise Skip("written for the diagonal layer only")
    eps = model.eps
    diagonal = [_device(layer["a_bar"], 2 * layer["c"], layer["d"]) for layer in model.layers]
    params = [_device(*model.encoder), diagonal, _mixing(model)]

    def trunk(params: Any, states: Any, u: Any) -> tuple[Any, Any]:
        encoder, diagonal, mixing = params
        x = encoder[0] @ u + encoder[1]
        after = []
        for i, ((a, c, d), mix) in enumerate(zip(diagonal, mixing)):
            state = a * states[i] + x[:, None]
            after.append(state)
            x = _after(x, (c * state).real.sum(-1) + d * x, mix, eps, -1)
        return jnp.stack(after), x

    return params, trunk, jnp.zeros((len(diagonal), *diagonal[0][0].shape), C64)


def _spotter_scan(p: dict[str, Any], folder: Path) -> Job:
    model = work.Spotter.load(folder / f"{p['model']}.npz")
    params, trunk, zero = _recurrence(model)
    decoder = _device(*model.decoder)

    @jax.jit
    def run(params: Any, decoder: Any, u: Any) -> Any:
        def step(carry: Any, v: Any) -> Any:
            states, total = carry
            states, x = trunk(params, states, v)
            return (states, total + x), None

        (_, total), _ = lax.scan(step, (zero, jnp.zeros(zero.shape[1], F32)), u)
        return decoder[0] @ (total / len(u)) + decoder[1]

    u = jnp.asarray(work.clip()[0, : p["L"]])

    def call(u: Any) -> Any:
        return run(params, decoder, u).block_until_ready()

    return Job(call, [u], lambda: np.asarray(call(u))[None], warm_calls=0)


def _spotter_step(p: dict[str, Any], folder: Path) -> Job:
    model = work.Spotter.load(folder / f"{p['model']}.npz")
    params, trunk, zero = _recurrence(model)
    decoder = _device(*model.decoder)

    def step(params: Any, decoder: Any, state: Any, u: Any) -> Any:
        states, total, count = state
        states, x = trunk(params, states, u)
        total, count = total + x, count + 1
        return (states, total, count), decoder[0] @ (total / count) + decoder[1]

    run = jax.jit(step, donate_argnums=2)

    def start() -> Any:
        return jnp.copy(zero), jnp.zeros(zero.shape[1], F32), jnp.zeros((), F32)

    u = [jnp.asarray(v) for v in work.clip()[0, :1000]]
    state = start()

    def call(u: Any) -> Any:
        nonlocal state
        state, y = run(params, decoder, state, u)
        return y.block_until_ready()

    def output() -> work.Array:
        nonlocal state
        state = start()
        return np.stack([np.asarray(call(v)) for v in u[:200]])[None]

    return Job(call, u, output, warm_calls=64)
