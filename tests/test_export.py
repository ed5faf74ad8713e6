"""Exported graphs answer as the float64 oracle does, and keep the rules that targets need."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
import pytest
from export_documents import (
    classifier,
    dense,
    diagonal,
    discrete_dense,
    document,
    dplr,
    inputs,
    linear,
    mimo,
    norm,
    others,
    selective,
    state_spaces,
)
from oracle import run
from ssmrt.document import Activation, Document, Embedding, Pool, Sequential
from ssmrt.errors import ExportError
from ssmrt.export import ExportReport, OnnxStream, export_onnx

DOCUMENTS = {**state_spaces(), **others()}
CHUNKED = [name for name in DOCUMENTS if not name.startswith(("selective", "ssd", "mamba"))]
FORBIDDEN = {"Scan", "Loop", "If", "Einsum", "DFT", "STFT", "Gelu", "LayerNormalization", "CumSum"}
LAYOUTS = ("planes", "blocks")


def error(y: Any, reference: Any) -> float:
    return float(np.abs(y - reference).max() / np.abs(reference).max())


def shape_of(value: Any) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_step_graph_is_the_model(name: str, layout: str, tmp_path: Path) -> None:
    model, path = DOCUMENTS[name], tmp_path / "model.onnx"
    export_onnx(model, path, layout=layout)
    u = inputs(model)
    expected = run(model, u, streamed=True)
    stream = OnnxStream(path)
    y = np.stack([stream.step(u[:, t]) for t in range(u.shape[1])], 1)
    assert error(y, expected) < 3e-6
    assert stream.position.tolist() == [u.shape[1]]


@pytest.mark.parametrize("chunk", [1, 4])
@pytest.mark.parametrize("name", CHUNKED)
def test_chunk_graph_is_the_step_graph(name: str, chunk: int, tmp_path: Path) -> None:
    model, path = DOCUMENTS[name], tmp_path / "model.onnx"
    export_onnx(model, path, mode="chunk", chunk=chunk, batch=2)
    u = inputs(model, batch=2)
    stream = OnnxStream(path)
    y = np.concatenate([stream.push(u[:, :20]), stream.push(u[:, 20:])], 1)
    assert error(y, run(model, u, streamed=True)) < 3e-6


@pytest.mark.parametrize(
    "name", ["classifier", "diagonal_outputs", "dplr_rank3", "dense", "mimo", "mamba_block", "tokens"]
)
def test_batch_is_single_streams(name: str, tmp_path: Path) -> None:
    model = DOCUMENTS[name]
    export_onnx(model, tmp_path / "three.onnx", batch=3)
    export_onnx(model, tmp_path / "one.onnx")
    u = inputs(model, batch=3)
    together = OnnxStream(tmp_path / "three.onnx").push(u)
    apart = np.concatenate([OnnxStream(tmp_path / "one.onnx").push(u[i : i + 1]) for i in range(3)])
    assert error(together, apart) < 2e-6


@pytest.mark.parametrize("rate", [0.5, 2.0])
@pytest.mark.parametrize(
    "model",
    [diagonal(), diagonal(kernel_length=8), dplr(), dense(), dense(disc="zoh"), mimo(), selective()],
    ids=lambda v: type(v).__name__ if not isinstance(v, float) else None,
)
def test_rate_is_baked_in(model: Any, rate: float, tmp_path: Path) -> None:
    doc = document(model)
    export_onnx(doc, tmp_path / "model.onnx", rate=rate)
    stream = OnnxStream(tmp_path / "model.onnx")
    assert error(stream.push(inputs(doc)), run(doc, inputs(doc), rate=rate, streamed=True)) < 3e-6
    assert stream.contract["rate"] == rate


def test_slow_modes_keep_their_decay_over_long_streams(tmp_path: Path) -> None:
    # Factors rounded to float32, instead of their distances from one, would put the answer off by 1e-4.
    doc = document(diagonal(h=2, n=4, dt=np.array([3e-4, 1e-3])), d_input=2, d_output=2)
    export_onnx(doc, tmp_path / "model.onnx")
    u = 1 + 0.1 * inputs(doc, 20000)
    assert error(OnnxStream(tmp_path / "model.onnx").push(u), run(doc, u)) < 5e-6


def run_in_place(path: Path, samples: Any) -> Any:
    """The answers where every next state is written over the old one."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    contract = json.loads(session.get_modelmeta().custom_metadata_map["ssmrt"])
    starts = {
        state["input"]: 0.0 if state["start"] == "zero" else np.reshape(state["start"], state["shape"][1:])
        for state in contract["states"]
    }
    states = {
        value.name: ort.OrtValue.ortvalue_from_numpy(np.full(value.shape, starts[value.name], np.float32))
        for value in session.get_inputs()[1:]
    }
    answers = []
    for x in samples:
        binding = session.io_binding()
        binding.bind_cpu_input("x", np.ascontiguousarray(x))
        binding.bind_output("y")
        for name, value in states.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(f"next_{name}", value)
        session.run_with_iobinding(binding)
        answers.append(binding.copy_outputs_to_cpu()[0].copy())
    return np.stack(answers)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_states_survive_in_place_buffers(name: str, layout: str, tmp_path: Path) -> None:
    model, path = DOCUMENTS[name], tmp_path / "model.onnx"
    u = inputs(model)
    expected = run(model, u, streamed=True)[0]
    export_onnx(model, path, layout=layout)
    assert error(run_in_place(path, u[0][:, None])[:, 0], expected) < 3e-6
    if name in CHUNKED:
        export_onnx(model, path, layout=layout, mode="chunk", chunk=5)
        blocks = u[0].reshape(-1, 1, 5, *u.shape[2:])
        assert error(run_in_place(path, blocks).reshape(expected.shape), expected) < 3e-6


