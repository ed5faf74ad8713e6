"""`OnnxStream`: an exported graph with the face of a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import checks
from .session import Session

Array = NDArray[Any]


class OnnxStream:
    """An exported graph run by ONNX Runtime, one sample or one chunk after the other.

    ``path`` is a file that `export_onnx` wrote; its contract says everything else. ``threads`` is the number
    of ONNX Runtime's threads, 0: as it likes. Raises `ExportError` where the file holds no contract.
    """

    def __init__(self, path: str | Path, *, threads: int = 1):
        path, threads = checks.path("path", path), checks.whole("threads", threads)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected an ONNX file")
        self._session = Session(path, threads=threads)
        if self._session.contract.quantize is not None:
            self._session = Session(path, exact=True, threads=threads)
        self._position = np.zeros(self._session.contract.batch, np.int64)

    @property
    def contract(self) -> dict[str, Any]:
        """What the file says about itself: shapes, states, rate, ..."""
        return self._session.contract.as_dict()

    @property
    def batch(self) -> int:
        """The number of streams that run side by side."""
        return self._session.contract.batch

    @property
    def position(self) -> NDArray[np.int64]:
        """The number of samples since the last reset, (batch,)."""
        return self._position.copy()

    def reset(self, mask: ArrayLike | None = None) -> None:
        """Zero the state and the position of all streams, or of those where ``mask``, bool (batch,), is True."""
        if mask is None:
            self._session.reset()
            self._position[:] = 0
            return
        chosen = checks.array("mask", mask)
        if chosen.dtype != np.bool_ or chosen.shape != (self.batch,):
            raise ValueError(f"mask: expected bool ({self.batch},), found {chosen.dtype} {chosen.shape}")
        self._session.states = [
            np.where(chosen.reshape(-1, *[1] * (state.ndim - 1)), np.float32(0), state)
            for state in self._session.states
        ]
        self._position[chosen] = 0

    def step(self, u: ArrayLike, *, out: Array | None = None) -> Array:
        """One sample: u (batch, d_input), or integer tokens (batch,), to y (batch, d_output) float32.

        A pooled model answers as if the sequence ended with this sample.
        """
        facts = self._session.contract
        if facts.chunk is not None and facts.chunk != 1:
            raise ValueError(f"this graph takes {facts.chunk} samples a call; use push, or export with mode='step'")
        u = self._checked(u, (self.batch, facts.d_input), "step")
        shape = self.batch, facts.d_output
        _check_out(out, shape)
        y = self._run(u if facts.chunk is None else u[:, None])
        return _deliver(y.reshape(shape), out)

    def push(self, chunk: ArrayLike, *, out: Array | None = None) -> Array:
        """Many samples: (batch, length, d_input), or tokens (batch, length), to y (batch, length, d_output).

        A chunk graph takes lengths that are multiples of its chunk.
        """
        facts = self._session.contract
        given = checks.array("chunk", chunk)
        length = given.shape[1] if given.ndim > 1 else 0
        u = self._checked(given, (self.batch, length, facts.d_input), "push")
        block = facts.chunk or 1
        if length % block:
            raise ValueError(f"push: expected a length that is a multiple of the chunk {block}, found {length}")
        y = np.empty((self.batch, length, facts.d_output), np.float32)
        _check_out(out, y.shape)
        saved = self._session.states, self._position.copy()
        try:
            for at in range(0, length, block):
                part = u[:, at : at + block]
                answer = self._run(part[:, 0] if facts.chunk is None else part)
                y[:, at : at + block] = answer.reshape(self.batch, block, facts.d_output)
        except BaseException:
            self._session.states, self._position = saved
            raise
        return _deliver(y, out)

    def _run(self, x: Array) -> Array:
        y, _ = self._session.run(np.ascontiguousarray(x))
        self._position += self._session.contract.chunk or 1
        return y

    def _checked(self, u: ArrayLike, shape: tuple[int, ...], call: str) -> Array:
        vocabulary = self._session.contract.vocabulary
        array = checks.array("u", u)
        if vocabulary is None:
            if array.dtype.kind not in "fiub":
                raise TypeError(f"{call}: expected real numbers, found {array.dtype}")
            if array.shape != shape:
                raise ValueError(f"{call}: expected shape {shape}, found {array.shape}")
            return array.astype(np.float32)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{call}: expected integer tokens, found {array.dtype}")
        if array.shape not in (shape, shape[:-1]):
            raise ValueError(f"{call}: expected tokens of shape {shape[:-1]}, found {array.shape}")
        array = array.reshape(shape[:-1]).astype(np.int64)
        if array.size and not (array.min() >= 0 and array.max() < vocabulary):
            raise ValueError(
                f"{call}: expected tokens from 0 to {vocabulary - 1}, found {array.min()} to {array.max()}"
            )
        return array


def _check_out(out: Array | None, shape: tuple[int, ...]) -> None:
    """Refuse what cannot take the answer before the state moves on."""
    if out is None:
        return
    checks.instance("out", out, np.ndarray, "a writeable array")
    if out.shape != shape:
        raise ValueError(f"out: expected shape {shape}, found {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out: expected a writeable array, found a read-only one")


def _deliver(y: Array, out: Array | None) -> Array:
    if out is None:
        return y
    out[...] = y
    return out
