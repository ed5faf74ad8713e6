"""The package: what it brings, and what it does not import."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import pytest
import ssmrt

ROOT = Path(__file__).parents[1]

PUBLIC = [
    *("load", "Model", "Stream", "Document", "verify", "export_c", "export_onnx", "OnnxStream"),
    *("diagonal", "dplr", "dense", "selective", "nn", "discretize", "hippo", "ops"),
    *("SsmrtError", "CheckpointError", "ConfigRequired", "UnsupportedError", "NotStreamable", "ExportError"),
]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_there(name: str) -> None:
    assert getattr(ssmrt, name) is not None


def test_functions_are_not_hidden_by_modules_of_their_names() -> None:
    for name in ("load", "verify", "export"):
        importlib.import_module(f"ssmrt.{name}")
    assert isinstance(ssmrt.load, FunctionType)
    assert isinstance(ssmrt.verify, FunctionType)
    assert ssmrt.export_onnx is importlib.import_module("ssmrt.export").export_onnx


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = ssmrt.nonsense  # type: ignore[attr-defined]


def test_importing_it_imports_numpy_alone() -> None:
    code = "import sys, ssmrt; print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, env=environment, timeout=60, check=True
    )
    assert {name for name in done.stdout.split() if not name.startswith("_")} == {"numpy", "ssmrt"}


def test_one_version() -> None:
    cargo = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    match = re.search(r'^version = "(.+)"', cargo, re.MULTILINE)
    assert match is not None
    assert match[1] == ssmrt.__version__


def test_the_wheel_needs_numpy_alone() -> None:
    try:
        needs = importlib.metadata.requires("ssmrt") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("ssmrt runs from its source tree")
    assert [need for need in needs if "extra" not in need] == ["numpy>=1.26"]


@pytest.mark.parametrize("file", ["py.typed", "_native.pyi", "data/spotter.ssm.safetensors", "data/clips.npz"])
def test_the_package_holds_its_data(file: str) -> None:
    assert (Path(ssmrt.__file__).parent / file).is_file()
