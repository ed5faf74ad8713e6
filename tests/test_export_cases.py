"""Every real checkpoint that streams exports and answers as float64 does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import SHARED, Case, cases, relative_error
from oracle import run
from ssmrt import families, readers
from ssmrt.document import Document
from ssmrt.errors import ExportError
from ssmrt.export import OnnxStream, export_onnx

STEPS = 60
KWS = SHARED / "kws"


def load(case: Case) -> Document:
    path, config = case.files[0]
    return families.build(readers.read(path), config=config, arch=case.arch)


def check(document: Document, u: Any, path: Path) -> None:
    expected = run(document, u, streamed=True)
    for layout in ("planes", "blocks"):
        export_onnx(document, path, layout=layout)
        assert relative_error(OnnxStream(path).push(u), expected) < 1e-5


@pytest.mark.parametrize("case", [case for case in cases() if case.streams], ids=str)
def test_checkpoint_streams_in_onnx_runtime(case: Case, tmp_path: Path) -> None:
    u = case.io[0][0][:1, :STEPS]
    check(load(case), u, tmp_path / "model.onnx")


@pytest.mark.parametrize("case", [case for case in cases() if not case.streams], ids=str)
def test_checkpoint_that_looks_ahead_is_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"bidirectional|whole sequence"):
        export_onnx(load(case), tmp_path / "model.onnx")


@pytest.mark.skipif(not KWS.is_dir(), reason="needs ../shared/checkpoints/kws")
@pytest.mark.parametrize("name", ["kws_s4d", "kws_s4"])
def test_keyword_spotter_streams_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    document = families.build(readers.read(KWS / f"{name}.pth"), config={})
    with np.load(KWS / "test_clips.npz") as clips:
        code = clips["mulaw"][:1, 4000 : 4000 + STEPS, None] / 127.0
    u = np.sign(code) * (256 ** np.abs(code) - 1) / 255
    check(document, u.astype(np.float32), tmp_path / "model.onnx")
