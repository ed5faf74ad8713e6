"""LinOSS layers: oscillators in continuous time, whatever their damping."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import oracle
import pytest
import ssmrt
from cases import relative_error
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from ssmrt.document import Linoss
from strategies import Case, alone, cases, complex_normal, linosses

Array = NDArray[Any]
Scheme = Literal["im", "imex"]
SCHEMES: tuple[Scheme, ...] = ("im", "imex")


def position(A: float, dt: float, disc: Scheme, G: float | None = None) -> ssmrt.Model:
    """The position of one oscillator, as the force drives it."""
    damping = None if G is None else [G]
    return ssmrt.linoss([A], [[1]], [[1]], None, dt, G=damping, disc=disc, dtype="float64")


@given(cases(linosses().map(alone)))
def test_linoss_takes_plain_arrays(case: Case) -> None:
    node: Any = case.document.root
    model = ssmrt.linoss(node.A, node.B, node.C, node.D, node.dt, G=node.G, disc=node.disc, dtype="float64")
    assert relative_error(model(case.u), oracle.run(case.document, case.u)) < 1e-11


def test_one_step_size_serves_all_oscillators() -> None:
    B, C, u = np.ones((3, 2)), np.ones((2, 3)), np.random.default_rng(0).normal(size=(1, 20, 2))
    one, each = (ssmrt.linoss([0, 1, 4], B, C, [1, 2], dt) for dt in (0.1, np.full(3, 0.1)))
    np.testing.assert_array_equal(one(u), each(u))


@pytest.mark.parametrize("disc", SCHEMES)
@pytest.mark.parametrize("rate", [0.1, 0.01])
def test_fine_steps_are_the_differential_equation(disc: Scheme, rate: float) -> None:
    """From rest x'' = -A x + 1 gives x = (1 - cos(sqrt(A) t)) / A; both schemes are of first order."""
    A, dt, end = 2.0, 0.1, 10.0
    t = dt * rate * np.arange(1, round(end / (dt * rate)) + 1)
    x = position(A, dt, disc)(np.ones((1, len(t), 1)), rate=rate)[0, :, 0]
    assert np.abs(x - (1 - np.cos(np.sqrt(A) * t)) / A).max() < 12 * dt * rate


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("disc", SCHEMES)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(0, 99))
def test_a_double_integrators_long_step_is_many_short_ones(
    disc: Any, dtype: Any, lengths: list[int], seed: int
) -> None:
    """Without a force its velocity stays, so that a push at the first of many steps is a push over all of them."""
    g = np.random.default_rng(seed)
    model = ssmrt.linoss(
        np.zeros(5), complex_normal(g, 5, 2), complex_normal(g, 3, 5), None, 0.1, disc=disc, dtype=dtype
    )
    k = np.array(lengths)
    u = g.normal(size=(1, len(k), 2))
    fine = np.zeros((1, k.sum(), 2))
    fine[:, np.cumsum(k) - k] = u * k[:, None]
    expected = model(fine)[:, np.cumsum(k) - 1]
    tolerance = 2e-6 if dtype == "float32" else 1e-12
    assert relative_error(model(u, dt=k[None].astype(float)), expected) < tolerance
    stream = model.stream()
    steps = [stream.step(u[:, t], dt=np.full(1, float(k[t]))) for t in range(len(k))]
    assert relative_error(np.stack(steps, 1), expected) < tolerance


@given(cases(linosses().map(alone)), st.floats(0.3, 4))
def test_equal_irregular_steps_are_a_rate(case: Case, rate: float) -> None:
    model = ssmrt.Model(case.document, "float64")
    dt = np.full(case.u.shape[:2], rate)
    assert relative_error(model(case.u, dt=dt), model(case.u, rate=rate)) < 1e-11


def test_an_undamped_imex_oscillator_rings_for_ever() -> None:
    """Its amplitude after a million samples, in float32, is that of the first thousand."""
    model = ssmrt.linoss([2.0], [[1]], [[1]], None, 0.3)
    stream = model.stream()
    u = np.zeros((1, 1000, 1), np.float32)
    u[0, 0] = 1
    first = np.abs(stream.push(u)).max()
    for _ in range(1000):
        last = stream.push(np.zeros_like(u))
    assert np.abs(last).max() == pytest.approx(first, rel=1e-4)


@given(linosses(), st.floats(0.3, 4))
def test_poles_are_the_eigenvalues_of_the_step(node: Linoss, rate: float) -> None:
    model = ssmrt.Model(alone(node))
    bar = model.discrete(0, rate=rate)
    w = np.stack([bar["sign"] * (1 + bar["drag"]), bar["spring"]], -1)
    x = w + bar["sign"][:, None] * np.array([0, 1])
    expected = np.linalg.eigvals(np.stack([w, x], 1))
    # Their sum and product: eigenvalues themselves lose half of their digits where they meet.
    poles = model.poles(0, rate=rate).reshape(-1, 2)
    assert_allclose(poles.sum(1), expected.sum(1), atol=1e-12)
    assert_allclose(poles.prod(1), expected.prod(1), atol=1e-12)


def test_modes_of_fine_steps_are_those_of_the_oscillator() -> None:
    """Frequencies sqrt(A - G^2 / 4) / 2 pi and time constants 2 / G."""
    A, G, dt = np.array([1.0, 25.0]), np.array([0.2, 1.0]), 1e-3
    model = ssmrt.linoss(A, np.ones((2, 1)), np.ones((1, 2)), None, dt, G=G, dtype="float64")
    modes = model.modes(0)
    assert_allclose(modes.frequencies / dt, np.repeat(np.sqrt(A - G**2 / 4) / (2 * np.pi), 2), rtol=1e-3)
    assert_allclose(modes.time_constants * dt, np.repeat(2 / G, 2), rtol=1e-3)


@pytest.mark.parametrize("A", [0.0, 1e-12, 1.0])
def test_a_pair_of_poles_that_meet_stays_on_the_unit_circle(A: float) -> None:
    """At rest and at the fastest that a step can follow; rounding does not make them unstable."""
    model = position(4 * A / 0.7**2, 0.7, "imex")
    assert np.abs(np.abs(model.poles(0)) - 1).max() < 1e-12


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"A": [-1.0, 1.0]}, r"A: expected no negative number, found -1 at flat index 0"),
        ({"G": [1.0, -2.0]}, r"G: expected no negative number, found -2 at flat index 1"),
        ({"G": [1.0, 2.0], "disc": "im"}, r'G: expected null, for disc "im" has no damping'),
        ({"D": [1.0]}, r"D: expected"),
        ({"dt": 0.0}, r"dt: expected positive numbers"),
        ({"dt": [0.1, 0.1, 0.1]}, r"dt: expected shape \(P=2\), found \[3\]"),
        ({"B": np.ones((3, 1))}, r"B: expected shape \(P=2, d_in\), found \[3, 1\]"),
        (
            {"A": [500.0, 1.0]},
            r"oscillator 0: expected every discrete eigenvalue within the unit circle.*allow_unstable",
        ),
        ({"disc": "zoh"}, r"disc: expected"),
    ],
)
def test_what_is_no_oscillator_is_named(said: dict[str, Any], match: str) -> None:
    good: dict[str, Any] = {"A": [1.0, 1.0], "B": np.ones((2, 1)), "C": np.ones((3, 2)), "D": None, "dt": 0.1}
    with pytest.raises(ValueError, match=match):
        ssmrt.linoss(**{**good, **said})
