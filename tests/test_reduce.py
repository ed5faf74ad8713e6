"""Reduced models: what reduction keeps exactly, what bounds its error, and what it refuses."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmrt
from cases import cases
from command_line import Run
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ssmrt import demo, nn
from ssmrt import document as doc
from ssmrt.reduction import METHODS
from ssmrt.reduction.balanced import balance
from ssmrt.reduction.choice import Modes
from ssmrt.reduction.nodes import node_of
from ssmrt.reduction.refit import refit
from ssmrt.reduction.systems import measured, observability, systems, white
from strategies import SEEDS, diagonals, mimos, siso

Real = NDArray[np.float64]

H = 3


def from_rest(node: Any) -> Any:
    """The layer without a learned state to start from."""
    return replace(node, x0=None) if isinstance(node, doc.Dense | doc.DiagonalMimo) else node


# Layers of H channels, bidirectional ones too.
SISO = siso(H, causal=None).map(from_rest)
LAYERS = st.one_of(SISO, mimos(H, causal=None).map(from_rest))
DIAGONALS = st.one_of(diagonals(H, causal=None), mimos(H, causal=None).map(from_rest))
STEPPED = st.one_of(diagonals(H, stepped=True), mimos(H, stepped=True).map(from_rest))


def coloured(rng: np.random.Generator, *shape: int, pole: float = 0.9, times: int = 1) -> Real:
    """Noise (batch, length, d) through a low-pass filter."""
    u = rng.standard_normal(shape)
    for _ in range(times):
        for t in range(1, shape[1]):
            u[:, t] += pole * u[:, t - 1]
    return np.asarray(u / u.std())


def relative(found: Real, wanted: Real) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def alone(node: doc.Node) -> ssmrt.Model:
    return nn.model(node, dtype="float64")


def with_deaf_modes(node: Any, rng: np.random.Generator) -> Any:
    """The same system with as many modes again, which hear nothing."""
    a = np.concatenate([node.A, node.A * rng.uniform(0.5, 0.9)], -1)
    twice = None if node.C_reverse is None else np.concatenate([node.C_reverse, node.C_reverse], -1)
    c = np.concatenate([node.C, node.C], -1)
    mimo = isinstance(node, doc.DiagonalMimo)
    b = np.concatenate([node.B, 0 * node.B], 0 if mimo else 1)
    untied = node.dt is not None and (mimo or node.dt.ndim == 2)
    return replace(
        node, A=a, B=b, C=c, C_reverse=twice, dt=np.concatenate([node.dt, node.dt], -1) if untied else node.dt
    )


# what is kept exactly


@given(LAYERS, SEEDS, st.sampled_from(METHODS))
def test_full_order_changes_nothing(node: Any, seed: int, method: Any) -> None:
    assume(method == "balanced" or isinstance(node, doc.Diagonal | doc.DiagonalMimo))
    model, u = alone(node), coloured(np.random.default_rng(seed), 3, 200, H)
    same, report = ssmrt.reduce(model, u, modes=12, method=method)
    assert relative(same(u), model(u)) < 1e-6
    assert report.error < 1e-6
    assert report.states == report.states_before


@settings(max_examples=10)
@given(LAYERS, SEEDS)
def test_full_order_in_balanced_coordinates_changes_nothing(node: Any, seed: int) -> None:
    """Coupled modes too become diagonal ones."""
    model, u = alone(node), coloured(np.random.default_rng(seed), 1, 500, H, pole=0.3)
    found = systems(node)
    balanced = balance(found, measured(node, found, [u]))
    fit = refit(node_of(node, [balanced.take(s, n) for s, n in enumerate(balanced.orders)]), [u, u], [model(u)] * 2, 1)
    assert isinstance(fit.node, doc.Diagonal | doc.DiagonalMimo)
    assert relative(alone(fit.node)(u), model(u)) < 1e-6
    assert np.linalg.norm(fit.error) < 1e-6 * np.linalg.norm(fit.size)


@settings(max_examples=8)
@given(DIAGONALS, SEEDS)
def test_modes_that_hear_nothing_go_without_a_trace(node: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, u = alone(with_deaf_modes(node, rng)), coloured(rng, 5, 300, H, pole=0.3)
    small, report = ssmrt.reduce(model, u, modes=node.A.shape[-1], method="select")
    assert 2 * report.states == report.states_before
    new = coloured(rng, 2, 300, H, pole=-0.3)
    assert relative(small(new), alone(node)(new)) < 1e-6


@settings(max_examples=10)
@given(STEPPED, SEEDS)
def test_rate_and_irregular_steps_go_on(node: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model, u = alone(with_deaf_modes(node, rng)), coloured(rng, 5, 300, H, pole=0.3)
    small, _ = ssmrt.reduce(model, u, modes=node.A.shape[-1], method="select")
    dt = rng.uniform(0.5, 1.5, 300)
    assert relative(small(u, rate=0.8), model(u, rate=0.8)) < 1e-6
    if isinstance(node, doc.DiagonalMimo) or node.kernel_length is None:
        assert relative(small(u, dt=dt), model(u, dt=dt)) < 1e-6


# what bounds the error


@given(LAYERS, SEEDS)
def test_the_measured_covariance_is_that_of_the_states(node: Any, seed: int) -> None:
    rng, found = np.random.default_rng(seed), systems(node)
    heard = [rng.standard_normal((1, length, H)) for length in (20, 33)]
    total, count = np.zeros_like(found.A), 0
    for u in heard if node.C_reverse is None else [*heard, *(u[:, ::-1] for u in heard)]:
        x = np.zeros(found.A.shape[:2])
        for sample in u[0]:
            inputs = sample[None] if isinstance(node, doc.DiagonalMimo) else sample[:, None]
            x = (found.A @ x[..., None] + found.B @ inputs[..., None])[..., 0]
            total += x[:, :, None] * x[:, None]
            count += 1
    np.testing.assert_allclose(measured(node, found, heard), total / count, atol=1e-9 * np.abs(total).max())


@given(siso(H).map(from_rest), st.integers(1, 3000))
def test_an_impulse_is_white(node: Any, length: int) -> None:
    """Data of a flat spectrum give the Gramian of Moore 1981, less what sounds on after their end."""
    found = systems(node)
    impulse = np.zeros((1, length, H))
    impulse[0, 0] = 1.0
    gramian, power = white(found), np.linalg.matrix_power(found.A, length)
    wanted = gramian - power @ gramian @ power.transpose(0, 2, 1)
    np.testing.assert_allclose(length * measured(node, found, [impulse]), wanted, atol=1e-7 * np.abs(gramian).max())


@given(LAYERS, st.integers(1, 8))
def test_white_noise_keeps_the_classical_bound(node: Any, order: int) -> None:
    """At any frequency the error is at most twice the sum of the Hankel singular values left out (Enns 1984)."""
    found = systems(node)
    balanced = balance(found, white(found))
    hankel = np.sqrt(np.abs(np.linalg.eigvals(white(found) @ observability(found))))
    largest = balanced.values[:, :1]
    np.testing.assert_allclose(balanced.values / largest, -np.sort(-hankel) / largest, atol=1e-6)
    z = np.exp(1j * np.concatenate([np.geomspace(1e-4, 0.1, 100), np.linspace(0.1, np.pi, 200)]))
    for s, most in enumerate(balanced.orders):
        r = min(order, most)
        full = answers(found.A[s], found.B[s], found.C[s], z)
        less = answers(balanced.A[s, :r, :r], balanced.B[s, :r], balanced.C[s, :, :r], z)
        error = np.linalg.norm(full - less, 2, axis=(1, 2)).max()
        assert error <= 2 * balanced.values[s, r:].sum() + 1e-6 * balanced.values[s, 0]


def answers(A: Real, B: Real, C: Real, z: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """C (1 - A / z)^-1 B at each z."""
    return C @ np.linalg.solve(np.eye(len(A)) - A / z[:, None, None], np.broadcast_to(B, (len(z), *B.shape)))


@given(LAYERS, SEEDS)
def test_any_data_leave_it_stable(node: Any, seed: int) -> None:
    """Enns' theorem: it is enough that one of the Gramians solves its equation."""
    rng, found = np.random.default_rng(seed), systems(node)
    heard = [coloured(rng, 1, 50, H, pole=rng.uniform(-1, 1))]
    balanced = balance(found, measured(node, found, heard))
    for s, most in enumerate(balanced.orders):
        for r in range(1, most + 1):
            assert np.abs(np.linalg.eigvals(balanced.A[s, :r, :r])).max() < 1 + 1e-9


