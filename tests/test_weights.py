"""Weights in bfloat16 and int8: the model of the rounded matrices, and nothing else is rounded."""

from __future__ import annotations

import itertools
import json
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
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from ssmrt import CheckpointError, Model, _native, readers
from ssmrt.document import (
    Activation,
    Document,
    Embedding,
    Linear,
    Node,
    Selective,
    Sequential,
    encode,
    from_bytes,
    to_bytes,
)
from ssmrt.model import Weights
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


def test_a_file_in_bfloat16_keeps_its_width(tmp_path: Path) -> None:
    """Its matrices take two bytes a number, its table too; widened they give the same, to the last bit."""
    path = next(case for case in cases("torch/hf_mamba2")).files[0][0]
    tensors = readers.read(path).tensors
    bits = {name: (x.astype(np.float32).view(np.uint32) >> 16).astype("<u2") for name, x in tensors.items()}
    ends = np.cumsum([0, *(x.nbytes for x in bits.values())]).tolist()
    entries = zip(bits, bits.values(), itertools.pairwise(ends))
    header = {name: {"dtype": "BF16", "shape": x.shape, "data_offsets": at} for name, x, at in entries}
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(
        len(text).to_bytes(8, "little") + text + b"".join(x.tobytes() for x in bits.values())
    )
    (tmp_path / "config.json").write_bytes((path / "config.json").read_bytes())
    model, wide = ssmrt.load(tmp_path), ssmrt.load(tmp_path, weights="float32")
    asked = ssmrt.load(tmp_path, weights="bfloat16")
    u = np.arange(12)[None] % 60
    assert_array_equal(model(u), wide(u))
    assert_array_equal(model(u), asked(u))
    assert model.signal_to_noise is wide.signal_to_noise is asked.signal_to_noise is None
    # Biases are whole.
    assert wide.weight_bytes // 2 < model.weight_bytes == asked.weight_bytes < 0.55 * wide.weight_bytes
    assert ssmrt.load(path).weight_bytes == wide.weight_bytes
    exact = ssmrt.load(tmp_path, dtype="float64")
    assert np.abs(model(u) - exact(u)).max() < 1e-5 * np.abs(exact(u)).max()


@given(drawn(models(causal=True)))
def test_int8_is_integers_times_a_scale_for_each_output(case: Case) -> None:
    model = Model(case.document, weights="int8")
    given, kept = matrices(case.document.root), matrices(model.document.root)
    signal = noise = 0.0
    for exact, found in zip(given, kept):
        exact = exact.astype(np.float32)
        scale = np.abs(found).max(-1, keepdims=True) / np.float32(127)
        largest = np.abs(exact).max(-1, keepdims=True)
        # The scale has eight digits.
        assert (np.abs(127 * scale - largest) <= largest / 128 + 1e-30).all()
        assert (np.abs(found - exact) <= 0.51 * scale + 1e-30).all()
        steps = np.divide(found, scale, out=np.zeros_like(found), where=scale > 0)
        assert_allclose(steps, np.rint(steps), atol=1e-4)
        signal, noise = signal + float((exact.astype(float) ** 2).sum()), noise + float(((exact - found) ** 2).sum())
    if noise > 1e-12 * signal:
        assert model.signal_to_noise == pytest.approx(10 * np.log10(signal / noise), abs=0.01)
    # Sums are those of float32.
    plain = Model(model.document, "float64")(case.u)
    assert np.abs(model(case.u) - plain).max() <= 1e-4 * max(np.abs(plain).max(), 1e-3)
    # What is rounded once is not rounded again.
    assert_array_equal(Model(model.document, weights="int8")(case.u), model(case.u))


@pytest.mark.parametrize("weights", [None, "float32", "bfloat16", "int8"])
def test_a_tied_head_is_the_table(weights: Weights | None, tmp_path: Path) -> None:
    """One tensor in the file, one matrix in the engine, the same answers as of two."""
    table = np.random.default_rng(0).standard_normal((40, 24)).astype(np.float32)
    tied = Document(Sequential((Embedding(table), Activation("gelu"), Linear(table, np.ones(40)))), 1, 40)
    apart = Document(Sequential((Embedding(table), Activation("gelu"), Linear(table.copy(), np.ones(40)))), 1, 40)
    model, other = Model(tied, weights=weights), Model(apart, weights=weights)
    u = np.arange(40)
    if weights in (None, "float32"):
        assert_array_equal(model(u), other(u))
    else:
        # The table is that of the head, which is rounded.
        head = matrices(model.document.root)[0]
        rounded = replace(
            apart, root=Sequential((Embedding(head), Activation("gelu"), Linear(head.copy(), np.ones(40))))
        )
        assert_array_equal(model(u), Model(rounded, weights=weights)(u))
    assert model.num_parameters == table.size + 40 < other.num_parameters
    first, _, last = model.document.root.children  # type: ignore[attr-defined]
    assert first.weight is last.weight
    model.save(tmp_path / "tied.ssm.safetensors")
    other.save(tmp_path / "apart.ssm.safetensors")
    sizes = [(tmp_path / f"{name}.ssm.safetensors").stat().st_size for name in ("tied", "apart")]
    assert sizes[1] - sizes[0] > 0.9 * table.nbytes
    again = ssmrt.load(tmp_path / "tied.ssm.safetensors", weights=weights)
    assert_array_equal(again(u), model(u))
    assert_array_equal(Model(from_bytes(to_bytes(tied), "it"), weights=weights)(u), model(u))


def test_a_table_is_tied_to_one_map_only() -> None:
    """More would be more than the file justifies."""
    table = np.eye(8, dtype=np.float32)
    nodes = (Embedding(table), Linear(table), Linear(table))
    assert_array_equal(Model(Document(Sequential(nodes), 1, 8))(np.arange(8)), table)
    tree, tensors = encode(Document(Sequential(nodes), 1, 8))
    assert len(tensors) == 2
    again = tree.replace("root.children.2.weight", "root.children.0.weight")
    with pytest.raises(CheckpointError, match="that no other field uses"):
        _native.Document(again, list(tensors.items())[:1])


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_float64_has_weights_of_float64_only(weights: Weights) -> None:
    document = Document(Linear(np.ones((2, 2))), 2, 2)
    with pytest.raises(ValueError, match=f"expected a float32 engine for {weights}, found float64"):
        Model(document, "float64", weights=weights)
    with pytest.raises(ValueError, match="weights: expected"):
        Model(document, weights="int4")  # type: ignore[arg-type]
