"""What a linear state-space layer and a whole model are, as identities, on random systems.

The engine is compared with itself, run another way, and with `oracle`, an interpreter of Documents in float64.
"""

from __future__ import annotations

import itertools
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import ssmrt
from cases import relative_error
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracle import run
from ssmrt import Model
from ssmrt.document import Activation, Conv1d, Diagonal, Document, Dplr, Pool, Residual, Sequential
from strategies import (
    SEEDS,
    SHORT,
    Case,
    alone,
    answered,
    cases,
    complex_normal,
    conditioned,
    diagonals,
    dss,
    layers,
    linear,
    linear_layers,
    mimos,
    models,
    selectives,
    spectrum,
    ssds,
    step_sizes,
    uncut,
)

Array = NDArray[Any]

TOLERANCE = {"float32": 2e-6, "float64": 1e-11}
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def near(y: Array, reference: Array, dtype: str) -> None:
    assert y.dtype == np.dtype(dtype)
    assert relative_error(y, reference) < TOLERANCE[dtype]


@contextmanager
def aliasing() -> Iterator[None]:
    """Random systems turn fast, and a rate takes some past the Nyquist limit: said elsewhere, meant here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "rate=.* they alias", UserWarning)
        yield


def pushed(model: Model, case: Case, **stream: Any) -> Array:
    s = model.stream(len(case.u), **stream)
    return np.concatenate([s.push(case.u[:, part]) for part in case.splits()], 1)


@DTYPES
@pytest.mark.parametrize("method", ["scan", "chunk", "fft", "auto"])
@given(case=cases(layers()))
def test_every_method_is_the_recurrence(method: Any, dtype: Any, case: Case) -> None:
    near(Model(case.document, dtype)(case.u, method=method), run(case.document, case.u), dtype)


@DTYPES
@given(cases(layers()))
def test_step_is_scan(dtype: Any, case: Case) -> None:
    model = Model(case.document, dtype)
    stream = model.stream(len(case.u))
    y = np.stack([stream.step(case.u[:, t]) for t in range(case.u.shape[1])], 1)
    near(y, model(case.u, method="scan"), dtype)
    near(y, run(case.document, case.u), dtype)


@DTYPES
@given(cases(layers()))
def test_any_chunking_is_the_sequence(dtype: Any, case: Case) -> None:
    model = Model(case.document, dtype)
    y = pushed(model, case)
    near(y, model(case.u), dtype)
    near(y, run(case.document, case.u), dtype)


@DTYPES
@given(cases(models()))
def test_models_are_what_their_nodes_say(dtype: Any, case: Case) -> None:
    conditioned(case)
    model = Model(case.document, dtype)
    near(model(case.u), run(case.document, case.u), dtype)
    near(pushed(model, case), run(case.document, case.u, streamed=True), dtype)


@DTYPES
@given(cases(models(causal=False)))
def test_models_that_look_ahead_are_what_their_nodes_say(dtype: Any, case: Case) -> None:
    conditioned(case)
    near(Model(case.document, dtype)(case.u), run(case.document, case.u), dtype)


def hurried(node: Any, times: float) -> Document:
    """A selective layer whose states decay so many times as fast."""
    return alone(replace(node, A=node.A * times))


@DTYPES
@given(
    cases(st.builds(hurried, st.one_of(selectives(), ssds()), st.sampled_from([1.0, 1.0, 1e-6, 1e-4, 0.01, 1e3, 1e6])))
)
def test_selective_layers_are_the_recurrence(dtype: Any, case: Case) -> None:
    model = Model(case.document, dtype)
    near(model(case.u), run(case.document, case.u), dtype)
    near(pushed(model, case), run(case.document, case.u), dtype)


@DTYPES
@pytest.mark.parametrize("method", ["scan", "chunk", "fft", "auto"])
@given(case=cases(st.one_of(layers(causal=False), dss().map(alone))))
def test_layers_that_look_ahead_are_two_recurrences(method: Any, dtype: Any, case: Case) -> None:
    model = Model(case.document, dtype)
    assert not model.streamable
    near(model(case.u, method=method), run(case.document, case.u), dtype)


@DTYPES
@given(cases(linear_layers().map(uncut).map(alone)), st.sampled_from(["scan", "chunk", "fft", "auto"]))
def test_a_sequence_goes_on_from_the_state_of_its_first_part(dtype: Any, case: Case, method: Any) -> None:
    model = Model(case.document, dtype)
    expected = run(case.document, case.u)
    state, parts = model.default_state(len(case.u)), []
    for part in case.splits():
        before = state.copy()
        y, after = model.forward(case.u[:, part], state=state, method=method, return_state=True)
        np.testing.assert_array_equal(state, before)
        parts.append(y)
        state = after
    near(np.concatenate(parts, 1), expected, dtype)


@DTYPES
@given(cases(models(pooled=False)))
def test_models_go_on_from_any_way_of_running(dtype: Any, case: Case) -> None:
    conditioned(case)
    model = Model(case.document, dtype)
    expected = run(case.document, case.u)
    state, parts = model.default_state(len(case.u)), []
    for turn, part in enumerate(case.splits()):
        u = case.u[:, part]
        if turn % 2:
            y, state = model.forward(u, state=state, return_state=True)
        else:
            y = np.empty((*u.shape[:2], model.d_output), dtype)
            for t in range(u.shape[1]):
                y[:, t], state = model.step(u[:, t], state)
        parts.append(y)
    near(np.concatenate(parts, 1), expected, dtype)


@DTYPES
@given(
    cases(st.one_of(layers(causal=None, stepped=True), dss().map(alone), models(causal=None, stepped=True))),
    st.floats(0.3, 4),
)
def test_rate_is_the_rate_of_the_equations(dtype: Any, case: Case, rate: float) -> None:
    with aliasing():
        conditioned(case, rate=rate)
        model = Model(case.document, dtype)
        near(model(case.u, rate=rate), run(case.document, case.u, rate=rate), dtype)
        if model.streamable:
            near(pushed(model, case, rate=rate), run(case.document, case.u, rate=rate, streamed=True), dtype)


@DTYPES
@given(cases(linear_layers(causal=None, stepped=True).map(uncut).map(alone)), st.floats(0.3, 4))
def test_rate_multiplies_every_step_size(dtype: Any, case: Case, rate: float) -> None:
    node: Any = case.document.root
    faster = replace(case.document, root=replace(node, dt=node.dt * rate))
    with aliasing():
        near(Model(case.document, dtype)(case.u, rate=rate), Model(faster, dtype)(case.u), dtype)


@DTYPES
@given(cases(linear_layers(stepped=True).map(uncut).map(alone), SHORT))
def test_irregular_steps_are_those_of_the_equations(dtype: Any, case: Case) -> None:
    model, dt = Model(case.document, dtype), case.factors()
    expected = run(case.document, case.u, dt=dt)
    near(model(case.u, dt=dt), expected, dtype)
    stream = model.stream(len(case.u))
    y = np.concatenate([stream.push(case.u[:, part], dt=dt[:, part]) for part in case.splits()], 1)
    near(y, expected, dtype)


@DTYPES
@given(cases(models(stepped=True, cut=False), SHORT))
def test_irregular_steps_in_streams_mix_with_regular_ones(dtype: Any, case: Case) -> None:
    model, dt = Model(case.document, dtype), case.factors()
    stream, parts = model.stream(len(case.u)), []
    for turn, part in enumerate(case.splits()):
        u = case.u[:, part]
        if turn % 3 == 0:
            dt[:, part] = 1.0
            parts.append(stream.push(u))
        elif turn % 3 == 1:
            parts.append(stream.push(u, dt=dt[:, part]))
        else:
            parts.append(np.stack([stream.step(u[:, t], dt=dt[:, part][:, t]) for t in range(u.shape[1])], 1))
    conditioned(case, dt=dt)
    near(np.concatenate(parts, 1), run(case.document, case.u, dt=dt, streamed=True), dtype)


@DTYPES
@given(cases(st.one_of(diagonals(stepped=True), mimos(stepped=True)).map(uncut).map(alone), SHORT))
def test_a_long_step_is_several_of_the_same_input(dtype: Any, case: Case) -> None:
    """Exact for zoh, whose input stands still between the samples."""
    node: Any = case.document.root
    model = Model(replace(case.document, root=replace(node, disc="zoh")), dtype)
    k = np.asarray(case.g.integers(1, 5, case.u.shape[1]))
    ends = np.cumsum(k) - 1
    fine = model(np.repeat(case.u, k, 1))
    near(model(case.u, dt=k.astype(float)), fine[:, ends], dtype)
    stream = model.stream(len(case.u))
    steps = [stream.step(case.u[:, t], dt=np.full(len(case.u), k[t], float)) for t in range(len(k))]
    near(np.stack(steps, 1), fine[:, ends], dtype)


@DTYPES
@given(cases(st.one_of(layers(), models())))
def test_a_reset_begins_another_sequence(dtype: Any, case: Case) -> None:
    conditioned(case)
    model, resets = Model(case.document, dtype), case.resets()
    y = model(case.u, resets=resets)
    near(y, run(case.document, case.u, resets=resets), dtype)
    for b in range(len(resets)):
        edges = sorted({0, case.u.shape[1], *np.flatnonzero(resets[b]).tolist()})
        parts = [model(case.u[b : b + 1, i:j]) for i, j in itertools.pairwise(edges)]
        expected = np.concatenate(parts, 1) if y.ndim == 3 else parts[-1]
        np.testing.assert_array_equal(y[b : b + 1], expected)


@DTYPES
@given(cases(st.one_of(layers(causal=None), models(causal=None), dss().map(alone))))
def test_padding_is_not_heard(dtype: Any, case: Case) -> None:
    conditioned(case)
    model, lengths = Model(case.document, dtype), case.lengths()
    y, state = answered(model, case.u, lengths=lengths)
    for b, n in enumerate(lengths):
        one, after = answered(model, case.u[b : b + 1, :n])
        np.testing.assert_array_equal(y[b : b + 1, :n] if y.ndim == 3 else y[b : b + 1], one)
        np.testing.assert_array_equal(state[b : b + 1], after)
        if y.ndim == 3:
            assert (y[b, n:] == 0).all()
    expected = run(case.document, case.u, lengths=lengths)
    if y.ndim == 3:
        expected = np.where(np.arange(case.u.shape[1])[:, None] < lengths[:, None, None], expected, 0)
    near(y, expected, dtype)


@DTYPES
@given(cases(st.one_of(mimos(causal=False, over=True).map(alone), models(causal=False, over=True))))
def test_a_backward_pass_may_begin_at_the_end_of_the_padding(dtype: Any, case: Case) -> None:
    conditioned(case)
    lengths = case.lengths()
    y, expected = Model(case.document, dtype)(case.u, lengths=lengths), run(case.document, case.u, lengths=lengths)
    if y.ndim == 3:
        expected = np.where(np.arange(case.u.shape[1])[:, None] < lengths[:, None, None], expected, 0)
    near(y, expected, dtype)


@DTYPES
@given(cases(models(stepped=True, cut=False, pooled=None), SHORT))
def test_everything_said_about_time_at_once(dtype: Any, case: Case) -> None:
    rate, dt, resets, lengths = case.g.uniform(0.5, 1), case.factors(), case.resets(), case.lengths()
    said: dict[str, Any] = {"rate": rate, "dt": dt, "resets": resets, "lengths": lengths}
    conditioned(case, **said)
    y, expected = Model(case.document, dtype)(case.u, **said), run(case.document, case.u, **said)
    if y.ndim == 3:
        expected = np.where(np.arange(case.u.shape[1])[:, None] < lengths[:, None, None], expected, 0)
    near(y, expected, dtype)


@given(cases(st.one_of(layers(causal=None), models(causal=None))))
def test_one_sequence_needs_no_batch_axis(case: Case) -> None:
    model = Model(case.document)
    y, state = answered(model, case.u[0])
    expected, states = answered(model, case.u[:1])
    np.testing.assert_array_equal(y, expected[0])
    if model.streamable:
        np.testing.assert_array_equal(state, states[0])


@given(cases(models(tokens=True)))
def test_tokens_may_be_any_integers(case: Case) -> None:
    model = Model(case.document)
    expected = model(case.u)
    for dtype in (np.int32, np.uint8, np.int64):
        np.testing.assert_array_equal(model(case.u.astype(dtype)), expected)
        np.testing.assert_array_equal(model(case.u.astype(dtype)[..., None]), expected)


@given(cases(st.one_of(layers(), models(tokens=False))))
def test_samples_may_be_of_any_float_dtype_and_any_strides(case: Case) -> None:
    model = Model(case.document)
    u = case.u.astype(np.float16)
    expected = model(u.astype(np.float32))
    np.testing.assert_array_equal(model(u), expected)
    np.testing.assert_array_equal(model(u.astype(np.float64)), expected)
    np.testing.assert_array_equal(model(u.astype(">f4")), expected)
    np.testing.assert_array_equal(model(np.asfortranarray(u.astype(np.float32))), expected)
    np.testing.assert_array_equal(model(np.repeat(u.astype(np.float32), 2, 1)[:, ::2]), expected)


def instruction_sets() -> list[str]:
    """Those of this machine."""
    with instruction_set("none"), pytest.raises(ValueError, match="SSMRT_ISA: expected one of") as refusal:
        ssmrt.diagonal([[-1]], [[1]], [[1]], None, 1)
    names = re.findall("scalar|avx2|avx512|neon", str(refusal.value))
    assert "scalar" in names
    return names


@contextmanager
def instruction_set(name: str) -> Iterator[None]:
    before = os.environ.get("SSMRT_ISA")
    os.environ["SSMRT_ISA"] = name
    try:
        yield
    finally:
        del os.environ["SSMRT_ISA"]
        if before is not None:
            os.environ["SSMRT_ISA"] = before


@DTYPES
@pytest.mark.parametrize("isa", instruction_sets())
@given(
    case=cases(
        st.one_of(
            layers(causal=None), dss().map(alone), models(causal=None), st.one_of(selectives(), ssds()).map(alone)
        )
    )
)
def test_every_instruction_set_computes_the_same(isa: str, dtype: Any, case: Case) -> None:
    conditioned(case)
    with instruction_set(isa):
        model = Model(case.document, dtype)
    assert model.isa == isa
    expected = run(case.document, case.u)
    for method in ("scan", "chunk", "fft"):
        near(model(case.u, method=method), expected, dtype)
    if model.streamable:
        near(pushed(model, case), run(case.document, case.u, streamed=True), dtype)


@st.composite
def uneven(draw: Any) -> Document:
    """A layer of three groups of channels, of which each channel has a number of modes of its own, up to 36."""
    h, n = 40, 36
    most = draw(st.lists(st.sampled_from([0, 1, 3, 4, 5, 31, 32, 36]), min_size=3, max_size=3))
    g = np.random.default_rng(draw(SEEDS))
    counts = np.minimum(g.integers(0, n + 1, h), np.repeat(most, 16)[:h])
    own = np.arange(n) < counts[:, None]
    A, B, C = spectrum(g, h, n), complex_normal(g, h, n), complex_normal(g, 2, 1, h, n) * own
    both = draw(st.booleans())
    node = Diagonal(C[0], g.standard_normal((1, h)), step_sizes(g, h), A, B, C_reverse=C[1] if both else None)
    np.testing.assert_array_equal(node.mode_counts, counts)
    return alone(node)


@DTYPES
@given(cases(uneven(), SHORT))
def test_channels_have_modes_of_their_own(dtype: Any, case: Case) -> None:
    model, expected = Model(case.document, dtype), run(case.document, case.u)
    for method in ("scan", "chunk", "fft"):
        near(model(case.u, method=method), expected, dtype)
    if model.streamable:
        dt = case.factors()
        near(model(case.u, dt=dt), run(case.document, case.u, dt=dt), dtype)
        near(pushed(model, case), expected, dtype)
        stream = model.stream(len(case.u))
        near(np.stack([stream.step(u) for u in case.u.swapaxes(0, 1)], 1), expected, dtype)


def in_blocks(h: int, n: int) -> Document:
    """Layers of every kind that remembers, under a pool; wide ones go through in blocks of few samples."""
    g = np.random.default_rng(0)
    A, B, C = spectrum(g, h, n), complex_normal(g, h, n), complex_normal(g, 1, h, n)
    D, dt = g.standard_normal((1, h)), step_sizes(g, h)
    nodes = (
        linear(g, 1, h),
        Residual(Sequential((Diagonal(C, D, dt, A, B), Activation("tanh")))),
        Residual(Sequential((Diagonal(C, D, dt, A, B, kernel_length=70), Activation("tanh")))),
        Conv1d(g.standard_normal((h, 4)) / 2),
        Dplr(C, D, dt, A, 0.3 * complex_normal(g, 2, h, n), B),
        Pool("mean"),
        linear(g, h, 3),
    )
    return Document(Sequential(nodes), 1, 3)


@DTYPES
@pytest.mark.parametrize(("h", "length"), [(600, 1100), (2, 4500)])
def test_blocks_are_the_sequence(h: int, length: int, dtype: Any) -> None:
    document, g = in_blocks(h, 2), np.random.default_rng(1)
    model, u = Model(document, dtype), g.standard_normal((3, length, 1))
    assert relative_error(model(u), run(document, u)) < TOLERANCE[dtype]
    lengths = np.array([length, length // 2 + 1, 1])
    near(model(u, lengths=lengths), run(document, u, lengths=lengths), dtype)
    resets = g.random((3, length)) < 4 / length
    near(model(u, resets=resets, lengths=lengths), run(document, u, resets=resets, lengths=lengths), dtype)
    stream = model.stream(3)
    parts = [stream.push(u[:, i:j]) for i, j in itertools.pairwise([0, 1, length // 2, length - 3, length])]
    near(parts[-1][:, -1], model(u), dtype)
    one, state = model.forward(u[:, : length // 2], return_state=True)
    near(one, parts[1][:, -1], dtype)
    near(np.asarray(model(u[:, length // 2 :], state=state)), model(u), dtype)
