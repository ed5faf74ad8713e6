"""What does not fit is refused with what was expected and what was found, and changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmrt
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from ssmrt import Model, plots
from ssmrt.document import Activation, Document, Embedding, Linear, Pool, Residual, Sequential, to_bytes
from strategies import Case, alone, cases, complex_normal, layers, models, spectrum

Array = NDArray[Any]

H, N = 3, 4


def arrays(seed: int = 0) -> dict[str, Any]:
    g = np.random.default_rng(seed)
    return {
        "A": spectrum(g, H, N),
        "B": complex_normal(g, H, N),
        "C": complex_normal(g, H, N),
        "D": g.standard_normal(H),
        "dt": np.full(H, 0.1),
    }


def diagonal(**changes: Any) -> Model:
    given = {**arrays(), **changes}
    options = {k: given.pop(k) for k in list(given) if k not in ("A", "B", "C", "D", "dt")}
    return ssmrt.diagonal(*given.values(), **options)


def dplr(**changes: Any) -> Model:
    given = {"P": np.ones((1, H, N)), **arrays(), **changes}
    return ssmrt.dplr(given["A"], given["P"], given["B"], given["C"], given["D"], given["dt"])


def dense(**changes: Any) -> Model:
    given: dict[str, Any] = {"A": -np.eye(N), "B": np.ones(N), "C": np.ones((H, 2, N)), "D": None, "dt": 0.1, **changes}
    options = {k: given.pop(k) for k in list(given) if k not in ("A", "B", "C", "D", "dt")}
    return ssmrt.dense(*given.values(), **options)


def mimo(**changes: Any) -> Model:
    g = np.random.default_rng(0)
    A, B, C = spectrum(g, N), complex_normal(g, N, 2), complex_normal(g, H, N)
    given: dict[str, Any] = {"A": A, "B": B, "C": C, "D": None, "dt": 0.1, **changes}
    return ssmrt.diagonal(*given.values())


def tokens() -> Model:
    table = np.random.default_rng(0).standard_normal((11, H)).astype(np.float32)
    return Model(Document(Sequential((Embedding(table), diagonal().document.root)), 1, H))


def pooled() -> Model:
    return Model(Document(Sequential((diagonal().document.root, Pool("mean"))), H, H))


BUILT: list[tuple[Callable[[], Model], str]] = [
    (
        lambda: diagonal(A=-arrays()["A"]),
        r"channel 2: expected every discrete eigenvalue within the unit circle, found",
    ),
    (
        lambda: diagonal(A=arrays()["A"] + 1),
        r"expected every discrete eigenvalue within the unit circle, found .* with modulus 1\.",
    ),
    (lambda: diagonal(A=np.full((H, N), -1 + 100j), disc="euler"), r"unit circle"),
    (lambda: diagonal(A=np.full((H, N), 1.01), dt=None, disc="discrete"), r"unit circle.*1\.01"),
    (lambda: mimo(A=np.full(N, 1 + 1j)), r"mode 3: expected every discrete eigenvalue within the unit circle"),
    (lambda: dense(A=np.eye(N)), r"unit circle"),
    (lambda: dense(A=np.diag([-1, -1, -1, 0.1])), r"unit circle"),
    (lambda: dplr(A=np.full((H, N), 2.0), P=np.full((1, H, N), 0.1)), r"unit circle"),
    (lambda: diagonal(A=np.full((H, N), np.nan)), r"A: expected finite numbers, found NaN"),
    (lambda: diagonal(B=np.full((H, N), np.inf)), r"B: expected finite numbers, found inf"),
    (lambda: diagonal(C=np.full((H, N), complex(0, np.nan))), r"C: expected finite numbers, found NaN"),
    (lambda: diagonal(D=np.full(H, -np.inf)), r"D: expected finite numbers, found -inf"),
    (lambda: diagonal(dt=np.full(H, np.nan)), r"dt: expected finite numbers, found NaN"),
    (lambda: diagonal(dt=np.array([0.1, -0.1, 0.1])), r"dt: expected positive numbers, found -0\.1"),
    (lambda: diagonal(dt=0.0), r"dt: expected positive numbers, found 0"),
    (lambda: diagonal(dt=np.full(H + 1, 0.1)), r"dt"),
    (lambda: diagonal(dt=np.full((H, N + 1), 0.1)), r"dt"),
    (lambda: diagonal(dt=None), r"dt"),
    (lambda: diagonal(disc="discrete"), r"dt"),
    (lambda: diagonal(disc="trapezoid"), r"disc.*trapezoid"),
    (lambda: diagonal(disc="gbt", alpha=1.5), r"alpha: expected 0 to 1, found 1\.5"),
    (lambda: diagonal(A=np.ones((H, N + 1))), r"A|B"),
    (lambda: diagonal(B=np.ones((H + 1, N))), r"B"),
    (lambda: diagonal(A=-np.ones((2, N)), B=np.ones((2, N))), r"divide|multiple|2"),
    (lambda: diagonal(C=np.ones(N)), r"C: expected \(H, N\) or \(M, H, N\), found shape \(4,\)"),
    (lambda: diagonal(D=np.ones(H + 1)), r"D: expected shape \(3,\), found \(4,\)"),
    (lambda: diagonal(A=np.zeros((H, 0)), B=np.zeros((H, 0)), C=np.zeros((H, 0))), r"expected"),
    (lambda: mimo(D=np.ones(H)), r"D"),
    (lambda: mimo(dt=np.full(N + 1, 0.1)), r"."),
    (lambda: dplr(P=np.ones((1, H, N + 1))), r"P"),
    (lambda: dplr(P=np.full((1, H, N), np.nan)), r"P: expected finite numbers, found NaN"),
    (lambda: dense(A=np.ones((N, N + 1))), r"A"),
    (lambda: dense(B=np.ones(N + 1)), r"B"),
    (lambda: dense(C=np.ones((H, N))), r"C: expected \(H, M, N\), found shape \(3, 4\)"),
    (lambda: dense(D=np.ones((2, H))), r"D: expected shape \(3, 2\), found \(2, 3\)"),
    (lambda: dense(alpha=-0.1), r"alpha: expected 0 to 1, found -0\.1"),
    (lambda: dense(A=np.full((N, N), np.inf)), r"A: expected finite numbers, found inf"),
    (lambda: diagonal(dtype="float16"), r"dtype: expected 'float32' or 'float64', found 'float16'"),
]


@pytest.mark.parametrize("case", range(len(BUILT)))
def test_layers_that_cannot_be_are_refused(case: int) -> None:
    build, message = BUILT[case]
    with pytest.raises(ValueError, match=message) as refusal:
        build()
    assert "expected" in str(refusal.value) or "found" in str(refusal.value)


def test_unstable_systems_run_where_they_are_let() -> None:
    u = np.ones((1, 5, H))
    growing = diagonal(A=np.full((H, N), 1 + 0j), allow_unstable=True, dtype="float64")(u)
    assert (np.abs(np.diff(growing[0], axis=0)) > 0).all()
    assert np.isfinite(dense(A=np.eye(N), allow_unstable=True)(u)).all()
    root: Any = dplr().document.root
    root = replace(root, A=root.A + 100)
    with pytest.raises(ssmrt.CheckpointError, match="allow_unstable"):
        Model(alone(root))
    assert np.isfinite(Model(alone(replace(root, allow_unstable=True)))(u)).all()


# A function's argument: its name and a call that gives it a value.
Argument = tuple[str, Callable[[Any], Any]]

U = np.ones((2, 4, H), np.float32)

NUMBERS: list[Argument] = [
    ("rate", lambda x: diagonal()(U, rate=x)),
    ("rate", lambda x: diagonal().stream(rate=x)),
    ("rate", lambda x: diagonal().kernel(0, 4, rate=x)),
    ("alpha", lambda x: diagonal(disc="gbt", alpha=x)),
    ("alpha", lambda x: dense(alpha=x)),
    ("dt", lambda x: ssmrt.discretize(-np.eye(2), np.ones(2), x)),
    ("alpha", lambda x: ssmrt.discretize(-np.eye(2), np.ones(2), 0.1, method="gbt", alpha=x)),
]
POSITIVE = [argument for argument in NUMBERS if argument[0] == "rate"]
WHOLE: list[Argument] = [
    ("batch", lambda x: diagonal().stream(x)),
    ("layer", lambda x: diagonal().kernel(x, 10)),
    ("length", lambda x: diagonal().kernel(0, x)),
    ("batch_shape", lambda x: diagonal().default_state(x)),
    ("N", lambda x: ssmrt.hippo("legs", x)),
    ("length", lambda x: ssmrt.ops.krylov(np.eye(2), np.ones(2), x)),
    ("length", lambda x: plots.figure(diagonal(), x)),
]
WHOLE_OR_NONE: list[Argument] = [
    ("step", lambda x: ssmrt.load("model", step=x)),
    ("layer", lambda x: plots.figure(diagonal(), layer=x)),
]
WORDS: list[Argument] = [
    ("method", lambda x: diagonal()(U, method=x)),
    ("method", lambda x: ssmrt.discretize(-np.eye(2), np.ones(2), 0.1, method=x)),
    ("measure", lambda x: ssmrt.hippo(x, 4)),
    ("disc", lambda x: diagonal(disc=x)),
    ("dtype", lambda x: diagonal(dtype=x)),
    ("path", lambda x: diagonal().save(x)),
]
FLAGS: list[Argument] = [
    ("conjugate_pairs", lambda x: diagonal(conjugate_pairs=x)),
    ("allow_unstable", lambda x: diagonal(allow_unstable=x)),
    ("allow_unstable", lambda x: dense(allow_unstable=x)),
]
ARRAYS: list[Argument] = [
    ("u", lambda x: diagonal()(x)),
    ("state", lambda x: diagonal()(U, state=x)),
    ("dt", lambda x: diagonal()(U, dt=x)),
    ("lengths", lambda x: diagonal()(U, lengths=x)),
    ("resets", lambda x: diagonal()(U, resets=x)),
    ("dt", lambda x: diagonal().step(U[:, 0], diagonal().default_state(2), dt=x)),
    ("u", lambda x: diagonal().stream(2).step(x)),
    ("dt", lambda x: diagonal().stream(2).step(U[:, 0], dt=x)),
    ("active", lambda x: diagonal().stream(2).step(U[:, 0], active=x)),
    ("out", lambda x: diagonal().stream(2).step(U[:, 0], out=x)),
    ("u", lambda x: diagonal().stream(2).push(x)),
    ("mask", lambda x: diagonal().stream(2).reset(x)),
    *((name, lambda x, name=name: diagonal(**{name: x})) for name in ("A", "B", "C", "D", "dt")),
    *((name, lambda x, name=name: dense(**{name: x})) for name in ("A", "B", "C", "D", "dt")),
    ("P", lambda x: dplr(P=x)),
    ("A", lambda x: ssmrt.discretize(x, np.ones(2), 0.1)),
    ("B", lambda x: ssmrt.discretize(-np.eye(2), x, 0.1)),
    ("u", lambda x: ssmrt.ops.causal_conv(x, np.ones(2))),
    ("k", lambda x: ssmrt.ops.causal_conv(np.ones(2), x)),
    ("A", lambda x: ssmrt.ops.krylov(x, np.ones(2), 2)),
    ("b", lambda x: ssmrt.ops.krylov(np.eye(2), x, 2)),
]
OBJECTS: list[Argument] = [
    ("model", lambda x: ssmrt.verify(x)),
    ("model", lambda x: plots.figure(x)),
    ("document", lambda x: Model(x)),
    ("blob", lambda x: diagonal().stream().restore(x)),
]

NO_NUMBERS = ["2", b"2", True, np.True_, None, 2 + 0j, Decimal(2), [2.0], np.array([2.0]), np.array("2"), object()]
NO_WHOLES = ["2", b"2", True, np.True_, 2.0, np.float32(2), Fraction(2), 2j, [2], np.array([2]), np.array(2.0), {}]
NO_WORDS = [b"auto", True, 2, None, ["auto"], np.array("auto"), {}]
NO_FLAGS = ["no", 1, 0.0, None, [], np.array(True)]
NO_ARRAYS = ["2", True, Decimal(2), {}, object(), [[1.0], [1.0, 2.0]], 10**400, np.array("2"), [None]]
NO_OBJECTS = ["2", 2, None, [2], np.array(2)]

REFUSED: list[tuple[Argument, Any, Any]] = [
    *((argument, value, TypeError) for argument in NUMBERS for value in NO_NUMBERS),
    *((argument, value, ValueError) for argument in NUMBERS for value in (np.nan, -np.inf, 10**400)),
    *((argument, value, ValueError) for argument in POSITIVE for value in (0, -1, -0.5)),
    *((argument, value, TypeError) for argument in [*WHOLE, *WHOLE_OR_NONE] for value in NO_WHOLES),
    *((argument, None, TypeError) for argument in WHOLE),
    *((argument, value, ValueError) for argument in [*WHOLE, *WHOLE_OR_NONE] for value in (-1, 2**63, 10**5000)),
    *((argument, value, TypeError) for argument in WORDS for value in NO_WORDS),
    *((argument, value, TypeError) for argument in FLAGS for value in NO_FLAGS),
    *((argument, value, (TypeError, ValueError)) for argument in ARRAYS for value in NO_ARRAYS),
    *((argument, value, TypeError) for argument in OBJECTS for value in NO_OBJECTS),
]


def test_arguments_of_another_kind_are_refused_by_name() -> None:
    for (name, call), value, kind in REFUSED:
        with pytest.raises(kind, match=rf"\A{name}: expected .*, found "):
            call(value)


def test_numbers_may_be_numpys() -> None:
    expected = diagonal()(U, rate=0.5)
    for rate in (np.float32(0.5), np.array(0.5), np.float16(0.5), Fraction(1, 2)):
        assert_array_equal(diagonal()(U, rate=rate), expected)  # type: ignore[arg-type]
    assert diagonal().stream(np.int64(2)).batch == diagonal().stream(np.array(2)).batch == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [["d_model", 4], 3, True, b"config.json", np.zeros(2)], ids=repr)
def test_a_config_is_a_mapping_or_a_path(config: Any) -> None:
    path = Path(__file__).parent / "golden" / "torch" / "s4d_minimal" / "checkpoint_dataparallel.pt"
    with pytest.raises(TypeError, match=r"\Aconfig: expected a mapping or the path of a JSON file, found "):
        ssmrt.load(path, config=config)


def misaligned(array: Array) -> Array:
    moved = np.frombuffer(bytearray(array.nbytes + 1), array.dtype, offset=1).reshape(array.shape)
    moved[...] = array
    return moved


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "misaligned": misaligned,
    "the other byte order": lambda array: array.astype(array.dtype.newbyteorder()),
    "strided": lambda array: np.repeat(array, 2, -1)[..., ::2],
    "backwards": lambda array: array[..., ::-1].copy()[..., ::-1],
    "Fortran's order": np.asfortranarray,
    "misaligned and strided": lambda array: misaligned(np.repeat(array, 2, -1))[..., ::2],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_lie_in_memory_as_they_like(layout: str, dtype: Any) -> None:
    """Whatever the layout of what is read, the answer is the same to the last bit."""
    change, g = LAYOUTS[layout], np.random.default_rng(0)
    model = diagonal(dtype=dtype)
    u = g.standard_normal((2, 4, H)).astype(dtype)
    state = model.step(u[:, 0], model.default_state(2))[1]
    dt, lengths = g.uniform(0.5, 2, (2, 4)), np.array([4, 3])
    resets = np.array([[False, True, False, False], [True, False, False, True]])
    said = {"state": state, "dt": dt, "lengths": lengths, "resets": resets}
    changed = {name: change(array) for name, array in said.items()}
    assert_array_equal(model(change(u), **changed), model(u, **said))  # type: ignore[arg-type]
    for found, expected in zip(
        model.step(change(u[:, 0]), change(state), dt=change(dt[:, 0])), model.step(u[:, 0], state, dt=dt[:, 0])
    ):
        assert_array_equal(found, expected)
    stream, other = model.stream(2), model.stream(2)
    assert_array_equal(stream.push(change(u), dt=change(dt)), other.push(u, dt=dt))
    active = np.array([0, 1])
    found = stream.step(change(u[:, 0]), dt=change(dt[:, 0]), active=change(active))
    assert_array_equal(found, other.step(u[:, 0], dt=dt[:, 0], active=active))
    stream.reset(change(resets[:, 0]))
    assert_array_equal(stream.position, [5, 0])
    before = stream.snapshot()
    refused = rf"out: expected a writeable C-contiguous {dtype} array, found "
    with pytest.raises(TypeError, match=refused):
        stream.push(u, out=change(np.zeros((2, 4, H), dtype)))
    with pytest.raises(TypeError, match=refused):
        stream.step(u[:, 0], out=change(np.zeros((2, H), dtype)))
    assert stream.snapshot() == before


@pytest.mark.parametrize("layout", [*LAYOUTS, "plain"])
def test_tokens_lie_in_memory_as_they_like(layout: str) -> None:
    change: Callable[[Array], Array] = LAYOUTS.get(layout, np.asarray)
    model, u = tokens(), np.array([[3, 1, 4, 1], [5, 9, 2, 6]])
    for dtype in (np.int64, np.int32, np.uint8):
        assert_array_equal(model(change(u.astype(dtype))), model(u))


def test_a_flag_is_true_unless_its_byte_is_zero() -> None:
    """NumPy lets any byte stand for True; such arrays come out of views and of other libraries."""
    model, u = diagonal(), np.random.default_rng(0).standard_normal((1, 4, H))
    odd = np.array([0, 2, 0, 255], np.uint8).view(bool)
    assert_array_equal(model(u, resets=odd), model(u, resets=np.array([False, True, False, True])))
    stream = model.stream(4)
    stream.push(np.ones((4, 2, H)))
    for mask in (odd, misaligned(odd), np.repeat(odd, 2)[::2]):
        stream.reset(mask)
        assert_array_equal(stream.position, [2, 0, 2, 0])


def test_out_shares_no_memory_with_dt() -> None:
    model = ssmrt.diagonal([[-1.0]], [[1.0]], [[1.0]], None, 0.1, dtype="float64")
    stream = model.stream(2)
    for shape in ((2, 4), (2,)):
        dt = np.ones(shape)
        call = stream.push if dt.ndim == 2 else stream.step
        with pytest.raises(
            ValueError, match=r"out: expected an array of its own, found one that shares memory with dt"
        ):
            call(np.ones((*shape, 1)), dt=dt, out=dt.reshape(*shape, 1))
    assert_array_equal(stream.position, [0, 0])


CALLS: list[tuple[dict[str, Any], Any, str]] = [
    ({"u": np.ones((2, 4, H + 1))}, ValueError, r"u: expected \(batch, length, 3\), found \(2, 4, 4\)"),
    ({"u": np.ones(H)}, ValueError, r"u: expected"),
    ({"u": np.ones((2, 2, 4, H))}, ValueError, r"u: expected \(batch, length, 3\), found \(2, 2, 4, 3\)"),
    ({"u": np.ones((2, 0, H))}, ValueError, r"u: expected at least one sample, found length 0"),
    ({"u": np.ones((2, 4, H), int)}, TypeError, r"u: expected a float dtype, found dtype int64"),
    ({"u": np.ones((2, 4, H), complex)}, TypeError, r"u: expected a float dtype, found dtype complex128"),
    ({"u": np.ones((2, 4, H), bool)}, TypeError, r"u: expected a float dtype, found dtype bool"),
    ({"u": np.full((2, 4, H), "a")}, TypeError, r"u: expected a float dtype, found dtype <U1"),
    ({"u": None}, TypeError, r"u: expected a float dtype, found dtype object"),
    ({"dt": np.ones((2, 5))}, ValueError, r"dt: expected shape \(2, 4\), found \(2, 5\)"),
    ({"dt": np.zeros((2, 4))}, ValueError, r"dt: expected positive numbers, found 0"),
    ({"dt": -np.ones(4)}, ValueError, r"dt: expected positive numbers, found -1"),
    ({"dt": np.full((2, 4), np.nan)}, ValueError, r"dt: expected positive numbers, found NaN"),
    ({"dt": np.full((2, 4), np.inf)}, ValueError, r"dt: expected positive numbers, found inf"),
    ({"dt": np.ones((2, 4), complex)}, TypeError, r"dt: expected real numbers, found dtype complex128"),
    ({"lengths": [5, 1]}, ValueError, r"lengths: expected 1 to 4, found 5"),
    ({"lengths": [0, 1]}, ValueError, r"lengths: expected 1 to 4, found 0"),
    ({"lengths": [-1, 1]}, ValueError, r"lengths: expected 1 to 4, found -1"),
    ({"lengths": [4, 4, 4]}, ValueError, r"lengths: expected shape \(2,\), found \(3,\)"),
    ({"lengths": [4.0, 4.0]}, TypeError, r"lengths: expected integers, found dtype float64"),
    ({"resets": np.zeros((2, 3), bool)}, ValueError, r"resets: expected shape \(2, 4\), found \(2, 3\)"),
    ({"resets": np.zeros((2, 4))}, TypeError, r"resets: expected flags, found dtype float64"),
    ({"state": np.ones((2, 5))}, ValueError, r"state: expected shape \(2, \d+\), found \(2, 5\)"),
    ({"state": np.ones(5)}, ValueError, r"state: expected shape \(2, \d+\), found \(5,\)"),
    ({"state": "other axes"}, ValueError, r"state: expected shape \(2, (\d+)\), found \(4, \d+\)"),
    ({"state": "wrong batch"}, ValueError, r"state: expected shape \(2, (\d+)\), found \(3, \1\)"),
    ({"state": "complex"}, TypeError, r"state: expected a state of this model, found dtype complex64"),
    ({"method": "magic"}, ValueError, r"method: expected 'auto', 'scan', 'chunk' or 'fft', found \"magic\""),
    ({"method": None}, TypeError, r"method: expected a string, found None"),
]


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_calls_that_do_not_fit_are_refused(number: int) -> None:
    said, kind, message = CALLS[number]
    said = {"u": np.ones((2, 4, H)), **said}
    model = diagonal()
    match said.get("state") if isinstance(said.get("state"), str) else None:
        case "wrong batch":
            said["state"] = model.default_state(3)
        case "other axes":
            said["state"] = model.default_state(2).reshape(4, -1)
        case "complex":
            said["state"] = model.default_state(2) + 1j
    with pytest.raises(kind, match=message):
        model(said.pop("u"), **said)


TOKENS: list[tuple[Any, type[Exception], str]] = [
    (np.ones((2, 4)), TypeError, r"u: expected integer tokens, found dtype float64"),
    (np.ones((2, 4), bool), TypeError, r"u: expected integer tokens, found dtype bool"),
    (np.full((2, 4), 11), ValueError, r"u: expected tokens from 0 to 10, found 11"),
    (np.full((2, 4), -1), ValueError, r"u: expected tokens from 0 to 10, found -1"),
    (np.full((2, 4), 2**64 - 1, np.uint64), ValueError, r"u: expected tokens from 0 to 10, found"),
    (np.ones((2, 4, 2), int), ValueError, r"u: expected \(batch, length\), found \(2, 4, 2\)"),
]


@pytest.mark.parametrize("case", range(len(TOKENS)))
def test_tokens_that_are_none_are_refused(case: int) -> None:
    u, kind, message = TOKENS[case]
    model = tokens()
    stream, other = model.stream(2), model.stream(2)
    clean = np.ones((2, 4), int)
    other.push(clean)
    stream.push(clean)
    with pytest.raises(kind, match=message):
        model(u)
    with pytest.raises(kind, match=message):
        stream.push(u)
    assert_array_equal(stream.push(clean), other.push(clean))


STREAMED: list[tuple[str, dict[str, Any], Any, str]] = [
    ("push", {"u": np.ones((3, 4, H))}, ValueError, r"u: expected 2 streams, found 3"),
    ("push", {"u": np.ones((2, 4, H + 1))}, ValueError, r"u: expected \(batch, length, 3\), found \(2, 4, 4\)"),
    ("push", {"u": np.ones((2, H))}, ValueError, r"u: expected \(batch, length, 3\), found \(2, 3\)"),
    ("push", {"u": np.ones((2, 4, H), int)}, TypeError, r"u: expected a float dtype, found dtype int64"),
    ("push", {"dt": np.ones((2, 3))}, ValueError, r"dt: expected shape \(2, 4\), found \(2, 3\)"),
    ("push", {"dt": -np.ones((2, 4))}, ValueError, r"dt: expected positive numbers, found -1"),
    ("push", {"out": np.empty((2, 4, H))}, TypeError, r"out: expected .* float32 array, found dtype float64"),
    ("push", {"out": np.empty((2, 3, H), "f4")}, ValueError, r"out: expected shape \(2, 4, 3\), found \(2, 3, 3\)"),
    (
        "push",
        {"out": np.empty((2, H, 4), "f4").swapaxes(1, 2)},
        (TypeError, ValueError),
        r"out: expected .*C-contiguous",
    ),
    ("push", {"out": [[0.0]]}, TypeError, r"out: expected"),
    ("push", {"out": "read-only"}, ValueError, r"out: expected a writeable array, found a read-only one"),
    (
        "push",
        {"out": "the input"},
        ValueError,
        r"out: expected an array of its own, found one that shares memory with u",
    ),
    ("step", {"u": np.ones((3, H))}, ValueError, r"u: expected 2 streams, found 3"),
    ("step", {"u": np.ones((2, 1, H))}, ValueError, r"u: expected \(batch, 3\), found \(2, 1, 3\)"),
    ("step", {"u": np.ones((2, H), complex)}, TypeError, r"u: expected a float dtype, found dtype complex128"),
    ("step", {"dt": np.ones(3)}, ValueError, r"dt: expected shape \(2,\), found \(3,\)"),
    ("step", {"dt": np.zeros(2)}, ValueError, r"dt: expected positive numbers, found 0"),
    ("step", {"out": np.empty((2, H + 1), "f4")}, ValueError, r"out: expected shape \(2, 3\), found \(2, 4\)"),
    ("reset", {"mask": [True]}, ValueError, r"mask: expected shape \(2,\), found \(1,\)"),
    ("reset", {"mask": [1.0, 0.0]}, TypeError, r"mask: expected flags, found dtype float64"),
    ("restore", {"blob": b""}, ValueError, r"snapshot: expected a stream's bytes, found fewer"),
    ("restore", {"blob": bytes(1000)}, ValueError, r"snapshot: expected a stream's bytes, found something else"),
    ("restore", {"blob": "cut short"}, ValueError, r"snapshot: expected"),
    ("restore", {"blob": "of three streams"}, ValueError, r"snapshot: expected one of 2 streams, found another number"),
    ("restore", {"blob": "of another model"}, ValueError, r"snapshot: expected one of the same model, rate and dtype"),
    ("restore", {"blob": "of another rate"}, ValueError, r"snapshot: expected one of the same model, rate and dtype"),
    ("restore", {"blob": "of another dtype"}, ValueError, r"snapshot: expected one of the same model, rate and dtype"),
    ("restore", {"blob": None}, TypeError, r"blob: expected bytes, found <class 'NoneType'>"),
    ("restore", {"blob": [0] * 8}, TypeError, r"blob: expected bytes, found <class 'list'>"),
]


def snapshot(kind: str) -> bytes:
    match kind:
        case "cut short":
            return diagonal().stream(2).snapshot()[:-1]
        case "of three streams":
            return diagonal().stream(3).snapshot()
        case "of another model":
            return diagonal(D=np.ones(H)).stream(2).snapshot()
        case "of another rate":
            return diagonal().stream(2, rate=0.5).snapshot()
        case "of another dtype":
            return diagonal(dtype="float64").stream(2).snapshot()
    raise ValueError(kind)


@pytest.mark.parametrize("case", range(len(STREAMED)))
def test_a_failed_call_leaves_the_stream_as_it_was(case: int) -> None:
    name, said, kind, message = STREAMED[case]
    said = dict(said)
    model, u = diagonal(), np.random.default_rng(0).standard_normal((2, 4, H)).astype(np.float32)
    stream, other = model.stream(2), model.stream(2)
    assert_array_equal(stream.push(u), other.push(u))
    if name in ("push", "step"):
        given = said.pop("u", u if name == "push" else u[:, 0])
        if isinstance(said.get("out"), str):
            said["out"] = given if said["out"] == "the input" else np.empty_like(given)
            said["out"].flags.writeable = said["out"] is given
        args: tuple[Any, ...] = (given,)
    else:
        (value,) = said.values()
        args, said = (snapshot(value) if isinstance(value, str) else value,), {}
    before = stream.snapshot()
    with pytest.raises(kind, match=message):
        getattr(stream, name)(*args, **said)
    assert stream.snapshot() == before
    assert_array_equal(stream.position, [4, 4])
    assert_array_equal(stream.push(u), other.push(u))


STEPPED: list[tuple[Any, Any, Any, Any, str]] = [
    (
        np.ones((2, H + 1)),
        2,
        None,
        ValueError,
        r"u: expected shape \(2, 3\) with a state of shape \(2, \d+\), found \(2, 4\)",
    ),
    (np.ones((3, H)), 2, None, ValueError, r"u: expected shape \(2, 3\).* found \(3, 3\)"),
    (np.ones((2, H), int), 2, None, TypeError, r"u: expected a float dtype, found dtype int64"),
    (np.ones((2, H)), np.ones((2, 3)), None, ValueError, r"state: expected"),
    (np.ones(H), np.float32(0), None, (ValueError, TypeError), r"state|u: expected"),
    (np.ones((2, H)), 2, -1.0, ValueError, r"dt: expected positive numbers, found -1"),
    (np.ones((2, H)), 2, [1.0, 2.0, 3.0], ValueError, r"dt: expected a number or shape \(2,\), found \(3,\)"),
]


@pytest.mark.parametrize("case", range(len(STEPPED)))
def test_steps_that_do_not_fit_are_refused(case: int) -> None:
    u, state, dt, kind, message = STEPPED[case]
    model = diagonal()
    with pytest.raises(kind, match=message):
        model.step(u, model.default_state(state) if isinstance(state, int) else state, dt=dt)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_stream_has_at_least_one_batch(batch: int) -> None:
    with pytest.raises(ValueError, match=rf"batch: expected 1 or more, found {batch}"):
        diagonal().stream(batch)


def test_a_batch_of_nothing_answers_nothing() -> None:
    y, state = diagonal().forward(np.ones((0, 4, H)), return_state=True)
    assert y.shape == (0, 4, H)
    assert len(state) == 0
    assert pooled()(np.ones((0, 4, H))).shape == (0, H)


def test_a_stream_belongs_to_one_thread_at_a_time() -> None:
    g = np.random.default_rng(0)
    n, h = 64, 256
    A = spectrum(g, h, n)
    model = ssmrt.diagonal(A, complex_normal(g, h, n), complex_normal(g, h, n), np.ones(h), 0.01)
    stream, other, u = model.stream(4), model.stream(4), g.standard_normal((4, 20000, h)).astype(np.float32)
    answers: list[Any] = []
    worker = threading.Thread(target=lambda: answers.append(stream.push(u)))
    worker.start()
    refused = 0
    while worker.is_alive():
        try:
            assert stream.batch == 4
        except RuntimeError:
            refused += 1
    worker.join()
    assert refused > 0
    assert_array_equal(answers[0], other.push(u))
    assert_array_equal(stream.step(u[:, 0]), other.step(u[:, 0]))


def test_rate_and_dt_must_not_pass_a_pole() -> None:
    """Steps at which no discrete system exists are refused, or answered with finite numbers."""
    model = ssmrt.dense(np.diag([2.0, -1.0]), np.ones(2), np.ones((1, 1, 2)), None, 0.5, allow_unstable=True)
    try:
        y = model(np.ones((1, 3, 1)), rate=2.0)
    except (ValueError, ssmrt.SsmrtError):
        return
    assert np.isfinite(y).all()


KERNELS: list[tuple[tuple[Any, ...], Any, str]] = [
    ((1, 10), ValueError, r"layer: expected a number from 0 to 0, found 1"),
    ((-1, 10), ValueError, r"layer: expected 0 or more, found -1"),
    ((0, -1), ValueError, r"length: expected 0 or more, found -1"),
    ((0, 2.5), TypeError, r"length: expected a whole number, found 2\.5"),
]


@pytest.mark.parametrize("case", range(len(KERNELS)))
def test_kernels_that_are_not_are_refused(case: int) -> None:
    args, kind, message = KERNELS[case]
    with pytest.raises(kind, match=message):
        diagonal().kernel(*args)


TUSTIN: Any = "tustin"

FUNCTIONS: list[tuple[Callable[[], Any], Any, str]] = [
    (lambda: ssmrt.discretize(np.eye(3), np.ones(2), 0.1), ValueError, r"A: expected shape \(2, 2\), found \(3, 3\)"),
    (lambda: ssmrt.discretize(np.eye(2), np.ones(2), -0.1), ValueError, r"expected .*found -0\.1"),
    (lambda: ssmrt.discretize(np.eye(2) * np.nan, np.ones(2), 0.1), ValueError, r"expected"),
    (lambda: ssmrt.discretize(np.eye(2), np.ones(2), 0.1, method=TUSTIN), ValueError, r"expected .*tustin"),
    (
        lambda: ssmrt.discretize(np.eye(2), np.ones(2), 0.1, method="gbt", alpha=2),
        ValueError,
        r"alpha.*expected|expected.*2",
    ),
    (lambda: ssmrt.discretize(np.eye(2) * 20, np.ones(2), 0.1), ValueError, r"singular|expected"),
    (
        lambda: ssmrt.discretize(1j * np.eye(2), np.ones(2), 0.1),
        TypeError,
        r"A: expected real numbers, found dtype complex128",
    ),
    (
        lambda: ssmrt.hippo("legz", 4),  # type: ignore[arg-type]
        ValueError,
        r'measure: expected "legs", .* found "legz"',
    ),
    (lambda: ssmrt.hippo("legs", 0), ValueError, r"N: expected 1 to \d+, found 0"),
    (lambda: ssmrt.hippo("fourier", 5), ValueError, r"N: expected an even number .*found 5"),
    (
        lambda: ssmrt.ops.causal_conv(np.ones(3), np.ones(3) * 1j),
        TypeError,
        r"k: expected real numbers, found dtype complex128",
    ),
    (lambda: ssmrt.ops.causal_conv(1.0, np.ones(3)), ValueError, r"u: expected at least one axis"),
    (
        lambda: ssmrt.ops.causal_conv(np.ones((2, 5)), np.ones((3, 5))),
        ValueError,
        r"u and k: expected .* found \(2, 5\) and \(3, 5\)",
    ),
    (lambda: ssmrt.ops.krylov(np.eye(3), np.ones(2), 4), ValueError, r"A and b: expected .* found \(3, 3\) and \(2,\)"),
    (lambda: ssmrt.ops.krylov(np.eye(2), np.ones(2), -4), ValueError, r"length: expected 0 or more, found -4"),
    (
        lambda: ssmrt.ops.krylov(1j * np.eye(2), np.ones(2), 4),
        TypeError,
        r"expected real numbers, found dtype complex128",
    ),
]


@pytest.mark.parametrize("case", range(len(FUNCTIONS)))
def test_functions_refuse_what_does_not_fit(case: int) -> None:
    call, kind, message = FUNCTIONS[case]
    with pytest.raises(kind, match=message):
        call()


def linear(d_in: int, d_out: int) -> Linear:
    return Linear(np.ones((d_out, d_in), np.float32))


DOCUMENTS: list[tuple[Callable[[], Document], str]] = [
    (lambda: Document(Sequential((linear(2, 3), linear(4, 2))), 2, 2), r"expected .*(3|4)"),
    (lambda: Document(linear(2, 3), 3, 3), r"expected"),
    (lambda: Document(linear(2, 3), 2, 5), r"d_output.*expected|expected.*(3|5)"),
    (lambda: Document(Sequential((Pool("mean"), linear(2, 2), Pool("mean"))), 2, 2), r"pool"),
    (lambda: Document(Sequential((linear(2, H), Pool("mean"), diagonal().document.root)), 2, H), r"behind a pool"),
    (lambda: Document(Sequential((linear(2, 3), Embedding(np.ones((4, 3))))), 2, 3), r"embedding.*first"),
    (
        lambda: Document(Linear(np.full((2, 2), np.nan, np.float32)), 2, 2),
        r"weight: expected finite numbers, found NaN",
    ),
    (lambda: Document(Linear(np.ones((2, 2)), np.ones(3)), 2, 2), r"bias: expected"),
]


@pytest.mark.parametrize("case", range(len(DOCUMENTS)))
def test_documents_that_cannot_run_are_refused(case: int) -> None:
    build, message = DOCUMENTS[case]
    with pytest.raises(ssmrt.CheckpointError, match=message):
        Model(build())


@given(data=st.data())
def test_a_damaged_file_is_refused_or_still_a_model(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever byte is changed or missing: a clear exception, or a model that runs; never a crash."""
    path = tmp_path_factory.getbasetemp() / "damaged.ssm.safetensors"
    good = to_bytes(pooled().document)
    if data.draw(st.booleans()):
        bad = good[: data.draw(st.integers(0, len(good) - 1))]
    else:
        at = data.draw(st.integers(0, len(good) - 1))
        bad = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    path.write_bytes(bad)
    with contextlib.suppress(ssmrt.SsmrtError):
        model = ssmrt.load(path)
        model(np.ones((1, 3, model.d_input), np.float32))


