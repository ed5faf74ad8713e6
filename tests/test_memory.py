"""Too little memory is a MemoryError, and changes nothing; a file asks for no more than its size justifies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ssmrt
from ssmrt.document import Activation, Document, Residual, Sequential, to_bytes

# In a process of its own, whose memory is limited: each line is called, and must raise MemoryError.
LIMITED = """
import resource
import numpy as np
import ssmrt

ones = np.ones
one = ssmrt.diagonal([[-0.5]], [[1]], [[1]], [1.0], [0.01])
many = ssmrt.diagonal(-ones((1, 8)), ones((1, 8)), ones((400, 1, 8)), ones((400, 1)), 0.01)
wide = ssmrt.diagonal(-ones((1, 32)), ones((1, 32)), ones((1, 16, 32)), ones((1, 16)), 0.01)
streams = wide.stream(50_000)
long = np.zeros((1, 2**24, 1), np.float32)
one(long[:, :1000])
few = many.stream()
few.push(np.ones((1, 10, 1), np.float32))
before = few.snapshot()

with open("/proc/self/statm") as file:
    limit = int(file.read().split()[0]) * resource.getpagesize() + (256 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
CALLS = [
    lambda: wide.stream(10**8),
    lambda: streams.snapshot(),
    lambda: one(long, method="fft"),
    lambda: many(long[:, : 2**20]),
    lambda: few.push(long[:, : 2**20]),
    lambda: wide.kernel(0, 2**25),
    lambda: ssmrt.ops.krylov(np.eye(64)[None], ones((1, 64)), 2**24),
    lambda: ssmrt.ops.causal_conv(long[:, :, 0], long[:, :, 0]),
    lambda: wide.default_state(10**8),
    lambda: wide.step(np.zeros((10**5, 16)), np.broadcast_to(wide.default_state(), (10**5, wide.state_size))),
]
for number, call in enumerate(CALLS):
    try:
        call()
    except MemoryError:
        continue
    except ValueError as error:
        raise SystemExit(f"{number}: {error!r}")
    raise SystemExit(f"{number}: no MemoryError")
assert few.snapshot() == before
few.push(np.ones((1, 10, 1), np.float32))
one(long[:, :1000])
print("all raised")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_too_little_memory_is_an_error_and_changes_nothing() -> None:
    env = {**os.environ, "SSMRT_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", LIMITED], env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("all raised\n", 0), done.stderr[-2000:]


def nested(width: int, depth: int) -> Document:
    """A file of a few hundred bytes a level, each of which keeps activations as wide as the input."""
    node: Residual | Activation = Activation("tanh")
    for _ in range(depth):
        node = Residual(Sequential((Activation("tanh"), node)))
    return Document(node, width, width)


def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    path = tmp_path / "nested.ssm.safetensors"
    path.write_bytes(to_bytes(nested(1 << 20, 40)))
    with pytest.raises(ssmrt.CheckpointError, match=r"expected activations of at most \d+ numbers a sample, found \d+"):
        ssmrt.load(path)


def test_blocks_of_wide_activations_are_short() -> None:
    model = ssmrt.Model(nested(50_000, 20))
    u = np.random.default_rng(0).standard_normal((1, 100, 50_000)).astype(np.float32)
    expected = np.concatenate([model(u[:, i : i + 10]) for i in range(0, 100, 10)], 1)
    np.testing.assert_array_equal(model(u), expected)