def test_modes_are_chosen_jointly() -> None:
    """Two strong modes that cancel each other are worth less than a weak one."""
    model = ssmrt.diagonal([[-1, -1.001, -5]], [[1, 1, 1]], [[50, -50, 2]], None, 0.1, dtype="float64")
    u = coloured(np.random.default_rng(0), 5, 500, 1, pole=0.5)
    small, report = ssmrt.reduce(model, u, modes=1, method="select")
    np.testing.assert_allclose(small.poles(0), model.poles(0)[2:], rtol=1e-12)
    assert report.error < 0.1


# poles that no continuous real system has


@pytest.mark.parametrize("disc", ["zoh", "bilinear", "euler", "backward_euler", "gbt", "discrete"])
def test_negative_and_fast_poles_keep_their_place(disc: Any) -> None:
    mu: NDArray[np.complex128] = np.array([-0.5, 0.9, 0.99j, -0.7 + 0.1j, 1e-3], np.complex128)
    dt = None if disc == "discrete" else np.array([0.1])
    full = doc.Diagonal(
        np.ones((1, 1, 6)) + 0j, np.zeros((1, 1)), dt, np.zeros((1, 6)) + 0j, np.ones((1, 6)) + 0j, disc
    )
    node = node_of(full, [Modes(mu, np.ones((5, 1), np.complex128))])
    assert isinstance(node, doc.Diagonal)
    node = replace(node, C=np.ones((1, 1, 5)) / node.B.shape[0] + 0j)
    model = alone(node)
    np.testing.assert_allclose(model.poles(0), mu, atol=1e-12)
    if disc != "discrete":
        # Of Euler's steps only small ones are stable.
        for rate in (0.5,) if node.disc in ("euler", "gbt") else (0.5, 3.0):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # modes alias
                assert np.abs(model.poles(0, rate=rate)).max() < 1


