"""Files of the JAX world made byte by byte, so that tests can make wrong ones too."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ssmrt.readers._crc32c import crc32c

Array = NDArray[Any]

MANIFEST_MAGIC = 0x0CDB3A2A
NODE_MAGIC = 0x0CDB20DE


class Raw(bytes):
    """Bytes that stand in a msgpack file as they are."""


def pack(value: Any) -> bytes:
    """A value in msgpack, arrays as Flax's extension 1, NumPy's scalars as 3, complex numbers as 2."""
    match value:
        case Raw():
            return bytes(value)
        case None | False | True:
            return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
        case np.ndarray():
            return extension(1, array_payload(value.shape, value.dtype.name, value.tobytes()))
        case np.generic():
            return extension(3, array_payload((), value.dtype.name, value.tobytes()))
        case int():
            return b"\xd3" + value.to_bytes(8, "big", signed=True)
        case float():
            return b"\xcb" + struct.pack(">d", value)
        case complex():
            return extension(2, pack([value.real, value.imag]))
        case str():
            return b"\xd9" + bytes([len(value.encode())]) + value.encode()
        case bytes():
            return b"\xc6" + struct.pack(">I", len(value)) + value
        case list() | tuple():
            return b"\xdc" + struct.pack(">H", len(value)) + b"".join(map(pack, value))
        case dict():
            return b"\xde" + struct.pack(">H", len(value)) + b"".join(pack(k) + pack(v) for k, v in value.items())
    raise TypeError(type(value))


def extension(code: int, payload: bytes) -> bytes:
    return b"\xc9" + struct.pack(">Ib", len(payload), code) + payload


def array_payload(shape: Sequence[int], dtype: str, data: bytes) -> bytes:
    return pack([list(shape), dtype, data])


def record(array: Any) -> bytes:
    """One ``.npy`` record."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def varint(value: int) -> bytes:
    digits = []
    while value >= 128:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def varints(values: Sequence[int]) -> bytes:
    return b"".join(map(varint, values))


def framed(magic: int, body: bytes, compression: int = 0) -> bytes:
    """A manifest or node of OCDBT with its length and checksum."""
    inner = bytes([0, compression]) + body
    data = struct.pack(">I", magic) + struct.pack("<Q", 16 + len(inner)) + inner
    return data + struct.pack("<I", crc32c(data))


def table(files: Sequence[tuple[str, int]]) -> bytes:
    """A table of data files, each a path and how long its base path is."""
    names = [name.encode() for name, _ in files]
    lengths = varints([0] * max(len(names) - 1, 0)) + varints([len(n) for n in names])
    return varint(len(names)) + lengths + varints([base for _, base in files]) + b"".join(names)


def leaf(values: Mapping[str, bytes]) -> bytes:
    """A leaf whose values lie in it."""
    keys = [key.encode() for key in values]
    prefixes = varints([0] * max(len(keys) - 1, 0))
    lengths = varints([len(v) for v in values.values()])
    body = b"\0" + table([]) + varint(len(keys)) + prefixes + varints([len(k) for k in keys]) + b"".join(keys)
    return framed(NODE_MAGIC, body + lengths + bytes(len(keys)) + b"".join(values.values()))


def pointing_leaf(key: str, file: tuple[str, int], offset: int, length: int) -> bytes:
    """A leaf with one value that lies in a data file."""
    body = b"\0" + table([file]) + varints([1, len(key)]) + key.encode() + varint(length) + b"\1"
    return framed(NODE_MAGIC, body + varints([0, offset]))


def interior(height: int, key: str, file: tuple[str, int], offset: int, length: int) -> bytes:
    """A node with one child."""
    body = bytes([height]) + table([file]) + varints([1, len(key), 0]) + key.encode()
    return framed(NODE_MAGIC, body + varints([0, offset, length, 0, 0, 0]))


def manifest(file: tuple[str, int], offset: int, length: int, height: int = 0) -> bytes:
    """A manifest of one version."""
    config = bytes(16) + varints([0, 100, 1000]) + bytes([4]) + varint(0)
    versions = varints([1, 1]) + bytes([height]) + varints([0, offset, length, 0, 0, 0]) + bytes(8)
    return framed(MANIFEST_MAGIC, config + table([file]) + versions + varint(0))


def with_checksums(data: bytes) -> bytes:
    """The data with every manifest's and node's checksum made right."""
    fixed = bytearray(data)
    for magic in (MANIFEST_MAGIC, NODE_MAGIC):
        at = data.find(struct.pack(">I", magic))
        while at >= 0:
            (length,) = struct.unpack_from("<Q", data.ljust(at + 12, b"\0"), at + 4)
            if 16 <= length <= len(data) - at:
                fixed[at + length - 4 : at + length] = struct.pack("<I", crc32c(data[at : at + length - 4]))
            at = data.find(struct.pack(">I", magic), at + 4)
    return bytes(fixed)


def database(root: Path, values: Mapping[str, bytes]) -> Path:
    """An OCDBT database of one leaf."""
    root.mkdir(parents=True, exist_ok=True)
    node = leaf(values)
    (root / "data").write_bytes(node)
    (root / "manifest.ocdbt").write_bytes(manifest(("data", 0), 0, len(node)))
    return root


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())
