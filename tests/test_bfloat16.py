"""Weights in bfloat16: the model of the rounded matrices, and nothing else is rounded."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmrt
from cases import cases
from hypothesis import given
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from ssmrt import Model
from ssmrt.document import Document, Linear, Node, Selective
from strategies import Case, models
from strategies import cases as drawn

Array = NDArray[Any]

# The matrices that mix channels.
MIXING = {Linear: ("weight",), Selective: ("x_proj", "dt_proj")}


def to_bfloat16(x: Array) -> Array:
    """The nearest numbers of 8 significant bits."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def mapped(node: Node, change: Callable[[Array], Array]) -> Node:
    """The node with its mixing matrices changed, and those of all below it."""

    def value(name: str, x: Any) -> Any:
        if isinstance(x, Node):
            return mapped(x, change)
        if isinstance(x, tuple):
            return tuple(mapped(item, change) for item in x)
        return change(x) if name in MIXING.get(type(node), ()) else x

    return replace(node, **{f.name: value(f.name, getattr(node, f.name)) for f in fields(node)})


def rounded(document: Document) -> Document:
    return replace(document, root=mapped(document.root, to_bfloat16))


@given(drawn(models(causal=True)))
def test_a_model_is_that_of_the_rounded_matrices(case: Case) -> None:
    """To the last bit, whole, in chunks and sample by sample."""
    model, plain = Model(case.document, weights="bfloat16"), Model(rounded(case.document))
    assert_array_equal(model(case.u), plain(case.u))
    ours, theirs = model.stream(len(case.u)), plain.stream(len(case.u))
    for part in case.splits():
        assert_array_equal(ours.push(case.u[:, part]), theirs.push(case.u[:, part]))


def matrices(node: Any) -> list[Array]:
    own = [getattr(node, name) for name in MIXING.get(type(node), ())]
    below = [getattr(node, f.name) for f in fields(node)]
    nodes = itertools.chain.from_iterable(x if isinstance(x, tuple) else (x,) for x in below)
    return own + [array for child in nodes if isinstance(child, Node) for array in matrices(child)]


def test_its_document_has_the_rounded_matrices(tmp_path: Path) -> None:
    path = next(case for case in cases("torch/hf_mamba2")).files[0][0]
    exact = ssmrt.load(path)
    model = ssmrt.load(path, weights="bfloat16")
    found, expected = matrices(model.document.root), matrices(rounded(exact.document).root)
    assert len(found) == len(expected) > 5
    for one, other in zip(found, expected):
        assert_array_equal(one, other)
    # Saved and loaded again, pickled, it is the same; what is rounded once is not rounded again.
    u = np.arange(12)[None] % 60
    model.save(tmp_path / "model.ssm.safetensors")
    again = ssmrt.load(tmp_path / "model.ssm.safetensors", weights="bfloat16")
    for same in (again, ssmrt.load(tmp_path / "model.ssm.safetensors"), pickle.loads(pickle.dumps(model))):
        assert_array_equal(same(u), model(u))
    assert np.abs(exact(u) - model(u)).max() > 1e-4 * np.abs(exact(u)).max()


def test_float64_has_no_bfloat16() -> None:
    document = Document(Linear(np.ones((2, 2))), 2, 2)
    with pytest.raises(ValueError, match="expected a float32 engine for bfloat16, found float64"):
        Model(document, "float64", weights="bfloat16")
    with pytest.raises(ValueError, match="weights: expected"):
        Model(document, weights="int8")  # type: ignore[arg-type]
