"""`OnnxStream`: an exported graph with the face of a stream."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import checks
from ..errors import ExportError
from .session import Session

Array = NDArray[Any]

# Then a checksum of what follows: the graph's fingerprint, positions, states.
_MAGIC = b"ssmrtox2"
_HASH = 16


class OnnxStream:
    """An exported graph run by ONNX Runtime, one sample or one chunk after the other.

    ``path`` is a file that `export_onnx` wrote; its contract says everything else. ``threads`` is the number
    of ONNX Runtime's threads, 0: as it likes. Raises `ExportError` where the file holds no contract.

    >>> ssmrt.OnnxStream("model.onnx").step(np.zeros(1)).shape
    (10,)
    """

    def __init__(self, path: str | Path, *, threads: int = 1):
        path, threads = checks.path("path", path), checks.whole("threads", threads)
        if not path.is_file():
            raise ExportError(f"{path}: expected an ONNX file, found none")
        self._session = Session(path, threads=threads)
        if self._session.contract.quantize is not None:
            self._session = Session(path, exact=True, threads=threads)
        self._position = np.zeros(self._session.contract.batch, np.int64)
        self._fingerprint = _hash(path.read_bytes())

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
        """Start anew: all streams, or those where ``mask``, bool (batch,), is True.

        >>> stream = ssmrt.OnnxStream("model.onnx")
        >>> y = stream.step([0.5])
        >>> stream.reset()
        >>> stream.position
        array([0])
        """
        if mask is None:
            self._session.reset()
            self._position[:] = 0
            return
        chosen = checks.array("mask", mask)
        if chosen.dtype != np.bool_ or chosen.shape != (self.batch,):
            raise ValueError(f"mask: expected bool ({self.batch},), found {chosen.dtype} {chosen.shape}")
        starts = [state.initial() for state in self._session.contract.states]
        self._session.states = [
            np.where(chosen.reshape(-1, *[1] * (state.ndim - 1)), start, state)
            for start, state in zip(starts, self._session.states, strict=True)
        ]
        self._position[chosen] = 0

    def snapshot(self) -> bytes:
        """The states as bytes.

        >>> isinstance(ssmrt.OnnxStream("model.onnx").snapshot(), bytes)
        True
        """
        states = [np.ascontiguousarray(state, "<f4").tobytes() for state in self._session.states]
        body = b"".join([self._fingerprint, self._position.astype("<i8").tobytes(), *states])
        return b"".join([_MAGIC, _hash(body), body])

    def restore(self, blob: bytes) -> None:
        """Go on from a `snapshot` of a stream of the same file.

        Raises ValueError where the bytes are no such snapshot, were damaged or hold a NaN; then the states are as they
        were.

        >>> stream = ssmrt.OnnxStream("model.onnx")
        >>> stream.restore(stream.snapshot())
        """
        if not isinstance(blob, bytes | bytearray | memoryview):
            raise TypeError(f"snapshot: expected bytes, found {checks.found(blob)}")
        blob = bytes(blob)
        body = len(_MAGIC) + _HASH
        head = body + _HASH
        if not blob.startswith(_MAGIC):
            raise ValueError("snapshot: expected an OnnxStream's bytes, found something else")
        if blob[body:head] != self._fingerprint:
            raise ValueError("snapshot: expected one of the same file, found another's")
        shapes = [state.shape for state in self._session.states]
        length = head + 8 * self.batch + 4 * sum(math.prod(shape) for shape in shapes)
        if len(blob) != length:
            raise ValueError(f"snapshot: expected {length} bytes, found {len(blob)}")
        if blob[len(_MAGIC) : body] != _hash(blob[body:]):
            raise ValueError("snapshot: expected the bytes as they were written, found damaged ones")
        position = np.frombuffer(blob, "<i8", self.batch, head).astype(np.int64)
        at, states = head + 8 * self.batch, []
        for shape in shapes:
            size = math.prod(shape)
            states.append(np.frombuffer(blob, "<f4", size, at).reshape(shape).astype(np.float32))
            at += 4 * size
        if not all(np.isfinite(state).all() for state in states):
            raise ValueError("snapshot: expected finite states, found a number that is not")
        self._session.states, self._position = states, position

    def step(self, u: ArrayLike, *, out: Array | None = None) -> Array:
        """One sample: u (batch, d_input), or integer tokens (batch,), to y (batch, d_output) float32.

        A single stream takes u (d_input,), too, and then y is (d_output,). A pooled model answers as if the
        sequence ended with this sample. ``out`` takes the answer. Raises ValueError or TypeError where a shape or a
        dtype does not fit, or the graph takes chunks.

        >>> ssmrt.OnnxStream("model.onnx").step([0.5]).shape
        (10,)
        """
        facts = self._session.contract
        if facts.chunk is not None and facts.chunk != 1:
            raise ValueError(f"this graph takes {facts.chunk} samples a call; use push, or export with mode='step'")
        given, alone = self._batched(checks.array("u", u), 0)
        u = self._checked(given, (self.batch, facts.d_input), "step")
        shape = (self.batch, facts.d_output)[alone:]
        _check_out(out, shape)
        y = self._run(u if facts.chunk is None else u[:, None])
        return _deliver(y.reshape(shape), out)

    def push(self, chunk: ArrayLike, *, out: Array | None = None) -> Array:
        """Many samples: (batch, length, d_input), or tokens (batch, length), to y (batch, length, d_output).

        A single stream takes (length, d_input), too, and then y is (length, d_output). A chunk graph takes lengths
        that are multiples of its chunk. ``out`` takes the answer. Raises ValueError or TypeError where a shape or a
        dtype does not fit; the states are as they were.

        >>> ssmrt.OnnxStream("model.onnx").push(np.zeros((64, 1))).shape
        (64, 10)
        """
        facts = self._session.contract
        given, alone = self._batched(checks.array("chunk", chunk), 1)
        length = given.shape[1] if given.ndim > 1 else 0
        u = self._checked(given, (self.batch, length, facts.d_input), "push")
        block = facts.chunk or 1
        if length % block:
            raise ValueError(f"push: expected a length that is a multiple of the chunk {block}, found {length}")
        y = np.empty((self.batch, length, facts.d_output), np.float32)
        _check_out(out, y.shape[alone:])
        saved = self._session.states, self._position.copy()
        try:
            for at in range(0, length, block):
                part = u[:, at : at + block]
                answer = self._run(part[:, 0] if facts.chunk is None else part)
                y[:, at : at + block] = answer.reshape(self.batch, block, facts.d_output)
        except BaseException:
            self._session.states, self._position = saved
            raise
        return _deliver(y[0] if alone else y, out)

    def _batched(self, u: Array, time: int) -> tuple[Array, int]:
        """A single stream's samples with the axis of streams, and whether they came without."""
        facts = self._session.contract
        tokens = facts.vocabulary is not None
        narrow = u.ndim == time and (tokens or facts.d_input == 1)
        alone = self.batch == 1 and (narrow or (not tokens and u.ndim == time + 1 and u.shape[time] == facts.d_input))
        if not alone:
            return u, 0
        return u.reshape(1, *u.shape[:time], *(() if tokens else (facts.d_input,))), 1

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


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_HASH]


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
