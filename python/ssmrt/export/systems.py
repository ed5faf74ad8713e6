"""Discrete-time systems for exported graphs, in float64, as the engine steps them.

Everything is given as the *increment* ``A_bar - I``: a slow mode has a factor so near one that float32 would
keep only a few digits of its decay, while the increment keeps them all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _native
from ..document import Dense, DiagonalMimo, Document, Linoss, Node, Selective, Ssd, StateSpace, encode, walk
from ..errors import CheckpointError, ExportError, UnsupportedError

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Modes:
    """G systems over N complex modes, all products of which are followed by taking the real part.

    x' = x + a1 x + sum_k U[k] Re(V[k] x) + B u,    y = Re(C x') + D u
    """

    a1: Array  # complex128 (G, N): the increment, a - 1
    B: Array  # complex128 (G, N)
    C: Array  # complex128 (M, G, N), the factor 2 of conjugate pairs multiplied in
    D: Array  # float64 (M, G)
    U: Array  # complex128 (K, G, N)
    V: Array  # complex128 (K, G, N)

    @property
    def real(self) -> bool:
        """Whether a real input leaves the modes of a folded system real."""
        return not len(self.U) and not self.a1.imag.any()


@dataclass(frozen=True, eq=False)
class Matrices:
    """G real systems: x' = x + A1 x + B u, y = C x' + D u."""

    A1: Array  # float64 (G, n, n)
    B: Array  # float64 (G, n)
    C: Array  # float64 (M, G, n)
    D: Array  # float64 (M, G)
    x0: Array | None = None  # float64 (G, n), before the first sample; None: zero


@dataclass(frozen=True, eq=False)
class Oscillators:
    """w' = sign (w + drag w) + spring x + B u, then x' = sign x + w', y = Re(C x') + D u."""

    sign: Array  # float64 (P,), each 1 or -1
    drag: Array  # float64 (P,)
    spring: Array  # float64 (P,)
    B: Array  # complex128 (P, d_in)
    C: Array  # complex128 (d_out, P)


class Systems:
    """The systems of a Document's state-space layers at a rate.

    Raises `ExportError` where a layer cannot run at it, or has no systems.
    """

    def __init__(self, document: Document, rate: float):
        self.document = document
        tree, tensors = encode(document)
        try:
            self._held = _native.Document(tree, list(tensors.items()))
            self._layers = self._held.layers(rate)
        except (ValueError, CheckpointError) as error:
            raise ExportError(str(error)) from None
        self._rate = rate
        kinds = StateSpace | DiagonalMimo | Linoss | Selective | Ssd
        nodes = (n for n in walk(document.root) if isinstance(n, kinds))
        self._numbers = {id(node): number for number, node in enumerate(nodes)}

    def of(self, node: StateSpace) -> Modes | Matrices:
        """The systems of a layer of independent channels."""
        found = self._discrete(node)
        if isinstance(node, Dense):
            return Matrices(found["a_minus_one"], found["b"], found["c"], found["d"], found["x0"])
        return Modes(found["a_minus_one"], found["b"], found["c"], found["d"], -found["w"], found["v"])

    def mimo(self, node: DiagonalMimo) -> tuple[Array, Array, Array]:
        """(A_bar - 1, B_bar, C) of a `DiagonalMimo`: (N,), (N, d_in), (d_out, N); y = Re(C x) + D u."""
        found = self._discrete(node)
        return found["a_minus_one"], found["b"], found["c"]

    def oscillators(self, node: Linoss) -> Oscillators:
        """Those of a `Linoss`."""
        found = self._discrete(node)
        return Oscillators(found["sign"], found["drag"], found["spring"], found["b"], found["c"])

    def cut(self, node: StateSpace) -> int | None:
        """The samples after which the kernel is cut off."""
        cut: int | None = self._layers[self._numbers[id(node)]]["cut"]
        return cut

    def kernel(self, node: StateSpace, length: int) -> Array:
        """The convolution kernel without D, float64 (M, G, length)."""
        return self._held.kernel(self._numbers[id(node)], length, self._rate)

    def _discrete(self, node: Node) -> dict[str, Any]:
        number = self._numbers[id(node)]
        layer = self._layers[number]
        if layer["unstable"] and not node.allow_unstable:  # type: ignore[attr-defined]
            raise ExportError(
                f"layer {node.name!r} is unstable at rate={self._rate:g}: |eigenvalue| {layer['radius']:.6g};"
                " use a lower rate"
            )
        if self._rate != 1.0 and node.dt is None:  # type: ignore[attr-defined]
            raise ExportError(
                f"layer {node.name!r} is discrete-time and has no step size that rate={self._rate} could multiply;"
                " export with rate=1"
            )
        try:
            return self._held.discrete(number, self._rate)
        except (ValueError, UnsupportedError) as error:
            raise ExportError(f"layer {node.name!r}: {error}; it has no step graph") from None


def fold_input(modes: Modes, unit: complex | None = None) -> tuple[Modes, bool]:
    """Rescale every mode so that the input enters all of them alike; whether that could be done.

    A diagonal change of basis costs no accuracy. ``unit`` is the new B. None: complex modes get the input in the real
    and the imaginary part (B = 1 + i), so that adding it is one broadcast; modes that stay real get it in the real part
    (B = 1).
    """
    size = np.abs(modes.B)
    silent = modes.B == 0
    if len(modes.U) and (size < 1e-6 * size.max()).any():
        return modes, False
    scale = np.where(silent, 1.0, modes.B)
    C = np.where(silent, 0.0, modes.C * scale)
    if unit is None:
        unit = 1.0 if modes.real else 1.0 + 1.0j
    return replace(
        modes,
        B=np.full_like(modes.B, unit),
        C=(C.real + 0j if modes.real else C / unit),
        U=modes.U * unit / scale,
        V=modes.V * scale / unit,
    ), True


def real_matrices(modes: Modes) -> Matrices:
    """The same systems over the real state (Re x, Im x), (G, 2N)."""

    def vector(z: Array) -> Array:
        return np.concatenate([z.real, z.imag], -1)

    def row(z: Array) -> Array:
        return np.concatenate([z.real, -z.imag], -1)

    groups, n = modes.a1.shape
    A1 = np.zeros((groups, 2 * n, 2 * n))
    k = np.arange(n)
    A1[:, k, k] = A1[:, n + k, n + k] = modes.a1.real
    A1[:, n + k, k] = modes.a1.imag
    A1[:, k, n + k] = -modes.a1.imag
    A1 += np.einsum("kgi,kgj->gij", vector(modes.U), row(modes.V))
    return Matrices(A1, vector(modes.B), row(modes.C), modes.D)


def powers(a1: Array, count: int) -> Array:
    """a^0 ... a^{count - 1} of a = 1 + a1 in a new last axis."""
    out = np.ones((*a1.shape, count), np.complex128)
    for i in range(1, count):
        out[..., i] = out[..., i - 1] * (1.0 + a1)
    return out
