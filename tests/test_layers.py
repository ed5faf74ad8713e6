"""Layers from plain arrays, kernels, and the functions beside them, against NumPy, SciPy and upstream."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import ssmrt
from cases import SHARED, relative_error
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import linalg, signal  # type: ignore[import-untyped]
from ssmrt import Model
from ssmrt.document import Activation, Dense, Diagonal, DiagonalMimo, Document, Dplr, Sequential
from strategies import (
    SEEDS,
    Case,
    alone,
    cases,
    complex_normal,
    diagonals,
    dss,
    layers,
    linear_layers,
    linosses,
    mimos,
    models,
    selectives,
    siso,
    spectrum,
    ssds,
    step_sizes,
    uncut,
)

Array = NDArray[Any]

REFERENCES = Path(__file__).parent / "golden" / "hippo.npz"
MEASURES = ("legs", "legt", "lagt", "fourier")


def at_rest(node: Any) -> Any:
    """The layer with an initial state of zero."""
    return replace(node, x0=None) if hasattr(node, "x0") else node


def impulse_responses(document: Document, length: int) -> Array:
    """The oracle's answers to an impulse at one input after the other: (d_output, d_input, length), without D.

    From rest: an initial state has an answer of its own.
    """
    node: Any = at_rest(document.root)
    silent = replace(node, D=None if node.D is None else np.zeros_like(node.D))
    u = np.zeros((document.d_input, length, document.d_input))
    u[np.arange(document.d_input), 0, np.arange(document.d_input)] = 1
    return oracle.run(replace(document, root=silent), u).transpose(2, 0, 1)


@given(siso().map(alone), st.integers(1, 200))
def test_the_kernel_is_the_impulse_response(document: Document, length: int) -> None:
    node: Any = document.root
    kernel = Model(document).kernel(0, length)
    m, h, _ = node.C.shape
    assert kernel.shape == (m, h, length)
    assert kernel.dtype == np.float64
    responses = impulse_responses(document, length)
    order = (h, m) if node.head_major else (m, h)
    responses = responses.reshape(*order, h, length)
    if node.head_major:
        responses = responses.swapaxes(0, 1)
    assert relative_error(kernel, responses[:, np.arange(h), np.arange(h)]) < 1e-12


@given(st.one_of(mimos(), linosses()).map(alone), st.integers(1, 200))
def test_the_kernel_of_many_inputs_is_their_impulse_responses(document: Document, length: int) -> None:
    kernel = Model(document).kernel(0, length)
    assert kernel.shape == (document.d_output, document.d_input, length)
    assert relative_error(kernel, impulse_responses(document, length)) < 1e-12


@given(siso(causal=False).map(uncut), st.integers(1, 100), st.floats(0.5, 2))
def test_kernels_of_both_directions_and_rates(node: Any, length: int, rate: float) -> None:
    kernel = Model(alone(node)).kernel(0, length, rate=1.0 if node.dt is None else rate)
    parts = [oracle.kernel(node, C, length, 1.0 if node.dt is None else rate) for C in (node.C, node.C_reverse)]
    assert relative_error(kernel, np.concatenate(parts)) < 1e-12


@given(dss(), st.integers(1, 100))
def test_the_kernel_of_dss_is_its_own(node: Diagonal, length: int) -> None:
    assert relative_error(Model(alone(node)).kernel(0, length), oracle.kernel(node, node.C, length)) < 1e-12


@given(st.one_of(siso(causal=False), dss(), mimos()))
def test_a_kernel_of_no_samples_is_empty(node: Any) -> None:
    assert Model(alone(node)).kernel(0, 0).shape[2] == 0


@given(siso(stepped=True), st.integers(1, 100), st.floats(0.5, 4))
def test_a_rate_cuts_kernels_sooner(node: Any, length: int, rate: float) -> None:
    node = replace(at_rest(node), kernel_length=50)
    expected = oracle.kernel(node, node.C, length, rate)
    expected[..., round(50 / rate) :] = 0
    assert relative_error(Model(alone(node)).kernel(0, length, rate=rate), expected) < 1e-12


@given(cases(siso().map(alone)))
def test_a_layer_is_the_convolution_with_its_kernel(case: Case) -> None:
    node: Any = case.document.root
    node = replace(at_rest(node), head_major=False)
    length = case.u.shape[1]
    model = Model(replace(case.document, root=node), "float64")
    u = case.u.swapaxes(1, 2)[:, None]
    y = ssmrt.ops.causal_conv(u, model.kernel(0, length)) + node.D[..., None] * u
    y = y.reshape(len(u), -1, length).swapaxes(1, 2)
    assert relative_error(model(case.u), y) < 1e-11


def test_layers_of_a_model_are_numbered_as_they_run() -> None:
    g = np.random.default_rng(0)
    A, B, C = spectrum(g, 2, 3), complex_normal(g, 2, 3), complex_normal(g, 1, 2, 3)
    first = Diagonal(C, np.ones((1, 2)), np.full(2, 0.1), A, B)
    second = replace(first, C=2 * C)
    model = Model(Document(Sequential((first, Sequential((second,)))), 2, 2))
    assert_allclose(2 * model.kernel(0, 9), model.kernel(1, 9), rtol=1e-14)
    with pytest.raises(ValueError, match="layer: expected a number from 0 to 1, found 2"):
        model.kernel(2, 9)


@pytest.mark.parametrize("method", ["chunk", "scan"])
def test_a_channel_does_not_hear_how_many_there_are(method: Any) -> None:
    """Wide layers go through several groups of channels at once; the last groups and samples are left over."""
    g = np.random.default_rng(0)
    h, n = 1100, 3
    A = spectrum(g, h, n)
    B, C = complex_normal(g, h, n), complex_normal(g, 1, h, n)
    D, dt = g.standard_normal((1, h)), g.uniform(1e-3, 0.1, h)

    def model(channels: slice) -> Model:
        part = Diagonal(C[:, channels], D[:, channels], dt[channels], A[channels], B[channels])
        return Model(Document(Sequential((part, Activation("gelu"))), len(dt[channels]), len(dt[channels])))

    u = g.standard_normal((2, 715, h)).astype(np.float32)
    y = model(slice(0, h))(u, method=method)
    for first in (0, 64, 1072, 1088):
        channels = slice(first, min(first + 16, h))
        assert_array_equal(y[..., channels], model(channels)(u[..., channels], method=method))


def test_one_sample_of_kernel_is_one_sample() -> None:
    """kernel_length 1 leaves the direct path and C Bbar."""
    g = np.random.default_rng(0)
    document = ssmrt.diagonal(
        spectrum(g, 3, 4), complex_normal(g, 3, 4), complex_normal(g, 3, 4), np.ones(3), 0.1
    ).document
    root: Any = replace(document.root, kernel_length=1)  # type: ignore[call-arg]
    model = Model(replace(document, root=root), "float64")
    u = g.standard_normal((2, 50, 3))
    gain = model.kernel(0, 1)[0, :, 0] + 1
    assert_allclose(model(u), u * gain, rtol=1e-12)
    assert_allclose(model.stream(2).push(u), u * gain, rtol=1e-12)


@pytest.mark.parametrize("real", [-0.5, 0.0])
@pytest.mark.parametrize("cut", [8, 64, 1024])
def test_a_cut_kernel_keeps_its_digits(cut: int, real: float) -> None:
    """However much longer the modes remember: undamped ones, as HiPPO-Fourier's, for ever."""
    h, n, length = 8, 32, 6000
    g = np.random.default_rng(0)
    A = np.tile(real + 1j * np.pi * np.arange(n), (h, 1))
    dt = np.exp(np.linspace(np.log(1e-3), np.log(1e-1), h))
    node = Diagonal(complex_normal(g, 1, h, n), np.zeros((1, h)), dt, A, np.ones((h, n)) + 0j, kernel_length=cut)
    model = Model(alone(node))
    u = np.stack([g.standard_normal((length, h)), np.ones((length, h))])
    expected = ssmrt.ops.causal_conv(u.swapaxes(1, 2), model.kernel(0, cut)[0]).swapaxes(1, 2)
    # A long cut is one recurrence less another, and what never decays keeps the rounding of both.
    bound = 5e-6 if cut > 256 and real == 0 else 2e-6
    assert relative_error(model(u), expected) < bound
    stream = model.stream(2)
    y = np.concatenate([stream.push(u[:, t : t + 500]) for t in range(0, length, 500)], 1)
    assert relative_error(y, expected) < bound