# real models


def test_a_spotter_with_an_eighth_of_its_states_hears_the_same_words() -> None:
    clips = demo.clips()
    model = demo.spotter()
    small, report = ssmrt.reduce(model, [clip.samples for clip in clips[:2]], modes=4)
    assert 8 * report.states <= report.states_before
    rest = np.stack([clip.samples for clip in clips[2:]])
    np.testing.assert_array_equal(small(rest[..., None]).argmax(-1), model(rest[..., None]).argmax(-1))
    assert small.sample_rate == model.sample_rate
    assert small.labels == model.labels


def test_lssl_with_64_states_needs_a_quarter_for_slow_sound() -> None:
    rng = np.random.default_rng(0)
    a, b = ssmrt.hippo("legt", 64)
    model = ssmrt.dense(a, b, rng.standard_normal((H, 1, 64)), None, [0.01, 0.03, 0.1], dtype="float64")
    u = coloured(rng, 5, 3000, H, pole=0.97, times=3)
    small, report = ssmrt.reduce(model, u, tolerance=1e-3)
    assert report.error < 1e-3
    assert report.states <= 0.3 * report.states_before
    new = coloured(rng, 1, 3000, H, pole=0.97, times=3)
    assert relative(small(new), model(new)) < 2e-3
    assert isinstance(small.document.root, doc.Diagonal)
    np.testing.assert_array_equal(small.document.root.mode_counts, report.layers[0].modes)
    assert len(set(report.layers[0].modes)) > 1


@pytest.mark.parametrize(
    "name", ["jax/s5_cls_default", "jax/s5_cls_bidir_bilinear", "jax/lru_cls_batchnorm", "jax/memax_lru"]
)
@pytest.mark.filterwarnings("ignore:layer .* is unstable")
def test_s5_and_lru_answer_within_a_hundredth(name: str) -> None:
    case = next(case for case in cases(name) if case.name == name)
    (path, config), *_ = case.files
    model = ssmrt.load(path, config=config, arch=case.arch)
    u = np.random.default_rng(0).uniform(-1, 1, (20, 64, 1))
    small, report = ssmrt.reduce(model, u, tolerance=1e-2)
    assert report.met
    assert report.error <= 1e-2
    assert report.states < report.states_before
    held = u[[2, 7, 12, 17]]
    assert relative(small(held), model(held)) == pytest.approx(report.error, rel=1e-2)


