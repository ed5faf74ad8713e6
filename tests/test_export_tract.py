"""tract runs the same graphs to the same answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from export_documents import inputs, others, state_spaces
from oracle import run
from ssmrt.export import export_onnx

tract = pytest.importorskip("tract", reason="needs tract, pip install tract")

DOCUMENTS = {**state_spaces(), **others()}


@pytest.mark.parametrize(
    "name", ["classifier", "dplr_rank3", "dense_outputs", "mimo", "mamba_block", "diagonal_cut", "tokens"]
)
def test_tract_answers_as_float64_does(name: str, tmp_path: Path) -> None:
    model, path = DOCUMENTS[name], tmp_path / "model.onnx"
    report = export_onnx(model, path)
    u = inputs(model)
    runnable = tract.onnx().load(str(path)).into_model().into_runnable()
    states = [np.zeros(shape, np.float32) for _, shape in report.states]
    answers = []
    for x in u[0]:
        y, *states = [tensor.to_numpy() for tensor in runnable.run([x[None], *states])]
        answers.append(y[0])
    expected = run(model, u, streamed=True)[0]
    assert np.abs(np.stack(answers) - expected).max() < 5e-6 * np.abs(expected).max()