@given(cases(diagonals(stepped=True).map(uncut).map(alone)))
def test_irregular_steps_are_not_for_cut_kernels(case: Case) -> None:
    """What a sample says after irregular steps has no kernel: right, or refused."""
    root: Any = case.document.root
    document, dt = replace(case.document, root=replace(root, kernel_length=7)), case.factors()
    model = Model(document, "float64")
    try:
        y = model(case.u, dt=dt)
    except ssmrt.UnsupportedError:
        with pytest.raises(ssmrt.UnsupportedError, match="dt"):
            model.stream(len(case.u)).push(case.u, dt=dt)
        return
    assert relative_error(y, oracle.run(document, case.u, dt=dt)) < 1e-11


SIZES = st.tuples(st.integers(1, 20), st.integers(1, 8), st.integers(1, 3))


@given(SIZES, SEEDS, st.booleans())
def test_diagonal_takes_plain_arrays(sizes: tuple[int, int, int], seed: int, pairs: bool) -> None:
    h, n, m = sizes
    g = np.random.default_rng(seed)
    A, B, C = spectrum(g, h, n), complex_normal(g, h, n), complex_normal(g, m, h, n)
    D, dt, u = g.standard_normal((m, h)), step_sizes(g, h), g.standard_normal((2, 40, h))
    model = ssmrt.diagonal(A, B, C, D, dt, conjugate_pairs=pairs, dtype="float64")
    expected = oracle.run(alone(Diagonal(C, D, dt, A, B, conjugate_pairs=pairs)), u)
    assert relative_error(model(u), expected) < 1e-12
    one = ssmrt.diagonal(A, B, C[0], D[0], dt, conjugate_pairs=pairs, dtype="float64")
    assert relative_error(one(u), expected[..., :h]) < 1e-11
    shared = ssmrt.diagonal(A[0], B[0], C, None, 0.1, conjugate_pairs=pairs, dtype="float64")
    node = Diagonal(C, 0 * D, np.full(h, 0.1), A[:1], B[:1], conjugate_pairs=pairs)
    assert relative_error(shared(u), oracle.run(alone(node), u)) < 1e-12
    untied = ssmrt.diagonal(A, B, C, D, step_sizes(g, h, n), disc="bilinear", dtype="float64")
    assert relative_error(untied(u), oracle.run(untied.document, u)) < 1e-12