def test_what_is_no_model_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.ssm.safetensors"
    path.write_bytes(b"not a model at all")
    with pytest.raises(ssmrt.CheckpointError, match=re.escape(str(path))):
        ssmrt.load(path)
    with pytest.raises(ssmrt.CheckpointError, match=r"missing"):
        ssmrt.load(tmp_path / "missing.ssm.safetensors")


@given(cases(st.one_of(layers(), models(tokens=False)), st.integers(1, 50)))
def test_a_failed_call_of_any_model_changes_nothing(case: Case) -> None:
    model = Model(case.document)
    batch, length = case.u.shape[:2]
    stream, other = model.stream(batch), model.stream(batch)
    assert_array_equal(stream.push(case.u), other.push(case.u))
    wrong = np.ones((batch, length))
    wrong[-1, -1] = -1
    for said in ({"dt": wrong}, {"out": np.empty((batch, length, model.d_output + 1), np.float32)}):
        with pytest.raises((ValueError, ssmrt.UnsupportedError)):
            stream.push(case.u, **said)
    assert_array_equal(stream.push(case.u), other.push(case.u))


HUGE = """
import numpy as np
import ssmrt

model = ssmrt.diagonal(-np.ones((3, 4)), np.ones((3, 4)), np.ones((3, 4)), None, 0.1)
for n in (2**50, 2**60, 2**63 - 1):
    for call in (model.stream, lambda n: model.kernel(0, n), lambda n: ssmrt.ops.krylov(np.eye(3), np.ones(3), n)):
        try:
            call(n)
        except (ValueError, MemoryError):
            print("refused")
"""


