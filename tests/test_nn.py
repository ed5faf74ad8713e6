"""Models of one's own: put together from arrays they answer as the oracle, PyTorch's and Equinox' modules do."""

from __future__ import annotations

import doctest
import pickle
from typing import Any

import numpy as np
import oracle
import pytest
import ssmrt
from cases import GOLDEN, relative_error
from hypothesis import given
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import linalg  # type: ignore[import-untyped]
from ssmrt import layers, nn
from ssmrt.document import Document
from ssmrt.readers import read
from strategies import Case, cases, complex_normal, models, spectrum

Array = NDArray[Any]


@given(models())
def test_widths_follow_from_the_layers(document: Document) -> None:
    model = nn.model(document.root)
    assert (model.d_input, model.d_output) == (document.d_input, document.d_output)


@given(cases(models()))
def test_a_model_of_its_layers_is_the_model(case: Case) -> None:
    own = nn.model(case.document.root)
    assert_array_equal(own(case.u), ssmrt.Model(case.document)(case.u))


def test_what_halves_the_channels_before_the_first_width_takes_more() -> None:
    weight = np.ones((2, 3))
    halves = nn.sequential([nn.residual(nn.sequential([])), nn.sequential([nn.glu()]), nn.gate(nn.glu(), nn.glu())])
    model = nn.model(nn.sequential([halves, nn.linear(weight)]))
    assert (model.d_input, model.d_output) == (12, 2)
    assert nn.model(nn.residual(nn.glu(), skip=nn.linear(np.ones((4, 8))))).d_output == 4


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def gelu(x: Array) -> Array:
    from scipy.special import erf  # type: ignore[import-untyped]

    return np.asarray(x * (1 + erf(x / np.sqrt(2))) / 2)


def test_every_layer_is_what_it_says() -> None:
    """Against the formulas that the functions' descriptions give."""
    d, length = 6, 50
    u = noise(length, 3)
    W, b, V = noise(d, 3, seed=1), noise(d, seed=2), noise(4, d // 2, seed=3)
    w, c = noise(d, seed=4), noise(d, seed=5)
    mean, var = noise(d, seed=6), np.abs(noise(d, seed=7))
    K = noise(d, 4, seed=8)
    parts = [
        nn.linear(W, b),
        nn.layer_norm(w, c),
        nn.batch_norm(mean, var, w, c, eps=1e-3),
        nn.conv1d(K[:, None], b),
        nn.residual(nn.gate(nn.activation("gelu"), nn.rms_norm(w, eps=1e-2)), alpha=0.5, beta=c),
        nn.glu("silu"),
        nn.linear(V),
        nn.pool("mean"),
    ]
    x = u @ W.T + b
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * w + c
    x = (x - mean) / np.sqrt(var + 1e-3) * w + c
    padded = np.concatenate([np.zeros((3, d)), x])
    x = sum(padded[k : k + length] * K[:, k] for k in range(4)) + b
    x = 0.5 * x + c * gelu(x) * x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-2) * w
    gate = x[:, 3:]
    x = x[:, :3] * gate / (1 + np.exp(-gate))
    assert relative_error(nn.model(nn.sequential(parts), dtype="float64")(u), (x @ V.T).mean(0)) < 1e-12


def test_tokens_are_embedded() -> None:
    table = noise(7, 4)
    model = nn.model(nn.sequential([nn.embedding(table), nn.activation("softmax", size=2)]), dtype="float64")
    tokens = np.array([3, 0, 6])
    pairs = np.exp(table[tokens].reshape(3, 2, 2))
    assert_allclose(model(tokens), (pairs / pairs.sum(-1, keepdims=True)).reshape(3, 4), rtol=1e-12)


def test_a_selective_layer_is_mambas_scan() -> None:
    d, n, rank, length = 3, 4, 2, 30
    A = -np.exp(noise(d, n))
    x_proj, dt_proj, dt_bias, D = (
        noise(rank + 2 * n, d, seed=1),
        noise(d, rank, seed=2),
        noise(d, seed=3),
        noise(d, seed=4),
    )
    u = noise(length, d, seed=5)
    h, expected = np.zeros((d, n)), []
    for x in u:
        r, B, C = np.split(x_proj @ x, [rank, rank + n])
        dt = np.log1p(np.exp(dt_proj @ r + dt_bias))
        h = np.exp(dt[:, None] * A) * h + (dt * x)[:, None] * B
        expected.append(h @ C + D * x)
    model = ssmrt.selective(A, x_proj, dt_proj, dt_bias, D, dtype="float64")
    assert relative_error(model(u), np.array(expected)) < 1e-12
    silent = ssmrt.selective(A, x_proj, dt_proj, dt_bias, None, dtype="float64")
    assert relative_error(silent(u), np.array(expected) - D * u) < 1e-12