@given(SIZES, SEEDS, st.booleans())
def test_diagonal_takes_dense_b_and_c(sizes: tuple[int, int, int], seed: int, pairs: bool) -> None:
    h, n, d = sizes
    g = np.random.default_rng(seed)
    A, B, C, dt = spectrum(g, n), complex_normal(g, n, h), complex_normal(g, d, n), step_sizes(g, n)
    model = ssmrt.diagonal(A, B, C, None, dt, conjugate_pairs=pairs, dtype="float64")
    u = g.standard_normal((2, 40, h))
    expected = oracle.run(alone(DiagonalMimo(A, B, C, None, dt, conjugate_pairs=pairs)), u)
    assert relative_error(model(u), expected) < 1e-12
    discrete = ssmrt.diagonal(np.exp(A * dt), B, C, None, None, disc="discrete", dtype="float64")
    assert relative_error(discrete(u), oracle.run(discrete.document, u)) < 1e-12


@given(SIZES, SEEDS, st.booleans())
def test_dplr_takes_plain_arrays(sizes: tuple[int, int, int], seed: int, pairs: bool) -> None:
    h, n, r = sizes
    g = np.random.default_rng(seed)
    A, B, C, P = spectrum(g, h, n), complex_normal(g, h, n), complex_normal(g, h, n), complex_normal(g, r, h, n)
    D, dt, u = g.standard_normal(h), step_sizes(g, h), g.standard_normal((2, 40, h))
    model = ssmrt.dplr(A, P, B, C, D, dt, conjugate_pairs=pairs, dtype="float64")
    assert relative_error(model(u), oracle.run(alone(Dplr(C[None], D[None], dt, A, P, B, None, pairs)), u)) < 1e-12
    one = ssmrt.dplr(A, P[0], B, C, D, dt, conjugate_pairs=pairs, dtype="float64")
    assert relative_error(one(u), oracle.run(one.document, u)) < 1e-12


@given(SIZES, SEEDS, st.sampled_from([0.5, 0.8, 1.0]))
def test_dense_takes_plain_arrays(sizes: tuple[int, int, int], seed: int, alpha: float) -> None:
    h, n, m = sizes
    g = np.random.default_rng(seed)
    A = g.standard_normal((h, n, n))
    A = A - A.swapaxes(1, 2) - np.eye(n)
    B, C, D = g.standard_normal((h, n)), g.standard_normal((h, m, n)), g.standard_normal((h, m))
    dt, u = step_sizes(g, h), g.standard_normal((2, 40, h))

    def expected(A: Array, B: Array) -> Array:
        node = Dense(C.swapaxes(0, 1), D.T, dt, A, B, alpha, head_major=True)
        return oracle.run(alone(node), u)

    model = ssmrt.dense(A, B, C, D, dt, alpha=alpha, dtype="float64")
    assert model(u).shape == (2, 40, h * m)
    assert relative_error(model(u), expected(A, B)) < 1e-11
    shared = ssmrt.dense(A[0], B[0], C, D, dt, alpha=alpha, dtype="float64")
    assert relative_error(shared(u), expected(A[:1], B[:1])) < 1e-11


