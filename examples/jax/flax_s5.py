"""Train an S5 classifier in Flax, then classify as the samples come in, without JAX.

    python examples/jax/flax_s5.py

The parameters have the names that lindermanlab/S5 gives them, by which ssmrt knows the model. The sequences
rise in pitch or fall; after every sample the streamed model says which of the two it takes this one for.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import ssmrt

CONFIG = {
    "conj_sym": True,
    "clip_eigs": True,
    "discretization": "zoh",
    "activation": "half_glu1",
    "prenorm": True,
    "mode": "pool",
}


class S5(nn.Module):
    """All inputs to all outputs through P modes that stand for conjugate pairs (Smith et al. 2023)."""

    P: int

    @nn.compact
    def __call__(self, u: jax.Array) -> jax.Array:
        """(L, H) -> (L, H)."""
        P, H = self.P, u.shape[-1]
        real = self.param("Lambda_re", lambda _: jnp.full(P, -0.5, jnp.float32))
        imag = self.param("Lambda_im", lambda _: jnp.pi * jnp.arange(P, dtype=jnp.float32))
        B = jax.lax.complex(*jnp.moveaxis(self.param("B", nn.initializers.normal(H**-0.5), (P, H, 2)), -1, 0))
        C = jax.lax.complex(*jnp.moveaxis(self.param("C", nn.initializers.normal(P**-0.5), (H, P, 2)), -1, 0))
        D = self.param("D", nn.initializers.normal(1.0), (H,))
        step = jnp.exp(self.param("log_step", lambda _: jnp.linspace(jnp.log(0.01), jnp.log(0.1), P)[:, None])[:, 0])

        Lambda = jnp.minimum(real, -1e-4) + 1j * imag
        decay = jnp.exp(Lambda * step)
        driven = u @ ((decay - 1) / Lambda * B.T)

        _, x = jax.lax.scan(lambda x, b: (decay * x + b,) * 2, jnp.zeros(P, jnp.complex64), driven)
        return 2 * (x @ C.T).real + D * u


class Layer(nn.Module):
    """Norm, S5, half a GLU, and the skip."""

    P: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(L, H) -> (L, H)."""
        y = nn.gelu(S5(self.P, name="seq")(nn.LayerNorm(name="norm")(x)))
        return x + y * nn.sigmoid(nn.Dense(x.shape[-1], name="out2")(y))


class Encoder(nn.Module):
    """A Dense and a stack of layers."""

    H: int
    P: int
    layers: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(L, d_input) -> (L, H)."""
        x = nn.Dense(self.H, name="encoder")(x)
        for i in range(self.layers):
            x = Layer(self.P, name=f"layers_{i}")(x)
        return x


class Classifier(nn.Module):
    """Log-probabilities of the classes from the mean over time."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(L, d_input) -> (classes,)."""
        x = Encoder(H=16, P=8, layers=2, name="encoder")(x)
        return nn.log_softmax(nn.Dense(self.classes, name="decoder")(x.mean(0)))


def chirps(key: jax.Array, batch: int, length: int = 64) -> tuple[jax.Array, jax.Array]:
    """Noisy sweeps (batch, length, 1) and whether they rise (batch,)."""
    choose, noise, phase = jax.random.split(key, 3)
    rising = jax.random.bernoulli(choose, shape=(batch,))
    ramp = jnp.linspace(0.1, 0.8, length)
    pitch = jnp.where(rising[:, None], ramp, ramp[::-1])
    angle = jnp.cumsum(pitch, 1) + jax.random.uniform(phase, (batch, 1)) * 2 * jnp.pi
    u = jnp.sin(angle) + 0.1 * jax.random.normal(noise, angle.shape)
    return u[..., None], rising.astype(int)


def main(steps: int, folder: Path) -> float:
    """Train, save, load, stream; answers with the largest difference between the two."""
    classifier = Classifier(classes=2)
    apply = jax.jit(jax.vmap(classifier.apply, (None, 0)))
    variables = jax.jit(classifier.init)(jax.random.key(0), jnp.zeros((64, 1)))
    optimiser = optax.adam(5e-3)

    @jax.jit
    def update(variables: dict, state: optax.OptState, key: jax.Array) -> tuple[dict, optax.OptState, jax.Array]:
        u, label = chirps(key, 32)

        def loss(variables: dict) -> jax.Array:
            return -jnp.take_along_axis(apply(variables, u), label[:, None], 1).mean()

        value, gradient = jax.value_and_grad(loss)(variables)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(variables, updates), state, value

    state = optimiser.init(variables)
    for i, key in enumerate(jax.random.split(jax.random.key(1), steps)):
        variables, state, value = update(variables, state, key)
        if i in (0, steps - 1):
            print(f"step {i + 1}: loss {float(value):.3f}")

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "s5.msgpack"
    path.write_bytes(flax.serialization.to_bytes(variables))

    model = ssmrt.load(path, config=CONFIG)
    u, label = (np.asarray(a) for a in chirps(jax.random.key(2), 8))
    expected = np.asarray(apply(variables, jnp.asarray(u)))

    stream = model.stream(batch=len(u))
    for t in range(u.shape[1]):
        answer = np.array(stream.step(u[:, t]))
        if t % 21 == 20:
            print(f"after {t + 1} samples {(answer.argmax(1) == label).sum()} of {len(u)} are right")

    error = float(np.abs(answer - expected).max() / np.abs(expected).max())
    print(f"ssmrt after the last sample against Flax on the whole sequence: {error:.1e} of the largest output")
    assert error < 1e-5
    return error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=150, help="training steps")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ssmrt_flax")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.folder)