# what it does for users


def spotter_like(seed: int = 0, n: int = 12) -> ssmrt.Model:
    g = np.random.default_rng(seed)
    a = -0.5 + 1j * np.pi * np.arange(n) * np.ones((4, 1))
    layers = [
        nn.linear(g.standard_normal((4, 2))),
        nn.residual(nn.diagonal(a, np.ones((4, n)), g.standard_normal((4, n, 2)) @ [1, 1j], None, 0.01, name="first")),
        nn.activation("gelu"),
        nn.residual(nn.diagonal(a, np.ones((4, n)), g.standard_normal((4, n, 2)) @ [1, 1j], None, 0.03, name="second")),
    ]
    return nn.model(nn.sequential([*layers, nn.pool("mean"), nn.linear(g.standard_normal((3, 4)))]), labels=list("abc"))


def test_the_report_is_about_held_back_data() -> None:
    model, u = spotter_like(), coloured(np.random.default_rng(1), 10, 400, 2, times=2)
    labels = model(u).argmax(-1)
    small, report = ssmrt.reduce(model, u, modes=4, labels=labels)
    held = u[[2, 7]]
    assert report.error == pytest.approx(relative(small(held), model(held)), rel=1e-3)
    assert report.accuracy == (1.0, float((small(held).argmax(-1) == labels[[2, 7]]).mean()))
    assert [layer.states for layer in report.layers] == [2 * layer.modes.sum() for layer in report.layers]
    assert report.states == sum(layer.states for layer in report.layers)
    for layer, node in zip(report.layers, (n for n in doc.walk(small.document.root) if isinstance(n, doc.Diagonal))):
        np.testing.assert_array_equal(layer.modes, node.mode_counts)
        assert layer.name == node.name
        assert layer.error.shape == layer.size.shape == (4, 1)
        assert 0 < layer.relative < 1
    assert "second" in str(report)
    assert json.loads(json.dumps(report.as_dict()))["states"] == report.states
    _, named = ssmrt.reduce(model, u, modes=4, labels=["abc"[i] for i in labels])
    assert named.accuracy == report.accuracy


def test_the_refit_hears_what_the_reduced_layers_say() -> None:
    """Errors of the first layer do not pile up in the second."""
    model, u = spotter_like(), coloured(np.random.default_rng(1), 10, 400, 2, times=2)
    small, report = ssmrt.reduce(model, u, modes=3)
    first, second = report.layers
    assert second.relative < 2 * first.relative
    root = small.document.root
    assert isinstance(root, doc.Sequential)
    assert len(root.children) == len(model.document.root.children)  # type: ignore[attr-defined]


def test_a_tighter_tolerance_keeps_more_states() -> None:
    model, u = spotter_like(), coloured(np.random.default_rng(1), 10, 400, 2, times=2)
    kept = []
    for tolerance in (0.3, 0.03, 0.003):
        _, report = ssmrt.reduce(model, u, tolerance=tolerance)
        assert report.met
        assert report.error <= tolerance
        kept.append(report.states)
    assert kept == sorted(kept)
    assert kept[0] < kept[-1] < report.states_before
    assert min(one.states for one in report.tries) < report.states


def test_data_come_as_arrays_lists_and_blocks() -> None:
    model, u = spotter_like(), coloured(np.random.default_rng(1), 5, 200, 2)

    def error(data: Any) -> float:
        return ssmrt.reduce(model, data, modes=4)[1].error

    assert error(list(u)) == error(u) == error([u[:2], u[2:]])
    blocks: Iterator[Real] = iter(np.array_split(u[0], 7))
    assert error(blocks) == error(u[0]) == error(u[:1])
    assert error([u[0], u[1, :150], u[2, :77]]) > 0