@given(st.integers(1, 8), SEEDS)
def test_one_system_in_three_forms(n: int, seed: int) -> None:
    """Diagonal, diagonal plus low rank of zero, and a full matrix similar to it."""
    g = np.random.default_rng(seed)
    A, B, C = -g.uniform(0.2, 3, (2, n)), g.standard_normal((2, n)), g.standard_normal((2, n))
    D, dt, u = g.standard_normal(2), step_sizes(g, 2), g.standard_normal((2, 100, 2))
    T, _ = np.linalg.qr(g.standard_normal((2, n, n)))
    full = T @ (A[..., None] * np.eye(n)) @ T.swapaxes(1, 2)
    forms = [
        ssmrt.diagonal(A, B, C, D, dt, disc="bilinear", conjugate_pairs=False, dtype="float64"),
        ssmrt.dplr(A, np.zeros((2, n)), B, C, D, dt, conjugate_pairs=False, dtype="float64"),
        ssmrt.dense(
            full, (T @ B[..., None])[..., 0], (T @ C[..., None])[..., 0][:, None], D[:, None], dt, dtype="float64"
        ),
    ]
    expected = forms[0](u)
    for form in forms[1:]:
        assert relative_error(form(u), expected) < 1e-12


@given(st.integers(1, 12), SEEDS, st.sampled_from(["zoh", "bilinear", "euler", "backward_euler", "gbt"]))
def test_discretize_is_scipys(n: int, seed: int, method: Any) -> None:
    g = np.random.default_rng(seed)
    A = g.standard_normal((n, n)) - 2 * np.eye(n)
    B, dt, alpha = g.standard_normal(n), float(step_sizes(g, 1)[0]), float(g.uniform(0, 1))
    names = {"backward_euler": "backward_diff"}
    ones = np.ones((1, n)), np.ones((1, 1))
    Ad, Bd, *_ = signal.cont2discrete((A, B[:, None], *ones), dt, method=names.get(method, method), alpha=alpha)
    a, b = ssmrt.discretize(A, B, dt, method=method, alpha=alpha)
    assert b.shape == (n,)
    assert_allclose(a, Ad, rtol=1e-12, atol=1e-13)
    assert_allclose(b, Bd[:, 0], rtol=1e-12, atol=1e-13)
    assert ssmrt.discretize(A, B[:, None], dt, method=method, alpha=alpha)[1].shape == (n, 1)


def test_zoh_of_a_singular_matrix() -> None:
    a, b = ssmrt.discretize([[0, 1], [0, 0]], [0, 1], 0.5, method="zoh")
    assert_allclose(a, np.array([[1, 0.5], [0, 1]]), rtol=1e-15)
    assert_allclose(b, np.array([0.125, 0.5]), rtol=1e-15)


def hippo_references() -> dict[str, Array]:
    path = SHARED / "torch" / "hippo_refs.npz"
    with np.load(path if path.is_file() else REFERENCES) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.mark.parametrize("measure", MEASURES)
def test_hippo_is_upstreams(measure: Any) -> None:
    references = hippo_references()
    sizes = [int(k.split("_")[1]) for k in references if re.fullmatch(rf"{measure}_\d+_A", k)]
    assert len(sizes) >= 2
    for n in sizes:
        A, B = ssmrt.hippo(measure, n)
        assert_allclose(A, references[f"{measure}_{n}_A"], rtol=1e-14, atol=1e-13)
        assert_allclose(B, references[f"{measure}_{n}_B"], rtol=1e-14)


@pytest.mark.parametrize("measure", MEASURES)
def test_discrete_hippo_is_upstreams(measure: str) -> None:
    references, seen = hippo_references(), 0
    for key in references:
        found = re.fullmatch(rf"({measure}_\d+)_(zoh|gbt(\d\.\d))_dA", key)
        if found is None:
            continue
        A, B = (references[f"{found[1]}_{x}"] for x in "AB")
        for i, dt in enumerate(references["dts"]):
            alpha = float(found[3] or 0.5)
            a, b = ssmrt.discretize(A, B, dt, method="zoh" if found[3] is None else "gbt", alpha=alpha)
            expected = references[key][i]
            scale = max(1, np.abs(expected).max())
            assert_allclose(a, expected, rtol=0, atol=1e-12 * scale)
            b_expected = references[key[:-1] + "B"][i]
            assert_allclose(b, b_expected, rtol=0, atol=1e-12 * max(1, np.abs(b_expected).max()))
            seen += 1
    assert seen >= 12


