"""Each allocation of a call may fail: that is a MemoryError or the answer, states are as before, and nothing aborts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Makes each call again and again, in a child: of the engine's allocations one fails, the next one the next time; then
# all from one on; and so those of at least a page that anybody asks for, Python too. What came of it is printed.
DRIVER = """
import collections, ctypes, json, os, sys
import numpy as np
import ssmrt
from ssmrt.document import Dense, Diagonal, Document, Dplr, Linear, Norm, Residual, Sequential

path = sys.argv[1]
allocator = ctypes.CDLL(None)
allocator.arm.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t]
allocator.disarm.restype = ctypes.c_long
with open("/proc/self/maps") as maps:
    parts = [line.split()[0].split("-") for line in maps if "_native" in line]
ENGINE = int(parts[0][0], 16), int(parts[-1][1], 16)
ANYBODY = 0, 2**64 - 1
# Smaller allocations are those of others, of which some end the process: what Rust's standard library keeps of a
# thread that it starts has 48 bytes, and Python and the dynamic linker have some of up to a page.
OF_ENGINE, OF_ANYBODY = 49, 4096

g = np.random.default_rng(0)
H, N = 40, 20
A = -np.ones((H, N)) + 1j * np.arange(N)
complex_ones, D, dt = np.ones((1, H, N), complex), np.ones((1, H)), np.full(H, 0.01)
tree = Sequential((
    Linear(g.standard_normal((H, H)) / 8),
    Residual(Sequential((Diagonal(complex_ones, D, dt, A, A * 0 + 1), Norm("layer")))),
    Residual(Dplr(complex_ones, D, dt, A[:1], 0.1 * complex_ones[:, :1], A[:1] * 0 + 1)),
    Dense(np.ones((1, H, 8)), D, dt, -np.eye(8)[None], np.ones((1, 8))),
))
model = ssmrt.Model(Document(tree, H, H))
model.save(path)
# Its matrix is larger than what the engine's reserve gives at once.
wide = Document(Linear(g.standard_normal((1200, 2000)).astype(np.float32)), 2000, 1200)
ssmrt.Model(wide).save(path + ".wide")
u = g.standard_normal((2, 700, H)).astype(np.float32)
stream = model.stream(2)
stream.push(u[:, :100])
blob = stream.snapshot()
CALLS = {
    "load": lambda: ssmrt.load(path).d_input,
    "plan": lambda: ssmrt.Model(model.document).d_input,
    "load wide": lambda: ssmrt.load(path + ".wide").d_input,
    "plan wide": lambda: ssmrt.Model(wide, "float64").d_input,
    "rate": lambda: model.stream(rate=0.5).rate,
    "stream": lambda: model.stream(2000).batch,
    "push": lambda: stream.push(u),
    "active": lambda: stream.push(u[1:], active=[1]),
    "step": lambda: stream.step(u[:, 0]),
    "reset": lambda: stream.reset(),
    "snapshot": lambda: stream.snapshot(),
    "restore": lambda: stream.restore(blob),
    "forward": lambda: model(u),
    "fft": lambda: model(u, method="fft"),
    "stateless": lambda: model.step(u[0], model.default_state(700))[0],
    "kernel": lambda: model.kernel(0, 300),
    "save": lambda: model.save(path + ".again"),
}


def tried(call, whole, *failing):
    # What a call comes to, and how many such allocations it made.
    before = stream.snapshot()
    allocator.arm(*failing)
    try:
        answer = call()
        raised = None
    except BaseException as error:
        raised = error
    met = allocator.disarm()
    if raised is None:
        said = "the answer" if np.array_equal(answer, whole) else "another answer"
    elif not isinstance(raised, MemoryError):
        said = repr(raised)[:300]
    else:
        said = "MemoryError" if stream.snapshot() == before else "another state"
    stream.restore(blob)
    return met, said


def of_all(call):
    whole = call()
    stream.restore(blob)
    outcomes = collections.Counter()
    for least, code in ((OF_ENGINE, ENGINE), (OF_ANYBODY, ANYBODY)):
        met, _ = tried(call, whole, -2, 1, least, *code)
        for count in (1, 2**40):
            for n in range(met):
                outcomes[tried(call, whole, n, count, least, *code)[1]] += 1
    return outcomes


def child(call):
    # What an engine at the end of its memory has taken from its reserve does not come back with a plan that is kept.
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as file:
            json.dump(of_all(call), file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    _, status = os.waitpid(pid, 0)
    return json.loads(said) if status == 0 else {f"status {status}": 1}


print(json.dumps({name: child(call) for name, call in CALLS.items()}))
"""


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs glibc and a C compiler")
def test_each_allocation_may_fail(tmp_path: Path) -> None:
    shim = tmp_path / "failing_malloc.so"
    source = Path(__file__).with_name("failing_malloc.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", shim, source], check=True)
    env = {**os.environ, "LD_PRELOAD": str(shim), "SSMRT_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "model.ssm.safetensors")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    bad = {name: outcomes for name, outcomes in found.items() if set(outcomes) - {"MemoryError", "the answer"}}
    assert not bad, (bad, done.stderr[-1000:])
    # Calls that need memory met the end of it.
    for name in ("load", "plan", "load wide", "plan wide", "stream", "push", "snapshot", "forward", "fft"):
        assert "MemoryError" in found[name], (name, found[name])
