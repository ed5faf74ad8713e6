"""NumPy's and JAX's arrays in a pickle, put together from their parts; nothing of NumPy is called by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointError
from . import _pickle
from ._arrays import Array
from ._pickle import Global, Record
from ._stored import dimensions, from_bytes, typestr

_RECONSTRUCT = {f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")}
_SCALAR = {f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")}
_FROM_BUFFER = {f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")}
# Called with NumPy's function, its arguments, the array's state and that of JAX's own type.
_JAX = ("_reconstruct_array", "reconstruct_device_array")


@dataclass(eq=False, slots=True)
class Dtype:
    """NumPy's dtype; ``order`` comes with its state."""

    code: str
    order: str = "|"

    @property
    def typestr(self) -> str:
        """As `_stored.typestr` takes it, whether it is a number's or not."""
        return self.code if self.code == "bfloat16" else self.order + self.code


@dataclass(eq=False, slots=True)
class Ndarray:
    """An array as the pickle has it; without a dtype until its state has come."""

    dtype: Dtype | None = None
    shape: Any = ()
    fortran_order: bool = False
    data: Any = b""

    def array(self, where: str) -> Array:
        """The array itself. Raises `CheckpointError` where it holds objects, or its parts do not fit together."""
        if self.dtype is None or not isinstance(self.data, bytes):
            raise CheckpointError(f"{where}: expected an array of numbers, found one of Python objects")
        dtype = typestr(self.dtype.typestr, where)
        return from_bytes(self.data, dtype, dimensions(self.shape, where), where, fortran_order=self.fortran_order)


class Rules(_pickle.Rules):
    """Arrays, NumPy's scalars and bytes are made of what the pickle holds; all else is inert."""

    def call(self, function: Global, args: tuple[Any, ...]) -> Any:
        """What stands for ``function(*args)``: a `Dtype`, an `Ndarray`, bytes or a `Record`."""
        name = str(function)
        made: Any = None
        match args:
            case [Global() | str() as code, *_] if name == "numpy.dtype":
                made = Dtype(code if isinstance(code, str) else code.name)
            case [Global(), _, bytes()] if name in _RECONSTRUCT:
                made = Ndarray()
            case [Dtype() as dtype, bytes() as data] if name in _SCALAR:
                made = Ndarray(dtype, (), False, data)
            case [bytes() as data, Dtype() as dtype, shape, order] if name in _FROM_BUFFER:
                made = Ndarray(dtype, shape, order == "F", data)
            case [Global() as inner, _, state, *_] if function.module.startswith("jax.") and function.name in _JAX:
                if str(inner) in _RECONSTRUCT:
                    made = Ndarray()
                    _fill(made, state)
            # Protocol 2 has no bytes of its own.
            case [str() as text, "latin1" | "latin-1"] if name == "_codecs.encode":
                made = text.encode("latin-1")
            case [] if name in ("__builtin__.bytes", "builtins.bytes"):
                made = b""
        return Record(function, args) if made is None else made

    def build(self, made: Any, state: Any) -> None:
        """Take ``state`` as that of what `call` made."""
        if isinstance(made, Ndarray):
            _fill(made, state)
        elif isinstance(made, Dtype):
            if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|"):
                made.order = state[1]
        else:
            super().build(made, state)


def _fill(array: Ndarray, state: Any) -> None:
    match state:
        case [_, shape, Dtype() as dtype, bool() as fortran_order, data]:
            array.dtype, array.shape, array.fortran_order, array.data = dtype, shape, fortran_order, data
