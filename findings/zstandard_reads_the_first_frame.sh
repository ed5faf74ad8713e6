#!/usr/bin/env bash
# Guess: ZstdDecompressor.decompress gives the whole content of a .zst file, as gzip.decompress does for a .gz
# of several members.
# What happens: of several frames, which the format allows, it gives the first and says nothing of the rest.
# stream_reader(..., read_across_frames=True) sees all.
# For readers of trained models: compare the decoded length with the shape, always.
# Package: zstandard 0.25.0. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check zstandard==0.25.0
cd "$work"

"$work/venv/bin/python" - <<'PY'
import gzip
import io
import sys

import zstandard

parts = b"first part, ", b"second part"
frames = b"".join(zstandard.ZstdCompressor().compress(part) for part in parts)
decompressor = zstandard.ZstdDecompressor()
short = decompressor.decompress(frames)
full = decompressor.stream_reader(io.BytesIO(frames), read_across_frames=True).read()

print("zstandard", zstandard.__version__)
print("decompress:", short, "read across frames:", full)
print("gzip:", gzip.decompress(b"".join(gzip.compress(part) for part in parts)))

if short != parts[0] or full != b"".join(parts):
    sys.exit("the behaviour has changed")
PY
