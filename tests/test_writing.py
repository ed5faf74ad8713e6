"""What is written is there whole or not at all, and what was there before stays until then."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmrt
from ssmrt import writing
from ssmrt.document import Linear

FILES = Path(__file__).parent
LIMIT = 8192


def model(width: int) -> ssmrt.Model:
    g = np.random.default_rng(width)
    return ssmrt.Model(ssmrt.Document(Linear(g.standard_normal((width, width))), width, width))


def save(path: Path) -> None:
    large = model(64)
    with limited():
        large.save(path)


def export(path: Path) -> None:
    pytest.importorskip("onnx", reason="needs ssmrt[onnx]")
    with limited():
        ssmrt.export_onnx(model(64), path)


def command(*arguments: Any) -> int:
    from ssmrt.cli.main import main

    return main([str(argument) for argument in arguments])


def convert(path: Path) -> None:
    source = path.parent / "source.ssm.safetensors"
    model(64).save(source)
    with limited():
        raise_on(command("convert", source, path))


def run(path: Path) -> None:
    source, u = path.parent / "small.ssm.safetensors", path.parent / "u.npy"
    model(4).save(source)
    np.save(u, np.ones((8000, 4), np.float32))
    with limited():
        raise_on(command("run", source, u, "--output", path))


def raise_on(code: int) -> None:
    if code:
        raise OSError(f"the command failed with {code}")


@contextmanager
def limited() -> Iterator[None]:
    """Within, no file grows beyond LIMIT bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS: dict[str, Callable[[Path], None]] = {
    "model.ssm.safetensors": save,
    "model.onnx": export,
    "converted.ssm.safetensors": convert,
    "answers.npy": run,
    "answers.jsonl": run,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_no_part(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    for before in (None, b"what was there"):
        if before is not None:
            path.write_bytes(before)
        with pytest.raises(OSError, match=r"File too large|the command failed"):
            WRITERS[name](path)
        assert (path.read_bytes() if path.exists() else None) == before
        assert not [entry for entry in tmp_path.iterdir() if ".part" in entry.name]


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.ssm.safetensors"
    with pytest.raises(OSError, match="File too large") as caught:
        save(path)
    assert caught.value.filename == str(path)


def test_files_that_belong_together_are_written_together(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"old")
    with limited(), pytest.raises(OSError, match="File too large"):
        writing.write({small: b"new", large: bytes(2 * LIMIT)})
    assert small.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["small"]
    writing.write({small: b"new", large: bytes(LIMIT)})
    assert (small.read_bytes(), large.stat().st_size) == (b"new", LIMIT)


@contextmanager
def nobody() -> Iterator[None]:
    """Within, the user is one who may not write everywhere."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_that_cannot_be_written_to_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.ssm.safetensors")
        path.write_bytes(b"what was there")
        os.chmod(folder, 0o555)
        with nobody(), pytest.raises(PermissionError) as caught:
            model(4).save(path)
        os.chmod(folder, 0o755)
        assert (caught.value.filename, path.read_bytes()) == (str(path), b"what was there")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing: no such folder to write model\.ssm\.safetensors into"):
        model(4).save(tmp_path / "missing" / "model.ssm.safetensors")


def test_links_devices_and_permissions_stay_what_they_are(tmp_path: Path) -> None:
    real, link = tmp_path / "real.ssm.safetensors", tmp_path / "link.ssm.safetensors"
    model(4).save(real)
    mask = os.umask(0)
    os.umask(mask)
    assert real.stat().st_mode & 0o777 == 0o666 & ~mask
    real.chmod(0o640)
    link.symlink_to(real)
    model(5).save(link)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert ssmrt.load(link).d_input == 5
    model(4).save(Path(os.devnull))
    assert Path(os.devnull).is_char_device()


SAVING = """
import sys
from pathlib import Path
from test_writing import model
sizes = {n: model(n) for n in (300, 301)}
print("ready", flush=True)
while True:
    for each in sizes.values():
        each.save(Path(sys.argv[1]))
"""


def test_a_process_killed_while_it_saves_leaves_a_model(tmp_path: Path) -> None:
    path = tmp_path / "model.ssm.safetensors"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    g = np.random.default_rng(0)
    for _ in range(4):
        saving = subprocess.Popen([sys.executable, "-c", SAVING, str(path)], env=env, stdout=subprocess.PIPE)
        assert saving.stdout is not None
        with saving, saving.stdout as told:
            assert told.readline() == b"ready\n"
            while not path.exists():
                time.sleep(0.001)
            time.sleep(g.uniform(0, 0.05))
            saving.kill()
        assert ssmrt.load(path).d_input in (300, 301)
