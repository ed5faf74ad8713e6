"""Mixing layers in int8: near float32, smaller, and the recurrence untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from export_documents import classifier, document, inputs, linear, others
from ssmrt.document import Document, Embedding
from ssmrt.export import OnnxStream, export_onnx

MODEL = classifier(4, 16, 8)


def signal_to_noise(reference: Any, y: Any) -> float:
    return float(10 * np.log10((reference**2).mean() / ((y - reference) ** 2).mean()))


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize("calibrated", [False, True])
def test_int8_stays_near_float32_and_says_how_near(calibrated: bool, chunk: int | None, tmp_path: Path) -> None:
    data = inputs(MODEL, 200, 2)
    mode: dict[str, Any] = {} if chunk is None else {"mode": "chunk", "chunk": chunk}
    full = export_onnx(MODEL, tmp_path / "full.onnx", **mode)
    report = export_onnx(
        MODEL, tmp_path / "int8.onnx", quantize="int8", calibration=data if calibrated else None, **mode
    )
    assert report.quantization is not None
    assert report.quantization.signal_to_noise > 30
    assert report.quantization.bytes_before == full.cost.weight_bytes
    assert report.quantization.bytes_after == report.cost.weight_bytes < full.cost.weight_bytes
    u = inputs(MODEL, 100, seed=11)
    reference = OnnxStream(tmp_path / "full.onnx").push(u)
    found = signal_to_noise(reference, OnnxStream(tmp_path / "int8.onnx").push(u))
    assert found == pytest.approx(report.quantization.signal_to_noise, abs=8)


def test_only_mixing_weights_are_int8(tmp_path: Path) -> None:
    export_onnx(MODEL, tmp_path / "int8.onnx", quantize="int8", calibration=inputs(MODEL, 50))
    graph = onnx.load(tmp_path / "int8.onnx").graph
    small = {t.name: list(t.dims) for t in graph.initializer if t.data_type == onnx.TensorProto.INT8}
    weights = [name for name in small if name.endswith("weight_int8")]
    assert weights == [
        f"{layer}_weight_int8" for layer in ("encoder", "layers_0_output_linear", "layers_1_output_linear", "decoder")
    ]
    assert {node.op_type for node in graph.node} >= {"QuantizeLinear", "DequantizeLinear", "Gemm"}
    scales = {t.name: list(t.dims) for t in graph.initializer if t.name.endswith("weight_scale")}
    assert scales["layers_0_output_linear_weight_scale"] == [32]
    assert all(v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for v in (*graph.input, *graph.output))


def test_a_scale_a_channel_keeps_small_channels(tmp_path: Path) -> None:
    layer = linear(6, 4)
    layer.weight[1] *= 1e-4
    layer.weight[2] = 0
    assert layer.bias is not None
    layer.bias[:] = 0
    model = document(layer, d_output=4)
    u = inputs(model)
    export_onnx(model, tmp_path / "model.onnx", quantize="int8")
    y, reference = OnnxStream(tmp_path / "model.onnx").push(u), u @ layer.weight.T
    assert signal_to_noise(reference[..., 1], y[..., 1]) > 35
    assert not y[..., 2].any()


@pytest.mark.parametrize(
    "model",
    [
        document(Embedding(np.eye(11, 6), name="embedding"), linear(6, 6, name="out"), d_input=1),
        others()["mamba_block"],
    ],
    ids=["tokens", "mamba"],
)
def test_other_models_quantise_too(model: Document, tmp_path: Path) -> None:
    report = export_onnx(model, tmp_path / "model.onnx", quantize="int8", calibration=inputs(model, 100))
    assert report.quantization is not None
    assert report.quantization.signal_to_noise > 25
