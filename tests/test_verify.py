"""`verify` says yes of models that are right, and no of those that are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ssmrt
from cases import Case, cases
from ssmrt.document import Document, Linear, Sequential

# One of each family: their variants are proved elsewhere.
ONE_OF_EACH = list({case.arch: case for case in cases()}.values())


def load(case: Case, dtype: str = "float32") -> ssmrt.Model:
    path, config = case.files[0]
    return ssmrt.load(path, config=config, arch=case.arch, dtype="float64" if dtype == "float64" else "float32")


@pytest.mark.filterwarnings("ignore:layer layers_./seq is unstable:UserWarning")
@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda case: case.arch)
def test_every_family_is_verified(case: Case) -> None:
    model = load(case)
    found = ssmrt.verify(model, layers=True)
    assert found.ok, str(found)
    assert found.layers
    steps = [check for check in found.checks if check.name == "step"]
    assert all((check.error is None) == (not model.streamable) for check in steps)


def test_float64_is_held_to_float64() -> None:
    found = ssmrt.verify(load(next(case for case in ONE_OF_EACH if case.arch == "s5"), "float64"))
    assert found.ok
    assert {check.tolerance for check in found.checks} == {1e-10}


def test_a_wrong_graph_is_told(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs ssmrt[onnx]")
    weight = np.random.default_rng(0).standard_normal((3, 2))
    right = ssmrt.Model(Document(Sequential((Linear(weight, np.zeros(3), name="map"),)), 2, 3, {}))
    ssmrt.export_onnx(right, tmp_path / "m.onnx")
    assert ssmrt.verify(right, tmp_path / "m.onnx").ok
    root = Sequential((Linear(weight * (1 + 1e-4), np.zeros(3), name="map"),))
    wrong = ssmrt.Model(replace(right.document, root=root))
    found = ssmrt.verify(wrong, tmp_path / "m.onnx")
    assert [check.name for check in found.checks if not check.ok] == ["ONNX step"]
    assert not found.ok
    assert "WRONG" in str(found)
    assert found.as_dict()["ok"] is False
    narrow = ssmrt.Model(Document(Linear(weight[:2], None), 2, 2, {}))
    with pytest.raises(ValueError, match=r"2 -> 2.*2 -> 3"):
        ssmrt.verify(narrow, tmp_path / "m.onnx")


def test_your_own_input_is_used() -> None:
    model = ssmrt.diagonal(-np.ones((2, 3)) + 1j, np.ones((2, 3)), np.ones((2, 3)), None, 0.1)
    assert ssmrt.verify(model, u=np.zeros((1, 20, 2))).ok
    with pytest.raises(ValueError, match="u: expected"):
        ssmrt.verify(model, u=np.zeros((1, 20, 5)))
