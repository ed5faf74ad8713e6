"""examples/ray_data.py on a cluster of this machine: two actors label, and name what they cannot hear."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ssmrt import demo
from wav_files import wav

pytest.importorskip("ray", reason="needs ray[data]")
pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

EXAMPLE = Path(__file__).parents[1] / "examples" / "ray_data.py"
CLIPS = demo.clips()


def labelled(source: Path, folder: Path) -> tuple[list[dict[str, Any]], str]:
    """The rows of the result, in the order of their first column, and what was said."""
    demo.spotter().save(folder / "model.ssm.safetensors")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "RAY_DEDUP_LOGS": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    paths = map(str, (EXAMPLE, folder / "model.ssm.safetensors", source, folder / "labels"))
    command = [sys.executable, *paths, "--actors", "2"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    if done.returncode:
        return [], done.stderr
    rows = parquet.read_table(folder / "labels").to_pylist()
    return sorted(rows, key=lambda row: next(iter(row.values()))), done.stderr


def test_a_folder_of_sounds_is_labelled(tmp_path: Path) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for i in range(24):
        (sounds / f"{i:02}.wav").write_bytes(wav(CLIPS[i % len(CLIPS)].samples))
    (sounds / "24.wav").write_bytes(b"RIFF but no sound")
    rows, said = labelled(sounds, tmp_path)
    assert len(rows) == 25, said
    assert [row["label"] for row in rows[:24]] == [CLIPS[i % len(CLIPS)].word for i in range(24)]
    assert all(row["seconds"] == 1.0 and row["error"] == "" for row in rows[:24])
    assert rows[24]["label"] == ""
    assert "24.wav" in rows[24]["error"]


def test_a_table_of_recordings_is_labelled(tmp_path: Path) -> None:
    source = tmp_path / "recordings.parquet"
    samples = [clip.samples.tolist() for clip in CLIPS]
    columns = {"id": list(range(len(samples))), "samples": samples, "rate": [16000] * len(samples)}
    parquet.write_table(pa.table(columns), source)
    rows, said = labelled(source, tmp_path)
    assert [row["label"] for row in rows] == [clip.word for clip in CLIPS], said
    assert list(rows[0]) == ["id", "label", "score", "seconds", "error"]


def test_a_table_of_another_kind_is_named(tmp_path: Path) -> None:
    source = tmp_path / "recordings.parquet"
    parquet.write_table(pa.table({"sound": ["text"], "rate": [16000]}), source)
    rows, said = labelled(source, tmp_path)
    assert rows == []
    assert "expected columns samples and rate, found sound, rate" in said


def test_columns_of_the_result_are_not_written_over(tmp_path: Path) -> None:
    source = tmp_path / "recordings.parquet"
    parquet.write_table(pa.table({"samples": [[0.0]], "rate": [16000], "label": ["yes"]}), source)
    rows, said = labelled(source, tmp_path)
    assert rows == []
    assert "error:" in said
    assert "expected other names than those of the result, found label" in said


def test_rows_that_are_no_recording_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    source = tmp_path / "recordings.parquet"
    clip = CLIPS[0].samples.tolist()
    columns = {"id": range(5), "samples": [clip, [], None, [1.0, None], clip], "rate": [16000, 16000, 16000, 16000, 0]}
    parquet.write_table(pa.table({name: list(values) for name, values in columns.items()}), source)
    rows, said = labelled(source, tmp_path)
    assert [row["label"] for row in rows] == [CLIPS[0].word, "", "", "", ""], said
    assert rows[0]["error"] == ""
    assert all("expected a list of finite numbers" in row["error"] for row in rows[1:4])
    assert rows[4]["error"] == "rate: expected samples a second, found 0"


def test_a_column_of_another_type_is_named_row_by_row(tmp_path: Path) -> None:
    source = tmp_path / "recordings.parquet"
    parquet.write_table(pa.table({"id": [0, 1], "samples": ["text", "more"], "rate": [16000, 16000]}), source)
    rows, said = labelled(source, tmp_path)
    assert len(rows) == 2, said
    assert all("could not convert string to float" in row["error"] for row in rows)
    assert np.isnan(rows[0]["score"])
