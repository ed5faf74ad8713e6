"""Put S4 where a GRU cell stood: ``(input, state) -> (output, state)``, and nothing else to pass around.

    python examples/jax/gru_drop_in.py

The S4 layer of Equinox issue #398 needs a discrete system beside its state when it is stepped. Loaded with
ssmrt the system belongs to the model, and one loop runs either cell.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import ssmrt
from save_equinox import save

Cell = Callable[[Any, Any], tuple[Any, Any]]


class S4Layer(eqx.Module):
    """H channels of S4 (Gu et al. 2021) as the Annotated S4 has them; ``C`` holds the kernel's truncation."""

    Lambda_re: jax.Array  # (H, N)
    Lambda_im: jax.Array  # (H, N)
    P: jax.Array  # complex (H, N)
    B: jax.Array  # complex (H, N)
    C: jax.Array  # complex (H, N)
    D: jax.Array  # (H,)
    log_step: jax.Array  # (H, 1)
    sequence_size: int = eqx.field(static=True)

    def __init__(self, H: int, N: int, sequence_size: int, key: jax.Array):
        """HiPPO-LegS, diagonalised; steps from 1e-3 to 1e-1."""
        n = np.arange(N)
        P = np.sqrt(n + 0.5)
        B = np.sqrt(2 * n + 1.0)
        normal = -np.tril(np.outer(B, B)) + np.diag(n) + np.outer(P, P)
        imag, V = np.linalg.eigh(-1j * normal)

        def each(v: np.ndarray) -> jax.Array:
            return jnp.tile(jnp.asarray(v, jnp.complex64 if np.iscomplexobj(v) else jnp.float32), (H, 1))

        c, step = jax.random.split(key)
        self.Lambda_re, self.Lambda_im = each(np.full(N, -0.5)), each(imag)
        self.P, self.B = each(V.conj().T @ P), each(V.conj().T @ B)
        self.C = jax.random.normal(c, (H, N), jnp.complex64)
        self.D = jnp.ones(H)
        self.log_step = jax.random.uniform(step, (H, 1), minval=np.log(1e-3), maxval=np.log(1e-1))
        self.sequence_size = sequence_size

    def __call__(self, u: jax.Array) -> jax.Array:
        """(L, H) -> (L, H) for L up to ``sequence_size``, by convolution."""
        A = jnp.minimum(self.Lambda_re, -1e-4) + 1j * self.Lambda_im
        K = jax.vmap(self.kernel)(A, self.P, self.B, self.C.conj(), jnp.exp(self.log_step)).T
        size = 2 * self.sequence_size
        y = jnp.fft.irfft(jnp.fft.rfft(u, size, 0) * jnp.fft.rfft(K, size, 0), size, 0)[: len(u)]
        return y + self.D * u

    def kernel(self, A: jax.Array, P: jax.Array, B: jax.Array, C: jax.Array, step: jax.Array) -> jax.Array:
        """One channel's, from its generating function at the roots of unity (Gu et al. 2021, lemma C.3).

        ``sequence_size`` is odd, so that none of the roots is -1, where the bilinear transform has its pole.
        """
        root = jnp.exp(-2j * jnp.pi * jnp.arange(self.sequence_size) / self.sequence_size)
        cauchy = 1 / ((2 / step * (1 - root) / (1 + root))[:, None] - A)
        CB, CP, PB, PP = (cauchy @ jnp.stack([C * B, C * P, P.conj() * B, P.conj() * P], -1)).T
        return jnp.fft.ifft(2 / (1 + root) * (CB - CP * PB / (1 + PP))).real


class S4Cell:
    """What stands where ``eqx.nn.GRUCell`` stood."""

    def __init__(self, model: ssmrt.Model):
        self._model = model

    def initial(self, *batch: int) -> Any:
        """The state before the first input."""
        return self._model.default_state(*batch)

    def __call__(self, input: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        """(..., H), state -> (..., H), state."""
        return self._model.step(input, state)


def run(cell: Cell, state: Any, inputs: np.ndarray) -> np.ndarray:
    """The loop that was there before: it knows inputs, outputs and a state."""
    outputs = []
    for input in inputs:
        output, state = cell(input, state)
        outputs.append(np.asarray(output))
    return np.stack(outputs)


def main(folder: Path, H: int = 32, N: int = 16, length: int = 129) -> float:
    """Run both cells; answers with the largest difference between S4 stepped and S4 convolved."""
    inputs = np.random.default_rng(0).standard_normal((length, H)).astype(np.float32)

    gru = eqx.filter_jit(eqx.nn.GRUCell(H, H, key=jax.random.key(0)))

    def gru_cell(input: np.ndarray, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = gru(jnp.asarray(input), state)
        return state, state

    run(gru_cell, jnp.zeros(H), inputs[:1])
    seconds = time.perf_counter()
    run(gru_cell, jnp.zeros(H), inputs)
    print(f"GRU, Equinox: {(time.perf_counter() - seconds) / length * 1e6:.0f} us a step")

    layer = S4Layer(H, N, length, jax.random.key(1))
    cell = S4Cell(ssmrt.load(save(folder, layer), config={"sequence_size": length}))
    seconds = time.perf_counter()
    outputs = run(cell, cell.initial(), inputs)
    print(f"S4, ssmrt: {(time.perf_counter() - seconds) / length * 1e6:.0f} us a step")

    expected = np.asarray(layer(jnp.asarray(inputs)))
    error = float(np.abs(outputs - expected).max() / np.abs(expected).max())
    print(f"S4 stepped by ssmrt against its convolution in Equinox: {error:.1e} of the largest output")
    assert error < 1e-4
    return error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ssmrt_gru")
    main(parser.parse_args().folder)
