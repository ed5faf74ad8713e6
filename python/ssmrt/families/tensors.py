"""Taking a checkpoint's tensors one by one: each name, shape and kind checked, none left over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError

Array = NDArray[Any]
Dim = int | str


class LeftOver(CheckpointError):
    """Tensors that have no place in the model."""


def table(source: str, rows: Iterable[tuple[str, str, str]]) -> CheckpointError:
    """The error for tensors that do not fit: a table of key, expected, found."""
    lines = [("key", "expected", "found"), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    text = "\n".join("  " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in lines)
    return CheckpointError(f"{source}: the tensors do not fit the model\n{text}")


class Tensors:
    """The tensors of a checkpoint under a prefix, with what is known of its dimensions.

    Shapes are given with integers or names: a name is bound by the first tensor that has it and checked
    on every later one. All views of one checkpoint share the names bound and the tensors taken.
    """

    def __init__(self, tensors: Mapping[str, Array], source: str, prefix: str = "", root: Tensors | None = None):
        self._tensors = tensors
        self._source = source
        self._prefix = prefix
        self._taken: set[str] = set() if root is None else root._taken
        self.dims: dict[str, int] = {} if root is None else root.dims

    def scope(self, prefix: str, *, dims: bool = False) -> Tensors:
        """The tensors whose names start with ``prefix``; with ``dims`` its named dimensions are its own."""
        view = Tensors(self._tensors, self._source, self._prefix + prefix, self)
        if dims:
            view.dims = dict(self.dims)
        return view

    @property
    def names(self) -> list[str]:
        """The names below the prefix, without it."""
        return [n[len(self._prefix) :] for n in self._tensors if n.startswith(self._prefix)]

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor that must be there, without taking it."""
        return self._get(name, ("...",)).shape

    def take(self, name: str, *shape: Dim) -> Array:
        """The tensor ``name``, which must be there in this shape, real and finite; float32 or float64."""
        array = self._numbers(name, shape, "f", "real numbers")
        return array.astype(np.float32) if array.dtype.itemsize < 4 else array

    def integer(self, name: str) -> int:
        """The tensor ``name``, which must be one integer."""
        array = self._fitting(name, ())
        if array.dtype.kind not in "iu":
            raise self.misfit(name, "an integer", str(array.dtype))
        return int(array)

    def _numbers(self, name: str, shape: tuple[Dim, ...], kinds: str, expected: str) -> Array:
        array = self._fitting(name, shape)
        if array.dtype.kind not in kinds:
            raise self.misfit(name, expected, str(array.dtype))
        if not np.isfinite(array).all():
            raise self.misfit(name, "finite numbers", f"{int((~np.isfinite(array)).sum())} NaN or infinite")
        return array

    def _fitting(self, name: str, shape: tuple[Dim, ...]) -> Array:
        array = self._get(name, shape)
        found = array.shape
        fits = len(found) == len(shape) and all(
            size == (self.dims.setdefault(dim, size) if isinstance(dim, str) else dim)
            for dim, size in zip(shape, found)
        )
        if not fits:
            raise self.misfit(name, self._describe(shape), str(found))
        self._taken.add(self._prefix + name)
        return array

    def f64(self, name: str, *shape: Dim) -> Array:
        """As `take`, in float64."""
        return self.take(name, *shape).astype(np.float64)

    def complex(self, name: str, *shape: Dim) -> Array:
        """As `take`, complex128, for a tensor that is complex or has a last axis (re, im) after ``shape``."""
        if np.iscomplexobj(self._get(name, shape)):
            return self._numbers(name, shape, "c", "complex numbers").astype(np.complex128)
        pair = self.f64(name, *shape, 2)
        return pair[..., 0] + 1j * pair[..., 1]

    def optional(self, name: str, *shape: Dim) -> Array | None:
        """As `take`, None where there is no such tensor."""
        return self.take(name, *shape) if name in self else None

    def ignore(self, name: str) -> None:
        """Count ``name`` as taken where it is there: it means nothing for the output."""
        self._taken.add(self._prefix + name)

    def misfit(self, name: str, expected: str, found: str) -> CheckpointError:
        """The error that tensor ``name`` is not what was expected."""
        return table(self._source, [(self._prefix + name, expected, found)])

    def finish(self) -> None:
        """Raise where a tensor was left over: then the model is not what it was taken for."""
        rows = [(n, "nothing", str(a.shape)) for n, a in self._tensors.items() if n not in self._taken]
        if rows:
            raise LeftOver(str(table(self._source, rows)))

    def _get(self, name: str, shape: tuple[Dim, ...]) -> Array:
        array = self._tensors.get(self._prefix + name)
        if array is None:
            raise self.misfit(name, self._describe(shape), "nothing")
        return array

    def _describe(self, shape: tuple[Dim, ...]) -> str:
        named = (f"{d}={self.dims[d]}" if isinstance(d, str) and d in self.dims else str(d) for d in shape)
        return f"({', '.join(named)})"
