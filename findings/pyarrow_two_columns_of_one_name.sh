#!/usr/bin/env bash
# Guess: a table with two columns of one name is refused when it is written; or, once a Parquet file has it, every reader
# of the package reads it alike.
# What happens: write_table writes it. ParquetFile reads both columns, and gives both where columns=["left"] asks for one;
# read_table refuses the same file, whatever it is asked for; and to_pydict of what was read has the last column only.
# For recordings: two microphones of one name are two channels by one way, an error by another, and one channel by a third.
# Package: pyarrow 26.0.1. Date: 2026-11-29.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1
cd "$work"

"$work/venv/bin/python" - <<'PY'
import sys

import pyarrow as pa
from pyarrow import parquet

columns = [pa.array([1.0, 2.0]), pa.array([3.0, 4.0])]
parquet.write_table(pa.table(columns, names=["left", "left"]), "u.parquet")

file = parquet.ParquetFile("u.parquet")
chosen = file.read(columns=["left"])
both = [column.to_pylist() for column in chosen.columns]
as_dict = chosen.to_pydict()
try:
    parquet.read_table("u.parquet")
    refused = None
except pa.ArrowInvalid as error:
    refused = str(error).splitlines()[0]

print("pyarrow", pa.__version__)
print("ParquetFile, one column asked for:", chosen.column_names, both)
print("its to_pydict:", as_dict)
print("read_table:", refused)

if not (both == [[1.0, 2.0], [3.0, 4.0]] and as_dict == {"left": [3.0, 4.0]} and refused is not None):
    sys.exit("the behaviour has changed")
PY
