"""The checksum of OCDBT nodes and zarr3 shards: CRC-32C (Castagnoli; RFC 3720, appendix B.4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # reflected
_SHORT = 4096


def _make_table() -> NDArray[np.uint32]:
    register = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        register = np.where(register & 1, (register >> 1) ^ np.uint32(_POLYNOMIAL), register >> 1).astype(np.uint32)
    return register


_TABLE = _make_table()
_TABLE_INTS: list[int] = _TABLE.tolist()


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of ``data`` as an unsigned 32-bit number."""
    register = 0xFFFFFFFF
    done = 0
    if len(data) >= _SHORT:
        register, done = _in_lanes(register, np.frombuffer(data, np.uint8))
    for byte in bytes(data[done:]):
        register = _TABLE_INTS[(register ^ byte) & 0xFF] ^ (register >> 8)
    return register ^ 0xFFFFFFFF


def _in_lanes(register: int, data: NDArray[np.uint8]) -> tuple[int, int]:
    """The register after as many bytes as fill equal lanes, and how many these were.

    The register is linear over GF(2) in its start and the data: R(s, lane) = R(s, zeros) ^ R(0, lane). So all
    lanes run at once from zero, along with the 32 unit registers over zeros, of which R(s, zeros) is a sum.
    """
    lanes = min(max(data.size // 1024, 16), 65536)
    width = data.size // lanes
    done = lanes * width
    columns = np.zeros((width, lanes + 32), np.uint8)
    columns[:, :lanes] = data[:done].reshape(lanes, width).T
    registers = np.zeros(lanes + 32, np.uint32)
    registers[lanes:] = np.uint32(1) << np.arange(32, dtype=np.uint32)
    for column in columns:
        registers = _TABLE[(registers ^ column) & np.uint32(0xFF)] ^ (registers >> np.uint32(8))
    units: list[int] = registers[lanes:].tolist()
    for lane in registers[:lanes].tolist():
        shifted = 0
        for bit, unit in enumerate(units):
            if register >> bit & 1:
                shifted ^= unit
        register = shifted ^ lane
    return register, done
