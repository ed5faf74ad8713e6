from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

import ssmrt

__all__ = [
    "Document",
    "Model",
    "Plan",
    "Stream",
    "__version__",
    "causal_conv",
    "discretize",
    "hippo",
    "krylov",
    "schema",
]

__version__: str

@final
class Document:
    """A Document as the engine holds it."""

    def __new__(cls, tree: str, tensors: Sequence[tuple[str, NDArray[Any]]]) -> Document: ...
    @staticmethod
    def parse(data: bytes) -> Document:
        """Of ssmrt's own format."""

    @property
    def d_input(self) -> int: ...
    @property
    def d_output(self) -> int: ...
    def outline(self) -> tuple[str, list[tuple[str, list[int], str]]]:
        """The tree as JSON, and of every tensor that it refers to its name, shape and dtype."""

    def to_bytes(self) -> bytes:
        """Ssmrt's own format: every number exactly as it was."""

    def layers(self, rate: float) -> list[dict[str, Any]]:
        """The state-space layers at a rate, a dict each."""

    def discrete(self, layer: int, rate: float) -> dict[str, Any]:
        """The discrete systems of a state-space layer at a rate."""

    def eigenvalues(self, layer: int, rate: float) -> NDArray[np.complex128]:
        """The discrete eigenvalues of a state-space layer at a rate, channel by channel."""

    def kernel(self, layer: int, length: int, rate: float) -> NDArray[np.float64]:
        """The convolution kernel (M, H, length) float64 of a state-space layer at a rate."""

    def widths(self) -> list[int]:
        """The widths of the signal after each node of the outermost sequence."""

@final
class Model:
    """A model of a Document: what its plans for all rates share."""

    def __new__(cls, document: Document, dtype: str, weights: str) -> Model: ...
    def plan(self, rate: float) -> Plan:
        """The model at a rate."""

