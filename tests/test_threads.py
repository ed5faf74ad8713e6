"""A model is shared by threads."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import ssmrt
from numpy.typing import NDArray


def test_threads_run_one_model_at_many_rates() -> None:
    """More rates than the model keeps plans for, so that threads make and drop them under one another."""
    model = ssmrt.diagonal([[-1.0]], [[1.0]], [[1.0]], None, 0.1)
    u = np.ones((1, 1), np.float32)
    rates = np.linspace(0.1, 1, 200).tolist()
    expected = np.array([model.stream(rate=rate).step(u).item() for rate in rates])

    def run(thread: int) -> NDArray[np.float64]:
        # Each thread begins elsewhere.
        order = np.roll(rates, 25 * thread).tolist() * 50
        return np.array([model.stream(rate=rate).step(u).item() for rate in order])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(run, range(8)))
    finally:
        sys.setswitchinterval(interval)
    for thread, found in enumerate(answers):
        np.testing.assert_array_equal(found, np.tile(np.roll(expected, 25 * thread), 50))


# More weights than one core's caches hold, so that threads share in every sample.
LARGE = """
import hashlib, os, sys
import numpy as np
import ssmrt
from ssmrt import Document, Model
from ssmrt.document import Activation, Embedding, Glu, Linear, Sequential

def model(weights=None):
    g = np.random.default_rng(0)
    def matrix(*shape):
        return g.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[-1]))
    H = 1200
    table = matrix(50, H)
    s4d = ssmrt.diagonal(-g.uniform(0.1, 1, (H, 4)) + 1j, np.ones((H, 4)), matrix(H, 4), np.ones(H), 0.01)
    nodes = [Embedding(table), Linear(matrix(1600, H), matrix(1600)), Activation("silu"), Linear(matrix(2 * H, 1600)),
             Glu(), s4d.document.root, Linear(table)]
    return Model(Document(Sequential(tuple(nodes)), 1, 50), weights=weights)

def answers(model):
    stream, u = model.stream(3), np.arange(120).reshape(3, 40) % 50
    yield from (stream.step(u[:, t]) for t in range(3))
    yield stream.push(u[:, 3:10])
    yield stream.step(u[:2, 11], active=np.array([0, 2]))
    yield stream.push(u[:, 12:], dt=np.repeat([[1.0, 2.0]], 14, 1).repeat(3, 0))
    yield from model.step(u[:, 0], model.default_state(3))
    yield model(u[:, :5])
    yield model(u)

def digest(model):
    return hashlib.sha256(b"".join(np.ascontiguousarray(y).tobytes() for y in answers(model))).hexdigest()
"""


def run_large(threads: int, script: str) -> str:
    environment = {**os.environ, "SSMRT_NUM_THREADS": str(threads)}
    done = subprocess.run([sys.executable, "-c", LARGE + script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("weights", [None, "bfloat16", "int8"])
def test_samples_are_the_same_on_any_number_of_threads(weights: str | None) -> None:
    script = f"print(digest(model({weights!r})))"
    assert len({run_large(threads, script) for threads in (1, 2, 5)}) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="what a thread has run is in Linux's /proc")
def test_a_stream_has_no_more_threads_than_it_was_given() -> None:
    """Of single samples, which a crew shares in, and of blocks of many streams; the answers are the same."""
    script = """
import pickle
from pathlib import Path

def run_by_others():
    # Nanoseconds, of each thread but this one that has run at all.
    tasks = [task for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())]
    return {task.name: int((task / "schedstat").read_text().split()[0]) for task in tasks}

m, u, found = model(), np.arange(64 * 40).reshape(64, 40) % 50, []
m.stream(64).push(u)  # All threads are there.
def helped(streams):
    before = run_by_others()
    found.append([streams.step(u[:, 0]), streams.push(u), streams.step(u[:1, 1], active=[0])])
    return sum(run > before[name] + 1e6 for name, run in run_by_others().items() if name in before)

import time
time.sleep(0.05)
alone = helped(m.stream(64, threads=1)), helped(pickle.loads(pickle.dumps(m.stream(64, threads=1))))
m.stream(64, threads=2).push(u)  # The pool of two is there.
two, all_of_them = helped(m.stream(64, threads=2)), helped(m.stream(64))
same = all(np.array_equal(a, b) for one in found for a, b in zip(one, found[0]))
print(*alone, 1 <= two <= 3, all_of_them >= 3, same, m.stream(64, threads=2).threads, m.stream().threads)
"""
    assert run_large(4, script) == "0 0 True True True 2 None\n"


@pytest.mark.skipif(sys.platform != "linux", reason="what a thread has run is in Linux's /proc")
def test_a_short_sequence_wakes_no_thread() -> None:
    script = """
import time
from pathlib import Path
from ssmrt import demo

def run_by_others():
    tasks = [task for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)

m, found = demo.spotter(), []
m(np.zeros((20_000, 1), np.float32))  # All threads are there.
for length in (1, 8, 4000):
    time.sleep(0.05)
    before = run_by_others()
    m(np.zeros((length, 1), np.float32))
    time.sleep(0.05)
    found.append(run_by_others() > before)
print(*found)
"""
    assert run_large(3, script) == "False False True\n"


def test_callers_share_a_model_whose_samples_are_shared_out() -> None:
    """One of them has the helpers at a time; a child of the process has none."""
    script = """
from concurrent.futures import ThreadPoolExecutor
m = model()
with ThreadPoolExecutor(3) as pool:
    found = set(pool.map(digest, [m] * 6))
read, write = os.pipe()
if not os.fork():
    os.write(write, digest(m).encode())
    os._exit(0)
os.wait()
found.add(os.read(read, 1000).decode())
print(len(found))
"""
    assert run_large(3, script) == "1\n"


INTERPRETERS = """
import ssmrt
try:
    import _interpreters as interpreters
except ModuleNotFoundError:
    import _xxsubinterpreters as interpreters
interpreters.run_string(interpreters.create(), '''
try:
    import ssmrt
except ImportError as error:
    print("ImportError", end="", flush=True)
''')
"""


def test_a_second_interpreter_in_the_process_is_refused() -> None:
    found = subprocess.run([sys.executable, "-c", INTERPRETERS], check=True, capture_output=True, text=True)
    assert found.stdout == "ImportError", found.stderr


POOL = """
import os, sys, time
from pathlib import Path
import numpy as np
from ssmrt import demo

if sys.argv[1:]:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
model = demo.spotter()
model(np.zeros((16_000, 1), np.float32))
names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
time.sleep(0.1)
before = time.process_time()
time.sleep(0.5)
print(1 + sum(name.startswith("ssmrt") for name in names), time.process_time() - before)
"""


def pool(said: str | None, *arguments: str) -> tuple[int, float]:
    """Threads that share in a call, the caller among them, and what half a second of its sleep costs, in seconds."""
    environment = {name: value for name, value in os.environ.items() if name != "SSMRT_NUM_THREADS"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)} | ({"SSMRT_NUM_THREADS": said} if said else {})
    command = [sys.executable, "-c", POOL, *arguments]
    found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.split()
    return int(found[0]), float(found[1])


@pytest.mark.skipif(sys.platform != "linux", reason="threads by their names are Linux's")
def test_there_are_as_many_threads_as_were_said_or_as_cores_may_be_used() -> None:
    assert pool("3")[0] == 3
    assert pool(None)[0] <= len(os.sched_getaffinity(0))
    assert pool(None, "on one core")[0] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="threads by their names are Linux's")
def test_threads_without_work_sleep() -> None:
    assert pool("8")[1] < 0.05
