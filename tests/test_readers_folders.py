"""Folders as ``save_pretrained`` leaves them, shards and their index, and what is neither file nor folder."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import struct
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import jax_files as jf
import numpy as np
import pytest
import ssmrt
import torch_files as tf
from cases import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ssmrt import readers
from ssmrt.errors import CheckpointError

Array = NDArray[Any]

SHARDED = GOLDEN / "torch" / "hf_mamba_sharded"
INDEX = "model.safetensors.index.json"
SMALL = GOLDEN / "torch" / "small" / "seq_ff" / "model.safetensors"
LRU = GOLDEN / "readers_jax" / "names" / "a_msgpack.msgpack"
LRU_CONFIG = {"prenorm": True, "pooling": "none", "multidim": 1, "norm": "layer"}
W = np.arange(6, dtype=np.float32)


def safetensors(path: Path, tensors: dict[str, Array]) -> Path:
    header: dict[str, Any] = {}
    at = 0
    for name, array in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in tensors.values()))
    return path


def torch_file(path: Path, tensors: dict[str, Array]) -> Path:
    value = tf.ordered({n: tf.tensor(tf.storage(n, a.size), a.shape, (1,)) for n, a in tensors.items()})
    path.write_bytes(tf.archive(tf.pickled(value), {n: a.tobytes() for n, a in tensors.items()}))
    return path


WRITERS = {".safetensors": safetensors, ".bin": torch_file}


def sharded(folder: Path, parts: list[dict[str, Array]], suffix: str = ".safetensors") -> Path:
    """A folder of shards with their index."""
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    weight_map: dict[str, str] = {}
    folder.mkdir(exist_ok=True)
    for i, part in enumerate(parts):
        path = folder / f"{stem}-{i + 1:05}-of-{len(parts):05}{suffix}"
        WRITERS[suffix](path, part)
        weight_map |= dict.fromkeys(part, path.name)
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def refusal(path: Path, **said: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        readers.read(path, **said)
    assert str(path) in str(caught.value)
    return str(caught.value)


def assert_same(found: Any, expected: Any) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@given(data=st.data(), count=st.integers(1, 9), suffix=st.sampled_from(sorted(WRITERS)))
@settings(deadline=None, max_examples=40)
def test_any_split_into_shards_is_the_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, count: int, suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("sharded")
    tensors = {f"layers.{i}.weight": W[: i % 6 + 1] + np.float32(i) for i in range(count)}
    parts: list[dict[str, Array]] = [{} for _ in range(data.draw(st.integers(2, 4)))]
    for name, array in tensors.items():
        data.draw(st.sampled_from(parts))[name] = array
    sharded(folder, [part for part in parts if part], suffix)
    checkpoint = readers.read(folder)
    assert set(checkpoint.tensors) == set(tensors)
    assert_same({name: checkpoint.tensors[name] for name in tensors}, tensors)
    assert checkpoint.format == ("safetensors" if suffix == ".safetensors" else "torch")


def test_the_folder_and_its_index_are_one_model() -> None:
    by_folder, by_index = readers.read(SHARDED), readers.read(SHARDED / INDEX)
    assert_same(by_folder.tensors, by_index.tensors)
    assert list(by_folder.tensors) == list(json.loads((SHARDED / INDEX).read_text())["weight_map"])
    expected = json.loads((SHARDED / "config.json").read_text())
    assert by_folder.config == by_index.config == expected


def test_tensors_of_shards_cannot_be_written_to() -> None:
    for array in readers.read(SHARDED).tensors.values():
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_shards_are_in_memory_once(tmp_path: Path) -> None:
    big = np.zeros(250_000, np.float32)
    sharded(tmp_path, [{f"{i}": big} for i in range(8)])
    tracemalloc.start()
    try:
        found = readers.read(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.tensors) == 8
    assert peak < 8 * big.nbytes * 1.05


def test_one_shard_alone_is_named_as_such(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "a", [{"x": W}, {"y": W}, {"z": W}])
    shard = folder / "model-00002-of-00003.safetensors"
    assert "one shard of a model, number 2 of 3; open its folder" in refusal(shard)
    (folder / INDEX).unlink()
    assert f"number 2 of 3; expected the index {INDEX} beside it" in refusal(shard)
    with pytest.raises(CheckpointError, match=f"number 1 of 3; expected the index {INDEX}"):
        readers.read(folder)


def test_a_shard_that_is_the_only_one_is_a_file(tmp_path: Path) -> None:
    path = safetensors(tmp_path / "model-00001-of-00001.safetensors", {"x": W})
    for there in (path, tmp_path):
        assert_same(readers.read(there).tensors, {"x": W})


def test_missing_shards_are_all_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "a", [{"x": W}, {"y": W}, {"z": W}])
    for i in (1, 3):
        (folder / f"model-0000{i}-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=INDEX) as caught:
        readers.read(folder)
    message = str(caught.value)
    assert "model-00001-of-00003.safetensors" in message
    assert "model-00003-of-00003.safetensors" in message
    assert "model-00002-of-00003.safetensors" not in message


def test_an_index_that_its_shards_contradict_is_refused_with_all_that_is_wrong(tmp_path: Path) -> None:
    folder = sharded(tmp_path, [{"x": W, "gone": W, "twice": W}, {"y": W}])
    safetensors(folder / "model-00001-of-00002.safetensors", {"x": W, "twice": W})
    safetensors(folder / "model-00002-of-00002.safetensors", {"y": W, "more": W, "twice": W + 1})
    with pytest.raises(CheckpointError, match=INDEX) as caught:
        readers.read(folder)
    message = str(caught.value)
    assert "'gone' in model-00001-of-00002.safetensors" in message
    assert "model-00002-of-00002.safetensors has 'more'" in message
    assert "'twice' of model-00001-of-00002.safetensors is another in model-00002-of-00002.safetensors" in message


def test_a_tensor_that_two_shards_agree_on_is_one(tmp_path: Path) -> None:
    folder = sharded(tmp_path, [{"x": W}, {"y": W}])
    safetensors(folder / "model-00001-of-00002.safetensors", {"x": W, "y": W})
    assert_same(readers.read(folder).tensors, {"x": W, "y": W})


@pytest.mark.parametrize(
    "index",
    [
        "[]",
        "{",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": ["model-00001-of-00002.safetensors"]}',
        '{"weight_map": {"x": 3}}',
        '{"weight_map": {"x": ""}}',
        '{"weight_map": {"x": "../secret.safetensors"}}',
        '{"weight_map": {"x": "/etc/passwd"}}',
        '{"weight_map": {"x": "a\\u0000b"}}',
        '{"weight_map": {"x": "\\ud800"}}',
        '{"weight_map": {"x": "config.json"}}',
        '{"weight_map": {"x": "model.safetensors.index.json"}}',
        "[" * 100_000,
    ],
)
def test_hostile_indices_are_refused(tmp_path: Path, index: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    safetensors(tmp_path / "secret.safetensors", {"x": W})
    (folder / "config.json").write_text("{}")
    (folder / INDEX).write_text(index)
    refusal(folder)


@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), which=st.integers(0, 2))
@settings(deadline=None, max_examples=60)
def test_damage_to_index_or_shards_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, where: float, bit: int, which: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged shards"
    sharded(folder, [{"x": W}, {"y": W}])
    path = sorted(folder.iterdir())[which]
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1 << bit
    path.write_bytes(data)
    with contextlib.suppress(CheckpointError):
        readers.read(folder)


def test_weights_are_looked_for_in_upstreams_order(tmp_path: Path) -> None:
    torch_file(tmp_path / "pytorch_model.bin", {"bin": W})
    assert list(readers.read(tmp_path).tensors) == ["bin"]
    sharded(tmp_path, [{"x": W}, {"y": W}])
    assert list(readers.read(tmp_path).tensors) == ["x", "y"]
    safetensors(tmp_path / "model.safetensors", {"whole": W})
    assert list(readers.read(tmp_path).tensors) == ["whole"]
    assert "leave step out" in refusal(tmp_path, step=3)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_the_configuration_beside_a_file_is_read(tmp_path: Path, suffix: str) -> None:
    path = WRITERS[suffix](tmp_path / f"weights{suffix}", {"x": W})
    assert readers.read(path).config is None
    (tmp_path / "config.json").write_text('{"layer_norm_epsilon": 0.01}')
    for there in (path, tmp_path):
        assert readers.read(there).config == {"layer_norm_epsilon": 0.01}
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json: expected a JSON object"):
        readers.read(path)


def test_the_configuration_of_the_folder_changes_the_answer(tmp_path: Path) -> None:
    folder = tmp_path / "mamba"
    shutil.copytree(SHARDED, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_epsilon": 0.01}))
    u = np.arange(12)[None]
    told = ssmrt.load(SHARDED, config={"layer_norm_epsilon": 0.01})(u)
    np.testing.assert_array_equal(ssmrt.load(folder)(u), told)
    assert np.abs(ssmrt.load(SHARDED)(u) - told).max() > 1e-3


def test_a_folder_of_one_checkpoint_opens_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes.md").write_text("text")
    torch_file(folder / "training_args.bin", {"no": W})
    np.savez(folder / "io.npz", u=W)
    assert_same(readers.read(folder).tensors, {"u": W})
    torch_file(folder / "epoch=3.ckpt", {"x": W})
    assert_same(readers.read(folder).tensors, {"x": W})
    torch_file(folder / "last.pt", {"x": W})
    message = refusal(folder)
    assert "expected one checkpoint, found 2: epoch=3.ckpt, last.pt; open one of them" in message


def test_a_folder_of_folders_opens_the_only_one(tmp_path: Path) -> None:
    sharded(tmp_path / "checkpoint-500", [{"x": W}, {"y": W}])
    (tmp_path / "logs").mkdir()
    assert_same(readers.read(tmp_path).tensors, {"x": W, "y": W})
    sharded(tmp_path / "checkpoint-1000", [{"x": W}, {"y": W}])
    assert "found 2: checkpoint-1000, checkpoint-500; open one of them" in refusal(tmp_path)


def test_a_folder_of_one_model_of_our_own_opens_it(tmp_path: Path) -> None:
    model = ssmrt.load(SMALL, config={})
    model.save(tmp_path / "model.ssm.safetensors")
    u = np.zeros((1, 4, model.d_input), np.float32)
    np.testing.assert_array_equal(ssmrt.load(tmp_path)(u), model(u))


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"\x1f\x8b\x08", "gzip"),
        (b"BZh9", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "Zstandard"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"GGUF\3", "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    ],
)
def test_files_of_other_kinds_are_named_for_what_they_are(tmp_path: Path, start: bytes, what: str) -> None:
    (tmp_path / "model.pt").write_bytes(start + bytes(40))
    assert what in refusal(tmp_path / "model.pt")


def test_the_home_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    shutil.copy(SMALL, tmp_path / "model.safetensors")
    assert ssmrt.load("~/model.safetensors", config={}).d_input == ssmrt.load(SMALL, config={}).d_input
    (tmp_path / "config.json").write_text("{}")
    assert ssmrt.load(SMALL, config="~/config.json").d_input


class Tensor:
    """What PyTorch's tensors offer."""

    def __init__(self, array: Array, dtype: str = "torch.float32"):
        self.array, self.dtype = array, dtype

    def detach(self) -> Tensor:
        return self

    cpu = resolve_conj = resolve_neg = detach

    def float(self) -> Tensor:
        return Tensor(self.array)

    def numpy(self) -> Array:
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array


