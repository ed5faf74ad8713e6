"""What a Document says of itself: its sampling rate and its labels, kept by the file and checked."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmrt
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from ssmrt import demo
from ssmrt.document import Document, Linear, from_bytes, to_bytes
from ssmrt.errors import CheckpointError

LABELS = st.lists(st.text(min_size=1, max_size=5), min_size=3, max_size=3, unique=True).map(tuple)
RATES = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


def document(sample_rate: Any = None, labels: Any = None) -> Document:
    return Document(Linear(np.eye(3)), 3, 3, {}, sample_rate, labels)


def tree(data: bytes) -> dict[str, Any]:
    size = struct.unpack_from("<Q", data)[0]
    found: dict[str, Any] = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["ssmrt"])
    return found


def with_tree(**changes: Any) -> bytes:
    """A file of three outputs whose tree has other entries."""
    data = to_bytes(document())
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"]["ssmrt"] = json.dumps({**tree(data), **changes})
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


@given(st.none() | RATES, st.none() | LABELS)
def test_the_file_keeps_the_sampling_rate_and_the_labels(rate: float | None, labels: tuple[str, ...] | None) -> None:
    told = document(rate, labels)
    model = ssmrt.Model(told)
    for kept in (from_bytes(to_bytes(told), "here"), model, pickle.loads(pickle.dumps(model))):
        assert (kept.sample_rate, kept.labels) == (rate, labels)
    found = tree(to_bytes(told))
    # What nobody said is not written: files without it are the same bytes as before.
    assert ("sample_rate" in found, "labels" in found) == (rate is not None, labels is not None)


def test_neither_changes_an_answer() -> None:
    u = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    assert_array_equal(ssmrt.Model(document(8000, ("a", "b", "c")))(u), ssmrt.Model(document())(u))


def test_load_keeps_them(tmp_path: Path) -> None:
    ssmrt.Model(document(8000, ("a", "b", "c"))).save(tmp_path / "m.ssm.safetensors")
    model = ssmrt.load(tmp_path / "m.ssm.safetensors", dtype="float64")
    assert (model.sample_rate, model.labels) == (8000, ("a", "b", "c"))


def test_the_spotter_says_what_it_hears() -> None:
    model = demo.spotter()
    assert (model.sample_rate, model.labels) == (demo.RATE, demo.WORDS)


REFUSED = [
    ({"sample_rate": 0}, "sample_rate: expected a positive number of samples a second, found 0"),
    ({"sample_rate": -16000.0}, "found -16000.0"),
    ({"sample_rate": float("inf")}, "found inf"),
    ({"sample_rate": float("nan")}, "found nan"),
    ({"sample_rate": 10**400}, "sample_rate: expected a positive number"),
    ({"sample_rate": "16000"}, "found '16000'"),
    ({"sample_rate": True}, "found True"),
    ({"labels": ("a", "b")}, "labels: expected 3, one an output, found 2"),
    ({"labels": ("a", "b", "a")}, "labels: expected names, none empty and none twice"),
    ({"labels": ("a", "b", "")}, "labels: expected names, none empty and none twice"),
    ({"labels": ("a", "b", 3)}, "labels: expected names, none empty and none twice"),
    ({"labels": "abc"}, "labels: expected names"),
    ({"labels": 7}, "labels: expected names"),
]


@pytest.mark.parametrize(("facts", "says"), REFUSED)
def test_what_no_model_can_have_is_refused(facts: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        document(**facts)
    with pytest.raises(CheckpointError, match="the model's tree is damaged"):
        from_bytes(with_tree(**facts), "here")
