"""`ssmrt run`: what the model answers, whatever the samples come in, and no more memory for more of them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmrt
from cases import relative_error
from command_line import Run, at_rate, environment
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from ssmrt import demo
from ssmrt.cli import inputs, outputs
from ssmrt.document import Document, Embedding, Linear, Pool, Sequential
from wav_files import pcm, wav

Array = NDArray[Any]

CLIP = demo.clips()[3]


@pytest.fixture(scope="module")
def spotter() -> ssmrt.Model:
    return demo.spotter()


@pytest.fixture(scope="module")
def spotter_file(spotter: ssmrt.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spotter") / "spotter.ssm.safetensors"
    spotter.save(path)
    return path


@pytest.fixture(scope="module")
def model() -> ssmrt.Model:
    """One input, two outputs a sample, and nothing that the file says of either."""
    A = np.array([[-0.5 + 3j, -0.1 + 20j]])
    return ssmrt.diagonal(A, np.ones((1, 2)), np.array([[[1, 2j]], [[2, 1]]]), None, 0.05)


@pytest.fixture(scope="module")
def file(model: ssmrt.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.ssm.safetensors"
    model.save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the process is."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def give(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Stdin holds these bytes."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))


def lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


# what is answered


def test_run_answers_as_the_model_does(run: Run, spotter_file: Path, folder: Path, spotter: ssmrt.Model) -> None:
    u = noise(3, 40, 1)
    np.save("u.npy", u)
    y = spotter(u)
    assert run("run", spotter_file, "u.npy", "-o", "y.npy") == (0, "", "")
    assert_array_equal(np.load("y.npy"), y)
    answers = lines(run("run", spotter_file, "u.npy", "--json")[1])
    assert [answer["sequence"] for answer in answers] == [0, 1, 2]
    assert_allclose([answer["y"] for answer in answers], y, rtol=1e-6)
    code, table, _ = run("run", spotter_file, "u.npy")
    assert code == 0
    assert len(table.splitlines()) == 4


def test_run_streams_answers_to_every_sample(run: Run, spotter_file: Path, folder: Path, spotter: ssmrt.Model) -> None:
    u = noise(40)
    np.save("u.npy", u)
    assert run("run", spotter_file, "u.npy", "--stream", "-o", "y.npy")[0] == 0
    stream = spotter.stream()
    expected = np.concatenate([stream.step(sample.reshape(1, 1)) for sample in u])
    assert relative_error(np.load("y.npy"), expected) < 2e-6
    assert "16 more" in run("run", spotter_file, "u.npy", "--stream")[1]
    assert len(run("run", spotter_file, "u.npy", "--stream", "-o", "-")[1].splitlines()) == 41
    run("run", spotter_file, "u.npy", "--stream", "-o", "y.txt")
    assert len(Path("y.txt").read_text().splitlines()) == 41
    run("run", spotter_file, "u.npy", "--stream", "-o", "y.jsonl")
    assert [line["sample"] for line in lines(Path("y.jsonl").read_text())] == list(range(40))


@pytest.mark.parametrize("shape", [(1000, 1), (7, 100, 1), (3, 400, 1)])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("pools", [False, True])
def test_blocks_are_the_whole(
    run: Run,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: ssmrt.Model,
    shape: tuple[int, ...],
    stream: bool,
    pools: bool,
) -> None:
    monkeypatch.setattr(inputs, "_MOST_SAMPLES", 256)
    u = noise(*shape)
    np.save("u.npy", u)
    layer = model.document.root
    pooled = ssmrt.Model(Document(Sequential((layer, Pool("mean"))), 1, 2))
    pooled.save("pooled.ssm.safetensors")
    model.save("model.ssm.safetensors")
    name = "pooled.ssm.safetensors" if pools else "model.ssm.safetensors"
    assert run("run", name, "u.npy", "-o", "y.npy", *["--stream"] * stream) == (0, "", "")
    expected = pooled(u) if pools else model(u)
    if pools and stream:
        every = u if u.ndim == 3 else u[None]
        expected = pooled.stream(len(every)).push(every).reshape(*u.shape[:-1], 2)
    found = np.load("y.npy")
    assert found.dtype == np.float32
    assert relative_error(found, expected) < 2e-6


def test_a_model_that_looks_ahead_hears_all_blocks(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_MOST_SAMPLES", 16)
    one = np.ones((1, 1, 2), complex)
    node = ssmrt.document.Diagonal(
        one, np.ones((1, 1)), np.full(1, 0.1), np.array([[-1 + 1j, -2 + 3j]]), one[0], C_reverse=2 * one
    )
    model = ssmrt.Model(Document(node, 1, 1))
    model.save("m.ssm.safetensors")
    u = noise(100, 1)
    np.save("u.npy", u)
    assert run("run", "m.ssm.safetensors", "u.npy", "-o", "y.npy")[0] == 0
    assert_array_equal(np.load("y.npy"), model(u))
    code, _, err = run("run", "m.ssm.safetensors", "u.npy", "--stream")
    assert (code, err.count("\n")) == (2, 1)


def test_it_is_valid_json_for_what_is_not_finite(run: Run, spotter_file: Path, folder: Path) -> None:
    np.save("u.npy", np.full((4, 1), np.nan))
    (answer,) = lines(run("run", spotter_file, "u.npy", "--json")[1])
    assert (set(answer["y"]), answer["label"]) == ({None}, None)


def test_labels_are_printed(run: Run, spotter_file: Path, folder: Path) -> None:
    Path("a.wav").write_bytes(wav(CLIP.samples))
    header, row = run("run", spotter_file, "a.wav")[1].splitlines()
    assert header.split() == ["sequence", "label", *demo.WORDS]
    assert row.split()[:2] == ["0", CLIP.word]
    assert lines(run("run", spotter_file, "a.wav", "--json")[1])[0]["label"] == CLIP.word


# sampling rates


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_sound_is_heard_at_its_own_rate(
    run: Run, spotter_file: Path, folder: Path, spotter: ssmrt.Model, rate: int
) -> None:
    sound = at_rate(CLIP.samples, rate)
    Path("a.wav").write_bytes(wav(sound, 32, rate, tag=3))
    code, out, err = run("run", spotter_file, "a.wav", "--json")
    assert code == 0
    (answer,) = lines(out)
    assert answer["label"] == CLIP.word
    # That modes alias is told in lines of its own.
    assert all(line.startswith("ssmrt: note: rate=2 ") for line in err.splitlines())
    if rate != 8000:
        y = spotter(sound[:, None].astype(np.float32), rate=16000 / rate)
        assert relative_error(np.array(answer["y"]), y) < 2e-6


def test_a_rate_that_nobody_knows_is_asked_for(run: Run, file: Path, folder: Path, model: ssmrt.Model) -> None:
    u = noise(50, 1)
    Path("a.wav").write_bytes(wav(u, 32, 44100, tag=3))
    code, _, err = run("run", file, "a.wav")
    assert (code, err.count("\n")) == (2, 1)
    assert "a.wav has 44100 samples a second" in err
    assert "--sample-rate HZ" in err
    for given, rate in (("--sample-rate=16000", 16000 / 44100), ("--rate=1", 1.0)):
        assert run("run", file, "a.wav", given, "-o", "y.npy")[0] == 0
        assert_array_equal(np.load("y.npy"), model(u, rate=rate))


def test_two_training_rates_are_one_too_many(run: Run, spotter_file: Path, folder: Path) -> None:
    Path("a.wav").write_bytes(wav(CLIP.samples))
    code, _, err = run("run", spotter_file, "a.wav", "--sample-rate", "8000")
    assert (code, "expected 16000, as the model's file says, found 8000" in err) == (2, True)


# what samples come in


@pytest.mark.parametrize(("dtype", "bits"), [("u1", 8), ("i2", 16), ("i4", 32)])
def test_integers_mean_the_same_everywhere(run: Run, file: Path, folder: Path, dtype: str, bits: int) -> None:
    data = pcm(noise(60, 1), bits)
    np.save("u.npy", np.frombuffer(data, dtype)[:, None])
    Path("u.wav").write_bytes(wav(np.zeros(60), bits, data=data))
    code, _, err = run("run", file, "u.npy", "-o", "array.npy")
    assert (code, err.count("\n")) == (0, 1)
    assert "note: u.npy: " in err
    assert "full scale at 1" in err
    assert run("run", file, "u.wav", "--rate=1", "-o", "sound.npy")[0] == 0
    assert_array_equal(np.load("array.npy"), np.load("sound.npy"))


TABLES = {
    "a.csv": "x,y,z\n{0[0]!r},7,{0[1]!r}\n{1[0]!r},7,{1[1]!r}\n{2[0]!r},7,{2[1]!r}\n",
    "b.csv": "x;y;z\r\n{0[0]!r};7;{0[1]!r}\r\n{1[0]!r};7;{1[1]!r}\r\n\r\n{2[0]!r};7;{2[1]!r}",
    "c.csv": "\ufeffx\ty\tz\n{0[0]!r}\t\t{0[1]!r}\n{1[0]!r}\tseven\t{1[1]!r}\n{2[0]!r}\t7\t{2[1]!r}\n",
}


@pytest.fixture
def two(folder: Path) -> ssmrt.Model:
    """A model of two inputs, in a file of its own."""
    model = ssmrt.Model(Document(Linear(np.array([[1.0, 2], [3, 4], [5, 6]])), 2, 3))
    model.save("two.ssm.safetensors")
    return model


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_arrays(run: Run, two: ssmrt.Model, name: str) -> None:
    u = noise(3, 2).astype(np.float64)
    Path(name).write_text(TABLES[name].format(*u.tolist()), encoding="utf-8", newline="")
    assert run("run", "two.ssm.safetensors", name, "--select", "x,z", "-o", "y.npy") == (0, "", "")
    assert_array_equal(np.load("y.npy"), two(u))
    assert run("run", "two.ssm.safetensors", name, "--select", "z,x", "-o", "y.npy")[0] == 0
    assert_array_equal(np.load("y.npy"), two(u[:, ::-1]))


def test_a_table_without_names_has_numbers(run: Run, two: ssmrt.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_MOST_SAMPLES", 3)
    u = noise(10, 2).astype(np.float64)
    Path("u.csv").write_text("".join(f"{a!r},{b!r}\n" for a, b in u.tolist()))
    assert run("run", "two.ssm.safetensors", "u.csv", "-o", "y.npy")[0] == 0
    assert_array_equal(np.load("y.npy"), two(u))
    assert run("run", "two.ssm.safetensors", "u.csv", "--select", "1,0", "-o", "y.npy")[0] == 0
    assert_array_equal(np.load("y.npy"), two(u[:, ::-1]))


def test_parquet_is_a_table(run: Run, two: ssmrt.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs ssmrt[parquet]")
    from pyarrow import parquet  # type: ignore[import-untyped]

    monkeypatch.setattr(inputs, "_MOST_SAMPLES", 4)
    u = noise(10, 2)
    parquet.write_table(pyarrow.table({"a": u[:, 0], "t": ["noon"] * 10, "b": u[:, 1]}), "u.parquet")
    assert run("run", "two.ssm.safetensors", "u.parquet", "--select", "b,a", "-o", "y.npy") == (0, "", "")
    assert_array_equal(np.load("y.npy"), two(u[:, ::-1]))
    code, _, err = run("run", "two.ssm.safetensors", "u.parquet")
    assert (code, err.count("\n")) == (2, 1)
    assert "expected columns of a, t, b" in run("run", "two.ssm.safetensors", "u.parquet", "--select", "c")[2]
    Path("bad.parquet").write_bytes(Path("u.parquet").read_bytes()[:-20])
    assert run("run", "two.ssm.safetensors", "bad.parquet")[0] == 2


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_of_one_name_are_read_in_order_and_never_selected(run: Run, two: ssmrt.Model, kind: str) -> None:
    u = noise(10, 2)

    def write(table: str, columns: Array, names: list[str]) -> None:
        if kind == "csv":
            rows = [names, *columns.T.tolist()]
            Path(table).write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
        else:
            pyarrow = pytest.importorskip("pyarrow", reason="needs ssmrt[parquet]")
            from pyarrow import parquet

            parquet.write_table(pyarrow.table([pyarrow.array(column) for column in columns], names=names), table)

    write(f"u.{kind}", u.T, ["c", "c"])
    assert run("run", "two.ssm.safetensors", f"u.{kind}", "-o", "y.npy") == (0, "", "")
    assert_array_equal(np.load("y.npy"), two(u))
    write(f"three.{kind}", np.array([*u.T, *u.T[:1]]), ["c", "c", "d"])
    code, _, err = run("run", "two.ssm.safetensors", f"three.{kind}", "--select", "c,d")
    assert (code, err.count("\n")) == (2, 1)
    assert "found several columns named 'c'" in err


def test_an_array_of_many_is_selected(run: Run, two: ssmrt.Model) -> None:
    u = noise(10, 2)
    np.savez_compressed("one.npz", u=u)
    np.savez("more.npz", u=u, v=u[::-1])
    for name, given, expected in (("one.npz", [], u), ("more.npz", ["--select", "v"], u[::-1])):
        assert run("run", "two.ssm.safetensors", name, *given, "-o", "y.npy") == (0, "", "")
        assert_array_equal(np.load("y.npy"), two(expected))
    code, _, err = run("run", "two.ssm.safetensors", "more.npz")
    assert (code, "--select with one of its arrays: u, v" in err) == (2, True)
    with zipfile.ZipFile("more.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("u.npy", archive.read("v.npy"))
    code, _, err = run("run", "two.ssm.safetensors", "more.npz", "--select", "u")
    assert (code, "--select with one of its arrays: u, v, u" in err) == (2, True)


def test_tokens_come_in_arrays_and_tables(run: Run, folder: Path) -> None:
    model = ssmrt.Model(Document(Sequential((Embedding(noise(5, 3)),)), 1, 3))
    model.save("m.ssm.safetensors")
    tokens = np.array([4, 0, 2, 2])
    np.save("u.npy", tokens.astype(np.int16))
    Path("u.csv").write_text("token\n4\n0\n2\n2\n")
    for name in ("u.npy", "u.csv"):
        assert run("run", "m.ssm.safetensors", name, "-o", "y.npy") == (0, "", "")
        assert_array_equal(np.load("y.npy"), model(tokens))


def test_channels_are_mixed_only_when_asked(run: Run, file: Path, folder: Path, model: ssmrt.Model) -> None:
    u = noise(50, 2)
    Path("a.wav").write_bytes(wav(u, 32, tag=3))
    code, _, err = run("run", file, "a.wav", "--rate=1")
    assert (code, "expected 1 channels, found 2; --mono takes their mean" in err) == (2, True)
    assert run("run", file, "a.wav", "--rate=1", "--mono", "-o", "y.npy") == (0, "", "")
    assert_array_equal(np.load("y.npy"), model(u.mean(axis=1, keepdims=True)))


# many


def test_many_files_in_one_call(run: Run, spotter_file: Path, folder: Path) -> None:
    clips = demo.clips()[:3]
    names = [f"{clip.word}.wav" for clip in clips]
    for name, clip in zip(names, clips):
        Path(name).write_bytes(wav(clip.samples))
    found = lines(run("run", spotter_file, *names, "--json")[1])
    assert [(answer["file"], answer["label"]) for answer in found] == [(f"{c.word}.wav", c.word) for c in clips]
    table = run("run", spotter_file, *names)[1].splitlines()
    assert table[0].split()[:2] == ["file", "label"]
    assert [row.split()[:2] for row in table[1:]] == [[f"{c.word}.wav", c.word] for c in clips]
    assert run("run", spotter_file, *names, "-o", "answers/")[0] == 0
    for clip, answer in zip(clips, found):
        assert_allclose(np.load(f"answers/{clip.word}.npy"), answer["y"], rtol=1e-6)


# pipes


@pytest.mark.parametrize("size", [None, 0, 0xFFFFFFFF, 0x7FFFFF00])
def test_a_wav_comes_through_a_pipe(
    run: Run, spotter_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, size: int | None
) -> None:
    give(monkeypatch, wav(CLIP.samples, size=size))
    code, out, err = run("run", spotter_file, "-", "--json")
    assert (code, err, lines(out)[0]["label"]) == (0, "", CLIP.word)


@pytest.mark.parametrize("encoding", ["s16le", "f32le"])
def test_raw_samples_come_through_a_pipe(
    run: Run, spotter_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    data = pcm(CLIP.samples, 16) if encoding == "s16le" else CLIP.samples.tobytes()
    Path("a.raw").write_bytes(data)
    for name, raw in (("-", encoding), ("-", f"{encoding},16000"), ("a.raw", f"{encoding},16000,1")):
        give(monkeypatch, data)
        code, out, err = run("run", spotter_file, name, "--raw", raw, "--json")
        assert (code, err, lines(out)[0]["label"]) == (0, "", CLIP.word)
    # Twice as many samples a second, in pairs of channels.
    twice = np.stack([at_rate(CLIP.samples, 32000)] * 2, 1).astype("<f4")
    give(monkeypatch, twice.tobytes())
    code, out, _ = run("run", spotter_file, "-", "--raw", "f32le,32000,2", "--mono", "--json")
    assert (code, lines(out)[0]["label"]) == (0, CLIP.word)


@pytest.mark.parametrize("header", [False, True])
def test_what_is_no_whole_sample_is_said_and_dropped(
    run: Run, file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, model: ssmrt.Model, header: bool
) -> None:
    u = noise(50, 1)
    data = wav(u, 32, tag=3, size=0xFFFFFFFF) if header else u.astype("<f4").tobytes()
    give(monkeypatch, data + b"abc")
    given = ["--rate", "1"] if header else ["--raw", "f32le"]
    code, out, err = run("run", file, "-", *given, "-o", "y.npy")
    assert (code, out, err.count("\n")) == (0, "", 1)
    assert "stdin: ended within a sample: of its 4 bytes the last 3 came, and are dropped" in err
    assert_array_equal(np.load("y.npy"), model(u))


def test_a_pipe_is_answered_while_it_runs(spotter_file: Path) -> None:
    command = [sys.executable, "-m", "ssmrt", "run", str(spotter_file), "-", "--stream", "-o", "-", "--json"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment()}
    with subprocess.Popen(command, **pipes) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(wav(np.zeros(0), size=0xFFFFFFFF) + bytes(200))
        running.stdin.flush()
        # All of them, before the pipe is closed.
        first = [json.loads(running.stdout.readline())["sample"] for _ in range(100)]
        assert first == list(range(100))
        running.stdin.write(bytes(20))
        running.stdin.close()
        assert len(running.stdout.readlines()) == 10
    assert running.returncode == 0


# memory, progress, what is left behind


def peak(*argv: object) -> int:
    """Bytes that a run of the command had in memory at most. ru_maxrss would count those of who started it."""
    code = "import sys; from ssmrt.cli import main; code = main(sys.argv[1:]); "
    code += "print(open('/proc/self/status').read()); sys.exit(code)"
    command = [sys.executable, "-c", code, *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120, check=True)
    return 1024 * int(done.stdout.partition("VmHWM:")[2].split()[0])


def test_memory_does_not_grow_with_the_recording(spotter_file: Path, folder: Path, spotter: ssmrt.Model) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux has /proc")
    second = pcm(CLIP.samples, 16)
    for seconds in (1, 120):
        Path(f"{seconds}.wav").write_bytes(wav(np.zeros(16000 * seconds), data=second * seconds))
    need = [peak("run", spotter_file, f"{s}.wav", "--stream", "-o", f"{s}.npy") for s in (1, 120)]
    # Whole, the longer one's answers alone are 77 MB.
    assert need[1] - need[0] < 5e6
    found = np.load("120.npy", mmap_mode="r")
    assert found.shape == (120 * 16000, 10)
    sound = np.tile(np.frombuffer(second, "<i2").astype(np.float32) / 2**15, 120)
    assert relative_error(found[-1], spotter(sound[:, None])) < 2e-6


def test_progress_is_shown_on_a_terminal_only(
    run: Run, spotter_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rich", reason="needs ssmrt[cli]")
    Path("a.wav").write_bytes(wav(CLIP.samples))
    assert run("run", spotter_file, "a.wav", "-o", "y.npy") == (0, "", "")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    code, out, err = run("run", spotter_file, "a.wav", "-o", "y.npy")
    assert (code, out) == (0, "")
    assert "a.wav" in err
    assert "\x1b" in err
    # The table is where it is without a bar.
    assert CLIP.word in run("run", spotter_file, "a.wav")[1]


def test_a_failure_leaves_no_file_and_a_stop_what_is_there(folder: Path) -> None:
    path = folder / "y.npy"
    path.write_text("before")

    def answers(error: BaseException) -> Any:
        yield outputs.Answers(np.ones((3, 2)), 0, 0)
        raise error

    npy = outputs.Npy(path, 2, np.dtype(np.float32), folder=False)
    with pytest.raises(ValueError, match="why"):
        npy.write(outputs.Source(None, None), answers(ValueError("why")))
    assert [file.name for file in folder.iterdir()] == ["y.npy"]
    assert path.read_text() == "before"
    with pytest.raises(KeyboardInterrupt):
        npy.write(outputs.Source(None, None), answers(KeyboardInterrupt()))
    assert [file.name for file in folder.iterdir()] == ["y.npy"]
    assert_array_equal(np.load(path), np.ones((3, 2)))


FAILURES = {
    "MODEL int64.npy": "expected floats, or PCM in uint8, int8, int16, int32, found dtype int64",
    "MODEL u.npy --select a": "--select: expected an .npz, .csv or .parquet file",
    "MODEL u.npy --sample-rate 8000": "u.npy does not say its own sampling rate",
    "MODEL u.npy --raw s17le": "--raw: expected ENCODING",
    "MODEL u.npy --raw s16le,0": "--raw: expected ENCODING",
    "MODEL u.npy --raw s16le,8000,0": "--raw: expected ENCODING",
    "MODEL u.npy --raw s16le,8000,1,2": "--raw: expected ENCODING",
    "MODEL - -": "expected - once at most",
    "MODEL text.npz": "expected arrays of numbers",
    "MODEL text.csv": "line 2: expected numbers",
    "MODEL ragged.csv": "line 2: expected 1 columns, found 2",
    "MODEL empty.csv": "expected samples, found none",
    "MODEL u.csv --select x": "expected columns of 0",
    "MODEL text.parquet": "expected a table of numbers",
    "MODEL u.npy u.csv -o y.npy": "expected a folder, .jsonl or .txt for the answers to 2 inputs",
    "MODEL u.npy u.csv -o folder/": "found u twice",
    "MODEL u.npy -o y.xls": "--output: expected a file",
    "SPOTTER empty.wav": "expected samples, found none",
    "TOKENS a.wav": "the model takes tokens",
    "TOKENS u.npy": "expected integer tokens, found dtype float32",
    "TOKENS two.csv": "expected one column of tokens, found 2",
    "TOKENS two.parquet": "found 2 columns where one has tokens",
    "TOKENS u.npy --mono": "--mono: expected a model that takes one channel",
}


@pytest.mark.parametrize("line", FAILURES)
def test_what_cannot_be_run_is_named(
    run: Run, file: Path, spotter_file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    np.save("int64.npy", np.zeros((3, 1), np.int64))
    np.save("u.npy", noise(3, 1))
    Path("u.csv").write_text("1\n2\n")
    Path("two.csv").write_text("1,2\n")
    Path("text.csv").write_text("x\ny\n")
    Path("ragged.csv").write_text("1\n2,3\n")
    for name in ("empty.csv", "empty.npz"):
        Path(name).write_text("")
    for name in ("text.npz", "text.parquet"):
        Path(name).write_text("no such thing")
    Path("a.wav").write_bytes(wav(CLIP.samples))
    Path("empty.wav").write_bytes(wav(np.zeros(0)))
    ssmrt.Model(Document(Sequential((Embedding(noise(5, 3)),)), 1, 3)).save("tokens.ssm.safetensors")
    give(monkeypatch, b"no sound")
    if "parquet" in line:
        pyarrow = pytest.importorskip("pyarrow", reason="needs ssmrt[parquet]")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"a": [1], "b": [2]}), "two.parquet")
    names = {"MODEL": file, "SPOTTER": spotter_file, "TOKENS": "tokens.ssm.safetensors"}
    code, _, err = run("run", *(names.get(word, word) for word in line.split()))
    assert (code, err.count("\n")) == (2, 1)
    assert FAILURES[line] in err


def test_damaged_arrays_and_tables_are_named(run: Run, file: Path, folder: Path) -> None:
    np.save("u.npy", noise(3, 1))
    np.savez("u.npz", u=noise(3, 1))
    array, archive = Path("u.npy").read_bytes(), Path("u.npz").read_bytes()
    # A header that Python's tokenizer does not get to the end of, a member without an array's first bytes, and one that
    # stands before the file.
    Path("header.npy").write_bytes(array.replace(b"}", b"(", 1))
    Path("member.npz").write_bytes(archive.replace(b"\x93NUMPY", b"\x93NUMPX"))
    end = archive.index(b"PK\x01\x02") + 42
    Path("offset.npz").write_bytes(archive[:end] + b"\xff" * 4 + archive[end + 4 :])
    for name in ("header.npy", "member.npz", "offset.npz"):
        code, _, err = run("run", file, name)
        assert (code, err.count("\n")) == (2, 1), err
        assert f"error: {name}: expected" in err
        assert "of numbers" in err


def test_a_damaged_page_of_a_table_is_named(run: Run, file: Path, folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs ssmrt[parquet]")
    table = pytest.importorskip("pyarrow").table({"u": np.arange(50.0)})
    parquet.write_table(table, "u.parquet")
    data = Path("u.parquet").read_bytes()
    Path("u.parquet").write_bytes(data[:4] + b"\xff" * 8 + data[12:])
    code, _, err = run("run", file, "u.parquet")
    assert (code, err.count("\n")) == (2, 1)
    assert "error: u.parquet: expected a table of numbers" in err


def test_what_stdin_is_must_be_said(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (b"", b"RI", bytes(100)):
        give(monkeypatch, data)
        code, _, err = run("run", file, "-")
        assert (code, err.count("\n")) == (2, 1)
        assert "--raw ENCODING" in err


@pytest.mark.parametrize(("module", "name"), [("pyarrow", "u.parquet"), ("soundfile", "u.flac")])
def test_what_a_missing_extra_brings_is_named(
    run: Run, file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    Path(name).write_text("whatever")
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = run("run", file, name)
    assert (code, err.count("\n")) == (2, 1)
    assert err.endswith(f"pip install {module}\n")