@given(st.integers(1, 300), st.integers(0, 400), SEEDS)
def test_causal_conv_is_numpys(length: int, taps: int, seed: int) -> None:
    g = np.random.default_rng(seed)
    u, k = g.standard_normal((2, 3, length)), g.standard_normal((3, max(taps, 1)))
    y = ssmrt.ops.causal_conv(u, k)
    assert y.shape == u.shape
    expected: Array = np.array([[np.convolve(u[i, j], k[j])[:length] for j in range(3)] for i in range(2)])
    assert_allclose(y, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@given(st.integers(1, 9), st.integers(0, 130), SEEDS)
def test_krylov_is_powers_of_the_matrix(n: int, length: int, seed: int) -> None:
    g = np.random.default_rng(seed)
    A = linalg.qr(g.standard_normal((n, n)))[0] * 0.99
    b = g.standard_normal((2, 3, n))
    K = ssmrt.ops.krylov(A, b, length)
    assert K.shape == (2, 3, n, length)
    x = b
    for t in range(length):
        assert_allclose(K[..., t], x, rtol=0, atol=1e-12 * np.abs(b).max())
        x = x @ A.T


def test_functions_take_integers_and_lists() -> None:
    assert_allclose(ssmrt.ops.causal_conv([1, 2, 3], [1, 1]), [1, 3, 5], atol=1e-14)
    assert_array_equal(ssmrt.ops.krylov([[0, 1], [1, 0]], [1, 2], 3), [[1, 2, 1], [2, 1, 2]])
    assert ssmrt.ops.causal_conv(np.zeros((2, 0)), [1.0]).shape == (2, 0)


@given(st.one_of(layers(causal=None), models(causal=None), st.one_of(selectives(), ssds()).map(alone)))
def test_a_model_knows_its_sizes(document: Document) -> None:
    model = Model(document)
    assert (model.d_input, model.d_output) == (document.d_input, document.d_output)
    assert model.dtype == np.float32
    assert model.isa in ("avx512", "avx2", "neon", "scalar")
    assert model.default_state(2).shape == (2, model.state_size)
    assert model.num_parameters > 0
    lines = model.summary().splitlines()
    assert str(model.num_parameters) in lines[-1]


@given(linear_layers(causal=False, stepped=True).map(alone))
def test_what_looks_ahead_says_so(document: Document) -> None:
    model = Model(document)
    assert not model.streamable
    for call in (
        lambda: model.stream(),
        lambda: model.step(np.zeros((1, model.d_input)), model.default_state(1)),
        lambda: model(np.zeros((1, 4, model.d_input)), dt=np.full((1, 4), 0.5)),
        lambda: model(np.zeros((1, 4, model.d_input)), resets=np.ones((1, 4), bool)),
        lambda: model(np.zeros((1, 4, model.d_input)), state=np.ones((1, model.state_size))),
        lambda: model.forward(np.zeros((1, 4, model.d_input)), return_state=True),
    ):
        with pytest.raises(ssmrt.NotStreamable, match=r'layer .*"layer" is bidirectional'):
            call()


def test_a_rate_past_the_nyquist_limit_warns() -> None:
    A = np.array([[-0.5 + 0.6j * np.pi, -0.5 + 0.2j * np.pi]])
    model = ssmrt.diagonal(A, [[1, 1]], [[1, 1]], None, 1.0)
    u = np.zeros((1, 3, 1))
    model(u, rate=1.2)
    with pytest.warns(UserWarning, match=r"rate=2 takes 1 of 2 modes of diagonal past half a turn a sample"):
        model(u, rate=2.0)
    with pytest.warns(UserWarning, match=r"rate=6 takes 2 of 2"):
        model.stream(rate=6.0)


def test_layers_in_discrete_time_have_no_rate() -> None:
    model = ssmrt.diagonal([[0.5]], [[1]], [[1]], None, None, disc="discrete")
    u, one = np.ones((1, 3, 1)), np.ones((1, 3))
    for call in (
        lambda: model(u, rate=2.0),
        lambda: model.stream(rate=0.5),
        lambda: model(u, dt=2 * one),
        lambda: model.stream().push(u, dt=2 * one),
        lambda: model.stream().step(u[:, 0], dt=np.full(1, 2.0)),
    ):
        with pytest.raises(ssmrt.UnsupportedError, match='layer diagonal "diagonal" has no step size'):
            call()
    assert_array_equal(model(u, dt=one), model(u))
