"""PyTorch's files, the zip container of ``torch.save`` and the one before it, read without torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..errors import CheckpointError
from . import _state_dict, _torch_pickle
from ._archive import Archive, is_archive
from ._arrays import Array, native, widen_bf16
from ._pickle import MAX_BYTES, describe
from ._stored import Buffer
from ._torch_pickle import Storage, Tensor
from .checkpoint import Checkpoint

# Tensors that expand a storage (stride 0) or share one may hold more numbers than the file, within reason.
MAX_EXPANSION = 16
MAX_SLACK = 16 << 20

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_HEAD = b"\x8a\x0a" + _LEGACY_MAGIC.to_bytes(10, "little")  # behind the pickle's protocol
_LEGACY_PROTOCOL = 1001

_EXPORTED = ("/archive_format", "/models/model.json", "serialized_exported_program.json")
_SAVE_WEIGHTS = "save the weights instead: torch.save(model.state_dict(), ...)"

# As what an element is taken from its storage where NumPy has no such dtype, or trusts it too much.
_CODES = {"bfloat16": "u2", "bool": "u1"}


def matches(path: Path, head: bytes) -> bool:
    """Whether the file is a zip archive, or starts with the number that ``torch.save`` once began with."""
    return is_archive(head) or (head[:1] == b"\x80" and _LEGACY_HEAD in head[:24])


def read(path: Path, step: int | None = None) -> Checkpoint:
    """The model's tensors and, from a Lightning file, its hyper-parameters as ``config``.

    Raises `CheckpointError`, also where the pickle names anything but tensors and plain data.
    """
    with path.open("rb") as file:
        legacy = not is_archive(file.read(4))
    return _read_legacy(path) if legacy else _read_zip(path)


def _read_zip(path: Path) -> Checkpoint:
    source = str(path)
    with Archive(path) as archive:
        pickles = [name for name in archive.names if name.split("/")[1:] == ["data.pkl"] or name == "data.pkl"]
        if any(name.endswith(_EXPORTED) for name in archive.names):
            raise CheckpointError(f"{source}: a program that torch.export saved; {_SAVE_WEIGHTS}")
        if len(pickles) != 1:
            raise CheckpointError(
                f"{source}: expected a zip archive with PyTorch's data.pkl or of NumPy's .npy,"
                f" found one of {', '.join(archive.names[:5])[:200] or 'nothing'}"
            )
        top = pickles[0][: -len("data.pkl")]
        if top + "constants.pkl" in archive.names:
            raise CheckpointError(f"{source}: a TorchScript archive; {_SAVE_WEIGHTS}")
        order = archive.read(top + "byteorder", 16) if top + "byteorder" in archive.names else b"little"
        if order not in (b"little", b"big"):
            raise CheckpointError(f"{source}: byteorder: expected little or big, found {order!r}")
        root, _ = _torch_pickle.load(archive.read(pickles[0], MAX_BYTES), source)
        return _checkpoint(root, source, lambda s: archive.read(f"{top}data/{s.key}"), order, archive.size)


def _read_legacy(path: Path) -> Checkpoint:
    """The format before PyTorch 1.6: four pickles, one of the storages' keys, then the storages one by one."""
    source = str(path)
    data = path.read_bytes()
    _, at = _torch_pickle.load(data, source)
    protocol, at = _torch_pickle.load(data, source, at)
    system, at = _torch_pickle.load(data, source, at)
    if protocol != _LEGACY_PROTOCOL or not isinstance(system, dict):
        raise CheckpointError(
            f"{source}: expected torch.save's protocol {_LEGACY_PROTOCOL}; re-save with a newer torch"
        )
    storages: dict[str, Storage] = {}
    root, at = _torch_pickle.load(data, source, at, storages)
    keys, at = _torch_pickle.load(data, source, at)
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in storages for key in keys):
        raise CheckpointError(f"{source}: expected the list of the storages' keys, found {describe(keys)}")
    content: dict[str, Buffer] = {}
    for key in keys:
        size = int.from_bytes(data[at : at + 8], "little", signed=True)
        end = at + 8 + size * _itemsize(storages[key].dtype)
        if key in content or not at + 8 <= end <= len(data):
            raise CheckpointError(f"{source}: storage {key!r}: {size} numbers declared, {len(data) - at} bytes follow")
        content[key] = memoryview(data)[at + 8 : end]
        at = end
    order = b"little" if system.get("little_endian", True) else b"big"
    return _checkpoint(root, source, lambda storage: content.get(storage.key, b""), order, len(data))


def _checkpoint(root: Any, source: str, fetch: Callable[[Storage], Buffer], order: bytes, size: int) -> Checkpoint:
    found, config = _state_dict.find(root, source)
    total = sum(math.prod(max(n, 1) for n in t.shape) * _itemsize(t.dtype) for t in found.values())
    if total > MAX_EXPANSION * size + MAX_SLACK:
        raise CheckpointError(
            f"{source}: its tensors have {total:.6g} bytes, which a file of {size} bytes does not hold"
        )
    storages: dict[str, Buffer] = {}
    tensors: dict[str, Array] = {}
    for name, tensor in found.items():
        key = tensor.storage.key
        if key not in storages:
            storages[key] = fetch(tensor.storage)
        tensors[name] = _array(tensor, storages[key], order, f"{source}: tensor {name!r}")
    return Checkpoint(tensors, source, "torch", config)


def _itemsize(dtype: str | None) -> int:
    return 1 if dtype is None else np.dtype(_CODES.get(dtype, dtype)).itemsize


def _array(tensor: Tensor, data: Buffer, order: bytes, source: str) -> Array:
    storage, shape = tensor.storage, tensor.shape
    if len(data) != storage.size * _itemsize(storage.dtype):
        raise CheckpointError(
            f"{source}: storage {storage.key!r}: {storage.size} of {storage.dtype or 'bytes'} declared,"
            f" {len(data)} bytes found"
        )
    itemsize = _itemsize(tensor.dtype)
    stride = [step if n > 1 else 0 for n, step in zip(shape, tensor.stride)]
    empty = 0 in shape
    reach = 0 if empty else tensor.offset + sum((n - 1) * step for n, step in zip(shape, stride)) + 1
    if reach > len(data) // itemsize:
        raise CheckpointError(
            f"{source}: shape {shape} with stride {tensor.stride} from {tensor.offset} reaches {reach} numbers,"
            f" its storage has {len(data) // itemsize}"
        )
    dtype = np.dtype(_CODES.get(tensor.dtype, tensor.dtype)).newbyteorder("<" if order == b"little" else ">")
    if empty:
        array: Array = np.zeros(shape, dtype)
    else:
        flat = np.frombuffer(data, dtype, len(data) // itemsize)[tensor.offset :]
        view = as_strided(flat, shape, [step * itemsize for step in stride], writeable=False)
        array = np.asarray(view, order="C")
    if tensor.dtype == "bfloat16":
        array = widen_bf16(array)
    if tensor.dtype == "bool":
        array = array != 0
    array = native(array)
    if tensor.conj:
        array = array.conj()
    return -array if tensor.neg else array