@pytest.mark.parametrize("options", [{}, {"layout": "blocks"}, {"mode": "chunk", "chunk": 3}], ids=str)
@pytest.mark.parametrize("name", CHUNKED)
def test_graph_keeps_the_rules(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(DOCUMENTS[name], path, **options)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    graph = model.graph
    assert not {node.op_type for node in graph.node} & FORBIDDEN
    kinds = {tensor.data_type for tensor in graph.initializer}
    assert kinds <= {onnx.TensorProto.FLOAT, onnx.TensorProto.INT64}
    count = len(graph.input) - 1
    assert [v.name for v in graph.input] == ["x", *(f"state_{i}" for i in range(count))]
    assert [v.name for v in graph.output] == ["y", *(f"next_state_{i}" for i in range(count))]
    assert [shape_of(v) for v in graph.input[1:]] == [shape_of(v) for v in graph.output[1:]]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    for value in (*graph.input, *graph.output, *inferred.value_info):
        assert all(size > 0 for size in shape_of(value)), value.name
    names = [name for node in graph.node for name in node.output] + [t.name for t in graph.initializer]
    names += [v.name for v in graph.input]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) for name in names)
    assert len({node.name for node in graph.node}) == len(graph.node)
    for i in range(count):
        assert len([node for node in graph.node if f"next_state_{i}" in node.output]) == 1


def readers_of(graph: Any, name: str) -> list[Any]:
    return [node for node in graph.node if name in node.input]


