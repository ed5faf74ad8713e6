"""Samples as people have them: any array, without the axes that say nothing, in dtypes that NumPy has no name for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmrt
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from ssmrt import nn
from strategies import complex_normal, spectrum

Array = NDArray[Any]


class Foreign:
    """An array of another library, such as a table's column."""

    def __init__(self, array: Array):
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self._array


def system(width: int) -> ssmrt.Model:
    g = np.random.default_rng(width)
    A, B, C = spectrum(g, width, 3), complex_normal(g, width, 3), complex_normal(g, 2, width, 3)
    return ssmrt.diagonal(A, B, C, np.ones((2, width)), 0.1)


def tokens() -> ssmrt.Model:
    table = np.random.default_rng(0).standard_normal((5, 2))
    return nn.model(nn.sequential([nn.embedding(table), system(2)]))


MODELS = {"one input": system(1), "three inputs": system(3), "tokens": tokens()}
EVERY = pytest.mark.parametrize("name", MODELS)


def samples(name: str, length: int = 20) -> Array:
    """(length, d_input) float32, or tokens (length,)."""
    g = np.random.default_rng(1)
    return (
        g.integers(0, 5, length) if name == "tokens" else g.standard_normal((length, MODELS[name].d_input), np.float32)
    )


@EVERY
def test_a_single_stream_does_without_its_axis(name: str) -> None:
    model, u = MODELS[name], samples(name)
    dt = np.random.default_rng(2).uniform(0.5, 2, len(u))
    with_axis, without = model.stream(), model.stream()
    expected = with_axis.push(u[None], dt=dt[None])[0]
    assert_array_equal(without.push(u, dt=dt), expected)
    out = np.empty((model.d_output,), np.float32)
    for sample, step in zip(u, dt):
        expected = with_axis.step(sample[None], dt=np.array([step]))[0]
        assert without.step(sample, dt=step, out=out) is out
        assert_array_equal(out, expected)
    assert_array_equal(without.position, with_axis.position)
    assert_array_equal(model(u), model(u[None])[0])


@EVERY
def test_several_streams_keep_their_axis(name: str) -> None:
    model, u = MODELS[name], samples(name)
    stream = model.stream(2)
    with pytest.raises(ValueError, match="u: expected"):
        stream.step(u[0])
    with pytest.raises(ValueError, match="u: expected"):
        stream.push(u)
    assert stream.position.tolist() == [0, 0]
    with pytest.raises(ValueError, match="u: expected"):
        model.stream().step(u[0], active=np.array([0]))


def test_a_single_input_does_without_its_axis() -> None:
    model, u = MODELS["one input"], samples("one input")
    y = model(u)
    assert_array_equal(model(u[:, 0]), y)
    assert_array_equal(model.stream().push(u[:, 0]), model.stream().push(u))
    stream, other = model.stream(), model.stream()
    state = model.default_state()
    for sample in u:
        expected = other.step(sample[None])[0]
        assert_array_equal(stream.step(sample[0]), expected)
        answer, state = model.step(sample[0], state)
        assert answer.shape == (2,)
    many, _ = model.step(u[:3, 0], model.default_state(3))
    assert_array_equal(many, model.step(u[:3], model.default_state(3))[0])


@given(st.lists(st.integers(0, 4), max_size=4))
def test_any_other_shape_is_refused(shape: list[int]) -> None:
    model = MODELS["three inputs"]
    stream = model.stream()
    u = np.zeros(shape, np.float32)
    if shape in ([3], [1, 3]):
        assert stream.step(u).shape == (*shape[:-1], 6)
    else:
        with pytest.raises(ValueError, match="u: expected"):
            stream.step(u)
    if len(shape) == 2 and shape[1] == 3:
        assert stream.push(u).shape == (shape[0], 6)


