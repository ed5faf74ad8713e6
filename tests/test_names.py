"""Names of a JAX tree's leaves mean the same however they were joined."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ssmrt
from cases import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from ssmrt import families, readers
from ssmrt.document import to_bytes
from ssmrt.errors import CheckpointError
from ssmrt.readers.checkpoint import Checkpoint
from ssmrt.readers.names import as_tree, place

Place = tuple[str, ...]

NAMES = GOLDEN / "readers_jax" / "names"
CONFIG = {"prenorm": True, "pooling": "none", "multidim": 1, "norm": "layer"}

# Identifiers, which neither start nor end with the "_" that would make "__" ambiguous, and the indices of lists.
KEYS = st.from_regex(r"[A-Za-z]([A-Za-z0-9]|_[A-Za-z0-9]){0,8}|[0-9]{1,3}", fullmatch=True)
PLACES = st.lists(KEYS, min_size=2, max_size=5).map(tuple)


def quoted(key: str) -> str:
    return key if key.isdigit() else repr(key)


SPELLINGS: dict[str, Callable[[Place], str]] = {
    "slash": "/".join,
    "dot": ".".join,
    "underscores": "__".join,
    "keystr": lambda keys: "".join(f"[{quoted(key)}]" for key in keys),
    "keystr in double quotes": lambda keys: "".join(f'["{key}"]' for key in keys),
    "keystr of attributes": lambda keys: "".join(f"[{key}]" if key.isdigit() else f".{key}" for key in keys),
    "tuple": lambda keys: f"({', '.join(map(quoted, keys))})",
    "tuple of JAX's keys": lambda keys: (
        "(" + ", ".join(f"SequenceKey(idx={k})" if k.isdigit() else f"DictKey(key={k!r})" for k in keys) + ")"
    ),
}


def tree(names: dict[str, float]) -> Checkpoint:
    return as_tree(Checkpoint({name: np.array([value], np.float32) for name, value in names.items()}, "x.npz", "npz"))


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(keys=PLACES)
@settings(deadline=None, max_examples=60)
def test_a_name_leads_where_its_keys_do(spelling: str, keys: Place) -> None:
    assert place(SPELLINGS[spelling](keys)) == keys


@given(
    spellings=st.lists(st.sampled_from(sorted(SPELLINGS)), min_size=8, max_size=8),
    below=st.lists(PLACES, min_size=1, max_size=8, unique=True),
)
@settings(deadline=None, max_examples=60)
def test_any_mixture_of_spellings_is_the_tree(spellings: list[str], below: list[Place]) -> None:
    places = [("params", "model", *keys) for keys in below]
    found = tree({SPELLINGS[s](keys): i for i, (s, keys) in enumerate(zip(spellings, places))}).tensors
    assert {name: float(value[0]) for name, value in found.items()} == {"/".join(k): i for i, k in enumerate(places)}


@given(keys=PLACES, two=st.lists(st.sampled_from(sorted(SPELLINGS)), min_size=2, max_size=2, unique=True))
@settings(deadline=None, max_examples=60)
def test_two_names_of_one_array_are_refused_by_both(keys: Place, two: list[str]) -> None:
    a, b = (SPELLINGS[spelling](keys) for spelling in two)
    if a != b:
        with pytest.raises(CheckpointError) as caught:
            tree({a: 1, b: 2})
        assert repr(a) in str(caught.value)
        assert repr(b) in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ["encoder/kernel/value", "encoder/bias/value"],
        ["0/encoder/kernel/value", "0/encoder/bias/value"],
        ["model/encoder/kernel", "model/encoder/bias"],
        ["model.0.encoder.kernel", "model.0.encoder.bias"],
        ["['encoder']['kernel'].value", "['encoder']['bias'].value"],
        ["0/encoder/kernel/value", "0/encoder/bias/value", "1/opt_state/0/mu/encoder/kernel/value", "1/step/value"],
        ["model/encoder/kernel", "model/encoder/bias", "optimizer/0/encoder/kernel", "step"],
        ["encoder/kernel/value", "encoder/bias/value", "drop/rngs/count/value", "drop/rngs/key"],
    ],
)
def test_nnx_and_levels_around_the_model_leave_no_trace(names: list[str]) -> None:
    assert list(tree(dict.fromkeys(names, 1.0)).tensors) == ["encoder/kernel", "encoder/bias"]


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["a/value", "b/kernel"], ["a/value", "b/kernel"]),
        (["model/a", "critic/a"], ["model/a", "critic/a"]),
        (["encoder/a", "encoder/b"], ["encoder/a", "encoder/b"]),
        (["model", "model_2"], ["model", "model_2"]),
        (["a.b", "c"], ["a/b", "c"]),
    ],
)
def test_what_may_be_the_models_own_is_kept(names: list[str], kept: list[str]) -> None:
    assert list(tree(dict.fromkeys(names, 1.0)).tensors) == kept


@pytest.mark.parametrize("path", sorted(NAMES.iterdir()), ids=lambda path: path.name)
def test_every_spelling_of_one_model_is_that_model(path: Path) -> None:
    reference = ssmrt.load(NAMES / "a_msgpack.msgpack", config=CONFIG, dtype="float64")
    model = ssmrt.load(path, config=CONFIG, dtype="float64")
    u = np.random.default_rng(0).standard_normal((2, 30, reference.d_input))
    np.testing.assert_array_equal(model(u), reference(u))


def test_an_optimisers_copies_are_not_taken_for_the_model() -> None:
    found = readers.read(NAMES / "a_msgpack.msgpack")
    copies = {f"opt_state/0/mu/{name}": np.negative(array) for name, array in found.tensors.items()}
    for separator in ("/", "."):
        tensors = {name.replace("/", separator): a for name, a in {**copies, **found.tensors}.items()}
        document = families.build(Checkpoint(tensors, found.source, "npz"), config=CONFIG)
        assert to_bytes(document) == to_bytes(families.build(found, config=CONFIG))


def test_names_of_pytorch_stay_as_they_are() -> None:
    found = readers.read(GOLDEN / "torch" / "small" / "seq_ff" / "model.safetensors")
    identified = families.identify(found)
    assert identified is not None
    assert all("/" not in name for name in identified[1].tensors)
