"""A model as users have it: called on sequences, stepped sample by sample, saved, described."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _native, checks
from ._native import Stream
from .document import KIND_OF, Array, Diagonal, DiagonalMimo, Document, Dplr, Node, branches, from_bytes, to_bytes, walk
from .errors import NotStreamable

Dtype = Literal["float32", "float64"]
Method = Literal["auto", "scan", "chunk", "fft"]
State = NDArray[Any]

_RATES_KEPT = 4


class Model:
    """A trained model, ready to run. Immutable; threads may share it.

    Made by `ssmrt.load`, by `ssmrt.nn.model`, and by `ssmrt.diagonal`, `ssmrt.dplr`, `ssmrt.dense`, `ssmrt.selective`.
    """

    def __init__(self, document: Document, dtype: Dtype = "float32"):
        checks.instance("document", document, Document, "a Document")
        checks.word("dtype", dtype, ("float32", "float64"))
        self._document = document
        self._dtype = dtype
        self._bytes = to_bytes(document)
        # LEAD: the engine takes self._bytes as they are, once it knows sample_rate and labels.
        self._plain = to_bytes(replace(document, sample_rate=None, labels=None))
        self._plans: dict[float, _native.Plan] = {}
        self._plan(1.0)

    def _plan(self, rate: float) -> _native.Plan:
        rate = checks.positive("rate", rate)
        plan = self._plans.get(rate)
        if plan is None:
            plan = _native.Plan(self._plain, self._dtype, rate)
            if rate > 1.0:
                self._warn_of_aliases(rate)
            if len(self._plans) >= _RATES_KEPT:
                # Rate 1 stands first and stays.
                del self._plans[list(self._plans)[1]]
            self._plans[rate] = plan
        return plan

    def _warn_of_aliases(self, rate: float) -> None:
        for node in walk(self._document.root):
            if isinstance(node, Diagonal | Dplr | DiagonalMimo) and node.dt is not None:
                turns = np.abs(_imag(node)) * np.max(node.dt) / (2 * np.pi)
                over = int(((turns < 0.5) & (turns * rate >= 0.5)).sum())
                if over:
                    warnings.warn(
                        f"rate={rate:g} takes {over} of {turns.size} modes of {node.name or KIND_OF[type(node)]}"
                        " past half a turn a sample: they alias",
                        UserWarning,
                        stacklevel=4,
                    )

    @property
    def document(self) -> Document:
        """The model's parameters, as a tree of nodes."""
        return self._document

    @property
    def d_input(self) -> int:
        """Numbers a sample; 1 for tokens."""
        return self._plans[1.0].d_input

    @property
    def d_output(self) -> int:
        """Numbers an answer."""
        return self._plans[1.0].d_output

    @property
    def sample_rate(self) -> float | None:
        """Samples a second in training; None where the file does not say."""
        return self._document.sample_rate

    @property
    def labels(self) -> tuple[str, ...] | None:
        """What each output stands for; None where the file does not say."""
        return self._document.labels

    @property
    def dtype(self) -> np.dtype[Any]:
        """The engine's precision."""
        return np.dtype(self._dtype)

    @property
    def isa(self) -> str:
        """The instruction set in use: ``"avx512"``, ``"avx2"``, ``"neon"`` or ``"scalar"``."""
        return self._plans[1.0].isa

    @property
    def streamable(self) -> bool:
        """Whether the model is causal, and so can run sample by sample."""
        return self._plans[1.0].not_streamable is None

    @property
    def state_size(self) -> int:
        """Numbers of state a stream: the last axis of `default_state`."""
        return self._plans[1.0].state_size

    @cached_property
    def num_parameters(self) -> int:
        """Real numbers in the parameters; a complex one counts as two."""
        arrays = [a for _, node in _layers(self._document.root) for a in _arrays(node)]
        return sum(a.size * (2 if np.iscomplexobj(a) else 1) for a in arrays)

    def __call__(
        self,
        u: ArrayLike,
        *,
        state: State | None = None,
        rate: float = 1.0,
        dt: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        method: Method = "auto",
    ) -> NDArray[Any]:
        """Answer whole sequences. See `forward`."""
        return self._forward(u, state, rate, dt, lengths, resets, method)[0]

    def forward(
        self,
        u: ArrayLike,
        *,
        state: State | None = None,
        rate: float = 1.0,
        dt: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        method: Method = "auto",
        return_state: bool = False,
    ) -> NDArray[Any] | tuple[NDArray[Any], State]:
        """Answer whole sequences.

        Parameters
        ----------
        u
            (batch, length, d_input) or (length, d_input), any float dtype; (length,) where d_input is 1;
            or integer tokens (batch, length) or (length,).
        state
            Where to go on from; shape ``default_state(batch)``. None: zero.
        rate
            Multiplies every step size: 2 for samples that are twice as far apart as in training.
        dt
            (batch, length) or (length,): multiplies the step size sample by sample, for irregular sampling.
        lengths
            (batch,): where each sequence's padding begins. Pooling does not hear the padding, and answers
            at it are zero.
        resets
            (batch, length) or (length,) bool: the state is zero before that sample.
        method
            "auto", or one of "scan" (the recurrence), "chunk" (matrix products), "fft" (convolution). All
            compute the same.
        return_state
            Whether the state after the last sample is returned too.

        Returns
        -------
        (batch, length, d_output), or (batch, d_output) for models that pool; without the batch axis where
        ``u`` has none. In the engine's dtype.

        Raises
        ------
        ValueError, TypeError
            A shape, a value or a dtype does not fit; the message says what was expected and what was found.
        UnsupportedError
            ``rate`` or ``dt`` for a layer that has no step size.
        NotStreamable
            ``dt``, ``resets``, ``state`` or ``return_state`` for a model that is not causal.
        """
        if return_state and (why := self._plans[1.0].not_streamable) is not None:
            raise NotStreamable(f"return_state: {why}")
        y, after = self._forward(u, state, rate, dt, lengths, resets, method)
        return (y, after) if return_state else y

    def _forward(
        self,
        u: ArrayLike,
        state: State | None,
        rate: float,
        dt: ArrayLike | None,
        lengths: ArrayLike | None,
        resets: ArrayLike | None,
        method: Method,
    ) -> tuple[NDArray[Any], State]:
        samples = checks.array("u", u)
        plan = self._plan(rate)
        if samples.ndim == 1 and plan.d_input == 1 and not self._document.tokens:
            samples = samples[:, None]
        # One axis less than a batch has is one sequence; tokens may have a last axis of one.
        alone = samples.ndim == (1 if self._document.tokens else 2)
        if alone:
            samples = samples[None]
        time = samples.shape[:2]
        if state is not None:
            state = checks.array("state", state)
            if alone and state.shape == (plan.state_size,):
                state = state[None]
        y, after = plan.forward(
            samples,
            state,
            dt=_per_sample("dt", dt, time),
            lengths=None if lengths is None else np.atleast_1d(checks.array("lengths", lengths)),
            resets=_per_sample("resets", resets, time),
            method=checks.text("method", method),
        )
        return (y[0], after[0]) if alone else (y, after)

    def default_state(self, *batch_shape: int) -> State:
        """The state before the first sample: zeros (*batch_shape, state_size)."""
        sizes = [checks.whole("batch_shape", size) for size in batch_shape]
        return np.zeros((*sizes, self.state_size), self._dtype)

    def step(self, u: ArrayLike, state: State, *, dt: ArrayLike | None = None) -> tuple[NDArray[Any], State]:
        """Answer one sample.

        Parameters
        ----------
        u
            (*batch_shape, d_input), any float dtype; (*batch_shape) where d_input is 1, or integer tokens.
        state
            (*batch_shape, state_size): `default_state`'s, or what the step before returned. Left as it is.
        dt
            A number, or (*batch_shape): multiplies the step size for this sample.

        Returns
        -------
        y (*batch_shape, d_output) and the next state.

        Raises
        ------
        NotStreamable
            The model is not causal.
        ValueError, TypeError
            A shape or a dtype does not fit.
        """
        plan = self._plans[1.0]
        samples = checks.array("u", u)
        state = checks.array("state", state)
        batch = state.shape[:-1]
        # A last axis of one may be left out: tokens have none.
        if samples.shape != (*batch, plan.d_input) and not (plan.d_input == 1 and samples.shape == batch):
            wanted = batch if self._document.tokens else (*batch, plan.d_input)
            raise ValueError(f"u: expected shape {wanted} with a state of shape {state.shape}, found {samples.shape}")
        n = math.prod(batch)
        flat = samples.reshape(n) if self._document.tokens else samples.reshape(n, plan.d_input)
        if dt is not None:
            steps = checks.reals("dt", dt)
            try:
                dt = np.broadcast_to(steps, batch).reshape(n)
            except ValueError:
                raise ValueError(f"dt: expected a number or shape {batch}, found {steps.shape}") from None
        y, after = plan.step(flat, state.reshape(n, -1), dt=dt)
        return y.reshape(*batch, plan.d_output), after.reshape(state.shape)

    def stream(self, batch: int = 1, *, rate: float = 1.0) -> Stream:
        """Streams that keep their states: the path of the lowest latency.

        Raises
        ------
        NotStreamable
            The model is not causal.
        ValueError, TypeError
            ``batch`` is no number of streams, or ``rate`` no positive number.
        """
        return self._plan(rate).stream(checks.whole("batch", batch, 1))

    def kernel(self, layer: int, length: int, *, rate: float = 1.0) -> NDArray[np.float64]:
        """The convolution kernel (channels, d_model, length) float64 of state-space layer number ``layer``.

        Without the direct path D. A bidirectional layer has its backward kernels after the forward ones; a
        layer of many inputs and outputs (S5, LRU) has (d_output, d_input, length).

        Raises
        ------
        UnsupportedError
            The layer's kernel depends on its input.
        ValueError, TypeError
            There is no such layer, ``length`` is no number of samples, or ``rate`` no positive number.
        """
        layer, length = checks.whole("layer", layer), checks.whole("length", length)
        return _native.kernel(self._plain, layer, length, checks.positive("rate", rate))

    def save(self, path: str | Path) -> None:
        """Write ssmrt's own format, one safetensors file that `ssmrt.load` and the Rust crate read."""
        checks.path("path", path).write_bytes(self._bytes)

    def summary(self) -> str:
        """A table, one row a layer."""
        rows = [("layer", "kind", "shape", "parameters")]
        for depth, node in _layers(self._document.root):
            arrays = _arrays(node)
            count = sum(a.size * (2 if np.iscomplexobj(a) else 1) for a in arrays)
            rows.append(("  " * depth + (node.name or "-"), KIND_OF[type(node)], _describe(node), str(count or "")))
        rows.append(("total", "", f"{self.d_input} -> {self.d_output}", str(self.num_parameters)))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * w for w in widths))
        return "\n".join(lines)

    def __repr__(self) -> str:
        arch = self._document.meta.get("arch", "model")
        sizes = f"{self.d_input} -> {self.d_output}, {self.num_parameters} parameters"
        return f"<ssmrt.Model {arch}: {sizes}, {self._dtype}>"

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return _unpickle, (self._bytes, self._dtype)


