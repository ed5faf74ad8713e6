"""Models as functions of JAX arrays. Needs jax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from . import checks
from .model import Model


def callback(model: Model, *, rate: float = 1.0) -> Callable[[Any], Any]:
    """`model` as a function that runs within `jax.jit`, `jax.vmap` and `jax.lax.scan`, on the host's CPU.

    It takes u (..., length, d_input), or tokens (..., length), and answers (..., length, d_output), or for models that
    pool (..., d_output), in the model's dtype: load it in float32 unless JAX has ``jax_enable_x64``. It has no
    derivative: `jax.grad` says so. Raises TypeError and ValueError where an argument is of another kind.

    >>> import jax, jax.numpy as jnp
    >>> jax.jit(ssmrt.jax.callback(model))(jnp.zeros((2, 100, model.d_input))).shape
    (2, 10)
    """
    checks.instance("model", model, Model, "a model")
    rate = checks.positive("rate", rate)
    axes = 1 if model.outline.tokens else 2

    def run(u: Any) -> Any:
        samples = np.asarray(u)
        batch = samples.shape[: samples.ndim - axes]
        y = model(samples.reshape(-1, *samples.shape[len(batch) :]), rate=rate)
        return y.reshape(*batch, *y.shape[1:])

    def call(u: Any) -> Any:
        if np.ndim(u) < axes:
            tail = "length" if axes == 1 else f"length, {model.d_input}"
            raise ValueError(f"u: expected shape (..., {tail}), found {np.shape(u)}")
        # The axis of time is left where there is an answer a sample.
        kept = np.shape(u)[: np.ndim(u) - axes + (not model.pooled)]
        answer = jax.ShapeDtypeStruct((*kept, model.d_output), model.dtype)
        return jax.pure_callback(run, answer, u, vmap_method="expand_dims")

    return call
