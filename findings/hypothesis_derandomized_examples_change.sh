#!/usr/bin/env bash
# Guess: with derandomize=True a test meets the same examples in every run.
# What happens: Hypothesis mixes constants into its examples that it finds in the source of the project's modules,
# of those that happen to be loaded. One more import anywhere in the process, as of another test file that is
# collected too, changes the examples of a test that has nothing to do with it.
# For property tests with a tolerance: load the whole package before the first test, or a test that passes alone fails
# beside others.
# Packages: hypothesis 6.170.17. Date: 2026-11-28.

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check hypothesis==6.170.17
mkdir "$work/project"
cd "$work/project"
echo 'LIMITS = [123_457, 654_321, 271_828, 314_159, 999_983]' >other.py
cat >examples.py <<'PY'
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

if sys.argv[1:] == ["with"]:
    import other

met = []


@settings(max_examples=300, derandomize=True, database=None)
@given(st.integers())
def collect(n):
    met.append(n)


collect()
print(len(met), hash(tuple(met)))
PY
alone=$("$work/venv/bin/python" examples.py)
again=$("$work/venv/bin/python" examples.py)
beside=$("$work/venv/bin/python" examples.py with)
echo "alone:  $alone"
echo "again:  $again"
echo "beside an imported module: $beside"
if [[ $alone != "$again" || $alone == "$beside" ]]; then
    echo "the behaviour has changed" >&2
    exit 1
fi
