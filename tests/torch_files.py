"""Files as ``torch.save`` writes them, put together by hand, so that tests can make what torch itself never would."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class Global:
    module: str
    name: str


@dataclass(frozen=True)
class Call:
    function: Any
    args: Any


@dataclass(frozen=True)
class New:
    """An instance by NEWOBJ and BUILD."""

    cls: Global
    state: Any


@dataclass(frozen=True)
class Persistent:
    pid: Any


@dataclass(frozen=True)
class Raw:
    """Opcodes as they are."""

    code: bytes


def encode(value: Any) -> bytes:
    """The opcodes that push ``value``."""
    match value:
        case Raw(code):
            return code
        case None | bool():
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(encode, value)) + b"t"
        case list():
            return b"](" + b"".join(map(encode, value)) + b"e"
        case dict():
            return b"}(" + b"".join(encode(k) + encode(v) for k, v in value.items()) + b"u"
        case Global(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, args):
            return encode(function) + encode(args) + b"R"
        case New(cls, state):
            return encode(cls) + b")\x81" + encode(state) + b"b"
        case Persistent(pid):
            return encode(pid) + b"Q"
    raise TypeError(type(value))


def pickled(value: Any) -> bytes:
    """A whole pickle of protocol 2."""
    return b"\x80\x02" + encode(value) + b"."


def storage(key: str, size: int, kind: str = "FloatStorage", *, legacy: bool = False) -> Persistent:
    pid = ("storage", Global("torch", kind), key, "cpu", size)
    return Persistent((*pid, None) if legacy else pid)


def tensor(where: Persistent, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> Call:
    rest = (False, Call(Global("collections", "OrderedDict"), ()))
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), (where, offset, shape, stride, *rest))


def ordered(items: Mapping[str, Any], attributes: Any = None) -> Raw:
    """An OrderedDict filled after its making, then given attributes, as the pickler writes a state dict."""
    code = encode(Call(Global("collections", "OrderedDict"), ())) + encode(dict(items))[1:]
    return Raw(code + (b"" if attributes is None else encode(attributes) + b"b"))


def archive(
    pickle: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    top: str = "archive",
    byteorder: bytes | None = b"little",
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """The zip container around a pickle and its storages."""
    entries = {"data.pkl": pickle} | ({} if byteorder is None else {"byteorder": byteorder})
    entries |= {f"data/{key}": data for key, data in (storages or {}).items()} | {"version": b"3\n"}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in entries.items():
            file.writestr(zipfile.ZipInfo(f"{top}/{name}"), data, compression)
    return buffer.getvalue()


def legacy(value: Any, storages: Mapping[str, tuple[int, bytes]]) -> bytes:
    """The container of PyTorch before 1.6; ``storages`` by key: the number of elements and their bytes."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = b"".join(pickled(part) for part in (MAGIC, 1001, system, value, list(storages)))
    return head + b"".join(struct.pack("<q", size) + data for size, data in storages.values())
