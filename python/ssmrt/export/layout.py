"""How complex modes lie in a real tensor, and the operators that follow from it.

Every layout advances with operators whose last one, the sum in `advance`, is the only writer of the next state
and depends on every read of the old: the graph stays right where both share one buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .builder import GraphBuilder, State

Array = NDArray[Any]


class Layout(Protocol):
    """Complex modes (G, N) as a real state; weights below are complex128 (K, G, N) or (G, N)."""

    name: str

    def shape(self, batch: int, groups: int, n: int) -> tuple[int, ...]:
        """The state's shape."""
        ...

    def flat(self, z: Array) -> Array:
        """Real numbers of (..., N) complex ones, in the state's order: (..., n)."""
        ...

    def broadcast(self, batch: int, groups: int) -> tuple[int, ...]:
        """The shape in which one number a group is added to a state."""
        ...

    def rotate(self, b: GraphBuilder, s: str, factor: Array) -> list[str]:
        """Terms whose sum is factor * x."""
        ...

    def project(self, b: GraphBuilder, s: str, rows: Array, batch: int, what: str) -> str:
        """Re(rows x) as (batch, G, K, 1)."""
        ...

    def spread(self, b: GraphBuilder, columns: Array, w: str, batch: int) -> str:
        """sum_k columns[k] w[k], as a state, of w (batch, G, K, 1)."""
        ...


def advance(b: GraphBuilder, state: State, terms: Sequence[str]) -> str:
    """Next = state + terms."""
    return b.op("Sum", state.input, *terms, out=state.output)


def _project_flat(layout: Layout, b: GraphBuilder, s: str, rows: Array, batch: int, what: str) -> str:
    weight = layout.flat(rows.conj()).transpose(1, 0, 2)
    groups, _, n = weight.shape
    return b.op("MatMul", b.weight(weight, what), b.reshape(s, [batch, groups, n, 1], "column"), what=f"{what}_x")


def _spread_flat(layout: Layout, b: GraphBuilder, columns: Array, w: str, batch: int) -> str:
    weight = layout.flat(columns).transpose(1, 2, 0)
    groups, n = columns.shape[1:]
    return b.reshape(b.op("MatMul", b.weight(weight, "U"), w, what="U_w"), layout.shape(batch, groups, n))


class Planes:
    """(batch, G, 2, N), real parts first: a few large element-wise operators, the fastest in ONNX Runtime."""

    name = "planes"

    def shape(self, batch: int, groups: int, n: int) -> tuple[int, ...]:
        """The state's shape."""
        return batch, groups, 2, n

    def flat(self, z: Array) -> Array:
        """Real parts, then imaginary."""
        return np.concatenate([z.real, z.imag], -1)

    def broadcast(self, batch: int, groups: int) -> tuple[int, ...]:
        """One number a group."""
        return batch, groups, 1, 1

    def rotate(self, b: GraphBuilder, s: str, factor: Array) -> list[str]:
        """Re' = a_re re - a_im im, im' = a_re im + a_im re."""
        swapped = b.op("Gather", s, b.ints([1, 0], "swap"), axis=2, what="swapped")
        along = b.weight(np.stack([factor.real, factor.real], -2), "A_re")
        across = b.weight(np.stack([-factor.imag, factor.imag], -2), "A_im")
        return [b.op("Mul", s, along, what="A_re_x"), b.op("Mul", swapped, across, what="A_im_x")]

    def project(self, b: GraphBuilder, s: str, rows: Array, batch: int, what: str) -> str:
        """One row by a product and a sum, more by a matrix product."""
        if len(rows) > 1:
            return _project_flat(self, b, s, rows, batch, what)
        weight = b.weight(np.stack([rows[0].real, -rows[0].imag], -2), what)
        return b.sum(b.op("Mul", s, weight, what=f"{what}_terms"), [2, 3], f"{what}_x")

    def spread(self, b: GraphBuilder, columns: Array, w: str, batch: int) -> str:
        """One column by a product, more by a matrix product."""
        if len(columns) > 1:
            return _spread_flat(self, b, columns, w, batch)
        return b.op("Mul", b.weight(np.stack([columns[0].real, columns[0].imag], -2), "U"), w, what="U_w")


class Blocks:
    """(batch, G, N, 2, 1), each mode rotated by its own 2x2 matrix: the fewest instructions in generated C."""

    name = "blocks"

    def shape(self, batch: int, groups: int, n: int) -> tuple[int, ...]:
        """The state's shape."""
        return batch, groups, n, 2, 1

    def flat(self, z: Array) -> Array:
        """Real and imaginary parts in turn."""
        return np.stack([z.real, z.imag], -1).reshape(*z.shape[:-1], -1)

    def broadcast(self, batch: int, groups: int) -> tuple[int, ...]:
        """One number a group."""
        return batch, groups, 1, 1, 1

    def rotate(self, b: GraphBuilder, s: str, factor: Array) -> list[str]:
        """[[re, -im], [im, re]] a mode."""
        rows = np.stack([np.stack([factor.real, -factor.imag], -1), np.stack([factor.imag, factor.real], -1)], -2)
        return [b.op("MatMul", b.weight(rows, "A"), s, what="A_x")]

    def project(self, b: GraphBuilder, s: str, rows: Array, batch: int, what: str) -> str:
        """By a matrix product."""
        return _project_flat(self, b, s, rows, batch, what)

    def spread(self, b: GraphBuilder, columns: Array, w: str, batch: int) -> str:
        """By a matrix product."""
        return _spread_flat(self, b, columns, w, batch)


class Reals:
    """(batch, G, N, 1): modes that never leave the real line."""

    name = "reals"

    def shape(self, batch: int, groups: int, n: int) -> tuple[int, ...]:
        """The state's shape."""
        return batch, groups, n, 1

    def flat(self, z: Array) -> Array:
        """The real parts."""
        return np.ascontiguousarray(z.real)

    def broadcast(self, batch: int, groups: int) -> tuple[int, ...]:
        """One number a group."""
        return batch, groups, 1, 1

    def rotate(self, b: GraphBuilder, s: str, factor: Array) -> list[str]:
        """Element by element."""
        return [b.op("Mul", s, b.weight(factor.real[..., None], "A"), what="A_x")]

    def project(self, b: GraphBuilder, s: str, rows: Array, batch: int, what: str) -> str:
        """By a matrix product."""
        return b.op("MatMul", b.weight(self.flat(rows).transpose(1, 0, 2), what), s, what=f"{what}_x")

    def spread(self, b: GraphBuilder, columns: Array, w: str, batch: int) -> str:
        """By a matrix product."""
        return b.op("MatMul", b.weight(self.flat(columns).transpose(1, 2, 0), "U"), w, what="U_w")


LAYOUTS: dict[str, Layout] = {"planes": Planes(), "blocks": Blocks()}
REALS: Layout = Reals()
