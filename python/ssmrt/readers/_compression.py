"""Decompression into no more memory than the caller expects and the compressed bytes can fill."""

from __future__ import annotations

import zlib
from typing import Any

from ..errors import CheckpointError

# A zstd block takes 4 bytes at least and holds 128 KiB at most (RFC 8878, 3.1.1.2); gzip stays far below that.
MAX_RATIO = 32768

CODECS = ("zstd", "gzip", "zlib")


def decompress(data: bytes | memoryview, codec: str, limit: int, where: str) -> bytes:
    """``data`` decompressed, ``limit`` bytes at most; ``codec`` is one of `CODECS`.

    Raises `CheckpointError` where it is damaged or larger, or where the library for it is not installed.
    """
    if codec == "zstd":
        result = _zstd(bytes(data), limit, where)
    elif codec in CODECS:
        result = _deflate(data, codec, limit, where)
    else:
        raise CheckpointError(f"{where}: expected compression by {', '.join(CODECS)}, found {codec!r:.80}")
    if len(result) > limit:
        raise CheckpointError(f"{where}: expected {limit} bytes at most, the {codec} data decompress to more")
    return result


def _zstd(data: bytes, limit: int, where: str) -> bytes:
    zstandard = _zstandard(where)
    try:
        declared = zstandard.get_frame_parameters(data).content_size
        if declared == zstandard.CONTENTSIZE_UNKNOWN:
            return _zstd_stream(zstandard, data, limit)
        if declared > limit or declared > MAX_RATIO * len(data):
            raise CheckpointError(
                f"{where}: {len(data)} bytes of zstd data declare {declared} bytes, expected {limit} at most"
            )
        result: bytes = zstandard.ZstdDecompressor().decompress(data, max_output_size=declared)
        return result
    except zstandard.ZstdError as error:
        raise CheckpointError(f"{where}: damaged zstd data: {error}") from None


def _zstd_stream(zstandard: Any, data: bytes, limit: int) -> bytes:
    pieces: list[bytes] = []
    total = 0
    with zstandard.ZstdDecompressor().stream_reader(data) as reader:
        while total <= limit and (piece := reader.read(1 << 18)):
            pieces.append(piece)
            total += len(piece)
    return b"".join(pieces)


def _deflate(data: bytes | memoryview, codec: str, limit: int, where: str) -> bytes:
    stream = zlib.decompressobj(wbits=31 if codec == "gzip" else 15)
    try:
        result = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise CheckpointError(f"{where}: damaged {codec} data: {error}") from None
    if not stream.eof and len(result) <= limit:
        raise CheckpointError(f"{where}: the {codec} data end early")
    return result


def _zstandard(where: str) -> Any:
    try:
        import zstandard
    except ImportError:
        raise CheckpointError(f"{where}: zstd-compressed, which needs zstandard: pip install zstandard") from None
    return zstandard
