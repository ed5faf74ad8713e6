"""ONNX Runtime on the step graph that ssmrt exports; one thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import work
from worker import Job, Skip


def versions() -> dict[str, str]:
    """What runs."""
    return {"onnxruntime": ort.__version__, "threads": "1"}


def prepare(name: str, p: dict[str, Any], folder: Path) -> Job:
    """The job of a piece of work."""
    if name != "spotter_step":
        raise Skip(f"no {name} in ONNX Runtime")
    path = folder / f"{p['model']}.onnx"
    if not path.is_file():
        raise Skip("the graph was not exported")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return _bound(session) if p["binding"] else _fed(session)


def _inputs() -> list[work.Array]:
    return list(work.clip()[:, :1000].transpose(1, 0, 2))


def _states(session: Any) -> dict[str, work.Array]:
    return {i.name: np.zeros(i.shape, np.float32) for i in session.get_inputs() if i.name != "x"}


def _fed(session: Any) -> Job:
    """Arrays in, arrays out: what the documentation shows first."""
    shape = session.get_inputs()[0].shape
    u = [v.reshape(shape) for v in _inputs()]
    names = ["y", *(f"next_{n}" for n in _states(session))]
    inputs = list(_states(session))
    states = list(_states(session).values())

    def call(u: work.Array) -> work.Array:
        nonlocal states
        y, *states = session.run(names, {"x": u, **dict(zip(inputs, states))})
        answer: work.Array = y
        return answer

    def output() -> work.Array:
        nonlocal states
        states = list(_states(session).values())
        return np.concatenate([call(v).reshape(1, -1) for v in u[:200]])[None]

    return Job(call, u, output, warm_calls=200)


def _bound(session: Any) -> Job:
    """Everything bound beforehand, two sets of states taking turns: nothing is allocated or looked up."""
    x = ort.OrtValue.ortvalue_from_numpy(np.zeros(session.get_inputs()[0].shape, np.float32))
    y = ort.OrtValue.ortvalue_from_numpy(np.zeros(session.get_outputs()[0].shape, np.float32))
    sets = [{n: ort.OrtValue.ortvalue_from_numpy(s) for n, s in _states(session).items()} for _ in range(2)]
    bindings = []
    for old, new in (sets, sets[::-1]):
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", x)
        binding.bind_ortvalue_output("y", y)
        for name in old:
            binding.bind_ortvalue_input(name, old[name])
            binding.bind_ortvalue_output(f"next_{name}", new[name])
        bindings.append(binding)
    u = [v.reshape(x.shape()) for v in _inputs()]
    turn = 0

    def call(u: work.Array) -> work.Array:
        nonlocal turn
        x.update_inplace(u)
        session.run_with_iobinding(bindings[turn])
        turn ^= 1
        answer: work.Array = y.numpy()
        return answer

    def output() -> work.Array:
        nonlocal turn
        turn = 0
        for name, zero in _states(session).items():
            sets[0][name].update_inplace(zero)
        return np.concatenate([call(v).reshape(1, -1).copy() for v in u[:200]])[None]

    return Job(call, u, output, warm_calls=200)
