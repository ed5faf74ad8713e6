"""Train an S4D layer of your own in Equinox, then run it sample by sample without JAX.

    python examples/jax/equinox_layer.py

The layer learns to delay its input by eight samples. Its parameters go through ``model.eqx`` and
``leaves.json`` into `ssmrt.diagonal`, which takes any diagonal layer, whatever its parameters are called.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import ssmrt
from save_equinox import save
from ssmrt.readers import read

DELAY = 8


class S4D(eqx.Module):
    """H channels, each with N complex modes that stand for conjugate pairs (Gu et al. 2022)."""

    log_decay: jax.Array  # (H, N), A = -exp(log_decay) + i frequency
    frequency: jax.Array  # (H, N)
    C: jax.Array  # complex (H, N)
    D: jax.Array  # (H,)
    log_dt: jax.Array  # (H,)

    def __init__(self, channels: int, modes: int, key: jax.Array):
        """S4D-Lin: decay 1/2 and frequencies pi n."""
        self.log_decay = jnp.full((channels, modes), jnp.log(0.5), jnp.float32)
        self.frequency = jnp.tile(jnp.pi * jnp.arange(modes, dtype=jnp.float32), (channels, 1))
        self.C = jax.random.normal(key, (channels, modes), jnp.complex64) * 0.5
        self.D = jnp.zeros(channels)
        self.log_dt = jnp.full(channels, jnp.log(0.05), jnp.float32)

    def __call__(self, u: jax.Array) -> jax.Array:
        """(L, H) -> (L, H), by convolution with the kernel K[l] = 2 Re sum_n C (e^(dt A) - 1) / A e^(dt A l)."""
        A = -jnp.exp(self.log_decay) + 1j * self.frequency
        z = A * jnp.exp(self.log_dt)[:, None]
        powers = jnp.exp(z[..., None] * jnp.arange(len(u)))
        K = 2 * jnp.einsum("hn,hnl->lh", self.C * (jnp.exp(z) - 1) / A, powers).real
        size = 2 * len(u)
        y = jnp.fft.irfft(jnp.fft.rfft(u, size, 0) * jnp.fft.rfft(K, size, 0), size, 0)[: len(u)]
        return y + self.D * u


def train(steps: int) -> S4D:
    """A layer that echoes noise ``DELAY`` samples late."""
    layer = S4D(channels=2, modes=16, key=jax.random.key(0))
    optimiser = optax.adam(2e-2)

    @eqx.filter_jit
    def update(layer: S4D, state: optax.OptState, u: jax.Array) -> tuple[S4D, optax.OptState, jax.Array]:
        def loss(layer: S4D) -> jax.Array:
            return jnp.mean((jax.vmap(layer)(u)[:, DELAY:] - u[:, :-DELAY]) ** 2)

        value, gradient = eqx.filter_value_and_grad(loss)(layer)
        # JAX's gradient of a complex parameter is the conjugate of the direction to descend.
        gradient = jax.tree.map(jnp.conj, gradient)
        updates, state = optimiser.update(gradient, state)
        return eqx.apply_updates(layer, updates), state, value

    state = optimiser.init(eqx.filter(layer, eqx.is_array))
    losses = []
    for key in jax.random.split(jax.random.key(1), steps):
        layer, state, value = update(layer, state, jax.random.normal(key, (8, 64, 2)))
        losses.append(float(value))
    print(f"mean squared error {losses[0]:.2f} before training, {losses[-1]:.2f} after {steps} steps")
    return layer


def load(path: Path) -> ssmrt.Model:
    """The layer from its file; of what is below, nothing knows JAX."""
    t = {name: np.asarray(array, np.complex128) for name, array in read(path).tensors.items()}
    A = -np.exp(t["log_decay"]) + 1j * t["frequency"]
    return ssmrt.diagonal(A, np.ones_like(A), t["C"], t["D"].real, np.exp(t["log_dt"].real), disc="zoh")


def main(steps: int, folder: Path) -> float:
    """Train, save, load, stream; answers with the largest difference between the two."""
    layer = train(steps)
    model = load(save(folder, layer))
    u = np.random.default_rng(0).standard_normal((64, 2)).astype(np.float32)

    stream = model.stream()
    streamed = np.stack([np.array(stream.step(sample[None]))[0] for sample in u])

    expected = np.asarray(layer(jnp.asarray(u)))
    error = float(np.abs(streamed - expected).max() / np.abs(expected).max())
    print(f"ssmrt, one sample at a time, against Equinox on the whole sequence: {error:.1e} of the largest output")
    assert error < 1e-5
    return error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200, help="training steps")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ssmrt_equinox")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.folder)
