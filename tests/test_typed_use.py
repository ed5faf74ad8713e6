"""What users write, with the types that they get: .ci/run has mypy and pyright read it strictly, and pytest runs it."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmrt
from numpy.typing import NDArray

Numbers = NDArray[np.float32]


def layer() -> ssmrt.Model:
    return ssmrt.diagonal(A=[[-0.5 + 3j]], B=[[1.0]], C=[[1.0]], D=[0.0], dt=[0.05])


def test_answers_and_states_have_types_of_their_own() -> None:
    model, u = layer(), np.ones((8, 1), np.float32)
    y: Numbers = model(u)
    same: Numbers = model.forward(u, rate=1.0)
    also: Numbers = model.forward(u, return_state=False)
    last, state = model.forward(u, return_state=True)
    shapes: list[tuple[int, ...]] = [y.shape, same.shape, also.shape, last.shape, state.shape]
    assert shapes == [(8, 1)] * 4 + [(model.state_size,)]
    whether = bool(len(shapes))
    either: Any = model.forward(u, return_state=whether)
    assert isinstance(either, tuple)


def test_samples_and_streams_have_types() -> None:
    model = layer()
    y, state = model.step(np.ones(1), model.default_state(), rate=2.0)
    stream: ssmrt.Stream = model.stream(rate=2.0)
    z: Numbers = stream.step(np.ones(1))
    assert (y, state.shape) == (z, (model.state_size,))
    blob: bytes = stream.snapshot()
    again: ssmrt.Stream = pickle.loads(pickle.dumps(copy.deepcopy(stream)))
    assert again.snapshot() == blob
    owner: ssmrt.Model = stream.model
    rate: float = stream.rate
    assert (owner is model, rate) == (True, 2.0)


def test_facts_have_types(tmp_path: Path) -> None:
    model = layer()
    sizes: tuple[int, int, int] = (model.d_input, model.d_output, model.num_parameters)
    labels: tuple[str, ...] | None = model.labels
    constants: NDArray[np.float64] = model.modes(0).time_constants
    kernel: NDArray[np.float64] = model.kernel(0, 16)
    assert (sizes[:2], labels, constants.shape, kernel.shape) == ((1, 1), None, (1,), (1, 1, 16))
    model.save(tmp_path / "model.ssm.safetensors")
    loaded: ssmrt.Model = ssmrt.load(tmp_path / "model.ssm.safetensors")
    error: pytest.ExceptionInfo[ssmrt.CheckpointError]
    with pytest.raises(ssmrt.CheckpointError) as error:
        ssmrt.load(tmp_path / "nothing")
    assert isinstance(error.value, ssmrt.SsmrtError)
    assert repr(loaded) == repr(model)
