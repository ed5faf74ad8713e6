"""The plain data that stands for tensors, storages and mappings in the pickle of a PyTorch file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import _numpy_pickle, _pickle
from ._arrays import MAX_DIMS
from ._pickle import Global, Record, Refused, describe


@dataclass(frozen=True, eq=False)
class Storage:
    """A run of numbers kept outside the pickle under ``key``. dtype None: bytes of which the tensor knows more."""

    key: str
    dtype: str | None
    size: int  # in elements; in bytes where dtype is None


@dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage; offset and stride count elements.

    ``conj`` and ``neg``: whether the storage holds its conjugate or negative, which PyTorch leaves for later.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    conj: bool = False
    neg: bool = False


class Attributed(dict[Any, Any]):
    """A mapping that the file may hang attributes on, such as the ``_metadata`` of a state dict."""


def load(data: bytes, source: str, start: int = 0, storages: dict[str, Storage] | None = None) -> tuple[Any, int]:
    """The value of a PyTorch pickle and where it ends; its tensors are `Tensor`.

    ``storages`` collects every storage that the pickle names, by key. Raises `CheckpointError`.
    """
    return _pickle.load(data, source, _Rules({} if storages is None else storages), start)


class _Rules(_numpy_pickle.Rules):
    def __init__(self, storages: dict[str, Storage]):
        self._storages = storages

    def call(self, function: Global, args: tuple[Any, ...]) -> Any:
        name = str(function)
        if name in _MAPPINGS:
            return _mapping(name, args)
        if name == _SUBCLASS:
            if len(args) != 4 or not isinstance(args[0], Global) or type(args[2]) is not tuple:
                raise Refused(f"arguments of {name} that PyTorch does not write")
            if not isinstance(args[1], Global) or str(args[1]) not in _TENSORS:
                # What its numbers mean, its class would know: they may be packed.
                return Record(args[1] if isinstance(args[1], Global) else function, args)
            function, name, args = args[0], str(args[0]), args[2]
        if name in _WRAPPERS and args and isinstance(args[0], Tensor):
            return args[0]
        if name in _REBUILD and (bits := _bits(name, args)) is not None:
            return _tensor(name, args, bits)
        return super().call(function, args)

    def build(self, made: Any, state: Any) -> None:
        if not isinstance(made, Attributed):
            super().build(made, state)

    def persistent(self, pid: Any) -> Storage | Global:
        if type(pid) is tuple and len(pid) == 4 and pid[0] == "module" and isinstance(pid[1], Global):
            return pid[1]  # a class with its source, before PyTorch 1.6
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
            raise Refused("a persistent id that is not a storage")
        _, kind, key, _, size = pid[:5]
        if len(pid) == 6 and pid[5] is not None:
            raise Refused("a view of a storage, as PyTorch before 0.4 wrote; re-save the file with a newer one")
        if not isinstance(kind, Global) or str(kind) not in _STORAGES or type(key) is not str or not _natural(size):
            raise Refused(f"a storage of {describe(kind)}")
        storage = Storage(key, _STORAGES[str(kind)], size)
        if self._storages.setdefault(key, storage).dtype != storage.dtype:
            raise Refused("one storage of two dtypes")
        return storage


def _mapping(name: str, args: tuple[Any, ...]) -> Attributed:
    if name == "collections.defaultdict":
        if len(args) > 1 or (args and args[0] is not None and not isinstance(args[0], Global | Record)):
            raise Refused(f"arguments of {name} that are not a type")
    elif name == "collections.OrderedDict" and args and not (len(args) == 1 and args[0] == []):
        raise Refused(f"arguments of {name}: its items are expected to follow it")
    return Attributed()


def _bits(name: str, args: tuple[Any, ...]) -> dict[str, bool] | None:
    """Which operations a tensor waits for; None where the arguments say more of it than is known here."""
    metadata = next(iter(args[_METADATA.get(name, len(args)) :]), None)
    if metadata is None:
        return {}
    if isinstance(metadata, dict) and metadata.keys() <= {"conj", "neg"}:
        return metadata if all(type(bit) is bool for bit in metadata.values()) else None
    return None


def _tensor(name: str, args: tuple[Any, ...], bits: dict[str, bool]) -> Tensor:
    if not _REBUILD[name] <= len(args) <= _REBUILD[name] + 2 or not isinstance(args[0], Storage):
        raise Refused(f"arguments of {name} that PyTorch does not write")
    storage, offset, shape, stride = args[:4]
    dtype = storage.dtype
    if name.endswith("_v3"):
        dtype = _DTYPES.get(str(args[6])) if isinstance(args[6], Global) else None
    if dtype is None:
        raise Refused(f"a tensor of unknown dtype in {name}")
    shape, stride = (s.args[0] if _is_size(s) else s for s in (shape, stride))
    if not (_natural(offset) and _naturals(shape) and _naturals(stride) and len(shape) == len(stride)):
        raise Refused(f"offset, size or stride in {name} that are not numbers")
    if any(bits.values()) and dtype[0] not in "fc":
        raise Refused(f"a tensor of {dtype} in {name} that is conjugated or negated when read")
    return Tensor(storage, offset, shape, stride, dtype, **bits)


def _is_size(value: Any) -> bool:
    return isinstance(value, Record) and str(value.cls) == "torch.Size" and len(value.args) == 1


def _natural(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _naturals(value: Any) -> bool:
    return type(value) is tuple and len(value) <= MAX_DIMS and all(_natural(item) for item in value)


# NumPy's codes, but for bfloat16, which NumPy has not, and bool.
_DTYPES = {
    "torch.float64": "f8",
    "torch.float32": "f4",
    "torch.float16": "f2",
    "torch.bfloat16": "bfloat16",
    "torch.complex128": "c16",
    "torch.complex64": "c8",
    "torch.int64": "i8",
    "torch.int32": "i4",
    "torch.int16": "i2",
    "torch.int8": "i1",
    "torch.uint64": "u8",
    "torch.uint32": "u4",
    "torch.uint16": "u2",
    "torch.uint8": "u1",
    "torch.bool": "bool",
}
_STORAGES: dict[str, str | None] = {
    "torch.DoubleStorage": "f8",
    "torch.FloatStorage": "f4",
    "torch.HalfStorage": "f2",
    "torch.BFloat16Storage": "bfloat16",
    "torch.ComplexDoubleStorage": "c16",
    "torch.ComplexFloatStorage": "c8",
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "bool",
    "torch.storage.UntypedStorage": None,
    "torch.UntypedStorage": None,
}
# The least number of arguments of each function; newer ones may add two.
_REBUILD = {
    "torch._utils._rebuild_tensor": 4,
    "torch._utils._rebuild_tensor_v2": 6,
    "torch._utils._rebuild_tensor_v3": 7,
}
# Where they have the bits of a tensor that is conjugated or negated when it is read.
_METADATA = {"torch._utils._rebuild_tensor_v2": 6, "torch._utils._rebuild_tensor_v3": 7}
_WRAPPERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_SUBCLASS = "torch._tensor._rebuild_from_type_v2"
_TENSORS = {"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
_MAPPINGS = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter"}