def test_tokens_are_data() -> None:
    g = np.random.default_rng(0)
    a = -0.5 + 1j * np.arange(6) * np.ones((4, 1))
    layer = nn.diagonal(a, np.ones((4, 6)), g.standard_normal((4, 6)), None, 0.1)
    model = nn.model(nn.sequential([nn.embedding(g.standard_normal((9, 4))), layer]), dtype="float64")
    small, report = ssmrt.reduce(model, g.integers(0, 9, (5, 300)), modes=3)
    assert report.states == 24
    assert report.error < 0.5
    assert small(np.arange(9)).shape == (9, 4)


def test_what_the_input_chooses_stays_as_it_is() -> None:
    g = np.random.default_rng(0)
    mamba = nn.selective(
        -np.ones((3, 2)), g.standard_normal((6, 3)), g.standard_normal((3, 2)), np.zeros(3), np.zeros(3), name="mamba"
    )
    a = -0.5 + 1j * np.arange(6) * np.ones((3, 1))
    s4d = nn.diagonal(a, np.ones((3, 6)), g.standard_normal((3, 6)), None, 0.1, name="s4d")
    u = coloured(g, 5, 200, 3)
    _, report = ssmrt.reduce(nn.model(nn.sequential([mamba, s4d])), u, modes=3)
    assert [(layer.name, bool(layer.left)) for layer in report.layers] == [("mamba", True), ("s4d", False)]
    assert report.states == 3 * 2 + 3 * 6
    with pytest.raises(ssmrt.UnsupportedError, match="mamba: its input chooses"):
        ssmrt.reduce(nn.model(mamba), u, modes=3)
    with pytest.raises(ssmrt.UnsupportedError, match="coupled"):
        ssmrt.reduce(ssmrt.dplr([[-1 + 1j]], [[0.5]], [[1]], [[1]], None, 0.1), u[..., :1], modes=1, method="select")
    oscillators = ssmrt.linoss([1.0, 2.0], np.ones((2, 1)), np.ones((1, 2)), None, 0.1, G=[0.1, 0.1])
    with pytest.raises(ssmrt.UnsupportedError, match="oscillators"):
        ssmrt.reduce(oscillators, u[..., :1], modes=1)
    learned = nn.model(nn.dense([[-1.0]], [1.0], [[[1.0]]], None, 0.1, x0=[[1.0]]))
    with pytest.raises(ssmrt.UnsupportedError, match="learned state"):
        ssmrt.reduce(learned, u[..., :1], modes=1)
    with pytest.raises(ssmrt.UnsupportedError, match="decay"):
        ssmrt.reduce(ssmrt.diagonal([[0, -1]], [[1, 1]], [[1, 1]], None, 0.1), u[..., :1], modes=1)


def test_a_tolerance_that_nothing_meets_keeps_the_full_model() -> None:
    g = np.random.default_rng(0)
    model = ssmrt.diagonal(poles(g, 2), [[1, 1]], [[1, 1]], None, 0.5, dtype="float64")
    u = g.standard_normal((5, 300, 1))
    with pytest.warns(UserWarning, match=r"no smaller model is within the tolerance 1e-09: the best has an error of"):
        same, report = ssmrt.reduce(model, u, tolerance=1e-9)
    assert same is model
    assert not report.met
    assert report.error > 1e-9
    assert report.states == report.states_before
    assert "no smaller model" in str(report)


def poles(g: np.random.Generator, n: int) -> NDArray[np.complex128]:
    return (-g.uniform(0.2, 3, (1, n)) + 1j * g.uniform(0, 3, (1, n))).astype(np.complex128)


def test_data_that_excite_too_little_are_told() -> None:
    model = ssmrt.diagonal(poles(np.random.default_rng(0), 9), [[1] * 9], [[1] * 9], None, 0.1, dtype="float64")
    # The end of one sine is another: two states follow it.
    u = np.sin(0.3 * np.arange(5000))[:, None]
    with pytest.warns(
        UserWarning, match="the data excite fewer states than 8 modes have, and fewer are kept, in systems: 1 of"
    ):
        _, report = ssmrt.reduce(model, u, modes=8)
    assert report.layers[0].modes[0] < 8