@EVERY
def test_arrays_of_other_libraries_and_lists(name: str) -> None:
    model, u = MODELS[name], samples(name)
    expected = model(u)
    assert_array_equal(model(Foreign(u)), expected)
    assert_array_equal(model(u.tolist()), expected)
    pushed = model.stream().push(u)
    for array in (Foreign(u), u.tolist()):
        assert_array_equal(model.stream().push(array), pushed)
    assert_array_equal(model.stream().step(u[0].tolist()), model.stream().step(u[0]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_dtypes_without_a_name_in_numpy(dtype: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="its dtypes are what is tested")
    model, u = MODELS["three inputs"], samples("three inputs").astype(getattr(ml_dtypes, dtype))
    as_floats = u.astype(np.float32)
    assert_array_equal(model(u), model(as_floats))
    assert_array_equal(model.stream().push(u), model.stream().push(as_floats))
    assert_array_equal(model.stream().step(u[0]), model.stream().step(as_floats[0]))
    state = model.default_state()
    assert_array_equal(model.step(u[0], state)[0], model.step(as_floats[0], state)[0])


def test_bytes_are_no_numbers() -> None:
    model = MODELS["three inputs"]
    for wrong in (np.zeros((4, 3), "V2"), np.zeros((4, 3), [("a", "f4")])):
        for call in (model, model.stream().push):
            with pytest.raises(TypeError, match="u: expected a float dtype"):
                call(wrong)


# graphs


@pytest.fixture(params=[None, 5], ids=["step", "chunk"])
def graph(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime", reason="needs ssmrt[onnx]")
    path = tmp_path / "model.onnx"
    mode = "step" if request.param is None else "chunk"
    ssmrt.export_onnx(MODELS["three inputs"], path, mode=mode, chunk=request.param)
    return path


def test_a_graphs_stream_goes_on_from_a_snapshot(graph: Path) -> None:
    u = samples("three inputs")
    stream, other = ssmrt.OnnxStream(graph), ssmrt.OnnxStream(graph)
    stream.push(u[:10])
    blob = stream.snapshot()
    expected = stream.push(u[10:])
    other.restore(blob)
    assert other.position.tolist() == [10]
    assert_array_equal(other.push(u[10:]), expected)
    stream.restore(blob)
    assert_array_equal(stream.push(u[10:]), expected)


def test_a_snapshot_of_something_else_is_refused(graph: Path, tmp_path: Path) -> None:
    stream = ssmrt.OnnxStream(graph)
    stream.push(samples("three inputs")[:5])
    blob = stream.snapshot()
    ssmrt.export_onnx(MODELS["one input"], tmp_path / "other.onnx")
    other = ssmrt.OnnxStream(tmp_path / "other.onnx").snapshot()
    wrong: list[tuple[Any, type[Exception], str]] = [
        (b"", ValueError, "expected an OnnxStream's bytes"),
        (MODELS["three inputs"].stream().snapshot(), ValueError, "expected an OnnxStream's bytes"),
        (other, ValueError, "expected one of the same file"),
        (blob[:-1], ValueError, f"expected {len(blob)} bytes, found {len(blob) - 1}"),
        (blob + b"x", ValueError, f"expected {len(blob)} bytes"),
        (blob[:-1] + bytes([blob[-1] ^ 1]), ValueError, "found damaged ones"),
        ("text", TypeError, "expected bytes"),
    ]
    for bad, error, says in wrong:
        with pytest.raises(error, match=says):
            stream.restore(bad)
    assert stream.snapshot() == blob


def test_a_graphs_single_stream_does_without_its_axis(graph: Path) -> None:
    u = samples("three inputs")
    expected = ssmrt.OnnxStream(graph).push(u[None])[0]
    assert_array_equal(ssmrt.OnnxStream(graph).push(u), expected)
    stream = ssmrt.OnnxStream(graph)
    if stream.contract["chunk"] is None:
        out = np.empty(6, np.float32)
        assert stream.step(u[0], out=out) is out
        assert_array_equal(out, expected[0])
