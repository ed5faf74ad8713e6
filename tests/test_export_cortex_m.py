"""From a checkpoint to C that runs, and is right, on an emulated Cortex-M4."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from cases import Case, cases
from export_documents import classifier, document, inputs, linear, others, state_spaces
from oracle import run
from ssmrt import families, readers
from ssmrt.document import Document
from ssmrt.errors import ExportError
from ssmrt.export import c_memory, cortex_m

EXAMPLE = Path(__file__).parents[1] / "examples" / "cortex_m" / "prove.py"
PROVEN = ("torch/s4d_minimal", "torch/s4_nplr/legs_r3", "torch/lssl/lssl_m1", "jax/lru_cls_batchnorm")

pytest.importorskip("emx_onnx_cgen", reason="needs emx-onnx-cgen, pip install 'ssmrt[mcu]'")


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prove", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["prove"] = module
    spec.loader.exec_module(module)
    return module


PROVE = example()
on_device = pytest.mark.skipif(PROVE.missing() is not None, reason=str(PROVE.missing()))


def load(case: Case) -> Document:
    path, config = case.files[0]
    return families.build(readers.read(path), config=config, arch=case.arch)


def prove(model: Document, folder: Path, u: Any | None = None) -> Any:
    u = inputs(model, 100) if u is None else u
    return PROVE.prove(model, u[0], run(model, u, streamed=True)[0], folder)


@on_device
@pytest.mark.parametrize("case", [case for case in cases() if case.name in PROVEN], ids=str)
def test_checkpoint_runs_on_the_device(case: Case, tmp_path: Path) -> None:
    proof = prove(load(case), tmp_path)
    assert proof.error < 1e-5
    assert proof.report.measured
    assert proof.stack <= proof.report.stack


@on_device
def test_two_layers_of_sixteen_take_at_most_60k_instructions_a_step(tmp_path: Path) -> None:
    proof = prove(classifier(16, 16, 16, 2, 4), tmp_path)
    assert proof.error < 1e-5
    assert proof.instructions <= 45_000
    assert proof.stack < 512


@on_device
@pytest.mark.parametrize(
    "name", ["dplr_shared_outputs", "diagonal_real", "diagonal_cut", "linoss", "mamba_block", "tokens", "pool_first"]
)
def test_every_kind_of_state_runs_in_place_on_the_device(name: str, tmp_path: Path) -> None:
    model = {**state_spaces(), **others()}[name]
    assert prove(model, tmp_path).error < 1e-5


HOST = """
#include <stdio.h>
#include "ssm.h"
int main(void)
{
    static ssm_t model, other;
    float x[SSM_SAMPLES * SSM_INPUTS], y[SSM_SAMPLES * SSM_OUTPUTS], z[SSM_SAMPLES * SSM_OUTPUTS];
    ssm_init(&model);
    ssm_init(&other);
    while (fread(x, sizeof x, 1, stdin) == 1) {
        ssm_step(&model, x, y);
        ssm_step(&other, x, z);
        ssm_reset(&other);
        fwrite(y, sizeof y, 1, stdout);
        fwrite(z, sizeof z, 1, stdout);
    }
    return 0;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, cc")
@pytest.mark.parametrize(
    "options",
    [{}, {"mode": "chunk", "chunk": 5}, {"quantize": "int8"}, {"rate": 2.0}],
    ids=lambda o: "-".join(o) or "step",
)
def test_c_is_the_model_and_instances_are_apart(options: dict[str, Any], tmp_path: Path) -> None:
    model = classifier(2)
    cortex_m.generate(model, tmp_path, **options)
    (tmp_path / "host.c").write_text(HOST)
    build = ["cc", "-O2", "-fsanitize=address,undefined", "host.c", "ssm.c", "ssm_graph.c", "-lm", "-o", "host"]
    subprocess.run(build, cwd=tmp_path, check=True)
    subprocess.run(["cc", "-c", "main.c"], cwd=tmp_path, check=True)
    u = inputs(model, 60)
    done = subprocess.run(["./host"], cwd=tmp_path, input=u.tobytes(), capture_output=True, check=True)
    chunk = options.get("chunk", 1)
    y = np.frombuffer(done.stdout, np.float32).reshape(-1, 2, chunk, 4)
    rate = options.get("rate", 1.0)
    expected = run(model, u, rate=rate, streamed=True)[0]
    tolerance = 0.05 if options.get("quantize") else 1e-5
    assert np.abs(y[:, 0].reshape(60, 4) - expected).max() < tolerance * np.abs(expected).max()
    first = run(model, u.reshape(-1, chunk, 2), rate=rate, streamed=True)
    assert np.abs(y[:, 1] - first).max() < tolerance * np.abs(first).max()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, cc")
@pytest.mark.parametrize("options", [{}, {"mode": "chunk", "chunk": 5}], ids=lambda o: "-".join(o) or "step")
def test_c_starts_from_the_initial_state(options: dict[str, Any], tmp_path: Path) -> None:
    parts = {**state_spaces(), **others()}
    model = document(parts["conv_start"].root, parts["mimo_start"].root, parts["diagonal"].root)
    cortex_m.generate(model, tmp_path, **options)
    (tmp_path / "host.c").write_text(HOST)
    build = ["cc", "-Wall", "-Werror", "-Wno-unused", "host.c", "ssm.c", "ssm_graph.c", "-lm", "-o", "host"]
    subprocess.run(build, cwd=tmp_path, check=True)
    u = inputs(model, 60)
    done = subprocess.run(["./host"], cwd=tmp_path, input=u.tobytes(), capture_output=True, check=True)
    chunk = options.get("chunk", 1)
    y = np.frombuffer(done.stdout, np.float32).reshape(-1, 2, chunk, 6)
    expected = run(model, u, streamed=True)[0]
    assert np.abs(y[:, 0].reshape(60, 6) - expected).max() < 1e-5 * np.abs(expected).max()
    first = run(model, u.reshape(-1, chunk, 6), streamed=True)
    assert np.abs(y[:, 1] - first).max() < 1e-5 * np.abs(first).max()


def test_work_area_is_shared_and_shown(tmp_path: Path) -> None:
    report = cortex_m.generate(classifier(2), tmp_path / "out", name="spotter")
    names = ["main.c", "report.json", "spotter.c", "spotter.h", "spotter.onnx", "spotter_graph.c"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert report.state == 4 * (2 * 8 * 8 * 2 + 17)
    # The product with one layer's A, and what lives beside it; not a buffer for every node.
    assert report.work <= 4 * (8 * 8 * 2 + 64)
    header = (tmp_path / "out" / "spotter.h").read_text()
    assert all(f"void spotter_{call}(" in header for call in ("init", "reset", "step"))
    facts = json.loads((tmp_path / "out" / "report.json").read_text())
    assert facts["ram"] == report.ram == report.state + report.work + report.library + report.stack
    assert re.search(rf"{report.state + report.work} bytes", header)
    assert "multiply-adds a step" in str(report)


def test_estimate_without_a_compiler_is_near(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured = cortex_m.generate(classifier(16, 16, 16), tmp_path / "a")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    estimated = cortex_m.generate(classifier(16, 16, 16), tmp_path / "b")
    assert not estimated.measured
    if measured.measured:
        assert 1.0 <= estimated.flash / measured.flash < 1.25
        assert 1.0 <= estimated.ram / measured.ram < 1.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "cortex-a9"}, "target: expected one of 'cortex-m4'"),
        ({"name": "2nd"}, "identifier of C"),
        ({"name": "main"}, "identifier of C"),
        ({"ram": 2000}, r"needs \d+ bytes of RAM and the part has 2000.*'layers\.0\.kernel'.*smaller d_model"),
        ({"ram": 2200}, r"needs \d+ bytes of RAM and the part has 2200"),
        ({"flash": 1000}, r"needs \d+ bytes of flash.*int8"),
        ({"rate": 0.0}, "rate: expected"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        cortex_m.generate(classifier(2), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_memory_has_the_same_interface(tmp_path: Path) -> None:
    report = cortex_m.generate(document(linear(6, 6)), tmp_path)
    assert report.state == 0


def test_c_that_is_not_as_expected_is_refused() -> None:
    with pytest.raises(ExportError, match=r"no function 'ssm'.*emx-onnx-cgen 1\.4"):
        c_memory.place("int main(void) {}\n", "ssm", [])
    with pytest.raises(ExportError, match="unexpected line, 'return;'"):
        c_memory.place("void ssm(const float x[1]) {\n    return;\n}\n", "ssm", [])


def test_a_state_read_after_it_is_written_is_refused() -> None:
    source = (
        "/*\n * Node 0:\n * OpType: Relu\n */\n/*\n * Node 1:\n * OpType: Relu\n */\n"
        "void ssm(const float state_0[1], float y[1], float next_state_0[1]) {\n"
        "    node0_a(state_0, next_state_0);\n    node1_b(state_0, y);\n}\n"
    )
    with pytest.raises(ExportError, match="state_0 is read after next_state_0 is written"):
        c_memory.place(source, "ssm", [("state_0", "next_state_0")])
