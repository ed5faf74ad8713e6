"""Streams keep their states: apart from one another, through snapshots, resets, pickles and threads.

What is exact here is asserted bit for bit: neither the rest of the batch nor the number of threads is heard.
"""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmrt
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from ssmrt import Document, Model
from ssmrt.document import Activation, Diagonal, Linear, Node, Norm, Residual, Selective, Sequential, Ssd
from strategies import Case, alone, answered, cases, layers, models, selectives, ssds

Array = NDArray[Any]

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
EVERY = st.one_of(layers(causal=None), models(causal=None), st.one_of(selectives(), ssds()).map(alone))
CAUSAL = st.one_of(layers(), models(), st.one_of(selectives(), ssds()).map(alone))
MANY = st.sampled_from([2, 3, 5, 20])


@DTYPES
@given(cases(CAUSAL))
def test_a_restored_snapshot_goes_on_exactly(dtype: Any, case: Case) -> None:
    model = Model(case.document, dtype)
    stream, parts = model.stream(len(case.u)), case.splits()
    for part in parts[: len(parts) // 2]:
        stream.push(case.u[:, part])
    blob, position = stream.snapshot(), stream.position
    rest = parts[len(parts) // 2 :]
    expected = [stream.push(case.u[:, part]) for part in rest]
    assert isinstance(blob, bytes)
    for other in (stream, model.stream(len(case.u)), pickle.loads(pickle.dumps(model)).stream(len(case.u))):
        other.restore(blob)
        assert_array_equal(other.position, position)
        for part, y in zip(rest, expected):
            assert_array_equal(other.push(case.u[:, part]), y)


@DTYPES
@given(cases(CAUSAL), cases(models(stepped=True, cut=False)), st.data())
def test_a_prefill_is_a_push_without_answers(dtype: Any, case: Case, stepped: Case, data: st.DataObject) -> None:
    for u, document, steps in ((case.u, case.document, None), (stepped.u, stepped.document, (0.5, 1.5))):
        model = Model(document, dtype)
        pushed, filled = model.stream(len(u)), model.stream(len(u))
        streams = list(range(len(u)))
        active = data.draw(st.none() | st.lists(st.sampled_from(streams), unique=True, min_size=1).map(sorted))
        cut = data.draw(st.integers(0, u.shape[1]))
        for part in (slice(0, cut), slice(cut, None)):
            block = u[streams if active is None else active, part]
            dt = None if steps is None else np.linspace(*steps, int(np.prod(block.shape[:2]))).reshape(block.shape[:2])
            pushed.push(block, dt=dt, active=active)
            filled.prefill(block, dt=dt, active=active)
            assert filled.snapshot() == pushed.snapshot()


@DTYPES
@given(cases(CAUSAL), st.data())
def test_a_push_of_some_streams_leaves_the_others(dtype: Any, case: Case, data: st.DataObject) -> None:
    model, batch = Model(case.document, dtype), 3
    u = np.concatenate([case.u] * batch)[:batch]
    active = sorted(data.draw(st.sets(st.integers(0, batch - 1), min_size=1)))
    stream, parts = model.stream(batch), case.splits()
    streams = [model.stream() for _ in range(batch)]
    for part in parts:
        expected = [streams[s].push(u[s : s + 1, part]) for s in active]
        assert_array_equal(stream.push(u[active, part], active=active), np.concatenate(expected))
    assert_array_equal(stream.position, [u.shape[1] * (s in active) for s in range(batch)])
    # The others are where they were: all go on together.
    everyone = stream.push(u[:, parts[0]])
    for s in range(batch):
        assert_array_equal(everyone[s], streams[s].push(u[s : s + 1, parts[0]])[0])


def test_a_push_of_streams_that_are_not_there_is_refused() -> None:
    stream = ssmrt.diagonal([[-0.5 + 3j]], [[1]], [[1]], [0.0], [0.05]).stream(2)
    u = np.ones((1, 4, 1), np.float32)
    for active in ([2], [1, 0], [0, 0]):
        with pytest.raises(ValueError, match="active: expected rising numbers below 2"):
            stream.push(np.repeat(u, len(active), 0), active=active)
    with pytest.raises(ValueError, match="u: expected 1 streams, found 2"):
        stream.push(np.repeat(u, 2, 0), active=[1])
    assert_array_equal(stream.position, [0, 0])
    assert stream.push(u[:0], active=np.zeros(0, int)).shape == (0, 4, 1)


@DTYPES
@given(cases(CAUSAL))
def test_pickles_and_copies_of_a_stream_go_on_from_where_it_is(dtype: Any, case: Case) -> None:
    model = Model(case.document, dtype)
    stream, parts = model.stream(len(case.u), rate=1.0), case.splits()
    for part in parts[: len(parts) // 2]:
        stream.push(case.u[:, part])
    others = [pickle.loads(pickle.dumps(stream)), copy.deepcopy(stream), copy.copy(stream)]
    assert [other.model is model for other in others] == [False, True, True]
    for part in parts[len(parts) // 2 :]:
        expected = stream.push(case.u[:, part])
        for other in others:
            assert_array_equal(other.push(case.u[:, part]), expected)
            assert_array_equal(other.position, stream.position)


def test_a_copy_of_a_stream_keeps_its_rate_and_says_so() -> None:
    model = ssmrt.diagonal([[-0.5 + 3j]], [[1]], [[1]], [0.0], [0.05])
    stream = model.stream(3, rate=2.0)
    stream.push(np.ones((3, 5, 1)))
    stream.reset(np.array([True, False, False]))
    other = pickle.loads(pickle.dumps(stream))
    assert other.rate == 2.0
    assert_array_equal(other.step(np.ones((3, 1))), stream.step(np.ones((3, 1))))
    text = f"<ssmrt.Stream: 3 streams at rate 2, 1 to 6 samples heard, of {model!r}>"
    assert repr(stream) == repr(other) == text


@DTYPES
@given(cases(CAUSAL))
def test_a_reset_stream_is_a_new_one(dtype: Any, case: Case) -> None:
    model = Model(case.document, dtype)
    stream = model.stream(len(case.u))
    expected = stream.push(case.u)
    assert_array_equal(stream.position, np.full(len(case.u), case.u.shape[1]))
    stream.reset()
    assert_array_equal(stream.position, np.zeros(len(case.u)))
    assert_array_equal(stream.push(case.u), expected)


@DTYPES
@given(cases(CAUSAL, batches=MANY))
def test_a_mask_resets_its_streams_only(dtype: Any, case: Case) -> None:
    model = Model(case.document, dtype)
    mask = case.g.random(len(case.u)) < 0.5
    masked, left, fresh = (model.stream(len(case.u)) for _ in range(3))
    masked.push(case.u)
    left.push(case.u)
    masked.reset(mask)
    assert_array_equal(masked.position, np.where(mask, 0, case.u.shape[1]))
    for part in case.splits():
        chunk = case.u[:, part]
        y = masked.push(chunk)
        assert_array_equal(y[mask], fresh.push(chunk)[mask])
        assert_array_equal(y[~mask], left.push(chunk)[~mask])


@DTYPES
@given(cases(CAUSAL, st.integers(1, 40)))
def test_the_functional_step_is_the_streams(dtype: Any, case: Case) -> None:
    model = Model(case.document, dtype)
    stream, state = model.stream(len(case.u)), model.default_state(len(case.u))
    for t in range(case.u.shape[1]):
        before = state.copy()
        y, after = model.step(case.u[:, t], state)
        assert_array_equal(state, before)
        assert_array_equal(y, stream.step(case.u[:, t]))
        state = after


@pytest.mark.parametrize("rate", [0.5, 2.0, np.float32(2.0), 2])
def test_the_functional_step_at_a_rate_is_the_streams(rate: float) -> None:
    model = ssmrt.diagonal([[-0.5 + 3j]], [[1]], [[1]], [0.0], [0.05])
    stream, state = model.stream(rate=rate), model.default_state()
    for x in np.random.default_rng(0).standard_normal((40, 1)):
        y, state = model.step(x, state, rate=rate)
        assert_array_equal(y, stream.step(x))
        # Another rate between them changes nothing.
        model.step(x, state)


@given(cases(CAUSAL, st.just(8), st.just(6)))
def test_states_have_any_batch_shape(case: Case) -> None:
    model = Model(case.document)
    flat, grid, one = model.default_state(6), model.default_state(2, 3), model.default_state()
    assert flat.shape == (6, model.state_size)
    assert grid.shape == (2, 3, model.state_size)
    assert one.shape == (model.state_size,)
    for t in range(8):
        u = case.u[:, t]
        y, flat = model.step(u, flat)
        z, grid = model.step(u.reshape(2, 3, *u.shape[1:]), grid)
        w, one = model.step(u[0], one)
        assert_array_equal(z.reshape(y.shape), y)
        assert_array_equal(w, y[0])
    assert_array_equal(grid.reshape(flat.shape), flat)
    assert_array_equal(one, flat[0])


@given(cases(CAUSAL))
def test_answers_go_where_they_are_told(case: Case) -> None:
    model = Model(case.document)
    stream, expected = model.stream(len(case.u)), model.stream(len(case.u)).push(case.u)
    out = np.full_like(expected, np.nan)
    assert stream.push(case.u, out=out) is out
    assert_array_equal(out, expected)
    stream.reset()
    for t in range(min(case.u.shape[1], 5)):
        row = np.full_like(expected[:, 0], np.nan)
        assert stream.step(case.u[:, t], out=row) is row
        np.testing.assert_allclose(row, expected[:, t], rtol=0, atol=2e-6 * np.abs(expected).max())


@given(cases(CAUSAL))
def test_an_empty_chunk_is_nothing(case: Case) -> None:
    model = Model(case.document)
    stream, other = model.stream(len(case.u)), model.stream(len(case.u))
    stream.push(case.u)
    other.push(case.u)
    assert stream.push(case.u[:, :0]).shape == (len(case.u), 0, model.d_output)
    assert_array_equal(stream.push(case.u), other.push(case.u))


@DTYPES
@given(cases(EVERY, batches=MANY), st.sampled_from(["auto", "scan", "chunk", "fft"]))
def test_a_sequence_does_not_hear_its_batch(dtype: Any, case: Case, method: Any) -> None:
    model = Model(case.document, dtype)
    y, state = answered(model, case.u, method=method)
    for b in range(len(case.u)):
        one, after = answered(model, case.u[b : b + 1], method=method)
        assert_array_equal(one[0], y[b])
        assert_array_equal(after[0], state[b])


@DTYPES
@given(cases(CAUSAL, batches=MANY))
def test_a_stream_does_not_hear_its_batch(dtype: Any, case: Case) -> None:
    model, parts = Model(case.document, dtype), case.splits()
    stream = model.stream(len(case.u))
    y = np.concatenate([stream.push(case.u[:, part]) for part in parts], 1)
    step = stream.step(case.u[:, 0])
    for b in range(len(case.u)):
        single = model.stream()
        for part in parts:
            assert_array_equal(single.push(case.u[b : b + 1, part])[0], y[b, part])
        assert_array_equal(single.step(case.u[b : b + 1, 0])[0], step[b])


def spoilt(case: Case, bad: int) -> Array:
    """The input with numbers that are none in one row."""
    u = case.u.copy()
    at = case.g.integers(0, u.shape[1], 3)
    u[bad, at, case.g.integers(0, u.shape[2])] = case.g.choice([np.nan, np.inf, -np.inf], 3)
    return u


@DTYPES
@given(
    cases(
        st.one_of(layers(causal=None), models(causal=None, tokens=False), st.one_of(selectives(), ssds()).map(alone)),
        batches=MANY,
    ),
    st.sampled_from(["auto", "scan", "chunk", "fft"]),
)
def test_a_bad_sequence_spoils_no_other(dtype: Any, case: Case, method: Any) -> None:
    model = Model(case.document, dtype)
    bad = int(case.g.integers(0, len(case.u)))
    good = np.arange(len(case.u)) != bad
    expected, after = answered(model, case.u, method=method)
    y, state = answered(model, spoilt(case, bad), method=method)
    assert_array_equal(y[good], expected[good])
    assert_array_equal(state[good], after[good])
    assert_array_equal(model(case.u, method=method), expected)


@DTYPES
@given(
    cases(st.one_of(layers(), models(tokens=False), st.one_of(selectives(), ssds()).map(alone)), batches=st.just(20))
)
def test_a_bad_stream_spoils_no_other_and_heals_by_a_reset(dtype: Any, case: Case) -> None:
    model = Model(case.document, dtype)
    bad = int(case.g.integers(0, 20))
    good = np.arange(20) != bad
    stream, clean, fresh = (model.stream(20) for _ in range(3))
    u, parts = spoilt(case, bad), case.splits()
    for part in parts:
        assert_array_equal(stream.push(u[:, part])[good], clean.push(case.u[:, part])[good])
    assert_array_equal(stream.step(u[:, 0])[good], clean.step(case.u[:, 0])[good])
    stream.reset(~good)
    for part in parts:
        y = stream.push(case.u[:, part])
        assert_array_equal(y[bad], fresh.push(case.u[:, part])[bad])
        assert_array_equal(y[good], clean.push(case.u[:, part])[good])


@DTYPES
@given(cases(st.one_of(layers(causal=None), models(causal=None, tokens=False)), batches=MANY))
def test_padding_may_be_anything(dtype: Any, case: Case) -> None:
    model, lengths = Model(case.document, dtype), case.lengths()
    padding = np.arange(case.u.shape[1]) >= lengths[:, None]
    expected = model(case.u, lengths=lengths)
    u = case.u.copy()
    u[padding] = case.g.choice([np.nan, np.inf, 1e30])
    assert_array_equal(model(u, lengths=lengths), expected)


@DTYPES
@given(cases(st.one_of(layers(), models(tokens=False, pooled=False), st.one_of(selectives(), ssds()).map(alone))))
def test_a_bad_sample_spoils_nothing_before_it(dtype: Any, case: Case) -> None:
    model = Model(case.document, dtype)
    at = int(case.g.integers(0, case.u.shape[1]))
    u = case.u.copy()
    u[:, at] = case.g.choice([np.nan, np.inf])
    assert_array_equal(model(u, method="scan")[:, :at], model(case.u, method="scan")[:, :at])
    assert np.isfinite(model(u, method="fft")[:, :at]).all()
    # Chunks go two samples at a time.
    pair = at - at % 2
    stream, clean = model.stream(len(u)), model.stream(len(u))
    assert_array_equal(stream.push(u)[:, :pair], clean.push(case.u)[:, :pair])
    assert_array_equal(model(u)[:, :pair], model(case.u)[:, :pair])


@DTYPES
@given(case=cases(EVERY))
def test_pickled_and_saved_models_are_the_same(
    dtype: Any, case: Case, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = Model(case.document, dtype)
    path = tmp_path_factory.getbasetemp() / "model.ssm.safetensors"
    model.save(path)
    expected = model(case.u)
    for other in (pickle.loads(pickle.dumps(model)), ssmrt.load(path, dtype=dtype)):
        assert other.dtype == model.dtype
        assert other.num_parameters == model.num_parameters
        assert other.summary() == model.summary()
        assert_array_equal(other(case.u), expected)


@settings(max_examples=5)
@given(cases(models()))
def test_threads_share_a_model(case: Case) -> None:
    model = Model(case.document)
    rates = [1.0] if "discrete" in repr(case) else [0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    expected = {rate: (model(case.u, rate=rate), model.stream(len(case.u), rate=rate).push(case.u)) for rate in rates}

    def work(seed: int) -> None:
        for rate in np.random.default_rng(seed).permutation(rates * 3):
            y, pushed = expected[rate]
            assert_array_equal(model(case.u, rate=rate), y)
            stream = model.stream(len(case.u), rate=rate)
            assert_array_equal(stream.push(case.u), pushed)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


ANSWER = """
import sys
import numpy as np
import ssmrt

folder = sys.argv[1]
for i in range(int(sys.argv[2])):
    u = np.load(f"{folder}/{i}.npy")
    for dtype in ("float32", "float64"):
        model = ssmrt.load(f"{folder}/{i}.ssm.safetensors", dtype=dtype)
        answers = [model(u, method=method) for method in ("auto", "scan", "fft")]
        if model.streamable:
            answers.append(model.stream(len(u)).push(u))
        np.savez(f"{folder}/{i}-{dtype}-{sys.argv[3]}.npz", *answers)
"""


def test_the_number_of_threads_is_not_heard(tmp_path: Path) -> None:
    collected: list[Case] = []

    @settings(max_examples=30, derandomize=True, database=None)
    @given(cases(st.one_of(layers(causal=None), models(causal=None)), st.sampled_from([1, 130, 400, 3000])))
    def collect(case: Case) -> None:
        collected.append(case)

    collect()
    collected.append(Case(alone(wide()), 0, 3, 700))
    collected += [Case(deep(), 0, 1, 6000), Case(deep(), 0, 2, 2500), Case(mambas(), 0, 1, 4999)]
    collected += [Case(alone(layer), 0, streams, length) for layer, streams, length in narrow()]
    for i, case in enumerate(collected):
        Model(case.document).save(tmp_path / f"{i}.ssm.safetensors")
        np.save(tmp_path / f"{i}.npy", case.u)
    threads = ("1", "2", "3", "8", "16")
    for n in threads:
        environment = {**os.environ, "SSMRT_NUM_THREADS": n, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", ANSWER, str(tmp_path), str(len(collected)), n]
        subprocess.run(command, env=environment, check=True)
    for i in range(len(collected)):
        for dtype in ("float32", "float64"):
            expected, *others = (np.load(tmp_path / f"{i}-{dtype}-{n}.npz") for n in threads)
            for other in others:
                assert other.files == expected.files
                for name in expected.files:
                    assert_array_equal(other[name], expected[name])


def wide() -> Any:
    """A layer wide enough for its rows to go through in several blocks, and for threads to be worth their waking."""
    g = np.random.default_rng(0)
    h, n = 1100, 3
    A = -g.uniform(0.2, 3, (h, n)) + 1j * g.uniform(0, 30, (h, n))
    B, C = g.standard_normal((2, h, n)) + 0j
    return ssmrt.diagonal(A, B, C, g.standard_normal(h), g.uniform(1e-3, 0.1, h)).document.root


def narrow() -> list[tuple[Any, int, int]]:
    """Layers of one to three groups of channels, of each kind, over several tiles: threads are at several at once.

    One length is of whole tiles.
    """
    g = np.random.default_rng(0)
    D, dt = np.ones(40), g.uniform(1e-4, 0.1, 40)
    A = -g.uniform(0.01, 3, (40, 10)) + 1j * g.uniform(0, 30, (40, 10))
    B, C, P = g.standard_normal((3, 40, 10)) + 1j * g.standard_normal((3, 40, 10))
    dense = 0.2 * g.standard_normal((12, 12)) - np.eye(12)
    return [
        (ssmrt.diagonal(A, B, C, D, dt).document.root, 1, 5000),
        (ssmrt.diagonal(A[:16], B[:16], C[:16], D[:16], dt[:16]).document.root, 2, 5760),
        (ssmrt.dplr(A[:5], 0.1 * P[:5], B[:5], C[:5], D[:5], dt[:5]).document.root, 1, 14_000),
        (
            ssmrt.dense(
                dense, np.ones(12), C[:17, None, :].real.repeat(2, 2)[..., :12], D[:17, None], dt[:17]
            ).document.root,
            1,
            12_288,
        ),
    ]


def deep() -> Document:
    """Layers of few channels, which are at several blocks at once. One has a kernel that is cut."""
    g = np.random.default_rng(0)
    h, n = 5, 3
    nodes: list[Node] = [Linear(g.standard_normal((h, 1)), None)]
    for i in range(8):
        A = -g.uniform(0.2, 3, (h, n)) + 1j * g.uniform(0, 30, (h, n))
        B, C = g.standard_normal((h, n)) + 0j, g.standard_normal((1, h, n)) + 0j
        cut = 1000 if i == 4 else None
        layer = Diagonal(C, g.standard_normal((1, h)), g.uniform(1e-3, 0.1, h), A, B, kernel_length=cut)
        nodes += [Residual(Sequential((layer, Activation("gelu")))), Norm("layer", np.ones(h), np.zeros(h))]
    return Document(Sequential((*nodes, Linear(g.standard_normal((2, h)), None))), 1, 2)


def mambas() -> Document:
    """Both generations in turns, each of several tiles of channels, one of which is not whole."""
    g = np.random.default_rng(0)
    h, n, heads, p, groups = 56, 5, 6, 14, 3
    nodes: list[Node] = []
    for _ in range(3):
        weights = (g.standard_normal((3 + 2 * n, h)) / 7, g.standard_normal((h, 3)))
        nodes.append(Selective(-g.uniform(0.2, 9, (h, n)), *weights, g.standard_normal(h) - 3, g.standard_normal(h)))
        xbc, dt = (Linear(g.standard_normal((rows, h)) / 7) for rows in (heads * p + 2 * groups * n, heads))
        scalars = (-g.uniform(0.2, 9, heads), g.standard_normal(heads) - 3, g.standard_normal(heads * p))
        nodes += [
            Norm("rms", np.ones(h)),
            Ssd(xbc, dt, *scalars, n, groups),
            Linear(g.standard_normal((h, heads * p)) / 9),
        ]
    return Document(Sequential(tuple(nodes)), h, h)


@pytest.mark.parametrize("call", ["Model.step", "Stream.step", "Stream.push", "Model.forward"])
def test_other_threads_of_python_run_meanwhile(call: str) -> None:
    """The interpreter's lock is released around all that takes long."""
    g = np.random.default_rng(0)
    layers = [Linear(g.standard_normal((512, 512), np.float32) / 30) for _ in range(4)]
    model = Model(Document(Sequential(tuple(layers)), 512, 512))
    u, state, stream = np.ones((600, 1, 512), np.float32), model.default_state(600), model.stream(600)
    run: Callable[[], Any] = {
        "Model.step": lambda: model.step(u[:, 0], state),
        "Stream.step": lambda: stream.step(u[:, 0]),
        "Stream.push": lambda: stream.push(u),
        "Model.forward": lambda: model(u),
    }[call]
    times, over = [0.0], threading.Event()

    def tick() -> None:
        while not over.is_set():
            times.append(time.perf_counter())
            time.sleep(0)

    def meanwhile() -> bool:
        """Whether the other thread ran in the midst of the call, and not only before or after it."""
        start = time.perf_counter()
        run()
        end = time.perf_counter()
        # NumPy lets go of the lock for a moment when it makes the arrays, and Python may when the call is over.
        return any(start + (end - start) * 0.3 < t < end - (end - start) * 0.1 for t in times)

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        assert sum(meanwhile() for _ in range(20)) > 12
    finally:
        over.set()
        thread.join()


def small(**said: Any) -> Model:
    """Three channels of four modes."""
    g = np.random.default_rng(0)
    C = g.standard_normal((1, 3, 4))
    return ssmrt.diagonal(-0.5 + 1j * np.arange(4)[None], np.ones((1, 4)), C, np.ones((1, 3)), 0.1, **said)


@DTYPES
def test_a_snapshot_with_any_bit_flipped_is_refused(dtype: Any) -> None:
    stream = small(dtype=dtype).stream(2)
    stream.push(np.random.default_rng(1).standard_normal((2, 9, 3)))
    blob = stream.snapshot()
    for byte in range(len(blob)):
        damaged = bytearray(blob)
        damaged[byte] ^= 1 << byte % 8
        with pytest.raises(ValueError, match="snapshot: expected"):
            stream.restore(damaged)
    assert stream.snapshot() == blob


def test_a_snapshot_of_another_layout_is_refused() -> None:
    stream = small().stream()
    blob = bytearray(stream.snapshot())
    blob[8] += 1
    with pytest.raises(ValueError, match="expected layout 1 of the states, found another version's"):
        stream.restore(blob)


def test_a_state_that_is_not_finite_is_refused() -> None:
    stream, lost = small().stream(), small().stream()
    stream.push(np.ones((1, 5, 3)))
    before = stream.snapshot()
    for bad in (np.nan, np.inf):
        lost.reset()
        lost.step(np.full((1, 3), bad))
        with pytest.raises(ValueError, match="expected finite states"):
            stream.restore(lost.snapshot())
    assert stream.snapshot() == before


def test_snapshots_go_between_models_that_compute_the_same() -> None:
    model = small()
    root = model.document.root
    told = replace(model.document, root=replace(root, name="encoder"), meta={"source": "elsewhere"}, sample_rate=16e3)
    stream, other = model.stream(), Model(told).stream()
    stream.push(np.ones((1, 5, 3)))
    other.restore(stream.snapshot())
    assert_array_equal(stream.push(np.ones((1, 5, 3))), other.push(np.ones((1, 5, 3))))
    assert isinstance(root, Diagonal)
    less = replace(model.document, root=replace(root, D=root.D * 0.5))
    with pytest.raises(ValueError, match="expected one of the same model"):
        Model(less).stream().restore(stream.snapshot())


def test_a_snapshot_may_be_any_bytes() -> None:
    stream, u = small().stream(), np.ones((1, 5, 3))
    stream.push(u)
    blob = stream.snapshot()
    expected = stream.push(u)
    for same in (blob, bytearray(blob), memoryview(blob), memoryview(bytearray(blob + b"tail"))[: len(blob)]):
        stream.restore(same)
        assert_array_equal(stream.push(u), expected)


def test_a_sample_of_no_streams_changes_nothing() -> None:
    model = small()
    stream = model.stream(4)
    stream.push(np.ones((4, 3, 3)))
    before = stream.snapshot()
    nobody: tuple[Any, ...] = ([], np.zeros(0, int))
    for active in nobody:
        assert stream.step(np.zeros((0, 3)), active=active).shape == (0, 3)
    assert stream.snapshot() == before
    y, state = model.step(np.zeros((0, 3)), model.default_state(0))
    assert (y.shape, state.shape) == ((0, 3), (0, model.state_size))


@DTYPES
def test_arrays_need_not_be_aligned(dtype: Any) -> None:
    u = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(dtype)
    odd = np.frombuffer(b"header" * 7 + b"?" + u.tobytes(), dtype, u.size, 43).reshape(u.shape)
    assert not odd.flags.aligned
    model = small(dtype=dtype)
    streams = model.stream(2), model.stream(2)
    assert_array_equal(model(odd), model(u))
    assert_array_equal(streams[0].push(odd), streams[1].push(u))
    assert_array_equal(streams[0].step(odd[:, 0]), streams[1].step(u[:, 0]))


SAVED = """
import sys
import numpy as np
from ssmrt import Model
from test_denormals import layer, slow_layers
u = np.random.default_rng(0).standard_normal((1, 75, 32))
for name in slow_layers():
    for dtype in ("float32", "float64"):
        stream = Model(layer(name), dtype).stream()
        stream.push(u[:, :40])
        for t in range(40, 50):
            stream.step(u[:, t])
        sys.stdout.buffer.write(stream.snapshot() + stream.push(u[:, 50:]).tobytes())
"""


def test_snapshots_go_between_instruction_sets() -> None:
    from test_denormals import layer, slow_layers

    env = {**os.environ, "SSMRT_ISA": "scalar", "PYTHONPATH": os.pathsep.join(sys.path)}
    data = subprocess.run([sys.executable, "-c", SAVED], env=env, capture_output=True, check=True).stdout
    u = np.random.default_rng(0).standard_normal((1, 75, 32))
    for name in slow_layers():
        for dtype, tolerance in (("float32", 1e-6), ("float64", 1e-13)):
            stream = Model(layer(name), dtype).stream()  # type: ignore[arg-type]
            size = len(stream.snapshot())
            blob, data = data[:size], data[size:]
            y = np.frombuffer(data, dtype, 25 * 32).reshape(1, 25, 32)
            data = data[y.nbytes :]
            stream.restore(blob)
            found = stream.push(u[:, 50:])
            assert np.abs(found - y).max() <= tolerance * np.abs(y).max(), (name, dtype)
    assert data == b""
