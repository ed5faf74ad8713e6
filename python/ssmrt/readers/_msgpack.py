"""The MessagePack wire format: maps, arrays, strings, bytes, numbers and extensions, and nothing run.

A declared count takes no memory before its elements are there: a nest of headers that each declare a million
elements costs what its bytes do.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from ..errors import CheckpointError

_MAX_DEPTH = 100
_MAX_VALUES = 1_000_000


class Extension(NamedTuple):
    """A value of an application's own type."""

    code: int
    data: memoryview


def decode(data: bytes | memoryview, source: str) -> Any:
    """The one value in ``data``: None, bool, int, float, str, memoryview (bytes), list, dict or `Extension`.

    ``source`` names the data in errors. Raises `CheckpointError` where they are damaged, nested too deep, or go on
    after the value.
    """
    decoder = _Decoder(memoryview(data), source)
    value = decoder.value(0)
    if decoder.at != len(decoder.data):
        raise decoder.error(f"expected the end, found {len(decoder.data) - decoder.at} more bytes")
    return value


class _Decoder:
    def __init__(self, data: memoryview, source: str):
        self.data = data
        self.source = source
        self.at = 0
        self._values = 0

    def error(self, message: str) -> CheckpointError:
        return CheckpointError(f"{self.source}: msgpack at byte {self.at}: {message}")

    def value(self, depth: int) -> Any:
        self._values += 1
        if depth > _MAX_DEPTH or self._values > _MAX_VALUES:
            raise self.error(f"nested more than {_MAX_DEPTH} deep or more than {_MAX_VALUES} values")
        tag = self._unsigned(1)
        if tag <= 0x7F:
            return tag
        if tag >= 0xE0:
            return tag - 256
        if tag <= 0x8F:
            return self._map(tag & 0x0F, depth)
        if tag <= 0x9F:
            return self._array(tag & 0x0F, depth)
        if tag <= 0xBF:
            return self._text(tag & 0x1F)
        return self._tagged(tag, depth)

    def _tagged(self, tag: int, depth: int) -> Any:
        match tag:
            case 0xC0:
                return None
            case 0xC2 | 0xC3:
                return tag == 0xC3
            case 0xC4 | 0xC5 | 0xC6:
                return self._bytes(self._unsigned(1 << (tag - 0xC4)))
            case 0xC7 | 0xC8 | 0xC9:
                return self._extension(self._unsigned(1 << (tag - 0xC7)))
            case 0xCA:
                return struct.unpack(">f", self._bytes(4))[0]
            case 0xCB:
                return struct.unpack(">d", self._bytes(8))[0]
            case 0xCC | 0xCD | 0xCE | 0xCF:
                return self._unsigned(1 << (tag - 0xCC))
            case 0xD0 | 0xD1 | 0xD2 | 0xD3:
                return int.from_bytes(self._bytes(1 << (tag - 0xD0)), "big", signed=True)
            case 0xD4 | 0xD5 | 0xD6 | 0xD7 | 0xD8:
                return self._extension(1 << (tag - 0xD4))
            case 0xD9 | 0xDA | 0xDB:
                return self._text(self._unsigned(1 << (tag - 0xD9)))
            case 0xDC | 0xDD:
                return self._array(self._unsigned(2 << (tag - 0xDC)), depth)
            case 0xDE | 0xDF:
                return self._map(self._unsigned(2 << (tag - 0xDE)), depth)
        raise self.error(f"no value starts with byte {tag:#04x}")

    def _bytes(self, count: int) -> memoryview:
        if count > len(self.data) - self.at:
            raise self.error(f"{count} bytes declared, {len(self.data) - self.at} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def _unsigned(self, count: int) -> int:
        return int.from_bytes(self._bytes(count), "big")

    def _extension(self, count: int) -> Extension:
        code = int.from_bytes(self._bytes(1), "big", signed=True)
        return Extension(code, self._bytes(count))

    def _text(self, count: int) -> str:
        try:
            return str(self._bytes(count), "utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"a string that is not UTF-8: {error.reason}") from None

    def _array(self, count: int, depth: int) -> list[Any]:
        if count > len(self.data) - self.at:
            raise self.error(f"{count} elements declared, {len(self.data) - self.at} bytes are left")
        return [self.value(depth + 1) for _ in range(count)]

    def _map(self, count: int, depth: int) -> dict[Any, Any]:
        if 2 * count > len(self.data) - self.at:
            raise self.error(f"{count} entries declared, {len(self.data) - self.at} bytes are left")
        result: dict[Any, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, (str, int)):
                raise self.error(f"expected a string as key, found {type(key).__name__}")
            if key in result:
                raise self.error(f"key {key!r:.80} stands twice in a map")
            result[key] = self.value(depth + 1)
        return result