def test_a_selective_layer_may_norm_what_its_input_chooses() -> None:
    A, x_proj, dt_proj, dt_bias, D = (
        -np.exp(noise(3, 4)),
        noise(10, 3, seed=1),
        noise(3, 2, seed=2),
        noise(3, seed=3),
        noise(3),
    )
    u, norms = noise(30, 3, seed=5), (noise(2, seed=6), noise(4, seed=7), None)
    h, expected = np.zeros((3, 4)), []
    for x in u:
        parts = np.split(x_proj @ x, [2, 6])
        weights = [np.ones(4) if weight is None else weight for weight in norms]
        r, B, C = (v / np.sqrt((v**2).mean() + 0.01) * weight for v, weight in zip(parts, weights))
        dt = np.log1p(np.exp(dt_proj @ r + dt_bias))
        h = np.exp(dt[:, None] * A) * h + (dt * x)[:, None] * B
        expected.append(h @ C + D * x)
    layer = nn.selective(A, x_proj, dt_proj, dt_bias, D, norm_eps=0.01, dt_norm=norms[0], B_norm=norms[1])
    assert relative_error(nn.model(layer, dtype="float64")(u), np.array(expected)) < 1e-12


def test_an_ssd_has_a_state_a_head() -> None:
    heads, p, n, groups, length = 4, 2, 3, 2, 30
    A, dt_bias, D = -np.exp(noise(heads)), noise(heads, seed=3), noise(heads * p, seed=4)
    W, V, u = noise(heads * p + 2 * groups * n, 5, seed=1), noise(heads, 5, seed=2), noise(length, 5, seed=6)
    h, expected = np.zeros((heads, p, n)), []
    for sample in u:
        x, B, C = np.split(W @ sample, [heads * p, heads * p + groups * n])
        dt = np.clip(np.log1p(np.exp(V @ sample + dt_bias)), 0.2, 1.5)
        B, C = (v.reshape(groups, n).repeat(heads // groups, 0) for v in (B, C))
        x = x.reshape(heads, p)
        h = np.exp(dt * A)[:, None, None] * h + (dt[:, None] * x)[:, :, None] * B[:, None]
        expected.append((h * C[:, None]).sum(-1).ravel() + D * x.ravel())
    sizes: dict[str, Any] = {"d_state": n, "groups": groups, "dt_min": 0.2, "dt_max": 1.5}
    model = nn.model(nn.ssd(nn.linear(W), nn.linear(V), A, dt_bias, D, **sizes), dtype="float64")
    assert relative_error(model(u), np.array(expected)) < 1e-12


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_initial_state_is_where_every_stream_starts(dtype: Any) -> None:
    """Of every layer that has one, against the equations: without input, whole, in steps, after resets of some."""
    g = np.random.default_rng(2)
    x0, A, C = complex_normal(g, 3), 0.9 * np.exp(1j * g.uniform(0, 3, 3)), complex_normal(g, 2, 3)
    past, taps = g.standard_normal((2, 2)), g.standard_normal((2, 3))
    h0, W = g.standard_normal((4, 3)), 0.3 * g.standard_normal((10, 2))
    mimo = nn.diagonal(A, complex_normal(g, 3, 2), C, None, None, disc="discrete", x0=x0)
    sizes: dict[str, Any] = {"d_state": 3, "x0": h0, "disc": "zoh"}
    ssd = nn.ssd(nn.linear(W, np.ones(10)), nn.linear(np.zeros((2, 2))), [-1.0, -2.0], [0, 0], np.zeros(4), **sizes)
    x_proj = np.zeros((5, 2))
    s6 = nn.selective([[-1.0, -2.0]] * 2, x_proj, np.zeros((2, 1)), [0.0, 0.0], None, x0=h0[:2, :2])
    decay, steps = np.exp(np.log(2) * np.array([-1.0, -2.0])), np.arange(1, 21)
    held = np.array([(decay[0] - 1) / -1, (decay[1] - 1) / -2]).repeat(2)
    h, driven = h0, []
    for _ in steps:
        h = decay.repeat(2)[:, None] * h + held[:, None]
        driven.append(h.sum(-1))
    zeros = np.zeros((2, 20))
    delayed = [np.convolve(np.concatenate([p, z]), w[::-1])[2:22] for p, z, w in zip(past, zeros, taps)]
    full, read = linalg.expm(0.3 * g.standard_normal((3, 3)) - np.eye(3)), g.standard_normal((1, 2, 3))
    dense = nn.dense(full, [1, 2, 3], np.concatenate([read, -read]), None, None, disc="discrete", x0=[x0.real, x0.imag])
    powers = [np.linalg.matrix_power(full, t) for t in steps]
    answers = [[read[0] @ a @ x0.real, -read[0] @ a @ x0.imag] for a in powers]
    for layer, expected in (
        (dense, np.reshape(answers, (20, 4))),
        (mimo, np.stack([2 * (C @ (A**t * x0)).real for t in steps])),
        (nn.conv1d(taps, x0=past), np.stack(delayed, 1)),
        (s6, np.zeros((20, 2))),
        (ssd, np.stack(driven)),
    ):
        model, u = nn.model(layer, dtype=dtype), np.zeros((3, 20, 2))
        bound: dict[str, Any] = {"rtol": 0, "atol": 1e-13 if dtype == "float64" else 2e-6}
        resets = np.zeros((3, 20), bool)
        resets[0, 5] = resets[2, 5] = True
        again = np.stack([np.concatenate([expected[:5], expected[:15]]), expected, expected])
        again[2] = again[0]
        assert_allclose(model(u), np.stack([expected] * 3), **bound)
        assert_allclose(model(u, resets=resets), again, **bound)
        stream, state = model.stream(3), model.default_state(3)
        for t in range(20):
            if t == 5:
                stream.reset(resets[:, 5])
                state[resets[:, 5]] = model.default_state()
            y, state = model.step(u[:, t], state)
            assert_allclose(y, again[:, t], **bound)
            assert_array_equal(stream.step(u[:, t]), y)
        assert_array_equal(pickle.loads(pickle.dumps(model)).default_state(2), model.default_state(2))


def test_an_rms_norm_may_go_over_runs_of_channels() -> None:
    weight, u = noise(6), noise(4, 6, seed=1)
    runs = u.reshape(4, 3, 2)
    expected = (runs / np.sqrt((runs**2).mean(-1, keepdims=True) + 1e-5)).reshape(4, 6) * weight
    assert relative_error(nn.model(nn.rms_norm(weight, size=2), dtype="float64")(u), expected) < 1e-12


def test_a_full_matrix_is_discretised_as_it_says() -> None:
    """The graph's matrices and the oracle's, against SciPy's matrix exponential and LSSL's equation 3."""
    A, B = ssmrt.hippo("legs", 5)
    C, dt, eye = noise(2, 3, 5), np.array([0.05, 0.2]), np.eye(5)
    layers: list[tuple[Any, list[Array]]] = [
        (nn.dense(A, B, C, None, dt, disc="zoh"), [linalg.expm(h * A) for h in dt]),
        (
            nn.dense(A, B, C, None, dt, alpha=0.75),
            [np.linalg.solve(eye - 0.75 * h * A, eye + 0.25 * h * A) for h in dt],
        ),
        (nn.dense(linalg.expm(0.1 * A), B, C, None, None, disc="discrete"), 2 * [linalg.expm(0.1 * A)]),
    ]
    for node, expected in layers:
        abar, bbar = oracle.discrete(node, np.ones(1))
        kernel = nn.model(node).kernel(0, 9)
        poles = nn.model(node).poles(0).reshape(2, 5)
        for h in range(2):
            assert_allclose(abar[0, h], expected[h], rtol=1e-12, atol=1e-14)
            powers = [np.linalg.matrix_power(expected[h], t) @ bbar[0, h] for t in range(9)]
            response = np.einsum("mn,ln->ml", node.C[:, h], powers)
            assert_allclose(kernel[:, h], response, rtol=1e-10, atol=1e-12 * np.abs(response).max())
            assert_allclose(np.sort_complex(poles[h]), np.sort_complex(np.linalg.eigvals(expected[h])), rtol=1e-9)
            if node.disc == "zoh":
                assert_allclose(bbar[0, h], np.linalg.solve(A, (expected[h] - eye) @ B), rtol=1e-11)


def test_models_are_layers() -> None:
    g = np.random.default_rng(0)
    A, B, C = spectrum(g, 3, 4), complex_normal(g, 3, 4), complex_normal(g, 3, 4)
    layer = ssmrt.diagonal(A, B, C, np.ones(3), 0.1)
    weight = g.standard_normal((2, 3))
    model = nn.model(nn.sequential([nn.residual(layer), nn.linear(weight)]), dtype="float64")
    u = noise(40, 3)
    document = Document(nn.sequential([nn.residual(nn.diagonal(A, B, C, np.ones(3), 0.1)), nn.linear(weight)]), 3, 2)
    assert relative_error(model(u), oracle.run(document, u[None])[0]) < 1e-12


def test_an_equinox_module_of_three_blocks() -> None:
    """docs/equinox.md's, whose page runs against Equinox itself where that is installed."""
    t = read(GOLDEN / "nn" / "model.eqx").tensors
    with np.load(GOLDEN / "nn" / "io.npz") as io:
        u, y = io["u"], io["y"]

    def block(name: str) -> nn.Layer:
        s = {n: t[f"{name}.s4d.{n}"].astype(complex) for n in ("log_decay", "frequency", "C", "D", "log_dt")}
        A = -np.exp(s["log_decay"]) + 1j * s["frequency"]
        parts = [
            nn.layer_norm(t[f"{name}.norm.weight"], t[f"{name}.norm.bias"]),
            nn.diagonal(A, np.ones_like(A), s["C"], s["D"].real, np.exp(s["log_dt"].real)),
            nn.activation("gelu_tanh"),
            nn.linear(t[f"{name}.mix.weight"], t[f"{name}.mix.bias"]),
            nn.glu(),
        ]
        return nn.residual(nn.sequential(parts))

    ends = [nn.linear(t[f"{name}.weight"], t[f"{name}.bias"]) for name in ("encoder", "decoder")]
    blocks = [block(f"blocks[{i}]") for i in range(3)]
    model = nn.model(nn.sequential([ends[0], *blocks, nn.pool("mean"), ends[1]]))
    assert relative_error(model(u), y) < 1e-6
    assert relative_error(model.stream().push(u[None])[0, -1], y) < 1e-6


def test_a_model_knows_what_it_is_told() -> None:
    model = nn.model(nn.linear(np.eye(2)), sample_rate=8000, labels=["a", "b"], dtype="float64")
    assert (model.sample_rate, model.labels, model.dtype.name) == (8000, ("a", "b"), "float64")


class Foreign:
    """An array of another library."""

    def __init__(self, array: Array):
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self._array


@pytest.mark.parametrize("kind", ["list", "foreign", "float16", "int8"])
def test_arrays_are_what_numpy_makes_arrays_of(kind: str) -> None:
    weight = np.array([[1.0, -2.0], [3.0, 0.5]])
    given: Any = {"list": weight.tolist(), "foreign": Foreign(weight)}.get(kind)
    if given is None:
        weight = np.trunc(weight)
        given = weight.astype(kind)
    u = noise(5, 2)
    assert_allclose(nn.model(nn.linear(given), dtype="float64")(u), u @ weight.T, rtol=1e-14)


def test_bfloat16_is_a_kind_of_number() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="its dtypes are what is tested")
    weight = np.array([[1.0, -2.0], [3.0, 0.5]])
    model = nn.model(nn.linear(weight.astype(ml_dtypes.bfloat16)))
    assert_array_equal(model(np.eye(2)), weight.T)


def ssd(**said: Any) -> Any:
    """Of two heads of two channels, with three numbers of B and C; or as ``said``."""
    layers = {"xBC": nn.linear(np.ones((10, 2))), "dt": nn.linear(np.ones((2, 2)))}
    return nn.ssd(**{**layers, "A": [-1.0, -2.0], "dt_bias": [0.0, 0.0], "D": np.ones(4), "d_state": 3, **said})


WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda: nn.linear(np.ones(3)), ValueError, r"weight: expected \(d_out, d_in\), found shape \(3,\)"),
    (
        lambda: nn.linear(np.ones((2, 2)), np.ones((2, 1))),
        ValueError,
        r"bias: expected \(d_out,\), found shape \(2, 1\)",
    ),
    (lambda: nn.linear(np.ones((2, 2), complex)), TypeError, "weight: expected real numbers, found dtype complex128"),
    (lambda: nn.linear(np.array([["a"]])), TypeError, "weight: expected real numbers, found dtype <U1"),
    (lambda: nn.diagonal([["a"]], [[1]], [[1]], None, 0.1), TypeError, "A: expected real or complex numbers"),
    (lambda: nn.dense(1j * np.eye(2), [1, 1], [[[1, 1]]], None, 0.1), TypeError, "A: expected real numbers"),
    (lambda: nn.batch_norm([0.0], [-1.0]), ValueError, "var: expected numbers above -eps"),
    (lambda: nn.sequential([np.ones(3)]), TypeError, "expected a layer, as the functions of ssmrt.nn make them"),  # type: ignore[list-item]
    (lambda: nn.model(nn.activation("relu")), ValueError, "a layer with weights from which it follows"),
    (lambda: nn.model(nn.linear([[1.0]]), labels="a b"), ValueError, "labels: expected names"),
    (lambda: nn.model(nn.linear([[np.inf]])), ValueError, "linear"),
    (
        lambda: nn.model(nn.sequential([nn.linear(np.ones((3, 2))), nn.linear(np.ones((3, 4)), name="last")])),
        ValueError,
        "last.*expected an input of width 4, found 3",
    ),
    (
        lambda: nn.model(nn.residual(nn.linear(np.ones((3, 2)), name="wide"))),
        ValueError,
        "expected",
    ),
    (lambda: nn.model(nn.selective([[1.0]], np.ones((3, 1)), [[1.0]], [0.0], None)), ValueError, "selective"),
    (
        lambda: nn.model(nn.selective([[-1.0]], np.ones((3, 1)), [[1.0]], [0.0], None, B_norm=[1.0])),
        ValueError,
        "norm_eps: expected a number",
    ),
    (lambda: nn.model(ssd(A=[1.0, -1.0])), ValueError, "A: expected no positive number, found 1"),
    (lambda: nn.model(ssd(D=[1.0, 1.0, 1.0])), ValueError, "D: expected a multiple of the 2 heads"),
    (lambda: nn.model(ssd(groups=3)), ValueError, "groups: expected a divisor of the 2 heads"),
    (lambda: nn.model(ssd(d_state=4)), ValueError, r"xBC: expected a width of d \+ 2 groups N, .* found 10"),
    (lambda: nn.model(ssd(dt=nn.linear(np.ones((3, 2))))), ValueError, "dt: expected a width of 2, one a head"),
    (lambda: nn.model(ssd(dt_min=0.2, dt_max=0.1)), ValueError, "dt_max: expected at least dt_min"),
    (lambda: nn.model(nn.rms_norm(np.ones(6), size=4)), ValueError, "a multiple of 4, found 6"),
    (lambda: nn.diagonal([[-1]], [[1]], [[1]], None, 0.1, x0=[1]), ValueError, "x0: expected None, for channels"),
    (
        lambda: nn.model(nn.diagonal([-1], [[1]], [[1]], None, 0.1, x0=[1, 2])),
        ValueError,
        r"x0: expected shape \(N=1\), found \[2\]",
    ),
    (
        lambda: nn.model(nn.dense([[-1]], [1], [[[1]]], None, 0.1, x0=[[1, 2]])),
        ValueError,
        r"x0: expected shape \(H=1, N=1\), found \[1, 2\]",
    ),
    (lambda: nn.model(nn.conv1d([[1.0, 2.0]], x0=[[1.0, 2.0]])), ValueError, r"x0: expected shape \(d=1, K-1=1\)"),
    (lambda: nn.model(ssd(x0=np.ones((4, 2)))), ValueError, r"x0: expected shape \(d=4, N=3\), found \[4, 2\]"),
    (lambda: nn.model(ssd(x0=np.full((4, 3), np.nan))), ValueError, "x0: expected finite numbers"),
    (lambda: nn.model(ssd(disc="bilinear")), ValueError, 'disc: expected "euler" or "zoh", found "bilinear"'),
]


@pytest.mark.parametrize("case", range(len(WRONG)))
def test_what_does_not_fit_is_named(case: int) -> None:
    make, error, says = WRONG[case]
    with pytest.raises(error, match=says):
        make()


def test_the_examples_of_single_layers_are_right() -> None:
    found = doctest.testmod(layers, extraglobs={"ssmrt": ssmrt})
    assert (found.failed, found.attempted) == (0, 6)
