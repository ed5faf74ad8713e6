"""Arguments of public functions: what is of another kind or out of range is refused under its name.

Every function takes the argument's name and its value, and returns the value as the engine wants it. A value of
another kind is a ``TypeError``, one out of range a ``ValueError``; both say what was expected and what was found.
Arrays of a model's or a stream's call are checked by the engine, which knows their shapes.
"""

from __future__ import annotations

import os
import reprlib
import sys
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

T = TypeVar("T")


def number(name: str, value: Any) -> float:
    """A finite real number, NumPy's and arrays without axes too; neither a bool nor text."""
    if isinstance(value, bool) or not (isinstance(value, Real) or _scalar(value, "fiu")):
        raise TypeError(f"{name}: expected a number, found {found(value)}")
    try:
        result = float(value)
    except OverflowError:
        result = np.inf
    if not np.isfinite(result):
        raise ValueError(f"{name}: expected a finite number, found {found(value)}")
    return result


def positive(name: str, value: Any) -> float:
    """A finite number above zero."""
    result = number(name, value)
    if result <= 0:
        raise ValueError(f"{name}: expected a positive number, found {found(value)}")
    return result


def whole(name: str, value: Any, least: int = 0) -> int:
    """A whole number of ``least`` or more, NumPy's too; neither a bool nor a float."""
    if isinstance(value, bool) or not (isinstance(value, Integral) or _scalar(value, "iu")):
        raise TypeError(f"{name}: expected a whole number, found {found(value)}")
    result = int(value)
    if result < least:
        raise ValueError(f"{name}: expected {least} or more, found {found(value)}")
    if result > sys.maxsize:
        raise ValueError(f"{name}: expected {sys.maxsize} at most, found {found(value)}")
    return result


def flag(name: str, value: Any) -> bool:
    """True or False, NumPy's too."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}: expected True or False, found {found(value)}")
    return bool(value)


def text(name: str, value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, found {found(value)}")
    return value


def word(name: str, value: Any, words: Sequence[str]) -> str:
    """One of the strings ``words``."""
    if text(name, value) not in words:
        raise ValueError(f"{name}: expected {' or '.join(map(repr, words))}, found {found(value)}")
    return str(value)


def path(name: str, value: Any) -> Path:
    """A path, as a string or a path object."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name}: expected a path, found {found(value)}")
    return Path(value)


def instance(name: str, value: Any, kind: type[T], expected: str) -> T:
    """An object of class ``kind``."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected {expected}, found {found(value)}")
    return value


def array(name: str, value: ArrayLike) -> NDArray[Any]:
    """An array of any dtype; bfloat16 and its like, for which NumPy has no name, in float32."""
    try:
        result = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: expected an array, found what is none: {error}") from None
    except TypeError as error:
        if type(error).__name__ != "TracerArrayConversionError":
            raise
        raise TypeError(
            f"{name}: expected an array, found one that JAX traces, which has no numbers yet: within jax.jit and its"
            " like ssmrt.jax.callback(model) runs a model"
        ) from None
    # Theirs is a kind of bytes that has a type of its own, and converts.
    strange = result.dtype.kind == "V" and result.dtype.type is not np.void
    return result.astype(np.float32) if strange else result


def floats(name: str, value: ArrayLike) -> NDArray[Any]:
    """An array of real numbers: float32 where it is, else float64."""
    result = _numbers(name, value, "fiu", "real numbers")
    return result if result.dtype == np.float32 else result.astype(np.float64, copy=False)


def reals(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """A float64 array of real numbers."""
    return _numbers(name, value, "fiu", "real numbers").astype(np.float64, copy=False)


def complexes(name: str, value: ArrayLike) -> NDArray[np.complex128]:
    """A complex128 array of real or complex numbers."""
    return _numbers(name, value, "fiuc", "real or complex numbers").astype(np.complex128, copy=False)


def found(value: Any) -> str:
    """What an error message says of a value."""
    if isinstance(value, np.ndarray):
        return f"an array of dtype {value.dtype} and shape {value.shape}"
    try:
        return reprlib.repr(value)
    except ValueError:
        # Python writes no integers of thousands of digits.
        return f"an {type(value).__name__} of {value.bit_length()} bits"


def _numbers(name: str, value: ArrayLike, kinds: str, expected: str) -> NDArray[Any]:
    result = array(name, value)
    if result.dtype.kind not in kinds:
        raise TypeError(f"{name}: expected {expected}, found dtype {result.dtype}")
    return result


def _scalar(value: Any, kinds: str) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in kinds