@final
class Plan:
    """A model at one rate."""

    @property
    def d_input(self) -> int: ...
    @property
    def d_output(self) -> int: ...
    @property
    def state_size(self) -> int: ...
    @property
    def start(self) -> NDArray[Any]:
        """A stream's state (state_size,) before its first sample."""

    @property
    def pooled(self) -> bool: ...
    @property
    def vocabulary(self) -> int | None: ...
    @property
    def isa(self) -> str: ...
    @property
    def weight_bytes(self) -> int:
        """Bytes of the matrices that every sample is multiplied with."""
    @property
    def signal_to_noise(self) -> float | None:
        """Of weights that were rounded, in decibels; None where none was."""
    @property
    def not_streamable(self) -> str | None:
        """Why the model cannot stream, or None."""

    def forward(
        self,
        u: ArrayLike,
        state: ArrayLike | None = None,
        *,
        dt: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        method: str = "auto",
        return_state: bool = True,
    ) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Answers (batch, length, d_input) from state (batch, state_size) on: (y, next state).

        Without the state where it is not to be returned.
        """

    def step(self, u: ArrayLike, state: ArrayLike, *, dt: ArrayLike | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
        """Answers one sample (*batch_shape, d_input) from state (*batch_shape, state_size) on: (y, next state)."""

    def stream(self, batch: int, model: ssmrt.Model | None, rate: float, threads: int | None = None) -> Stream:
        """Streams at their start, of the Python model that this is the plan of at a rate."""

@final
class Stream:
    """Streams of one model, each with its own state. Belongs to one thread at a time.

    Made by `Model.stream`. Pickles and copies go on from where it is.

    >>> stream = model.stream(batch=2)
    >>> stream.batch, stream.rate, stream.position
    (2, 1.0, array([0, 0]))
    """

    def step(
        self,
        u: ArrayLike,
        *,
        dt: ArrayLike | None = None,
        out: NDArray[Any] | None = None,
        active: ArrayLike | None = None,
    ) -> NDArray[Any]:
        """One sample of each stream, or of those ``active``: u (batch, d_input) -> y (batch, d_output).

        A pooled model answers as if the sequence ended here.

        Parameters
        ----------
        u
            (batch, d_input), any float dtype, or integer tokens (batch,). A single stream takes (d_input,), too, and
            then y is (d_output,) and ``dt`` a number.
        dt
            (batch,): multiplies the step size for this sample.
        out
            Takes the answer: of y's shape and the model's dtype, contiguous. With it nothing is allocated.
        active
            The numbers of the streams that move on, rising; None: all. The first axes of u, dt and y are as long.

        Returns
        -------
        y (batch, d_output), in the model's dtype.

        Raises
        ------
        ValueError, TypeError
            A shape, a dtype or a number that does not fit; the states are as they were.
        UnsupportedError
            ``dt`` for a layer that has no step size.

        >>> model.stream().step([0.5]).shape
        (10,)
        """

    def push(
        self,
        u: ArrayLike,
        *,
        dt: ArrayLike | None = None,
        out: NDArray[Any] | None = None,
        active: ArrayLike | None = None,
    ) -> NDArray[Any]:
        """A chunk of each stream, or of those ``active``: u (batch, length, d_input) -> y (batch, length, d_output).

        A pooled model answers as if the sequence ended with each sample.

        Parameters
        ----------
        u
            (batch, length, d_input), any float dtype and any length, or integer tokens (batch, length). A single stream
            takes (length, d_input), too, and then y is (length, d_output) and ``dt`` (length,).
        dt
            (batch, length): multiplies the step size sample by sample.
        out, active
            As in `step`.

        Returns
        -------
        y (batch, length, d_output), in the model's dtype.

        Raises
        ------
        ValueError, TypeError, UnsupportedError
            As `step`.

        >>> model.stream().push(np.zeros((64, 1))).shape
        (64, 10)
        """

    def prefill(self, u: ArrayLike, *, dt: ArrayLike | None = None, active: ArrayLike | None = None) -> None:
        """As :meth:`push`, without answers: the streams go on from behind ``u``.

        What only answers need is left out, of a language model the head: a third of the 130 million weights of a Mamba
        with 50 280 tokens.

        >>> stream = model.stream()
        >>> stream.prefill(np.zeros((64, 1)))
        >>> stream.position
        array([64])
        """

    def reset(self, mask: ArrayLike | None = None) -> None:
        """Starts anew: every stream, or those for which ``mask``, bool (batch,), is true.

        Raises ValueError or TypeError where it is no such mask.

        >>> stream = model.stream(2)
        >>> y = stream.step(np.zeros((2, 1)))
        >>> stream.reset(np.array([True, False]))
        >>> stream.position
        array([0, 1])
        """

    @property
    def position(self) -> NDArray[np.int64]:
        """Samples that each stream has met since its start or last reset (batch,)."""

    @property
    def batch(self) -> int:
        """Streams."""

    @property
    def model(self) -> ssmrt.Model:
        """The model whose streams these are."""

    @property
    def rate(self) -> float:
        """What multiplies every step size."""

    @property
    def threads(self) -> int | None:
        """Threads that work for them at most; None: as many as for everything else."""

    def __reduce__(self) -> tuple[Any, tuple[int, float, bytes, int | None]]: ...
    def snapshot(self) -> bytes:
        """The states as bytes.

        >>> isinstance(stream.snapshot(), bytes)
        True
        """

    def restore(self, blob: bytes | bytearray | memoryview) -> None:
        """Goes on from a snapshot of a stream of the same model, rate, dtype and batch.

        Raises ValueError where it is no such snapshot, was damaged or holds a NaN; then the states are as they were.

        >>> stream.restore(stream.snapshot())
        """

def schema() -> str:
    """Every kind of node of a Document with its fields, as JSON."""

def hippo(measure: str, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(A, B) of a HiPPO measure: float64 (n, n) and (n,)."""

def discretize(
    a: ArrayLike, b: ArrayLike, dt: float, method: str, alpha: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(Abar, Bbar) of a full real system."""

def causal_conv(u: ArrayLike, k: ArrayLike) -> NDArray[np.float64]:
    """The causal convolution of the rows of u (rows, length) with those of k (rows, length)."""

def krylov(a: ArrayLike, b: ArrayLike, length: int) -> NDArray[np.float64]:
    """(b, A b, A^2 b, ...): A (systems, n, n), b (systems, n) -> (systems, n, length)."""
