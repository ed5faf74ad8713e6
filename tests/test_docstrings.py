"""Every public docstring has an example, and every example gives what stands below it."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ssmrt
from cases import GOLDEN
from ssmrt import demo

PACKAGE = Path(ssmrt.__file__).parent
PARSER = doctest.DocTestParser()
NEEDS = {"callback": "jax", "Module": "torch", "export_onnx": "onnx", "OnnxStream": "onnxruntime"}
NEEDS |= dict.fromkeys(("figure", "latencies", "reduction"), "matplotlib")


def documented() -> Iterator[tuple[str, str]]:
    """(file::name, docstring) of what users call; the stub has those of the engine."""
    for path in (*PACKAGE.rglob("*.py"), PACKAGE / "_native.pyi"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                place = f"{path.relative_to(PACKAGE).as_posix()}::{node.name}"
                yield place, ast.get_docstring(node) or ""
                for inner in node.body if isinstance(node, ast.ClassDef) else ():
                    # Properties and overloads have none.
                    if isinstance(inner, ast.FunctionDef) and not inner.decorator_list[:1]:
                        yield f"{place}.{inner.name}", ast.get_docstring(inner) or ""


DOCUMENTED = dict(documented())
EXAMPLES = {place: text for place, text in DOCUMENTED.items() if ">>>" in text}
LAYERS = [name for name, found in vars(ssmrt.nn).items() if inspect.isfunction(found)]
CLASSES = r"(model\.py::Model|_native\.pyi::Stream|export/onnx_stream\.py::OnnxStream)"
METHODS = [place for place in DOCUMENTED if re.match(CLASSES + r"\.[a-z]", place)]
# With those that are not among the names at the top.
ERRORS = [place for place in DOCUMENTED if re.fullmatch(r"errors\.py::\w+", place)]


@pytest.mark.parametrize("place", EXAMPLES)
def test_an_example_gives_what_it_says(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = place.rpartition("::")[2].partition(".")[0]
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.chdir(tmp_path)
    model = demo.spotter()
    model.save("model.ssm.safetensors")
    shutil.copy(GOLDEN / "torch/s4d_minimal/checkpoint_dataparallel.pt", "model.pth")
    if "onnx_stream" in place:
        ssmrt.export_onnx(model, "model.onnx")
    names = {"ssmrt": ssmrt, "np": np, "model": model, "stream": model.stream()}
    test = PARSER.get_doctest(EXAMPLES[place], names, place, place, None)
    found = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
    assert found.failed == 0


@pytest.mark.parametrize("place", METHODS + ERRORS)
def test_a_method_and_an_exception_have_an_example(place: str) -> None:
    assert place in EXAMPLES


@pytest.mark.parametrize("name", sorted({*ssmrt.__all__} - {"nn", "ops"}))
def test_a_public_name_has_an_example(name: str) -> None:
    assert any(place.endswith(f"::{name}") for place in EXAMPLES if not place.startswith("nn"))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_has_an_example(name: str) -> None:
    assert any(place.endswith(f"::{name}") for place in EXAMPLES if place.startswith("nn"))
