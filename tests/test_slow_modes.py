"""Modes that remember far more samples than a chunk has: float32 keeps their digits, by samples and by chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import ssmrt
from cases import relative_error
from oracle import run
from ssmrt.document import Linear, Selective, Ssd
from strategies import alone

METHODS = ("scan", "chunk")
LENGTH = 200_000


def diagonal(dt: float, dtype: Any) -> ssmrt.Model:
    A, B, C = [[-1 + 5j, -0.3 + 1j]], [[1, 1]], [[1, 2]]
    return ssmrt.diagonal(A, B, C, None, [dt], dtype=dtype)


def dplr(dt: float, dtype: Any) -> ssmrt.Model:
    Lambda = -0.5 + 1j * np.pi * np.arange(1, 9)[None]
    ones = np.ones((1, 8))
    return ssmrt.dplr(Lambda, ones / 2, ones, ones, None, [dt], dtype=dtype)


def dense(dt: float, dtype: Any) -> ssmrt.Model:
    A, B = ssmrt.hippo("legt", 16)
    return ssmrt.dense(A, B, np.ones((1, 1, 16)), None, dt, dtype=dtype)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dt", [1e-7, 1e-6, 1e-5])
def test_a_held_input_is_reached(dt: float, method: Any) -> None:
    layer = ssmrt.diagonal([[-1]], [[1]], [[1]], None, [dt], conjugate_pairs=False)
    held = layer(np.ones((1_000_000, 1)), method=method)[-1, 0]
    assert abs(held / -np.expm1(-dt * 1e6) - 1) < 1e-6


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [diagonal, dplr, dense])
@pytest.mark.parametrize("dt", [1e-5, 1e-4])
def test_single_precision_is_double_precision(dt: float, kind: Any, method: Any) -> None:
    noise = np.random.default_rng(0).standard_normal((LENGTH, 1)).astype(np.float32)
    for u in (np.ones((LENGTH, 1), np.float32), noise):
        exact = kind(dt, "float64")(u)
        assert np.abs(kind(dt, "float32")(u, method=method) - exact).max() < 1.5e-6 * np.abs(exact).max()


@pytest.mark.parametrize("kind", [diagonal, dplr, dense])
def test_calls_end_between_chunks_without_a_trace(kind: Any) -> None:
    model = kind(1e-5, "float32")
    u = np.random.default_rng(1).standard_normal((4096, 1)).astype(np.float32)
    whole = model.stream().push(u)
    stream = model.stream()
    parts = [stream.push(part) for part in np.split(u, [512, 1024, 3072])]
    assert np.array_equal(np.concatenate(parts), whole)


def selective(rate: float) -> Selective:
    """Of each sample dt = softplus(-3), B = u / 2 and C = u: what is added to the state is never negative."""
    x_proj, dt_proj = np.array([[0.0], [0.5], [1.0]]), np.zeros((1, 1))
    return Selective(np.full((1, 1), -rate), x_proj, dt_proj, np.array([-3.0]), np.zeros(1), name="layer")


def ssd(rate: float) -> Ssd:
    """One head of one channel of the same."""
    xBC, dt = Linear(np.array([[1.0], [0.5], [1.0]]), None), Linear(np.zeros((1, 1)), None)
    return Ssd(xBC, dt, np.full(1, -rate), np.array([-3.0]), np.zeros(1), 1, 1, name="layer")


@pytest.mark.parametrize("kind", [selective, ssd])
@pytest.mark.parametrize("rate", [1e-7, 1e-6, 1e-5])
def test_a_decay_of_less_than_a_digit_is_not_lost(rate: float, kind: Any) -> None:
    document = alone(kind(rate))
    for seed in range(10):
        u = np.random.default_rng(seed).standard_normal((1, 1000, 1))
        assert relative_error(ssmrt.Model(document, "float32")(u), run(document, u)) < 1.5e-6
