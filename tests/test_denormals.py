"""Numbers below the least normal one of the engine's precision are zero to it, and cost what others cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from ssmrt import Document, Model
from ssmrt.document import Dense, Diagonal, DiagonalMimo, Dplr, Node, Norm, Pool, Residual, Sequential
from strategies import Case, alone, cases, layers, models, selectives, ssds

Array = NDArray[Any]

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
ALL = st.one_of(layers(causal=None), models(tokens=False, causal=None), st.one_of(selectives(), ssds()).map(alone))


@DTYPES
@settings(max_examples=40)
@given(cases(ALL), st.floats(0.001, 0.9))
def test_a_denormal_input_is_zero(dtype: Any, case: Case, part: float) -> None:
    model = Model(case.document, dtype)
    u = np.asarray(np.sign(case.u) * np.finfo(dtype).tiny * part, dtype)
    silence = np.zeros_like(u)
    assert (u[case.u != 0] != 0).all()
    assert_array_equal(model(u), model(silence))
    if model.streamable:
        streams = model.stream(len(u)), model.stream(len(u))
        for _ in range(2):
            assert_array_equal(streams[0].push(u), streams[1].push(silence))
            assert_array_equal(streams[0].step(u[:, 0]), streams[1].step(silence[:, 0]))


H, N = 32, 64


def slow_layers() -> dict[str, Node]:
    """Layers whose states, taps, norms and sums become denormal where their input nearly is."""
    g = np.random.default_rng(0)
    half = N // 2
    A = np.tile(-0.5 + 1j * np.pi * np.arange(half), (H, 1))
    ones, D, dt = np.ones((H, half)) + 0j, np.ones((1, H)), np.full(H, 0.01)
    C = g.standard_normal((1, H, half)) + 1j * g.standard_normal((1, H, half))
    diagonal = Diagonal(C, D, dt, A, ones)
    matrix = g.standard_normal((1, 16, 16)) / 8 - np.eye(16)
    return {
        "diagonal": diagonal,
        "dplr": Dplr(C, D, dt, A, 0.5 * ones[None], ones),
        "dense": Dense(g.standard_normal((1, H, 16)), D, dt, matrix, np.ones((1, 16))),
        "mimo": DiagonalMimo(
            A[0], g.standard_normal((half, H)) + 0j, g.standard_normal((H, half)) + 0j, np.ones(H), np.full(half, 0.01)
        ),
        "near silence": Sequential((Residual(Sequential((Norm("layer", eps=0.1), diagonal))), Pool("mean"))),
    }


SCALES = {"float32": [1e-30, 1e-36, 1e-37, 3e-38, 1e-38, 1e-40], "float64": [1e-290, 1e-306, 1e-307, 3e-308, 1e-310]}


@DTYPES
@pytest.mark.parametrize("name", slow_layers())
def test_no_answer_is_denormal(dtype: Any, name: str) -> None:
    model = Model(layer(name), dtype)
    noise = np.random.default_rng(1).standard_normal((1, 200, H))
    for scale in SCALES[dtype]:
        stream = model.stream()
        u = (noise * scale).astype(dtype)
        answers = np.concatenate([stream.push(u).ravel(), *(stream.step(u[:, i]).ravel() for i in range(40))])
        tiny = np.abs(answers) < np.finfo(dtype).tiny
        assert not (tiny & (answers != 0)).any()


@DTYPES
@pytest.mark.parametrize("name", slow_layers())
def test_denormal_numbers_cost_what_others_cost(dtype: Any, name: str) -> None:
    """Processors differ: some are as fast with the mode off, others 400 times slower."""
    model = Model(layer(name), dtype)
    loud = np.ones((1, 256, H), dtype)

    def push(u: Array) -> Callable[[], Any]:
        stream = model.stream()
        return lambda: stream.push(u)

    def steps(u: Array) -> Callable[[], Any]:
        stream, x = model.stream(), u[:, 0].copy()
        return lambda: [stream.step(x) for _ in range(50)]

    for run in (push, steps):
        usual = run(loud)
        for scale in SCALES[dtype]:
            assert ratio(run((loud * scale).astype(dtype)), usual) < 3, (run.__name__, scale)


def ratio(first: Callable[[], Any], second: Callable[[], Any]) -> float:
    """How much longer the first takes: the median of pairs, which others on the machine disturb alike."""

    def seconds(call: Callable[[], Any]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return float(np.median([seconds(first) / seconds(second) for _ in range(15)]))


def layer(name: str) -> Document:
    return Document(slow_layers()[name], H, H)


THREADED = """
import sys
import numpy as np
from ssmrt import Model
from test_denormals import SCALES, layer, slow_layers
for dtype, scales in SCALES.items():
    for name in slow_layers():
        model = Model(layer(name), dtype)
        for scale in scales:
            for batch, length in ((1, 3000), (5, 300)):
                u = np.random.default_rng(1).standard_normal((batch, length, 32)) * scale
                sys.stdout.buffer.write(model(u.astype(dtype)).tobytes())
        u = np.random.default_rng(1).standard_normal((5, 300, 32)) * scales[1]
        dt = np.random.default_rng(2).uniform(0.5, 2, (5, 300))
        sys.stdout.buffer.write(model(u.astype(dtype), dt=dt, lengths=[300, 20, 1, 299, 64]).tobytes())
"""


def test_threads_treat_denormal_numbers_alike() -> None:
    answers = []
    for threads in ("1", "3"):
        env = {**os.environ, "SSMRT_NUM_THREADS": threads, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", THREADED], env=env, capture_output=True, check=True)
        answers.append(done.stdout)
    assert answers[0] == answers[1]


def test_other_code_never_meets_the_mode() -> None:
    model = Model(layer("diagonal"))
    model(np.ones((1, 500, H), np.float32))
    model.stream().step(np.ones((1, H), np.float32))
    with np.errstate(under="ignore"):
        assert np.float32(1e-38) * np.float32(0.1) != 0