@pytest.mark.parametrize("options", [{}, {"layout": "blocks"}, {"mode": "chunk", "chunk": 3}], ids=str)
@pytest.mark.parametrize("name", CHUNKED)
def test_writer_of_a_state_depends_on_every_read_of_the_old(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(DOCUMENTS[name], path, **options)
    graph = onnx.load(path).graph
    maker = {out: node for node in graph.node for out in node.output}
    for i in range(len(graph.input) - 1):
        above: set[str] = set()
        waiting = [maker[f"next_state_{i}"]]
        while waiting:
            node = waiting.pop()
            if node.name not in above:
                above.add(node.name)
                waiting += [maker[name] for name in node.input if name in maker]
        # Reshape and Split of a state may be views of it: whoever reads those reads the state.
        views = [f"state_{i}"]
        for view in views:
            for node in readers_of(graph, view):
                assert node.name in above, f"{node.name} may read state_{i} too late"
                views += node.output if node.op_type in ("Reshape", "Split") else []


@pytest.mark.parametrize("opset", range(13, 21))
def test_every_opset_is_the_same_function(opset: int, tmp_path: Path) -> None:
    model = classifier(3)
    export_onnx(model, tmp_path / "model.onnx", opset=opset)
    assert onnx.load(tmp_path / "model.onnx").opset_import[0].version == opset
    assert (
        error(OnnxStream(tmp_path / "model.onnx").push(inputs(model)), run(model, inputs(model), streamed=True)) < 2e-6
    )


def test_each_layer_is_one_scope(tmp_path: Path) -> None:
    model = classifier()
    export_onnx(model, tmp_path / "model.onnx")
    names = [node.name for node in onnx.load(tmp_path / "model.onnx").graph.node]
    scopes = ("encoder_", "layers_0_", "layers_1_", "norms_0_", "norms_1_", "pool_", "decoder_", "next_state_", "y")
    assert all(name.startswith(scopes) for name in names)
    assert "layers_0_kernel_C_x" in names


def test_contract_tells_how_to_call_the_graph(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    report = export_onnx(classifier(), path, rate=2.0, contract_json=True)
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    contract = json.loads(properties["ssmrt"])
    assert contract == json.loads((tmp_path / "model.json").read_text())
    assert contract["rate"] == 2.0
    assert contract["pooling"] == "mean"
    assert contract["input"] == {"name": "x", "dtype": "float32", "shape": [1, 1]}
    assert contract["output"] == {"name": "y", "dtype": "float32", "shape": [1, 4]}
    assert [state["layer"] for state in contract["states"]] == ["layers.0.kernel", "layers.1.kernel", "pool"]
    for i, state in enumerate(contract["states"]):
        assert (state["input"], state["output"], state["start"]) == (f"state_{i}", f"next_state_{i}", "zero")
    assert isinstance(report, ExportReport)
    assert report.file_bytes == path.stat().st_size
    assert "multiply-adds" in str(report)


def test_report_counts_the_multiply_adds(tmp_path: Path) -> None:
    linear_only = export_onnx(document(linear(6, 4), d_output=4), tmp_path / "model.onnx")
    assert linear_only.cost.multiply_adds == 6 * 4
    assert linear_only.cost.weight_bytes == 4 * (6 * 4 + 4)
    layouts = [export_onnx(document(diagonal()), tmp_path / "m.onnx", layout=layout).cost for layout in LAYOUTS]
    modes = 6 * 5
    # Four for each rotation, two for each output, one channel's D.
    assert [cost.multiply_adds for cost in layouts] == [6 * modes + 6] * 2
    assert layouts[0].state_bytes == 4 * 2 * modes


def test_a_model_with_a_document_is_taken_too(tmp_path: Path) -> None:
    class Model:
        document = classifier()

    export_onnx(Model(), tmp_path / "model.onnx")
    with pytest.raises(TypeError, match="expected an ssmrt model"):
        export_onnx(3, tmp_path / "other.onnx")  # type: ignore[arg-type]


BIDIRECTIONAL = diagonal(C_reverse=diagonal().C, name="layers.3.kernel")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (document(BIDIRECTIONAL), {}, r"layers\.3\.kernel.*bidirectional"),
        (document(mimo(C_reverse=mimo().C)), {}, "'ssm' is bidirectional"),
        (document(diagonal(disc="dss")), {}, "'ssm'.*depends on the whole sequence"),
        (document(selective()), {"mode": "chunk", "chunk": 4}, "'ssm'.*mode=\"step\""),
        (document(mimo(discrete=True)), {"rate": 2.0}, "'ssm' is discrete-time.*rate=1"),
        (document(discrete_dense()), {"rate": 2.0}, "'ssm' is discrete-time.*rate=1"),
        (document(diagonal(disc="euler", dt=np.full(6, 0.01))), {"rate": 50.0}, "'ssm' is unstable at rate=50"),
        (document(linear(6, 6, name="a.b"), linear(6, 6, name="a/b")), {}, r"'a\.b' and 'a/b'.*rename"),
        (document(linear(5, 6, name="wide")), {}, '"wide".*expected an input of width 5, found 6'),
        (document(diagonal(4)), {}, '"ssm".*expected an input of width 4, found 6'),
        (document(Activation("gelu"), d_output=3), {}, "d_output: expected 6, which the last node gives, found 3"),
        (document(Sequential((Pool("mean", name="inner"),))), {}, '"inner".*outermost'),
        (document(norm(eps=float("nan"))), {}, "tree is damaged"),
        (document(linear(6, 6)), {"mode": "scan"}, "mode: expected 'step' or 'chunk'"),
        (document(linear(6, 6)), {"mode": "chunk"}, "chunk: mode='chunk' needs"),
        (document(linear(6, 6)), {"mode": "chunk", "chunk": 0}, "chunk: expected 1 or more"),
        (document(linear(6, 6)), {"chunk": 4}, "no meaning in mode='step'"),
        (document(linear(6, 6)), {"batch": 0}, "batch: expected"),
        (document(linear(6, 6)), {"rate": -1.0}, "rate: expected"),
        (document(linear(6, 6)), {"rate": float("nan")}, "rate: expected"),
        (document(linear(6, 6)), {"rate": "2"}, "rate: expected a number, found '2'"),
        (document(linear(6, 6)), {"rate": True}, "rate: expected a number, found True"),
        (document(linear(6, 6)), {"batch": 10**30}, "batch: expected .* at most, found"),
        (document(linear(6, 6)), {"layout": ["planes"]}, "layout: expected a string, found"),
        (document(linear(6, 6)), {"opset": 12}, "opset: expected 13 to 20, found 12"),
        (document(linear(6, 6)), {"opset": 21}, "opset: expected 13 to 20, found 21"),
        (document(linear(6, 6)), {"layout": "rows"}, "layout: expected 'planes' or 'blocks'"),
        (document(linear(6, 6)), {"quantize": "int4"}, "quantize: expected None or 'int8'"),
        (document(linear(6, 6)), {"calibration": np.zeros((3, 6))}, "only quantize='int8'"),
        (document(norm()), {"quantize": "int8"}, "no mixing layer"),
        (document(linear(6, 6)), {"quantize": "int8", "calibration": np.zeros((3, 5))}, r"\(length, 6\).*\(3, 5\)"),
        (document(linear(6, 6)), {"quantize": "int8", "calibration": np.full((3, 6), np.nan)}, "finite"),
        (
            replace(document(Embedding(np.ones((4, 6))), linear(6, 6)), d_input=1),
            {"quantize": "int8", "calibration": np.array([1, 4])},
            "tokens from 0 to 3",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_is_written(
    model: Document, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        export_onnx(model, tmp_path / "model.onnx", contract_json=True, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(classifier(), path)
    before = path.read_bytes()
    with pytest.raises(ExportError):
        export_onnx(document(BIDIRECTIONAL), path)
    assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError, match="missing: no such folder"):
        export_onnx(classifier(), tmp_path / "missing" / "model.onnx")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_packages_that_are_not_installed_are_asked_for_when_needed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"needs onnx: pip install 'ssmrt\[onnx\]'"):
        export_onnx(classifier(), tmp_path / "model.onnx")
    code = "import sys; import ssmrt.export.c; sys.exit(bool({'onnx', 'onnxruntime', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_modes_that_forget_at_once_are_exported(tmp_path: Path) -> None:
    gone = diagonal(A=np.zeros((6, 5), complex), disc="discrete", dt=None)
    for node in (gone, replace(gone, kernel_length=3)):
        doc = document(node)
        export_onnx(doc, tmp_path / "model.onnx")
        assert error(OnnxStream(tmp_path / "model.onnx").push(inputs(doc)), run(doc, inputs(doc))) < 2e-6


def test_onnx_stream_starts_again_after_reset(tmp_path: Path) -> None:
    model = classifier(2)
    export_onnx(model, tmp_path / "model.onnx", batch=2)
    stream, u = OnnxStream(tmp_path / "model.onnx"), inputs(model, 20, 2)
    first = stream.push(u)
    stream.reset()
    assert stream.position.tolist() == [0, 0]
    np.testing.assert_array_equal(stream.push(u), first)
    stream.reset(np.array([True, False]))
    assert stream.position.tolist() == [0, 20]
    again = stream.push(u)
    np.testing.assert_array_equal(again[0], first[0])
    assert np.abs(again[1] - first[1]).max() > 1e-3


@pytest.mark.parametrize("name", ["conv_start", "dense_start", "mimo_start", "selective_start", "ssd_start"])
def test_an_initial_state_is_the_start_of_every_stream_and_reset(name: str, tmp_path: Path) -> None:
    model = DOCUMENTS[name]
    export_onnx(model, tmp_path / "model.onnx", batch=2)
    stream, u = OnnxStream(tmp_path / "model.onnx"), inputs(model, 30, 2)
    resets = np.zeros((2, 30), bool)
    resets[1, 10] = resets[:, 20] = True
    answers = [stream.push(u[:, :10])]
    stream.reset(np.array([False, True]))
    answers.append(stream.push(u[:, 10:20]))
    blob = stream.snapshot()
    stream.reset()
    answers.append(stream.push(u[:, 20:]))
    expected = run(model, u, resets=resets, streamed=True)
    assert error(np.concatenate(answers, 1), expected) < 3e-6
    stream.restore(blob)
    stream.reset()
    np.testing.assert_array_equal(stream.push(u[:, 20:]), answers[-1])


def test_onnx_stream_refuses_what_does_not_fit_and_keeps_its_state(tmp_path: Path) -> None:
    model = classifier(2)
    export_onnx(model, tmp_path / "step.onnx")
    export_onnx(model, tmp_path / "chunk.onnx", mode="chunk", chunk=4)
    u = inputs(model, 20)
    stream = OnnxStream(tmp_path / "step.onnx")
    head = stream.push(u[:, :10])
    with pytest.raises(ValueError, match=r"expected shape \(1, 2\), found \(1, 3\)"):
        stream.step(np.zeros((1, 3)))
    with pytest.raises(TypeError, match="expected real numbers"):
        stream.step(np.zeros((1, 2), complex))
    with pytest.raises(ValueError, match="out: expected shape"):
        OnnxStream(tmp_path / "step.onnx").push(u, out=np.empty((1, 20, 5)))
    for wrong in (np.empty((1, 10, 5)), np.broadcast_to(0.0, (1, 10, 4)), [0.0]):
        with pytest.raises((TypeError, ValueError), match="out: expected"):
            stream.push(u[:, 10:], out=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mask: expected bool"):
        stream.reset(np.zeros(1))
    out = np.empty((1, 10, 4))
    assert stream.push(u[:, 10:], out=out) is out
    assert error(np.concatenate([head, out], 1), run(model, u, streamed=True)) < 2e-6
    chunked = OnnxStream(tmp_path / "chunk.onnx")
    with pytest.raises(ValueError, match="multiple of the chunk 4, found 6"):
        chunked.push(u[:, :6])
    with pytest.raises(ValueError, match="takes 4 samples a call"):
        chunked.step(u[:, 0])


def test_onnx_stream_takes_tokens_as_integers_only(tmp_path: Path) -> None:
    model = DOCUMENTS["tokens"]
    export_onnx(model, tmp_path / "model.onnx")
    stream = OnnxStream(tmp_path / "model.onnx")
    first = stream.step(np.array([3]))
    stream.reset()
    np.testing.assert_array_equal(stream.step(np.array([[3]], np.uint8)), first)
    with pytest.raises(TypeError, match="integer tokens"):
        stream.step(np.array([3.0]))
    with pytest.raises(ValueError, match="tokens from 0 to 10"):
        stream.step(np.array([11]))


def test_onnx_stream_refuses_other_graphs(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(classifier(), path)
    other = onnx.load(path)
    del other.metadata_props[:]
    onnx.save(other, path)
    with pytest.raises(ExportError, match="without the contract"):
        OnnxStream(path)
    with pytest.raises(FileNotFoundError, match="expected an ONNX file"):
        OnnxStream(tmp_path / "none.onnx")
    for said, message in (((3,), "path: expected a path, found 3"), ((path, True), "threads: expected a whole number")):
        with pytest.raises(TypeError, match=message):
            OnnxStream(said[0], threads=said[-1])  # type: ignore[arg-type]
