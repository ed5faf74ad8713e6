"""Long sequences in float32: N = 64 over 16384 samples, and ten million steps, against the float64 engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import oracle
import pytest
import ssmrt
from cases import GOLDEN, relative_error
from numpy.typing import NDArray
from ssmrt import Model
from ssmrt.document import Dense, Diagonal, Document, Dplr, Node, walk
from strategies import alone

Array = NDArray[Any]

N, LENGTH = 64, 16384
STEPS = np.exp(np.linspace(np.log(1e-3), np.log(1e-1), 4))
PRECISE = 1e-5


def legs_nplr(h: int) -> Dplr:
    """HiPPO-LegS as normal plus low rank (Gu et al. 2021, theorem 1): A = V (Lambda - P P^*) V^*."""
    A, B = ssmrt.hippo("legs", N)
    p = np.sqrt(np.arange(N) + 0.5)
    normal = A + np.outer(p, p)
    imaginary, V = np.linalg.eigh(-1j * (normal - normal.T) / 2)
    keep = imaginary > 0
    Lambda = np.mean(np.diag(normal)) + 1j * imaginary[keep]
    V = V[:, keep]
    tile = np.ones((h, 1))
    g = np.random.default_rng(0)
    C = (g.standard_normal((1, h, N // 2)) + 1j * g.standard_normal((1, h, N // 2))) * np.sqrt(0.5)
    P, B = V.conj().T @ p, V.conj().T @ B
    return Dplr(C, g.standard_normal((1, h)), STEPS[np.arange(h) % 4], Lambda * tile, (P * tile)[None], B * tile)


def s4d(h: int) -> Diagonal:
    """S4D-Lin (Gu et al. 2022)."""
    g = np.random.default_rng(0)
    A = np.tile(-0.5 + 1j * np.pi * np.arange(N // 2), (h, 1))
    C = (g.standard_normal((1, h, N // 2)) + 1j * g.standard_normal((1, h, N // 2))) * np.sqrt(0.5)
    return Diagonal(C, g.standard_normal((1, h)), STEPS[np.arange(h) % 4], A, np.ones((h, N // 2)) + 0j)


def lssl(h: int) -> Dense:
    """LSSL with the translated Legendre measure (Gu et al. 2021b)."""
    g = np.random.default_rng(0)
    A, B = ssmrt.hippo("legt", N)
    C, D = g.standard_normal((2, h, N)), g.standard_normal((2, h))
    return Dense(C, D, STEPS[np.arange(h) % 4], 2 * A[None], 2 * B[None])


LAYERS = {"s4": legs_nplr(4), "s4d": s4d(4), "lssl": lssl(4)}
MODELS = {name: (Model(alone(node)), Model(alone(node), "float64")) for name, node in LAYERS.items()}


def samples(kind: str, length: int, width: int) -> Array:
    """White noise, its sum, which is slow, or a constant, which the slowest modes add up."""
    noise = np.random.default_rng(1).standard_normal((1, length, width))
    return {"noise": noise, "walk": np.cumsum(noise, 1), "constant": np.ones_like(noise)}[kind].astype(np.float32)


def test_legs_is_normal_plus_low_rank() -> None:
    """The 64 modes are LegS again: the kernels of both are the same."""
    node = replace(legs_nplr(1), conjugate_pairs=True)
    A, B = ssmrt.hippo("legs", N)
    reader = np.random.default_rng(0).standard_normal(N)
    p = np.sqrt(np.arange(N) + 0.5)
    normal = A + np.outer(p, p)
    imaginary, V = np.linalg.eigh(-1j * (normal - normal.T) / 2)
    node = replace(node, C=(reader @ V[:, imaginary > 0])[None, None])
    full = Dense(reader[None, None], np.zeros((1, 1)), node.dt, A[None], B[None])
    diagonalised, plain = (Model(alone(x)).kernel(0, 200) for x in (node, full))
    assert relative_error(diagonalised, plain) < 1e-9


@pytest.mark.parametrize("name", LAYERS)
def test_the_float64_engine_is_the_oracle_on_long_memories(name: str) -> None:
    model = MODELS[name][1]
    u = samples("noise", 600, 4)
    assert relative_error(model(u), oracle.run(model.document, u)) < 1e-11


@pytest.mark.parametrize("kind", ["noise", "walk", "constant"])
@pytest.mark.parametrize("name", LAYERS)
def test_long_sequences_stay_precise(name: str, kind: str) -> None:
    single, double = MODELS[name]
    u = samples(kind, LENGTH, 4)
    expected = double(u)
    for method in ("scan", "chunk", "fft", "auto"):
        y = np.asarray(single(u, method=method))
        assert relative_error(y, expected) < PRECISE
    stream = single.stream()
    y = np.concatenate([stream.push(u[:, t : t + 999]) for t in range(0, LENGTH, 999)], 1)
    assert relative_error(y, expected) < PRECISE
    stream.reset()
    y = np.concatenate([stream.step(u[:, t])[:, None] for t in range(LENGTH)], 1)
    assert relative_error(y, expected) < PRECISE


@pytest.mark.parametrize("kind", ["noise", "walk", "constant"])
@pytest.mark.parametrize("make", [s4d, legs_nplr])
def test_single_samples_among_blocks_stay_precise(make: Callable[[int], Node], kind: str) -> None:
    """Enough channels that a sample does not move all modes: blocks find the states as they should be."""
    h = 20
    u = samples(kind, LENGTH, h)
    expected = Model(alone(make(h)), "float64")(u)
    stream = Model(alone(make(h))).stream()
    y = np.empty((1, LENGTH, h), np.float32)
    for t in range(0, LENGTH, 64):
        singles = t // 64 % 51
        for i in range(singles):
            y[:, t + i] = stream.step(u[:, t + i])
        y[:, t + singles : t + 64] = stream.push(u[:, t + singles : t + 64])
    assert relative_error(y, expected) < PRECISE
    stream.reset()
    y = np.concatenate([stream.step(u[:, t])[:, None] for t in range(LENGTH)], 1)
    assert relative_error(y, expected) < PRECISE


@pytest.mark.parametrize("name", LAYERS)
def test_every_channel_of_a_long_sequence_stays_precise(name: str) -> None:
    """Each by itself, however quiet beside the others."""
    single, double = MODELS[name]
    u = samples("noise", LENGTH, 4)
    y, expected = single(u), double(u)
    error = np.abs(y - expected).max((0, 1)) / np.abs(expected).max((0, 1))
    assert error.max() < PRECISE


def test_kernels_of_long_memories_are_the_impulse_response() -> None:
    for name, (_, double) in MODELS.items():
        kernel = double.kernel(0, LENGTH)
        u = np.zeros((1, LENGTH, 4))
        u[0, 0] = 1
        node: Any = replace(LAYERS[name], D=np.zeros_like(LAYERS[name].D))
        y = Model(alone(node), "float64")(u, method="scan")[0].T.reshape(kernel.shape)
        assert relative_error(kernel, y) < 1e-11


def drift(document: Document, u: Array, rounds: int, steps: int) -> float:
    """The largest relative error of float32 in a stream of ``rounds`` times ``u``, then of single ``steps``."""
    single, double = Model(document).stream(), Model(document, "float64").stream()
    y, expected = single.push(u), double.push(u)
    scale, worst = np.abs(expected).max(), 0.0
    for _ in range(rounds):
        single.push(u, out=y)
        double.push(u, out=expected)
        scale = max(scale, np.abs(expected).max())
        worst = max(worst, np.abs(y - expected).max())
    for t in range(steps):
        x = u[:, t % u.shape[1]]
        worst = max(worst, np.abs(single.step(x) - double.step(x)).max())
    return float(worst / scale)


@pytest.mark.parametrize("kind", ["noise", "constant"])
def test_ten_million_steps_of_a_trained_layer_drift_nowhere(kind: str) -> None:
    spotter: Any = ssmrt.load(GOLDEN / "kws" / "kws_s4d.pth", config={}).document
    kernel = next(x for x in walk(spotter.root) if isinstance(x, Diagonal))
    # The channels that remember longest and shortest.
    assert kernel.dt is not None
    memory = np.min(-kernel.A.real * kernel.dt[:, None], 1)
    picked = np.argsort(memory)[[0, -1]]
    layer = replace(
        kernel,
        C=kernel.C[:, picked],
        D=kernel.D[:, picked],
        dt=kernel.dt[picked],
        A=kernel.A[picked],
        B=kernel.B[picked],
    )
    length = 100_000
    assert drift(alone(layer), samples(kind, length, 2), 10_000_000 // length - 1, 3000) < PRECISE


@pytest.mark.parametrize("node", [legs_nplr(1), lssl(1), s4d(1)], ids=["s4", "lssl", "s4d"])
def test_a_million_steps_of_slow_layers_drift_nowhere(node: Any) -> None:
    for kind in ("noise", "constant"):
        assert drift(alone(node), samples(kind, 50_000, 1), 20, 100) < PRECISE


def test_silence_ends_in_nothing() -> None:
    """States that decay do not linger among the denormal numbers, where processors are slow."""
    g = np.random.default_rng(0)
    silence = np.zeros((1, 60_000, 4))
    for models in MODELS.values():
        for model in models:
            stream = model.stream()
            stream.push(g.standard_normal((1, 1000, 4)))
            for _ in range(5):
                y = stream.push(silence)
            state = np.frombuffer(stream.snapshot()[-model.state_size * model.dtype.itemsize :], model.dtype)
            tiny = np.finfo(model.dtype).tiny
            assert not ((state != 0) & (np.abs(state) < tiny)).any()
            assert not ((y != 0) & (np.abs(y) < tiny)).any()
