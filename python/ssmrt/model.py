"""A model as users have it: called on sequences, stepped sample by sample, saved, described."""

from __future__ import annotations

import sys
import warnings
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _native, checks, sketch, writing
from ._native import Stream
from .document import KIND_OF, Array, Document, Node, branches, decode, encode, from_bytes
from .errors import NotStreamable

Dtype = Literal["float32", "float64"]
Weights = Literal["float32", "bfloat16", "int8"]
Method = Literal["auto", "scan", "chunk", "fft"]
State = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Modes:
    """The modes of a state-space layer. Arrays (n,).

    >>> hertz, seconds = model.modes(0).frequencies, model.modes(0).time_constants
    >>> f"{hertz.min():.0f} to {hertz.max():.0f} Hz, {seconds.max():.1f} s"
    '0 to 7996 Hz, 0.1 s'
    """

    poles: NDArray[np.complex128]
    """Discrete eigenvalues."""
    frequencies: NDArray[np.float64]
    """In turns a second, or a sample; not negative."""
    time_constants: NDArray[np.float64]
    """Seconds, or samples, in which a mode falls to 1/e; infinite where it stays, negative where it grows."""


class Model:
    """A trained model, ready to run. Immutable; threads may share it.

    Made by `ssmrt.load`, by `ssmrt.nn.model`, and by `ssmrt.diagonal`, `ssmrt.dplr`, `ssmrt.dense`, `ssmrt.linoss` and
    `ssmrt.selective`; here of a Document.

    Parameters
    ----------
    document
        The parameters.
    dtype
        The engine's precision, "float32" or "float64".
    weights
        How the matrices of mixing layers are held, as in `ssmrt.load`.

    Raises
    ------
    CheckpointError
        Layers that do not fit one another, or numbers that are not finite.
    UnsupportedError
        Something that ssmrt does not run.
    ValueError, TypeError
        An argument of another kind.

    >>> model.d_input, model.d_output, model.dtype, model.num_parameters
    (1, 10, dtype('float32'), 84234)
    >>> model.streamable, model.pooled, model.sample_rate, model.labels[:3]
    (True, True, 16000.0, ('yes', 'no', 'up'))
    """

    def __init__(self, document: Document, dtype: Dtype = "float32", weights: Weights | None = None):
        checks.instance("document", document, Document, "a Document")
        tree, tensors = encode(document)
        self._hold(_native.Document(tree, list(tensors.items())), dtype, weights)

    @classmethod
    def parse(cls, data: bytes, dtype: Dtype = "float32", weights: Weights | None = None) -> Model:
        """The model in the bytes of ssmrt's own format. Raises `CheckpointError` where they are none.

        >>> from pathlib import Path
        >>> ssmrt.Model.parse(Path("model.ssm.safetensors").read_bytes())
        <ssmrt.Model s4-example: 1 -> 10, 84234 parameters, float32>
        """
        model = cls.__new__(cls)
        model._hold(_native.Document.parse(data), dtype, weights)
        return model

    def remade(self, document: Document) -> Model:
        """A model of another Document, in the same precision.

        >>> model.remade(model.document).num_parameters == model.num_parameters
        True
        """
        return Model(document, self._dtype, self._weights)

    def _hold(self, held: _native.Document, dtype: Dtype, weights: Weights | None) -> None:
        checks.word("dtype", dtype, ("float32", "float64"))
        self._dtype: Dtype = dtype
        if weights is not None:
            checks.word("weights", weights, ("float32", "bfloat16", "int8"))
        self._weights = weights
        self._held = held
        self._engine = _native.Model(held, dtype, weights or "as given")
        self._regular = self._engine.plan(1.0)
        # Of the last call: who steps at a rate asks for it once a sample.
        self._last = (1.0, self._regular)
        self._outline = _outline(held)
        self._document: weakref.ref[Document] | None = None
        self._warned = {1.0}

    def _plan(self, rate: float) -> _native.Plan:
        last, plan = self._last
        if type(rate) is float and rate == last:
            return plan
        rate = checks.positive("rate", rate)
        plan = self._engine.plan(rate)
        if rate not in self._warned:
            self._warned.add(rate)
            self._warn(rate)
        self._last = (rate, plan)
        return plan

    def warn_of_instability(self) -> None:
        """Warn of layers that are let through although they are unstable.

        >>> model.warn_of_instability()
        """
        self._warn(1.0)

    def _warn(self, rate: float) -> None:
        for layer in self._held.layers(rate):
            name = layer["name"] or layer["kind"]
            if layer["aliased"]:
                _say(
                    f"rate={rate:g} takes {layer['aliased']} of {layer['modes']} modes of {name} past half a turn a"
                    " sample: they alias"
                )
            # At a pole of its transform a layer has no step at all, and planning says so.
            if layer["unstable"] and np.isfinite(layer["radius"]):
                doubling = np.log(2) / np.log(layer["radius"])
                at = "" if rate == 1.0 else f" at rate={rate:g}"
                _say(
                    f"layer {name} is unstable{at}: {layer['place']} has an eigenvalue of modulus"
                    f" {layer['radius']:.6g}, so that its state doubles every {doubling:.3g} samples"
                )

    @property
    def document(self) -> Document:
        """The model's parameters, as a tree of nodes: read from the engine, and kept as long as somebody holds them."""
        document = None if self._document is None else self._document()
        if document is None:
            document = from_bytes(self._held.to_bytes(), "the model")
            self._document = weakref.ref(document)
        return document

    @property
    def outline(self) -> Document:
        """As `document`, with arrays that have shapes and dtypes but no numbers: they take no memory."""
        return self._outline

    @property
    def d_input(self) -> int:
        """Numbers a sample; 1 for tokens."""
        return self._regular.d_input

    @property
    def d_output(self) -> int:
        """Numbers an answer."""
        return self._regular.d_output

    @property
    def sample_rate(self) -> float | None:
        """Samples a second in training; None where the file does not say."""
        return self._outline.sample_rate

    @property
    def labels(self) -> tuple[str, ...] | None:
        """What each output stands for; None where the file does not say."""
        return self._outline.labels

    @property
    def dtype(self) -> np.dtype[Any]:
        """The engine's precision."""
        return np.dtype(self._dtype)

    @property
    def isa(self) -> str:
        """The instruction set in use: ``"avx512"``, ``"avx2"``, ``"neon"`` or ``"scalar"``."""
        return self._regular.isa

    @property
    def streamable(self) -> bool:
        """Whether the model is causal, and so can run sample by sample."""
        return self._regular.not_streamable is None

    @property
    def pooled(self) -> bool:
        """Whether the model answers once a sequence; a stream then answers each sample as if it were the last."""
        return self._regular.pooled

    @property
    def state_size(self) -> int:
        """Numbers of state a stream: the last axis of `default_state`."""
        return self._regular.state_size

    @property
    def weight_bytes(self) -> int:
        """Bytes of the matrices of mixing layers, in the form in which every sample is multiplied with them."""
        return self._regular.weight_bytes

    @property
    def signal_to_noise(self) -> float | None:
        """What ``weights`` in "bfloat16" or "int8" left of the matrices of mixing layers, in decibels.

        Ten times the decimal logarithm of their squares by the squares of what they were rounded by. None where nothing
        was rounded.
        """
        return self._regular.signal_to_noise

    @cached_property
    def num_parameters(self) -> int:
        """Real numbers in the parameters; a complex one counts as two."""
        # What is tied counts once.
        arrays = {id(a): a for _, node in _layers(self._outline.root) for a in _arrays(node)}
        return sum(a.size * (2 if np.iscomplexobj(a) else 1) for a in arrays.values())

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
        """Answer whole sequences. See `forward`.

        >>> model(np.ones((100, 1))).shape
        (10,)
        """
        return self._forward(u, state, rate, dt, lengths, resets, method, False)[0]

    @overload
    def forward(
        self,
        u: ArrayLike,
        *,
        state: State | None = ...,
        rate: float = ...,
        dt: ArrayLike | None = ...,
        lengths: ArrayLike | None = ...,
        resets: ArrayLike | None = ...,
        method: Method = ...,
        return_state: Literal[False] = ...,
    ) -> NDArray[Any]: ...

    @overload
    def forward(
        self,
        u: ArrayLike,
        *,
        state: State | None = ...,
        rate: float = ...,
        dt: ArrayLike | None = ...,
        lengths: ArrayLike | None = ...,
        resets: ArrayLike | None = ...,
        method: Method = ...,
        return_state: Literal[True],
    ) -> tuple[NDArray[Any], State]: ...

    @overload
    def forward(
        self,
        u: ArrayLike,
        *,
        state: State | None = ...,
        rate: float = ...,
        dt: ArrayLike | None = ...,
        lengths: ArrayLike | None = ...,
        resets: ArrayLike | None = ...,
        method: Method = ...,
        return_state: bool,
    ) -> NDArray[Any] | tuple[NDArray[Any], State]: ...

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
            Where to go on from; shape ``default_state(batch)``. None: `default_state`.
        rate
            Multiplies every step size: 2 for samples that are twice as far apart as in training. Where modes alias at
            that rate, or a layer is unstable, a UserWarning says so, once.
        dt
            (batch, length) or (length,): multiplies the step size sample by sample, for irregular sampling.
        lengths
            (batch,): where each sequence's padding begins. Pooling does not hear the padding, and answers
            at it are zero.
        resets
            (batch, length) or (length,) bool: the state is `default_state`'s before that sample.
        method
            "auto", or one of "scan" (the recurrence), "chunk" (matrix products), "fft" (convolution with
            kernels that the first sequence of such a length makes and leaves: for many sequences of one
            length through S4 layers of 128 states or more). All compute the same.
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

        >>> y, state = model.forward(np.ones((2, 100, 1)), return_state=True)
        >>> y.shape, state.shape == (2, model.state_size)
        ((2, 10), True)
        """
        if return_state and (why := self._regular.not_streamable) is not None:
            raise NotStreamable(f"return_state: {why}")
        y, after = self._forward(u, state, rate, dt, lengths, resets, method, bool(return_state))
        return y if after is None else (y, after)

    def _forward(
        self,
        u: ArrayLike,
        state: State | None,
        rate: float,
        dt: ArrayLike | None,
        lengths: ArrayLike | None,
        resets: ArrayLike | None,
        method: Method,
        return_state: bool,
    ) -> tuple[NDArray[Any], State | None]:
        samples = checks.array("u", u)
        plan = self._plan(rate)
        if samples.ndim == 1 and plan.d_input == 1 and not self._outline.tokens:
            samples = samples[:, None]
        # One axis less than a batch has is one sequence; tokens may have a last axis of one.
        alone = samples.ndim == (1 if self._outline.tokens else 2)
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
            return_state=return_state,
        )
        return (y[0], None if after is None else after[0]) if alone else (y, after)

    def default_state(self, *batch_shape: int) -> State:
        """The state before the first sample, (*batch_shape, state_size): zeros, but for a layer with an ``x0``.

        In the engine's dtype. Raises ValueError or TypeError where an axis is no number of streams.

        >>> model.default_state(32).shape == (32, model.state_size)
        True
        """
        sizes = [checks.whole("batch_shape", size) for size in batch_shape]
        return np.broadcast_to(self._regular.start, (*sizes, self.state_size)).copy()

    def step(
        self, u: ArrayLike, state: State, *, rate: float = 1.0, dt: ArrayLike | None = None
    ) -> tuple[NDArray[Any], State]:
        """Answer one sample.

        Parameters
        ----------
        u
            (*batch_shape, d_input), any float dtype; (*batch_shape) where d_input is 1, or integer tokens.
        state
            (*batch_shape, state_size): `default_state`'s, or what the step before returned. Left as it is: a copy goes
            on, which for large states takes as long as the step itself. `stream` keeps them in place.
        rate
            Multiplies every step size, as in `forward`.
        dt
            A number, or (*batch_shape): multiplies the step size for this sample.

        Returns
        -------
        y (*batch_shape, d_output) and the next state, in the engine's dtype.

        Raises
        ------
        NotStreamable
            The model is not causal.
        UnsupportedError
            ``rate`` or ``dt`` for a layer that has no step size.
        ValueError, TypeError
            A shape or a dtype does not fit.

        >>> model = ssmrt.diagonal([[-0.5 + 3j]], [[1]], [[1]], [0.0], [0.05])
        >>> y, state = model.step([1.0], model.default_state())
        >>> y.round(4)
        array([0.0984], dtype=float32)
        """
        plan = self._plan(rate)
        if dt is not None:
            steps, batch = checks.reals("dt", dt), np.shape(state)[:-1]
            try:
                dt = np.broadcast_to(steps, batch)
            except ValueError:
                raise ValueError(f"dt: expected a number or shape {batch}, found {steps.shape}") from None
        return plan.step(u, state, dt=dt)

    def stream(self, batch: int = 1, *, rate: float = 1.0, threads: int | None = None) -> Stream:
        """Streams that keep their states: the path of the lowest latency.

        Parameters
        ----------
        batch
            How many streams side by side.
        rate
            Multiplies every step size: 2 for samples that are twice as far apart as in training. Where modes alias at
            that rate, or a layer is unstable, a UserWarning says so, once.
        threads
            How many threads work for these streams at most: with 1 no other is ever woken. The answers are the
            same, bit for bit. None: as many as ``SSMRT_NUM_THREADS`` says, or as there are cores.

        Returns
        -------
        Stream
            At its start.

        Raises
        ------
        NotStreamable
            The model is not causal.
        ValueError, TypeError
            ``batch`` is no number of streams, ``threads`` none of threads, or ``rate`` no positive number.
        UnsupportedError
            ``rate`` for a layer that has no step size.

        >>> stream = model.stream(batch=3)
        >>> stream.step(np.ones((3, 1))).shape
        (3, 10)
        """
        plan, batch = self._plan(rate), checks.whole("batch", batch, 1)
        return plan.stream(batch, self, float(rate), None if threads is None else checks.whole("threads", threads, 1))

    def _resume(self, batch: int, rate: float, snapshot: bytes, threads: int | None = None) -> Stream:
        stream = self.stream(batch, rate=rate, threads=threads)
        stream.restore(snapshot)
        return stream

    def kernel(self, layer: int, length: int, *, rate: float = 1.0) -> NDArray[np.float64]:
        """The convolution kernel (channels, d_model, length) float64 of state-space layer number ``layer``.

        Without the direct path D. A bidirectional layer has its backward kernels after the forward ones; a
        layer of many inputs and outputs (S5, LRU, LinOSS) has (d_output, d_input, length).

        Raises
        ------
        UnsupportedError
            The layer's kernel depends on its input.
        ValueError, TypeError
            There is no such layer, ``length`` is no number of samples, or ``rate`` no positive number.

        >>> model.kernel(0, 1000).shape
        (1, 64, 1000)
        """
        layer, length = checks.whole("layer", layer), checks.whole("length", length)
        return self._held.kernel(layer, length, checks.positive("rate", rate))

    def layers(self, *, rate: float = 1.0) -> list[dict[str, Any]]:
        """What each state-space layer is at a rate, in the order in which `kernel`, `poles` and `discrete` number them.

        A dict each: ``kind`` and ``name``; ``always_stable``, whether its parameters show that it is stable at every
        rate, and where they do not ``radius``, the modulus of its largest discrete eigenvalue, ``place``, the channel,
        mode or oscillator that has it, and ``unstable``; ``aliased`` of the ``modes`` that reach an output; ``cut``,
        the samples after which its kernel ends, or None; ``bidirectional``.

        >>> model.layers()[0]["kind"], model.layers()[0]["always_stable"]
        ('diagonal', True)
        """
        return self._held.layers(checks.positive("rate", rate))

    def discrete(self, layer: int, *, rate: float = 1.0) -> dict[str, Any]:
        """The discrete systems of state-space layer number ``layer``, as the engine steps them, in float64.

        ``a_minus_one`` is Abar - I, of which float32 keeps the digits that it would lose of Abar.

        S4D, S4: x' = Abar x - sum_k w[k] Re(v[k] . x) + b u, y = Re(c . x') + d u for each channel, ``a_minus_one`` and
        ``b`` complex (H, N), ``c`` (M, H, N), ``w`` and ``v`` (K, H, N), ``d`` real (M, H).
        LSSL: x' = Abar x + b u, y = c . x' + d u, in the real Schur basis of A: ``a_minus_one`` (H, N, N), ``x0``
        (H, N) or None.
        S5, LRU: x' = Abar x + b u, y = Re(c x') + d u: ``a_minus_one`` complex (N,), ``b`` (N, d_input),
        ``c`` (d_output, N), ``d`` (d_output,) or None.
        LinOSS: w' = sign (w + drag w) + spring x + b u, then x' = sign x + w', y = Re(c x') + d u, of positions x and
        w = x - sign x_before: ``sign`` (1 or -1), ``drag`` and ``spring`` real (P,), ``b`` complex (P, d_input),
        ``c`` (d_output, P), ``d`` (d_output,) or None.

        Raises
        ------
        UnsupportedError
            The layer has no such systems.
        ValueError, TypeError
            There is no such layer, or ``rate`` is no positive number.

        >>> model.discrete(0)["b"].shape
        (64, 32)
        """
        return self._held.discrete(checks.whole("layer", layer), checks.positive("rate", rate))

    def poles(self, layer: int, *, rate: float = 1.0) -> NDArray[np.complex128]:
        """The discrete eigenvalues (n,) of state-space layer number ``layer``, channel by channel.

        Of conjugate pairs that are stored as one mode S4D, S5 and LRU give one, S4 and LSSL both. Each oscillator of
        LinOSS has two. Raises as `discrete`.

        >>> bool(np.all(np.abs(model.poles(0)) < 1))
        True
        """
        return self._held.eigenvalues(checks.whole("layer", layer), checks.positive("rate", rate))

    def modes(self, layer: int, *, rate: float = 1.0) -> Modes:
        """How state-space layer number ``layer`` oscillates and how long it remembers, in the order of `poles`.

        In seconds where the model knows the sampling rate of its training (`sample_rate`), else in samples. Raises as
        `discrete`.

        >>> model = ssmrt.diagonal([[-0.5 + 3j]], [[1]], [[1]], [0.0], [0.05])
        >>> model.modes(0).time_constants
        array([40.])
        """
        poles = self.poles(layer, rate=rate)
        sample = 1.0 if self.sample_rate is None else rate / self.sample_rate
        with np.errstate(divide="ignore"):
            # A pole on the unit circle never decays: 1 / -0.0 would be of the other sign.
            decay = np.abs(np.log(np.abs(poles))) * np.where(np.abs(poles) > 1, -1.0, 1.0)
            return Modes(poles, np.abs(np.angle(poles)) / (2 * np.pi * sample), sample / decay)

    def widths(self) -> list[int]:
        """The widths of the signal after each node of the outermost sequence.

        >>> model.widths()[:3]
        [64, 64, 64]
        """
        return self._held.widths()

    def save(self, path: str | Path) -> None:
        """Write ssmrt's own format, one safetensors file that `ssmrt.load` and the Rust crate read.

        The file is there whole or not at all, and an old one stays until then. Raises OSError.

        >>> model.save("model.ssm.safetensors")
        """
        writing.write({checks.path("path", path): self._held.to_bytes()})

    def summary(self) -> str:
        """A table, one row a layer.

        >>> print(ssmrt.diagonal([[-0.5 + 3j]], [[1]], [[1]], [0.0], [0.05]).summary())
        layer     kind      shape                                parameters
        --------  --------  -----------------------------------  ----------
        diagonal  diagonal  C(1,1,1) D(1,1) dt(1) A(1,1) B(1,1)  8
        total               1 -> 1                               8
        """
        rows = [_HEAD, *(_row(depth, node) for depth, node in _layers(self._outline.root))]
        rows.append(("total", "", f"{self.d_input} -> {self.d_output}", str(self.num_parameters)))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * w for w in widths))
        return "\n".join(lines)

    def __repr__(self) -> str:
        arch = self._outline.meta.get("arch", "model")
        sizes = f"{self.d_input} -> {self.d_output}, {self.num_parameters} parameters"
        return f"<ssmrt.Model {arch}: {sizes}, {self._dtype}>"

    def _repr_html_(self) -> str:
        """`summary` for notebooks: state-space layers with their kernels' envelope and their poles."""
        systems = enumerate(layer["kind"] for layer in self.layers())
        number, kind = next(systems, (0, ""))
        rows: list[tuple[tuple[str, ...], str]] = []
        for depth, node in _layers(self._outline.root):
            drawn = ""
            if KIND_OF[type(node)] == kind:
                # The input of selective layers chooses their kernels.
                if kind not in ("selective", "ssd"):
                    drawn = sketch.envelope(self.kernel(number, _SKETCHED)) + sketch.circle(self.poles(number))
                number, kind = next(systems, (0, ""))
            rows.append((_row(depth, node), drawn))
        return sketch.table(repr(self), (*_HEAD, "kernel, poles"), rows)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Model.parse, (self._held.to_bytes(), self._dtype, self._weights)

    def __copy__(self) -> Model:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        return self


_HEAD = ("layer", "kind", "shape", "parameters")
# Samples of the kernels in `Model._repr_html_`.
_SKETCHED = 256


def _outline(held: _native.Document) -> Document:
    tree, tensors = held.outline()
    arrays = {name: np.broadcast_to(np.zeros((), dtype), shape) for name, shape, dtype in tensors}

    def complex_(name: str) -> Array:
        return np.broadcast_to(np.zeros((), np.complex128), arrays[name].shape[:-1])

    return decode(tree, arrays.__getitem__, complex_, "the model")


def _say(text: str) -> None:
    """Warn at the first line outside of this package."""
    level, frame = 1, sys._getframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "ssmrt":
        level, frame = level + 1, frame.f_back  # type: ignore[assignment]
    warnings.warn(text, UserWarning, stacklevel=level)


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


def _row(depth: int, node: Node) -> tuple[str, str, str, str]:
    count = sum(a.size * (2 if np.iscomplexobj(a) else 1) for a in _arrays(node))
    return "  " * depth + (node.name or "-"), KIND_OF[type(node)], _describe(node), str(count or "")


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
