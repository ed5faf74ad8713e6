"""The command line: what each command answers, and that a failure is one line and exit code 2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmrt
from command_line import Run, at_rate, process
from ssmrt import demo
from ssmrt.cli.main import COMMANDS
from wav_files import wav

GOLDEN = Path(__file__).parent / "golden"
# Its file says nothing of the norms' place.
SILENT = GOLDEN / "torch" / "s4d_minimal" / "model.safetensors"
PRENORM = '{"prenorm": false}'


@pytest.fixture(scope="module")
def model() -> ssmrt.Model:
    return ssmrt.load(SILENT, config={"prenorm": False})


@pytest.fixture(scope="module")
def spotter() -> ssmrt.Model:
    return demo.spotter()


@pytest.fixture
def file(model: ssmrt.Model, tmp_path: Path) -> Path:
    path = tmp_path / "model.ssm.safetensors"
    model.save(path)
    return path


# demo


def test_demo_hears_every_word(run: Run) -> None:
    code, out, err = run("demo", "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert [row["heard"] for row in facts["clips"]] == [row["spoken"] for row in facts["clips"]]
    assert sorted({row["spoken"] for row in facts["clips"]}) == sorted(demo.WORDS)
    assert len(facts["clips"]) == 12
    assert all(0 < row["sure_after_ms"] < 1000 and row["probability"] > 0.9 for row in facts["clips"])
    assert facts["samples"] == 12 * 16000
    assert facts["sample_us"]["p50"] <= facts["sample_us"]["p99"] <= facts["sample_us"]["max"]


def test_demo_tells_people_what_it_heard(run: Run, tmp_path: Path, spotter: ssmrt.Model) -> None:
    saved = tmp_path / "spotter.ssm.safetensors"
    code, out, _ = run("demo", "--save", saved)
    assert code == 0
    assert f"written: {saved}" in out
    assert ssmrt.load(saved).labels == spotter.labels
    assert "12 of 12 words right" in out
    assert all(f" {word} " in out for word in demo.WORDS)
    assert "p50" in out
    assert "times faster than real time" in out


def test_sure_is_where_the_answer_stays(spotter: ssmrt.Model) -> None:
    clip = demo.clips()[5]
    heard = demo.listen(spotter.stream(), clip.samples)
    assert heard.sure_after is not None
    sure = round(heard.sure_after * demo.RATE)
    running = spotter.stream().push(clip.samples.reshape(1, -1, 1))[0].astype(np.float64)
    powers = np.exp(running - running.max(1, keepdims=True))
    chance = (powers / powers.sum(1, keepdims=True))[:, demo.WORDS.index(clip.word)]
    assert (chance[sure - 1 :] >= 0.9 - 1e-6).all()
    assert chance[sure - 2] < 0.9 + 1e-6


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100])
def test_demo_hears_a_recording_at_any_rate(run: Run, tmp_path: Path, rate: int) -> None:
    clip = demo.clips()[4]
    sound = at_rate(clip.samples, rate)
    path = tmp_path / "a.wav"
    # Quiet, and the same on two channels: the level is set, the channels are averaged.
    path.write_bytes(wav(np.stack([sound, sound], 1) * 0.2, 24, rate))
    code, out, err = run("demo", "--wav", path, "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts["clips"][0]["heard"] == clip.word
    assert facts["samples"] == rate


def test_demo_finds_the_words_of_a_long_recording(run: Run, tmp_path: Path) -> None:
    clips = demo.clips()[:4]
    silence = np.zeros(12000)
    sound = np.concatenate([part for clip in clips for part in (clip.samples, silence)])
    path = tmp_path / "a.wav"
    path.write_bytes(wav(sound))
    code, out, _ = run("demo", "--wav", path, "--json")
    assert code == 0
    words = json.loads(out)["words"]
    assert [word["word"] for word in words] == [clip.word for clip in clips]
    for i, word in enumerate(words):
        assert word["start"] < 1.75 * i + 1 < word["end"] + 1
    assert run("demo", "--wav", path)[1].count("\n") >= len(clips)


def test_demo_of_silence_hears_no_long_list_of_words(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(np.zeros(40000)))
    code, out, _ = run("demo", "--wav", path, "--json")
    assert (code, json.loads(out)) == (0, {"words": []})


# info, convert


def test_info_asks_what_the_file_does_not_say(run: Run) -> None:
    code, out, _ = run("info", SILENT)
    assert code == 0
    assert "config['prenorm'] is needed" in out
    assert "if upstream's defaults are right" in out
    facts = json.loads(run("info", SILENT, "--json")[1])
    (question,) = facts["missing"]
    assert (facts["format"], facts["arch"], facts["assumes_defaults"]) == ("safetensors", "s4-example", True)
    assert (question["name"], question["default"], question["choices"]) == ("prenorm", False, [False, True])


def test_info_names_a_model_whose_facts_have_no_default(run: Run) -> None:
    row = next(r for r in json.loads((GOLDEN / "cases.json").read_text()) if r["name"] == "jax/annotated_s4_cls")
    code, out, _ = run("info", GOLDEN / row["name"] / row["files"][0], "--json")
    facts = json.loads(out)
    assert (code, facts["arch"], facts["model"]) == (0, "annotated-s4", None)
    assert [question["name"] for question in facts["missing"]] == ["classification", "l_max"]


def test_info_says_what_the_model_is(run: Run, model: ssmrt.Model) -> None:
    facts = json.loads(run("info", SILENT, "--config", PRENORM, "--json")[1])
    known = facts["model"]
    assert facts["missing"] == []
    assert (facts["arch"], known["d_input"], known["d_output"]) == ("s4-example", model.d_input, model.d_output)
    assert known["num_parameters"] == model.num_parameters == sum(row["num_parameters"] for row in known["layers"])
    assert facts["tensors"]["encoder.weight"]["shape"] == [32, 1]
    out = run("info", SILENT, "--config", PRENORM, "--tensors")[1]
    assert "diagonal" in out
    assert "encoder.weight  float32 (32, 1)" in out


def test_info_reads_every_golden_file(run: Run) -> None:
    for row in json.loads((GOLDEN / "cases.json").read_text())[:40]:
        path = GOLDEN / row["name"] / row["files"][0]
        code, out, err = run("info", path, "--json", "--arch", row["arch"])
        assert code == 0, (row["name"], err)
        facts = json.loads(out)
        assert facts["model"] or facts["missing"]


def test_convert_keeps_every_bit(run: Run, tmp_path: Path, model: ssmrt.Model) -> None:
    path = tmp_path / "m.ssm.safetensors"
    assert run("convert", SILENT, path, "--config", PRENORM)[0] == 0
    u = np.random.default_rng(0).standard_normal((50, 1))
    assert np.array_equal(ssmrt.load(path)(u), model(u))


def test_convert_sets_what_the_training_knew(run: Run, tmp_path: Path, model: ssmrt.Model) -> None:
    path = tmp_path / "m.ssm.safetensors"
    labels = [f"class {i}" for i in range(model.d_output)]
    (tmp_path / "labels.txt").write_text("\n".join(labels) + "\n")
    for given in (", ".join(labels), tmp_path / "labels.txt"):
        code, _, err = run("convert", SILENT, path, "--config", PRENORM, "--sample-rate", "8000", "--labels", given)
        assert (code, err) == (0, "")
        found = ssmrt.load(path)
        assert (found.sample_rate, found.labels) == (8000, tuple(labels))
    # What the file says stays where nothing else is said.
    assert run("convert", path, tmp_path / "again.ssm.safetensors", "--sample-rate", "16000")[0] == 0
    found = ssmrt.load(tmp_path / "again.ssm.safetensors")
    assert (found.sample_rate, found.labels) == (16000, tuple(labels))
    out = run("info", path)[1]
    assert "8000 samples a second" in out
    assert ", ".join(labels) in out
    known = json.loads(run("info", path, "--json")[1])["model"]
    assert (known["sample_rate"], known["labels"]) == (8000, labels)


def test_config_may_be_a_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(PRENORM)
    assert run("convert", SILENT, tmp_path / "m", "--config", path)[0] == 0


# verify, bench, export, plot


def test_verify_says_yes_and_no(run: Run, file: Path, tmp_path: Path, model: ssmrt.Model) -> None:
    pytest.importorskip("onnxruntime", reason="needs ssmrt[onnx]")
    assert run("export", file, tmp_path / "m.onnx")[0] == 0
    code, out, _ = run("verify", file, "--onnx", tmp_path / "m.onnx", "--layers")
    assert code == 0
    assert "ONNX step" in out
    assert "WRONG" not in out
    # The graph of another rate is judged at that rate; that of other weights is wrong.
    assert run("export", file, tmp_path / "r.onnx", "--rate", "0.5", "--chunk", "4")[0] == 0
    assert run("verify", file, "--onnx", tmp_path / "r.onnx")[0] == 0
    other = ssmrt.load(SILENT, config={"prenorm": True})
    other.save(tmp_path / "other.ssm.safetensors")
    code, out, _ = run("verify", tmp_path / "other.ssm.safetensors", "--onnx", tmp_path / "m.onnx", "--json")
    assert code == 1
    assert [check["name"] for check in json.loads(out)["checks"] if not check["ok"]] == ["ONNX step"]


def test_bench_measures_each_way_to_run(run: Run, file: Path) -> None:
    code, out, _ = run("bench", file, "--seconds", "0.02", "--length", "100", "--json")
    assert code == 0
    facts = json.loads(out)
    for name in ("step_us", "push_64_us", "push_512_us", "forward_100_us"):
        assert 0 < facts[name]["p50"] <= facts[name]["p99"] <= facts[name]["p99.9"] <= facts[name]["max"]
    assert "step 1" in run("bench", file, "--seconds", "0.02", "--length", "100")[1]


def test_export_reports_what_it_costs(run: Run, file: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs ssmrt[onnx]")
    code, out, _ = run("export", file, tmp_path / "m.onnx", "--json")
    facts = json.loads(out)
    assert (code, facts["mode"], facts["file_bytes"]) == (0, "step", (tmp_path / "m.onnx").stat().st_size)
    facts = json.loads(run("export", file, tmp_path / "m.onnx", "--chunk", "8", "--quantize", "int8", "--json")[1])
    assert (facts["mode"], facts["chunk"]) == ("chunk", 8)
    assert facts["quantization"]["signal_to_noise"] > 20


def test_export_writes_c(run: Run, file: Path, tmp_path: Path) -> None:
    code, out, _ = run("export", file, tmp_path / "mcu", "--target", "cortex-m4", "--json")
    facts = json.loads(out)
    assert (code, facts["target"]) == (0, "cortex-m4")
    assert sorted(facts["files"]) == sorted(path.name for path in (tmp_path / "mcu").iterdir())
    code, out, _ = run("export", file, tmp_path / "any", "--target", "c", "--name", "spotter")
    assert code == 0
    assert "any, by C99" in out
    assert (tmp_path / "any" / "spotter.h").exists()


@pytest.mark.parametrize("arch", ["s4-example", "s4-block", "lssl", "s5", "memax-lru"])
def test_plot_draws(run: Run, tmp_path: Path, arch: str) -> None:
    pytest.importorskip("matplotlib", reason="needs ssmrt[plot]")
    facts = next(row for row in json.loads((GOLDEN / "cases.json").read_text()) if row["arch"] == arch)
    (tmp_path / "config.json").write_text(json.dumps(facts.get("config") or {}))
    path = GOLDEN / facts["name"] / facts["files"][-1]
    out = tmp_path / "m.png"
    given = ("--config", tmp_path / "config.json", "--arch", arch)
    code, _, err = run("plot", path, *given, "-o", out, "--length", "64")
    # Some of the checkpoints are unstable, which is said.
    assert code == 0
    assert all("is unstable" in line for line in err.splitlines())
    assert out.read_bytes()[:4] == b"\x89PNG"


def test_plot_draws_a_page_a_layer(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs ssmrt[plot]")
    file = tmp_path / "m.ssm.safetensors"
    ssmrt.diagonal([[-0.5 + 3j]], [[1]], [[1]], [0.0], [0.05]).save(file)
    code, printed, _ = run("plot", file, "-o", tmp_path / "m.svg", "--length", "16", "--pages")
    names = ["m.svg", "m-0.svg"]
    assert (code, printed.split()) == (0, [str(tmp_path / name) for name in names])
    assert all("<svg" in (tmp_path / name).read_text() for name in names)
    code, printed, _ = run("plot", file, "-o", tmp_path / "m.pdf", "--length", "16", "--rate", "0.5")
    assert (code, printed.split()) == (0, [str(tmp_path / "m.pdf")])
    assert (tmp_path / "m.pdf").read_bytes().count(b"/Type /Page ") == 2


def test_bench_draws_latencies(run: Run, file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs ssmrt[plot]")
    out = tmp_path / "m.png"
    code, _, _ = run("bench", file, "--seconds", "0.01", "--length", "100", "--plot", out)
    assert code == 0
    assert out.read_bytes()[:4] == b"\x89PNG"
    # What was measured is not lost with the picture.
    code, printed, err = run("bench", file, "--seconds", "0.01", "--length", "100", "--plot", tmp_path / "m.nonsense")
    assert code == 2
    assert "nonsense" in err
    assert "step 1" in printed
    assert {path.name for path in tmp_path.glob("m.*")} == {"m.png"}


def test_poles_are_those_of_the_recurrence() -> None:
    A, dt = np.array([[-0.5 + 3j, -0.1 + 20j]]), np.array([0.05])
    one = np.ones((1, 2), complex)
    found = ssmrt.diagonal(A, one, one, None, dt).poles(0)
    np.testing.assert_allclose(found, np.exp(A[0] * 0.05))
    P = np.array([[0.3 + 0.1j, -0.2j]])
    full = np.diag(np.concatenate([A[0], A[0].conj()]))
    p = np.concatenate([P[0], P[0].conj()])
    full = full - np.outer(p, p.conj())
    eye = np.eye(4)
    bar = np.linalg.solve(eye - 0.025 * full, eye + 0.025 * full)
    found = ssmrt.dplr(A, P, one, one, None, dt).poles(0)
    distances = np.abs(found[:, None] - np.linalg.eigvals(bar))
    assert found.shape == (4,)
    assert max(distances.min(0).max(), distances.min(1).max()) < 1e-12


# failures


def inputs(folder: Path) -> None:
    np.save(folder / "wide.npy", np.zeros((10, 3)))
    np.save(folder / "complex.npy", np.zeros((10, 1), complex))
    np.save(folder / "none.npy", np.zeros((0, 1)))
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(folder / "good.npy", np.zeros((10, 1)))
    (folder / "text").write_text("no model")
    (folder / "short.npy").write_bytes((folder / "good.npy").read_bytes()[:-8])
    (folder / "adpcm.wav").write_bytes(wav(np.zeros(100), tag=2))
    (folder / "short.wav").write_bytes(wav(np.zeros(100))[:-10])
    (folder / "config.json").write_text("[]")


FAILURES = [
    "",
    "nonsense",
    "run",
    "demo --wav adpcm.wav",
    "demo --wav short.wav",
    "demo --wav text",
    "demo --wav missing.wav",
    "demo --wav .",
    "info missing",
    "info text",
    "info text --json",
    "info MODEL --config {",
    "info SILENT --config missing.json",
    "info SILENT --config config.json",
    'info SILENT --config {"prenorm":3}',
    "info SILENT --arch nonsense",
    "info SILENT --arch lru --config {}",
    "run SILENT good.npy",
    "run MODEL wide.npy",
    "run MODEL complex.npy",
    "run MODEL none.npy",
    "run MODEL objects.npy",
    "run MODEL short.npy",
    "run MODEL missing.npy",
    "run MODEL text",
    "run MODEL adpcm.wav",
    "run MODEL good.npy --rate 0",
    "run MODEL good.npy --rate nan",
    "run MODEL good.npy --rate fast",
    "run MODEL good.npy --trained-at 16000",
    "run MODEL good.npy -o y.xls",
    "run MODEL good.npy -o missing/y.npy",
    "run MODEL good.npy --dtype float16",
    "convert SILENT out",
    "convert MODEL missing/out",
    "convert MODEL .",
    "convert MODEL out --labels a,b",
    "convert MODEL out --labels missing.txt",
    "convert MODEL out --labels ,",
    "convert MODEL out --sample-rate 0",
    "convert MODEL out --sample-rate nan",
    "convert MODEL out --sample-rate fast",
    "verify text",
    "verify MODEL --onnx missing.onnx",
    "verify MODEL --onnx text",
    "bench text",
    "bench MODEL --length 0",
    "export MODEL missing/m.onnx",
    "export MODEL m.onnx --mode chunk",
    "export MODEL m.onnx --opset 3",
    "export MODEL m.onnx --rate -1",
    "export MODEL m.onnx --calibration text",
    "export MODEL m --target nonsense",
    "export MODEL m --target cortex-m4 --batch 2",
    "export MODEL m --target c --opset 17",
    "export MODEL m --target c --dtype float32",
    "export MODEL m --target c --name 2",
    "export MODEL m.onnx --block 4",
    "export MODEL m --target c --ram 1000",
    "export MODEL m --target cortex-m4 --ram 1000",
    "export MODEL m --target cortex-m4 --sample-rate 1e9",
    "export MODEL m.onnx --name spotter",
    "plot MODEL --layer 7",
    "plot MODEL -o m.nonsense",
]


@pytest.mark.parametrize("line", FAILURES)
def test_a_failure_is_one_line_and_exit_code_2(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = [{"MODEL": str(file), "SILENT": str(SILENT)}.get(word, word) for word in line.split()]
    code, _, err = run(*words)
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith("ssmrt")
    assert "error: " in err
    assert len(err) < 900


def test_a_missing_fact_is_asked_for_in_the_words_of_the_command_line(run: Run, tmp_path: Path) -> None:
    _, _, err = run("convert", SILENT, tmp_path / "m")
    assert "--config '{\"prenorm\": ...}'" in err
    assert "one of False, True; upstream's default is False" in err


@pytest.mark.parametrize(
    ("packages", "module", "command"),
    [
        ("matplotlib", "matplotlib.figure", ("plot",)),
        ("onnx onnxruntime", "onnx", ("export", "m.onnx")),
        ("onnx onnxruntime", "onnxruntime", ("verify", "--onnx", "text")),
    ],
)
def test_what_a_missing_extra_brings_is_named(
    run: Run,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    packages: str,
    module: str,
    command: tuple[str, ...],
) -> None:
    if module != "onnx":
        pytest.importorskip("onnx", reason="needs ssmrt[onnx]")
    inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = run(command[0], file, *command[1:])
    assert (code, err.count("\n")) == (2, 1)
    assert err.endswith(f"pip install {packages}\n")


def test_without_rich_it_is_plain(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    code, out, _ = run("demo")
    assert code == 0
    assert "\x1b" not in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: ssmrt {command}")


def test_the_process_fails_as_the_function_does(tmp_path: Path) -> None:
    done = process("info", tmp_path / "missing")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "Traceback" in process("info", tmp_path / "missing", SSMRT_TRACEBACK="1").stderr


def test_a_terminal_without_unicode_is_served() -> None:
    done = process("demo", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "12 of 12 words right" in done.stdout


def test_a_closed_pipe_is_no_failure(file: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-m", "ssmrt", "info", str(file)]
    running: Any = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    running.stdout.close()
    errors = running.stderr.read()
    running.stderr.close()
    assert (running.wait(60), errors) == (0, "")


@pytest.mark.parametrize("command", list(COMMANDS))
def test_an_unknown_argument_points_to_the_commands_own_help(run: Run, command: str) -> None:
    code, _, err = run(command, *["x"] * 2, "--nonsense")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"ssmrt {command}: error: ")
    assert err.endswith(f"; see ssmrt {command} --help\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "completed"),
    [("ssmrt pl", ["plot"]), ("ssmrt run --sel", ["--select"]), ("ssmrt plot mod", ["model.ssm.safetensors"])],
)
def test_a_shell_completes_commands_options_and_files(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch, line: str, completed: list[str]
) -> None:
    pytest.importorskip("shtab", reason="needs ssmrt[cli]")
    code, script, _ = run("--print-completion", "bash")
    assert code == 0
    monkeypatch.chdir(file.parent)
    words = line.split()
    ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_ssmrt; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == completed