@pytest.mark.parametrize("dtype", ["torch.float32", "torch.bfloat16", None])
def test_a_state_dict_is_the_file_it_would_be_saved_as(dtype: str | None) -> None:
    expected = ssmrt.load(SMALL, config={})
    tensors = {name: np.array(array) for name, array in readers.read(SMALL).tensors.items()}
    given = tensors if dtype is None else {name: Tensor(array, dtype) for name, array in tensors.items()}
    model = ssmrt.load(OrderedDict(given), config={})
    u = np.random.default_rng(0).standard_normal((1, 9, model.d_input), np.float32)
    y = model(u)
    np.testing.assert_array_equal(y, expected(u))
    for array in tensors.values():
        array[...] = 7
    assert ssmrt.Model(model.document)(u).tobytes() == y.tobytes()


def test_a_tree_of_variables_is_the_file_it_would_be_saved_as() -> None:
    flat = readers.read(LRU).tensors
    tree: dict[str, Any] = {}
    for name, array in flat.items():
        *above, last = name.split("/")
        level = tree
        for key in above:
            level = level.setdefault(key, {})
        level[last] = array
    state = {"step": 3, "params": tree["params"], "opt_state": (object(), {"mu": tree["params"]})}
    by_places = {tuple(name.split("/")): array for name, array in flat.items()}
    u = np.random.default_rng(0).standard_normal((1, 9, 3), np.float32)
    y = ssmrt.load(LRU, config=LRU_CONFIG)(u)
    for variables in (tree, tree["params"], state, by_places):
        np.testing.assert_array_equal(ssmrt.load(variables, config=LRU_CONFIG)(u), y)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "expected arrays, found none"),
        ({"a": object()}, "'a': expected an array of numbers, found one of dtype object"),
        ({"a": "text"}, "'a': expected an array of numbers, found one of dtype <U4"),
        ({"params": {"w": object()}}, r"\['params'\]\['w'\]: expected an array of numbers"),
        ({"a": Tensor(W, "torch.bfloat16").numpy}, "'a': expected an array"),
        ({"params": {"w": W, ("w",): W}}, r"\['params'\]\['w'\] and \['params'\]\[\('w',\)\] are two names"),
    ],
)
def test_mappings_of_anything_but_arrays_are_refused(mapping: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        ssmrt.load(mapping)


@pytest.mark.parametrize("what", [3, None, b"model.pt", ["model.pt"]])
def test_what_is_no_source_of_a_model_is_a_type_error(what: Any) -> None:
    with pytest.raises(TypeError, match="expected a path, a mapping of arrays or an open file"):
        ssmrt.load(what)


def test_a_mapping_that_contains_itself_is_refused() -> None:
    loop: dict[str, Any] = {"w": W}
    loop["inner"] = loop
    with pytest.raises(CheckpointError, match="contains itself"):
        ssmrt.load(loop)


@pytest.mark.parametrize("path", [SMALL, LRU], ids=lambda path: path.suffix)
def test_an_open_file_is_the_file(path: Path) -> None:
    config = LRU_CONFIG if path is LRU else {}
    expected = ssmrt.load(path, config=config)
    u = np.random.default_rng(0).standard_normal((1, 9, expected.d_input), np.float32)
    with path.open("rb") as file:
        by_file = ssmrt.load(file, config=config)
    for model in (by_file, ssmrt.load(io.BytesIO(path.read_bytes()), config=config)):
        np.testing.assert_array_equal(model(u), expected(u))
    assert by_file.document.meta["source"] == path.name


def test_an_open_file_of_our_own_format_is_the_model(tmp_path: Path) -> None:
    model = ssmrt.load(SMALL, config={})
    model.save(tmp_path / "own.ssm.safetensors")
    u = np.zeros((1, 4, model.d_input), np.float32)
    data = io.BytesIO((tmp_path / "own.ssm.safetensors").read_bytes())
    np.testing.assert_array_equal(ssmrt.load(data)(u), model(u))


def test_errors_of_open_files_name_the_file_not_its_copy(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"hello")
    with (tmp_path / "model.pt").open("rb") as file, pytest.raises(CheckpointError, match=r"^model\.pt: expected"):
        ssmrt.load(file)
    with pytest.raises(CheckpointError, match=r"^open file: .*found an empty file"):
        ssmrt.load(io.BytesIO())
    with pytest.raises(TypeError, match="binary mode"):
        ssmrt.load(io.StringIO("text"))  # type: ignore[arg-type]


def test_steps_of_flax_beside_a_folder_of_shards_are_told_apart(tmp_path: Path) -> None:
    sharded(tmp_path / "a", [{"x": W}, {"y": W}])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "checkpoint_2").write_bytes(jf.pack({"params": {"w": W}}))
    assert list(readers.read(tmp_path / "a").tensors) == ["x", "y"]
    assert list(readers.read(tmp_path / "b").tensors) == ["params/w"]
