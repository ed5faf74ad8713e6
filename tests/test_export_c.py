"""A Document's C answers as float64 does, on the host and on emulated processors."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_models import SANITIZED, STRICT, Compiled, needs_compiler
from cases import Case, cases, relative_error
from export_documents import classifier, diagonal, document, inputs, linear, mimo, others, state_spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import ELEMENTWISE, run
from ssmrt import families, readers
from ssmrt.document import Activation, Document, Linear, Sequential
from ssmrt.errors import ExportError
from ssmrt.export.c import TARGETS, cycles, export_c, functions
from ssmrt.export.c.source import shortest, string
from strategies import models

KINDS = {**state_spaces(), **others()}
STREAMS = [case for case in cases() if case.streams]
STEPS = 60


def load(case: Case) -> Document:
    path, config = case.files[0]
    return families.build(readers.read(path), config=config, arch=case.arch)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return Compiled(KINDS, tmp_path_factory.mktemp("kinds"), block=5)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return Compiled({str(case): load(case) for case in STREAMS}, tmp_path_factory.mktemp("checkpoints"))


@needs_compiler
@pytest.mark.parametrize("name", KINDS)
def test_c_is_the_document(kinds: Compiled, name: str) -> None:
    u = inputs(KINDS[name], STEPS)
    assert relative_error(kinds.push(name, u[0]), run(KINDS[name], u, streamed=True)[0]) < 2e-6


@needs_compiler
@pytest.mark.parametrize("name", KINDS)
def test_blocks_are_steps(kinds: Compiled, name: str) -> None:
    u = inputs(KINDS[name], STEPS)[0]
    assert relative_error(kinds.push(name, u, blocks=True), kinds.push(name, u)) < 1e-6


@needs_compiler
@pytest.mark.parametrize("case", STREAMS, ids=str)
def test_c_is_the_checkpoint(checkpoints: Compiled, case: Case) -> None:
    model = checkpoints.models[str(case)]
    u = case.io[0][0][:1, :STEPS]
    assert relative_error(checkpoints.push(str(case), u[0]), run(model, u, streamed=True)[0]) < 1e-5


@needs_compiler
@settings(max_examples=12, deadline=None)
@given(st.lists(models(), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_c_is_any_document(tmp_path_factory: pytest.TempPathFactory, some: list[Document], seed: int) -> None:
    folder = tmp_path_factory.mktemp("any")
    compiled = Compiled({str(i): model for i, model in enumerate(some)}, folder, block=6)
    for i, model in enumerate(some):
        u = inputs(model, STEPS, seed=seed)
        expected = run(model, u.astype(np.float32) if not model.tokens else u, streamed=True)[0]
        assert relative_error(compiled.push(str(i), u[0]), expected) < 1e-5
        assert relative_error(compiled.push(str(i), u[0], blocks=True), expected) < 1e-5


@needs_compiler
def test_slow_modes_keep_their_digits(tmp_path: Path) -> None:
    """Over as many samples as a spoken word has, with modes that forget in seconds and turn at all rates."""
    g = np.random.default_rng(4)
    dt = np.exp(g.uniform(np.log(1e-4), np.log(1e-3), 6))
    turns = np.concatenate([np.linspace(0, 3, 6), g.uniform(0, 3 / dt.max(), 6)])
    model = document(diagonal(6, 12, dt=dt, A=-0.5 + 1j * turns * np.ones((6, 1)), B=np.ones((6, 12), complex)))
    u = inputs(model, 16000)
    found = Compiled({"slow": model}, tmp_path).push("slow", u[0])
    expected = run(model, u, streamed=True)[0]
    noise = np.square(found - expected).mean() / np.square(expected).mean()
    # A rotation by the increment leaves -102 dB here.
    assert 10 * math.log10(noise) < -104


@needs_compiler
def test_a_held_input_is_as_near_its_limit_as_is_said(tmp_path: Path) -> None:
    """Sums stop where what they add is less than half a last digit."""
    dt = np.geomspace(1e-4, 1e-3, 6)
    model = document(diagonal(6, 1, dt=dt, A=np.full((6, 1), -0.3 + 0j), B=np.ones((6, 1), complex)))
    u = np.ones((1, 100_000, model.d_input))
    found = Compiled({"held": model}, tmp_path).push("held", u[0])[-1]
    expected = run(model, u, streamed=True)[0, -1]
    off, said = np.abs(found / expected - 1), 2.0**-23 / -np.expm1(-0.3 * dt)
    assert (off < said).all()
    assert (off > 1e-6).any()


FUNCTIONS = [name for name in ELEMENTWISE if name != "identity"]


@needs_compiler
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_within_2e_7(kinds: Compiled, name: str) -> None:
    """For all arguments, so where they leave the range of exponents too."""
    x = np.concatenate([np.linspace(-30, 30, 24001), np.geomspace(1e-6, 1e4, 3000), -np.geomspace(1e-6, 1e4, 3000)])
    x = np.resize(x.astype(np.float32), (len(x) // 6 + 1, 6))
    with np.errstate(over="ignore"):
        expected = ELEMENTWISE[name](x.astype(np.float64))
    error = np.abs(kinds.push(f"act_{name}", x) - expected) / np.maximum(1.0, np.abs(expected))
    assert error.max() < 2e-7
    assert np.isnan(kinds.push(f"act_{name}", np.full((1, 6), np.nan))).all()


def test_polynomials_are_the_engines() -> None:
    """`tools/fit_functions.py` keeps those of the engine what it fits."""
    sources = Path(__file__).parents[1] / "rust" / "core" / "src" / "kernels"
    text = functions.sources(["gelu", "softplus"])
    for file, name in (("lanes.rs", "EXP2_32"), ("pointwise.rs", "LOG2_TAIL"), ("pointwise.rs", "LOG1P")):
        table = re.search(rf"const {name}: \[f32; \d+\] =\s*\[([^\]]*)\]", (sources / file).read_text())
        assert table is not None
        numbers = [float(number) for number in table[1].split(",") if number.strip()]
        ours = {float(number) for number in re.findall(r"[-+] [\d.e-]+(?=f)|= [\d.e-]+(?=f)", text.replace("- ", "- -"))
                for number in [number.lstrip("=+- ")] if number} | {
            float(number) for number in re.findall(r"([\d.]+(?:e-?\d+)?)f\b", text)}  # fmt: skip
        assert {abs(number) for number in numbers} <= {abs(number) for number in ours}


HOST = """
#include <stdio.h>
#include "left.h"
#include "right.h"
int main(void)
{
    static left_t model, other;
    static right_t third;
    float x[LEFT_INPUTS], y[LEFT_OUTPUTS], z[LEFT_OUTPUTS], v[RIGHT_OUTPUTS];
    left_init(&model);
    left_init(&other);
    right_init(&third);
    while (fread(x, sizeof x, 1, stdin) == 1) {
        left_step(&model, x, y);
        left_step(&other, x, z);
        right_step(&third, x, v);
        left_reset(&other);
        fwrite(y, sizeof y, 1, stdout);
        fwrite(z, sizeof z, 1, stdout);
        fwrite(v, sizeof v, 1, stdout);
    }
    return 0;
}
"""


STARTS = document(KINDS["conv_start"].root, KINDS["mimo_start"].root)


@needs_compiler
@pytest.mark.parametrize(("left", "rate"), [(classifier(2, seed=1), 2.0), (STARTS, 1.0)], ids=["zeros", "x0"])
def test_models_and_instances_share_a_program(left: Document, rate: float, tmp_path: Path) -> None:
    right = classifier(left.d_input, h=6, d_output=left.d_output, seed=2)
    export_c(left, tmp_path, name="left", rate=rate)
    export_c(right, tmp_path, name="right")
    (tmp_path / "host.c").write_text(HOST)
    sources = ["host.c", *(f"{name}{part}.c" for name in ("left", "right") for part in ("", "_weights"))]
    subprocess.run(["cc", *STRICT, *SANITIZED, *sources, "-lm", "-o", "host"], cwd=tmp_path, check=True)
    u = inputs(left, STEPS)
    done = subprocess.run(["./host"], cwd=tmp_path, input=u.tobytes(), capture_output=True, check=True)
    y, first, other = np.frombuffer(done.stdout, np.float32).reshape(STEPS, 3, -1).swapaxes(0, 1)
    assert relative_error(y, run(left, u, rate=rate, streamed=True)[0]) < 2e-6
    assert relative_error(first, run(left, u.reshape(STEPS, 1, -1), rate=rate, streamed=True)[:, 0]) < 2e-6
    assert relative_error(other, run(right, u, streamed=True)[0]) < 2e-6


@needs_compiler
@pytest.mark.skipif(shutil.which("c++") is None or shutil.which("nm") is None, reason="needs c++ and nm")
def test_c_is_cpp_and_exports_its_own_names_only(tmp_path: Path) -> None:
    for i, name in enumerate(["classifier", "mamba_block", "tokens", "ssd_groups", "dense_outputs", "dplr_rank3"]):
        export_c(KINDS[name], tmp_path, name=f"m{i}")
        command = ["c++", "-x", "c++", "-std=c++17", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
        subprocess.run([*command, f"m{i}.c", f"m{i}_weights.c"], cwd=tmp_path, check=True)
        subprocess.run(["cc", *STRICT, "-c", f"m{i}.c", f"m{i}_weights.c", "main.c"], cwd=tmp_path, check=True)
        symbols = subprocess.run(
            ["nm", f"m{i}.o", f"m{i}_weights.o", "main.o"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        public = re.findall(r"^[0-9a-f]+ [A-Z] (\S+)$", symbols.stdout, re.M)
        assert all(name.startswith(f"m{i}_") or name == "main" for name in public)
        needed = set(re.findall(r"^ +U (\S+)$", symbols.stdout, re.M))
        assert {name for name in needed if not name.startswith(f"m{i}_")} <= {"memcpy", "memset", "logf", "fabsf"}


@needs_compiler
def test_package_tests_itself(tmp_path: Path) -> None:
    report = export_c(classifier(2), tmp_path / "out", name="spotter")
    names = ["CMakeLists.txt", "README.md", "library.json", "main.c", "spotter.c", "spotter.h", "spotter_report.json",
             "spotter_vectors.h", "spotter_weights.c", "spotter_weights.h"]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert sorted(path.name for path in report.files) == names
    build = ["cc", *STRICT, "spotter.c", "spotter_weights.c", "main.c", "-o", "self_test"]
    subprocess.run(build, cwd=tmp_path / "out", check=True)
    assert subprocess.run(["./self_test"], cwd=tmp_path / "out", check=False).returncode == 0
    weights = tmp_path / "out" / "spotter_weights.c"
    weights.write_text(re.sub(r"\{\n(/\*.*\*/\n)?[^,]+,", "{\n9,", weights.read_text(), count=1))
    subprocess.run(build, cwd=tmp_path / "out", check=True)
    assert subprocess.run(["./self_test"], cwd=tmp_path / "out", check=False).returncode == 1
    assert json.loads((tmp_path / "out" / "library.json").read_text())["name"] == "spotter"


@needs_compiler
def test_labels_and_rate_are_in_the_header(tmp_path: Path) -> None:
    labels = ('say "yes"', "no\\", "???/", "größer")
    model = Document(classifier(2).root, 2, 4, {"arch": "a */ b"}, 16000.0, labels)
    export_c(model, tmp_path)
    assert "#define SSM_SAMPLE_RATE 16000\n" in (tmp_path / "ssm.h").read_text()
    (tmp_path / "host.c").write_text(
        '#include <stdio.h>\n#include "ssm.h"\n'
        "int main(void) { for (int i = 0; i < SSM_OUTPUTS; i++) puts(ssm_labels[i]); return 0; }\n"
    )
    subprocess.run(["cc", *STRICT, "host.c", "ssm.c", "ssm_weights.c", "-o", "host"], cwd=tmp_path, check=True)
    done = subprocess.run(["./host"], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.decode().splitlines() == list(labels)
    assert string("a\n") == '"a\\012"'


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_literals_read_back(value: float) -> None:
    text = shortest(np.float32(value))
    assert re.fullmatch(r"-?(\d+|(\d*\.\d+|\d+e-?\d+)f)", text)
    assert np.float32(float(text.rstrip("f"))) == np.float32(value)


def test_source_is_small(tmp_path: Path) -> None:
    report = export_c(classifier(2, 32, 32, 4), tmp_path)
    assert report.source < 3.2 * report.weights
    assert report.state == 4 * (4 * 32 * 32 * 2 + 65)


@needs_compiler
@pytest.mark.parametrize("outputs", [1, 2])
def test_channels_keep_their_own_modes_only(outputs: int, tmp_path: Path) -> None:
    counts = np.array([0, 1, 4, 9, 2, 9])
    node = diagonal(6, 9, outputs)
    model = document(replace(node, C=node.C * (np.arange(9) < counts[:, None])), d_output=6 * outputs)
    fours = sum(max(1, -(-int(count) // 4)) for count in counts)
    # Plain and mirrored modes come in fours each.
    held = export_c(model, tmp_path / "own").state // (4 * 8)
    assert fours <= held <= fours + len(counts)
    assert held < export_c(replace(model, root=node), tmp_path / "all").state // (4 * 8)
    u = inputs(model, STEPS)
    found = Compiled({"own": model}, tmp_path, block=5)
    expected = run(model, u, streamed=True)[0]
    assert relative_error(found.push("own", u[0]), expected) < 2e-6
    assert relative_error(found.push("own", u[0], blocks=True), expected) < 2e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "cortex-a9"}, "target: expected one of 'cortex-m0plus'"),
        ({"name": "2nd"}, "identifier of C"),
        ({"name": "main"}, "identifier of C"),
        ({"name": "String"}, "no header of its library"),
        ({"name": "größe"}, "identifier of C"),
        (
            {"target": "cortex-m4", "ram": 1000},
            r"needs \d+ bytes of RAM and the part has 1000.*'layers\.0\.kernel'.*smaller",
        ),
        ({"target": "cortex-m4", "ram": 1200}, r"needs \d+ bytes of RAM and the part has 1200: state 1092, stack"),
        ({"target": "cortex-m4", "flash": 1000}, r"needs \d+ bytes of flash and the part has 1000: weights \d+"),
        (
            {"target": "cortex-m4", "sample_rate": 1e6},
            r"at 168 MHz the model runs \d+ samples a second.*layer 'layers\.0",
        ),
        ({"target": "cortex-m4", "sample_rate": 100, "mhz": 0.1}, r"would take \d+ MHz"),
        ({"sample_rate": 100}, "sample_rate: has no meaning without a target"),
        ({"rate": 0.0}, "rate: expected"),
        ({"mhz": -1, "target": "cortex-m4"}, "mhz: expected"),
        ({"method": "chunk"}, "method: expected 'step' or 'block'"),
        ({"block": 8}, "block: has no meaning in method='step'"),
        ({"method": "block", "block": 0}, "block: expected"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        export_c(classifier(2), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", [case for case in cases() if not case.streams], ids=str)
def test_checkpoint_that_looks_ahead_is_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"bidirectional|whole sequence"):
        export_c(load(case), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_float32_are_refused(tmp_path: Path) -> None:
    node = Linear(np.array([[1e39]]), name="large")
    with pytest.raises(ExportError, match="layer 'large': its weights are beyond float32"):
        export_c(Document(node, 1, 1), tmp_path / "out")
    with pytest.raises(ExportError, match=r"discrete-time and has no step size.*rate=2"):
        export_c(document(mimo(discrete=True)), tmp_path / "out", rate=2.0)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_old_one(tmp_path: Path) -> None:
    export_c(classifier(2), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ExportError):
        export_c(classifier(2), tmp_path, target="cortex-m4", ram=10)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def missing(target: str) -> str | None:
    tools = (TARGETS[target].compiler, TARGETS[target].emulator[0])
    absent = [tool for tool in tools if shutil.which(tool) is None]
    return f"needs {', '.join(absent)}" if absent else None


@pytest.mark.parametrize("target", TARGETS)
def test_model_runs_on_every_processor(target: str, tmp_path: Path) -> None:
    if (why := missing(target)) is not None:
        pytest.skip(why)
    report = export_c(classifier(2), tmp_path, target=target)
    assert report.measured
    assert report.counted
    assert report.error is not None
    assert report.error < 2e-6


def test_the_matrix_of_tied_tokens_is_there_once(tmp_path: Path) -> None:
    tied = KINDS["tokens_tied"]
    embedding, layer, head = tied.root.children  # type: ignore[attr-defined]
    apart = replace(tied, root=Sequential((embedding, layer, replace(head, weight=head.weight.copy()))))
    saved = export_c(apart, tmp_path).weights - export_c(tied, tmp_path).weights
    assert saved == 4 * head.weight.size


def test_cycles_are_those_of_the_manual() -> None:
    """A double from memory takes as long as two floats by one instruction; a taken branch 3, a fused product 3."""
    code = cycles.code_of(
        "   0:\tvldr\td2, [r1, #-32]\n   4:\tvldmia\tr0!, {d6}\n   8:\tvldr\ts4, [r1]\n"
        "   c:\tvfma.f32\ts1, s2, s3\n  10:\tvmul.f32\ts1, s2, s3\n  14:\tbne.n\t0\n"
    )
    assert cycles.cortex_m4([0, 4, 8, 12, 16, 20], code) == 3 + 3 + 2 + 3 + 1 + 3
    assert cycles.cortex_m4([0, 4, 8, 12, 16, 20, 0], code) == 3 + 3 + 2 + 3 + 1 + 3 + 3


BIG = ("s390x-linux-gnu-gcc", "qemu-s390x")


@pytest.mark.skipif(not all(map(shutil.which, BIG)), reason=f"needs {' and '.join(BIG)}")
@pytest.mark.parametrize("quantize", [None, "int16", "int8"])
def test_a_processor_of_the_other_byte_order_answers_alike(quantize: str | None, tmp_path: Path) -> None:
    model = classifier(2)
    calibration = None if quantize is None else inputs(model, 1000)[0]
    export_c(model, tmp_path, quantize=quantize, calibration=calibration)
    sources = ["ssm.c", "ssm_weights.c", "main.c"]
    subprocess.run([BIG[0], *STRICT, "-O2", "-static", *sources, "-o", "test"], cwd=tmp_path, check=True)
    assert subprocess.run([BIG[1], "./test"], cwd=tmp_path, check=False).returncode == 0


@pytest.mark.skipif(missing("cortex-m4") is not None, reason=str(missing("cortex-m4")))
@pytest.mark.parametrize("name", ["dplr_shared_outputs", "diagonal_real", "diagonal_cut", "mamba_block", "tokens",
                                  "ssd_groups", "dense_systems", "act_log_softmax"])  # fmt: skip
def test_every_kind_of_layer_runs_on_the_device(name: str, tmp_path: Path) -> None:
    report = export_c(KINDS[name], tmp_path, target="cortex-m4")
    assert report.error is not None
    assert report.error < 2e-6


@pytest.mark.skipif(missing("cortex-m4") is not None, reason=str(missing("cortex-m4")))
def test_two_layers_of_sixteen_stay_as_fast_as_they_are(tmp_path: Path) -> None:
    report = export_c(classifier(16, 16, 16, 2, 4), tmp_path, target="cortex-m4")
    assert report.cycles is not None
    assert report.instructions is not None
    assert report.cycles <= 27_000
    assert report.instructions <= 16_200
    assert report.stack <= 200
    assert report.highest_rate == pytest.approx(168e6 / report.cycles)


def test_estimates_without_tools_are_near(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured = export_c(classifier(16, 16, 16), tmp_path / "a", target="cortex-m4")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    estimated = export_c(classifier(16, 16, 16), tmp_path / "b", target="cortex-m4")
    assert not estimated.measured
    assert not estimated.counted
    assert "estimated from the operations" in str(estimated)
    if measured.measured:
        assert 1.0 <= estimated.flash / measured.flash < 1.4
        assert 1.0 <= estimated.ram / measured.ram < 1.1
    if measured.counted:
        assert measured.instructions is not None
        assert estimated.instructions is not None
        assert 0.9 <= estimated.instructions / measured.instructions < 1.3


@needs_compiler
def test_a_model_without_memory_has_the_same_interface(tmp_path: Path) -> None:
    models = {"linear": document(linear(6, 6)), "identity": document(Activation("identity")), "empty": document()}
    compiled = Compiled(models, tmp_path)
    u = inputs(models["linear"], STEPS)
    for name, model in models.items():
        assert relative_error(compiled.push(name, u[0]), run(model, u)[0]) < 1e-6