def _unpickle(data: bytes, dtype: Dtype) -> Model:
    return Model(from_bytes(data, "a pickled model"), dtype)


def _imag(node: Diagonal | Dplr | DiagonalMimo) -> Array:
    imag: Array = np.imag(node.A)
    return imag


def _per_sample(name: str, value: ArrayLike | None, shape: tuple[int, ...]) -> Array | None:
    """One value a sample for every sequence: (length,) serves them all."""
    if value is None:
        return None
    array = checks.array(name, value)
    return np.broadcast_to(array, shape) if array.shape == shape[1:] else array


def _layers(node: Node, depth: int = 0) -> Iterator[tuple[int, Node]]:
    yield depth, node
    for child in branches(node):
        yield from _layers(child, depth + 1)


def _arrays(node: Node) -> list[Array]:
    return [a for f in fields(node) if isinstance(a := getattr(node, f.name), np.ndarray)]


def _describe(node: Node) -> str:
    words = []
    for f in fields(node):
        value = getattr(node, f.name)
        if isinstance(value, np.ndarray):
            words.append(f"{f.name}{value.shape}".replace(" ", "").replace(",)", ")"))
        elif isinstance(value, str | bool | int | float) and f.name != "name" and value != f.default:
            words.append(f"{f.name}={value}")
    return " ".join(words)