def test_huge_requests_are_refused_not_tried() -> None:
    """What no memory holds is an exception, not the end of the process."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", HUGE], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["refused"] * 9, done.stderr[-2000:]
    assert done.returncode == 0


def test_a_kernel_is_cut_at_a_length_that_can_be() -> None:
    model = diagonal()
    root: Any = model.document.root
    for length in (0, -1, 2**60):
        with pytest.raises(ssmrt.CheckpointError, match=rf"kernel_length: .*{length}"):
            Model(replace(model.document, root=replace(root, kernel_length=length)))


@pytest.mark.parametrize("path", [3, None, 1.5, ["model.pt"]])
def test_what_is_no_path_no_mapping_and_no_file_is_refused(path: Any) -> None:
    with pytest.raises(TypeError, match="path: expected a path, a mapping"):
        ssmrt.load(path)


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("name", ["model.pt", "model.npz", "model.ssm.safetensors", "model"])
def test_a_pipe_is_refused_before_it_is_waited_for(name: str, tmp_path: Path) -> None:
    for path in (pipe(tmp_path / name), Path(os.devnull).with_name("zero")):
        with pytest.raises(
            ssmrt.CheckpointError, match="expected a file or a folder, found a pipe, a device or a socket"
        ):
            ssmrt.load(path)


def test_a_pipe_as_a_configuration_is_refused_before_it_is_waited_for(tmp_path: Path) -> None:
    model = tmp_path / "model.safetensors"
    names_file(model, ["w"])
    for path in (pipe(tmp_path / "config.json"), Path(os.devnull).with_name("zero"), tmp_path):
        with pytest.raises(ssmrt.CheckpointError, match="expected a JSON file, found a folder, a pipe"):
            ssmrt.load(model, config=path)


@pytest.mark.parametrize("suffix", ["ssm.safetensors", "safetensors", "pt", "npz", "msgpack", "eqx", "onnx", "json"])
def test_missing_files_are_of_one_class(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"missing.{suffix}"
    with pytest.raises(ssmrt.CheckpointError, match=rf"\A{re.escape(str(path))}: cannot be read: No such file"):
        ssmrt.load(path)


def names_file(path: Path, names: list[str]) -> Path:
    """A safetensors file of one number a name."""
    entries = {n: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i, n in enumerate(names)}
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4 * len(names)))
    return path


def seconds(path: Path) -> float:
    start = time.process_time()
    with pytest.raises(ssmrt.CheckpointError):
        ssmrt.load(path)
    return time.process_time() - start


@pytest.mark.parametrize("pattern", ["layer.{}.w", "{}/kernel"])
def test_very_many_names_cost_no_more_each(pattern: str, tmp_path: Path) -> None:
    few, many = ([pattern.format(i) for i in range(n)] for n in (500, 8_000))
    path = tmp_path / "names.safetensors"
    cost = min(seconds(names_file(path, few)) for _ in range(2))
    assert seconds(names_file(path, many)) < 64 * max(cost, 0.02)


def test_a_name_of_very_many_parts_is_refused_quickly(tmp_path: Path) -> None:
    for separator in "./_":
        assert seconds(names_file(tmp_path / "names.safetensors", [separator.join("a" * 50_000)])) < 2


def test_deep_trees_cost_no_more_each_level() -> None:
    node: Any = Activation("tanh")
    for _ in range(30):
        node = Residual(Sequential((Activation("tanh"), node)))
    start = time.process_time()
    model = Model(Document(node, 8, 8))
    assert model(np.ones((1, 3, 8), np.float32)).shape == (1, 3, 8)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("length", [16_000, 1_000_000])
def test_a_long_kernel_costs_no_more_to_load(length: int) -> None:
    g = np.random.default_rng(0)
    root: Any = ssmrt.dplr(
        (-0.5 + 1j * np.pi * np.arange(32))[None], np.full((1, 1, 32), 0.5), np.ones((1, 32)),
        g.standard_normal((1, 4, 32)), np.ones((1, 4)), np.full(4, 1e-3),
    ).document.root  # fmt: skip
    start = time.process_time()
    model = Model(Document(replace(root, kernel_length=length), 4, 4))
    model.stream().push(np.ones((1, 10, 4), np.float32))
    assert time.process_time() - start < 2


def test_a_large_dense_system_is_planned_quickly() -> None:
    A, B = ssmrt.hippo("legs", 350)
    start = time.process_time()
    ssmrt.dense(A, B, np.ones((1, 1, 350)), np.ones((1, 1)), np.full(1, 1e-3))
    assert time.process_time() - start < 10