BAD_DATA = [
    (np.zeros((3, 100, 2)), "silence"),
    (np.ones((3, 100, 2)), "sequences of one value"),
    (np.full((100, 2), np.nan), "finite"),
    (np.zeros((100, 3)), r"expected shape \(length, 2\) or \(batch, length, 2\), found \(100, 3\)"),
    (np.zeros((3, 2)), "10 samples or more, found 3"),
    ([], r"found \(0,\)"),
    (iter([]), "found 0 blocks"),
    (np.eye(20)[:, :2], "expected 21 samples or more to fit the answers of 10 modes, found 16"),
    (np.zeros(()), r"found \(\)"),
]


@pytest.mark.parametrize(("data", "message"), BAD_DATA, ids=[message[:20] for _, message in BAD_DATA])
def test_bad_data_are_refused(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ssmrt.reduce(spotter_like(), data, modes=10)


def test_bad_arguments_are_refused() -> None:
    model, u = spotter_like(), coloured(np.random.default_rng(1), 5, 100, 2)
    wrongs: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({}, ValueError, "either modes or tolerance"),
        ({"modes": 3, "tolerance": 0.1}, ValueError, "either modes or tolerance"),
        ({"modes": 0}, ValueError, "modes: expected 1 or more"),
        ({"modes": 1.5}, TypeError, "modes: expected a whole number"),
        ({"tolerance": -1}, ValueError, "tolerance: expected a positive"),
        ({"modes": 3, "method": "magic"}, ValueError, "method: expected 'balanced' or 'select'"),
        ({"modes": 3, "labels": [0]}, ValueError, "labels: expected 5"),
        ({"modes": 3, "labels": [3] * 5}, ValueError, "labels: expected 0 to 2"),
        ({"modes": 3, "labels": ["x"] * 5}, ValueError, "labels: expected one of a, b, c"),
    ]
    for wrong, kind, message in wrongs:
        with pytest.raises(kind, match=message):
            ssmrt.reduce(model, u, **wrong)
    with pytest.raises(TypeError, match="model"):
        ssmrt.reduce("model", u, modes=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="data"):
        ssmrt.reduce(model, [["a", "b"]] * 20, modes=3)


# pictures, and the command line


def test_the_picture_shows_tries_and_layers() -> None:
    pytest.importorskip("matplotlib", reason="needs ssmrt[plot]")
    from ssmrt import plots

    _, report = ssmrt.reduce(spotter_like(), coloured(np.random.default_rng(1), 5, 200, 2), tolerance=0.03)
    left, right = plots.reduction(report).axes
    drawn = np.array(left.lines[0].get_xydata())
    np.testing.assert_array_equal(drawn, sorted((one.states, one.error) for one in report.tries))
    full, small = right.containers
    assert [bar.get_width() for bar in full] == [layer.states_before for layer in report.layers]
    assert [bar.get_width() for bar in small] == [layer.states for layer in report.layers]


def test_the_command_writes_the_model_and_draws(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs ssmrt[plot]")
    model, u = spotter_like(), coloured(np.random.default_rng(1), 5, 200, 2)
    model.save(tmp_path / "full.ssm.safetensors")
    np.save(tmp_path / "u.npy", u)
    out_path = tmp_path / "small.ssm.safetensors"
    paths = [tmp_path / "full.ssm.safetensors", out_path, "--data", tmp_path / "u.npy"]
    code, out, err = run("reduce", *paths, "--modes", 4, "--picture", tmp_path / "p.svg", "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    wanted, report = ssmrt.reduce(model, u, modes=4)
    assert said["states"] == report.states
    assert len(said["tries"]) > 1
    np.testing.assert_array_equal(ssmrt.load(out_path)(u), wanted(u))
    assert "</svg>" in (tmp_path / "p.svg").read_text()
    code, out, _ = run("reduce", *paths, "--tolerance", 0.05)
    assert code == 0
    assert "the model" in out
    code, _, err = run("reduce", *paths, "--flash", "64k", "--mhz", 100, "--rate", 1000)
    assert (code, err) == (0, "")
    code, _, err = run("reduce", *paths, "--flash", 100)
    assert (code, "fits with one mode" in err) == (2, True)
    code, _, err = run("reduce", *paths, "--modes", 4, "--mhz", 100)
    assert (code, "--flash" in err) == (2, True)
    code, _, err = run("reduce", *paths)
    assert code == 2
    assert "--modes" in err
