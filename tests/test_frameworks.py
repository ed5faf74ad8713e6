"""Models as functions of JAX arrays and as PyTorch modules: they answer what the model answers."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import ssmrt
from numpy.testing import assert_array_equal
from ssmrt import Document, Model, demo
from ssmrt.document import Embedding, Linear, Sequential

G = np.random.default_rng(0)


def layer() -> Model:
    A = G.uniform(-1, -0.1, (3, 4)) + 1j * G.uniform(-2, 2, (3, 4))
    return ssmrt.diagonal(A, np.ones((3, 4)), G.standard_normal((3, 4)), np.ones(3), np.full(3, 0.1))


def tokens() -> Model:
    weight = G.standard_normal((5, 3), np.float32)
    return Model(Document(Sequential((Embedding(weight), Linear(G.standard_normal((2, 3), np.float32)))), 1, 2))


INPUTS: dict[str, tuple[Callable[[], Model], Any]] = {
    "a layer": (layer, G.standard_normal((2, 16, 3), np.float32)),
    "a model that pools": (demo.spotter, G.standard_normal((2, 64, 1), np.float32)),
    "tokens": (tokens, G.integers(0, 5, (2, 16), np.int32)),
}


@pytest.mark.parametrize(("name", "rate"), [*((name, 1.0) for name in INPUTS), ("a layer", 0.5)])
def test_a_callback_answers_within_jit_and_vmap(name: str, rate: float) -> None:
    jax = pytest.importorskip("jax")
    make, u = INPUTS[name]
    model = make()
    call, expected = ssmrt.jax.callback(model, rate=rate), model(u, rate=rate)
    assert_array_equal(jax.jit(call)(u), expected)
    assert_array_equal(jax.vmap(call)(u), expected)
    assert_array_equal(jax.jit(jax.vmap(jax.vmap(call)))(u[None]), expected[None])
    assert_array_equal(call(u[0]), expected[0])


def test_a_model_within_jit_says_what_to_call() -> None:
    jax = pytest.importorskip("jax")
    model = layer()
    with pytest.raises(TypeError, match=r"u: expected an array, found one that JAX traces.* ssmrt\.jax\.callback"):
        jax.jit(model)(np.ones((8, 3), np.float32))
    with pytest.raises(ValueError, match=r"u: expected shape \(\.\.\., length, 3\), found \(3,\)"):
        jax.jit(ssmrt.jax.callback(model))(np.ones(3, np.float32))


@pytest.mark.parametrize("name", INPUTS)
def test_a_module_answers_as_the_model(name: str) -> None:
    torch = pytest.importorskip("torch")
    make, u = INPUTS[name]
    model = make()
    module = ssmrt.torch.Module(model)
    assert_array_equal(torch.nn.Sequential(module)(torch.from_numpy(u)).numpy(), model(u))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    assert_array_equal(torch.load(file, weights_only=False)(torch.from_numpy(u)).numpy(), model(u))
    assert repr(model) in repr(module)


def test_a_module_refuses_to_be_trained_through() -> None:
    torch = pytest.importorskip("torch")
    module = ssmrt.torch.Module(layer())
    u = torch.ones(8, 3, requires_grad=True)
    with pytest.raises(TypeError, match="without gradients"):
        module(u)
    with torch.no_grad():
        assert module(u).shape == (8, 3)
