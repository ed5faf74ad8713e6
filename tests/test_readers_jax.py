"""Files of the JAX world are read exactly or refused, without JAX, and nothing of them is ever run."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax_files as jf
import numpy as np
import pytest
from cases import SHARED, Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ssmrt import families, readers
from ssmrt.errors import CheckpointError
from ssmrt.readers import _msgpack, _zarr
from ssmrt.readers._compression import decompress
from ssmrt.readers._crc32c import crc32c
from ssmrt.readers._ocdbt import Database
from ssmrt.readers.names import as_tree
from ssmrt.readers.orbax import Folder
from torch_files import Call, Global, New, Raw, encode

Array = NDArray[Any]

GOLDEN = Path(__file__).parent / "golden" / "readers_jax"
EDGE = SHARED / "jax" / "edge"
ORACLES = SHARED.parent / "oracles"
beside_shared = pytest.mark.skipif(not EDGE.is_dir(), reason="../shared does not stand beside the checkout")

TINY = {
    "params/w": np.arange(12, dtype=np.float32).reshape(3, 4),
    "params/z": np.zeros(4, np.float32),
    "params/h": np.array([1.5, -2, 3], np.float32),
    "params/P": np.array([1 + 2j, 3 - 4j], np.complex64),
    "batch_stats/mean": np.array([0.5, 0.25], np.float32),
}
ZARR2 = {"zarr_format": 2, "order": "C", "dtype": "<f4", "shape": [2, 3], "chunks": [2, 3], "compressor": None}
W = np.arange(6, dtype=np.float32).reshape(2, 3)


def assert_identical(found: Any, expected: Any) -> None:
    """Names, dtypes, shapes and bits."""
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert (name, found[name].dtype, found[name].shape) == (name, array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes(), name


def refusal(path: Path, step: int | None = None) -> str:
    """The message of the error, which names the file or one in it."""
    with pytest.raises(CheckpointError) as caught:
        readers.read(path, step=step)
    assert str(path) in str(caught.value)
    return str(caught.value)


def msgpack(path: Path, value: Any) -> Path:
    path.write_bytes(jf.pack(value))
    return path


def copied(name: str, to: Path) -> Path:
    shutil.copytree(GOLDEN / name, to / name)
    return to / name


def flipped(data: bytes, where: float, bit: int) -> bytes:
    at = int(where * len(data))
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


@contextlib.contextmanager
def at_most(megabytes: float) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", list(cases("jax/")), ids=str)
def test_every_container_holds_the_same_model(case: Case) -> None:
    found = {path: readers.read(path) for path, _ in case.files}
    # Equinox saves a module's Python integers too, and who makes a flat file joins names with dots or with slashes, or
    # takes JAX's own, which begin with a dot.
    arrays = {
        path: {
            n.replace("/", ".").lstrip("."): a
            for n, a in checkpoint.tensors.items()
            if checkpoint.format != "eqx" or a.dtype != np.int64
        }
        for path, checkpoint in found.items()
    }
    reference = next(iter(arrays.values()))
    for tensors in arrays.values():
        assert_identical(tensors, reference)


@pytest.mark.parametrize("case", [c for c in cases("jax/") if (c.folder / "params.msgpack").is_file()], ids=str)
def test_bare_parameters_keep_their_names(case: Case) -> None:
    bare = readers.read(case.folder / "params.msgpack").tensors
    whole = readers.read(case.files[0][0]).tensors
    assert_identical(bare, {n.removeprefix("params/"): a for n, a in whole.items() if n.startswith("params/")})


@pytest.mark.parametrize("name", ["edge.msgpack", "edge_chunked.msgpack"])
def test_msgpack_holds_every_kind_of_leaf(name: str) -> None:
    found = dict(readers.read(GOLDEN / name).tensors)
    with np.load(GOLDEN / "edge_ref.npz") as reference:
        expected = {n: reference[n] for n in reference.files}
    expected |= {"pyint": np.array(3), "pyfloat": np.array(0.5), "pycplx": np.array(1 + 2j), "flag": np.array(True)}
    assert {found.pop("lst/0").dtype.name, found.pop("lst/1").dtype.name} == {"int64", "float64"}
    assert_identical(found, expected)


def test_a_frozen_dict_is_a_dict() -> None:
    assert readers.read(GOLDEN / "frozen.msgpack").tensors["params/w"].shape == (3, 5)


def test_orbax_reads_half_precision_scalars_and_complex() -> None:
    found = readers.read(GOLDEN / "orbax_std").tensors
    with np.load(GOLDEN / "edge_ref.npz") as reference:
        assert_identical(found, {name: reference[name] for name in found})
    assert set(found) == {"a", "b16", "big", "c64", "f16", "scalar"}


def test_orbax_names_list_items_by_their_place() -> None:
    found = readers.read(GOLDEN / "orbax_std_list").tensors
    shapes = {"f": (), "l/0": (3,), "l/1": (2,), "n": (), "t/0": (2,), "t/1/x": (1,)}
    assert {name: array.shape for name, array in found.items()} == shapes


@pytest.mark.parametrize("name", ["tiny_zarr3", "tiny_folders"])
def test_orbax_leaves_out_the_training_state(name: str) -> None:
    checkpoint = readers.read(GOLDEN / name)
    assert (checkpoint.format, checkpoint.config, checkpoint.named) == ("orbax", None, True)
    assert_identical(checkpoint.tensors, TINY)


def test_orbax_puts_chunks_together() -> None:
    expected = np.arange(64 * 48, dtype=np.float32).reshape(64, 48)
    assert_identical(readers.read(GOLDEN / "tiny_chunks").tensors, {"params/w": expected})


@beside_shared
@pytest.mark.parametrize("name", ["orbax_chunked", "orbax_many", "orbax_std", "orbax_std_list"])
def test_edge_directories_read_as_the_oracle_reads_them(name: str, tmp_path: Path) -> None:
    code = "import sys, numpy, read_jax_files as r; numpy.savez(sys.argv[2], **r.read_orbax(sys.argv[1]))"
    arguments = [sys.executable, "-c", code, str(EDGE / name), str(tmp_path / "arrays.npz")]
    subprocess.run(arguments, check=True, cwd=ORACLES)
    assert_identical(readers.read(EDGE / name).tensors, readers.read(tmp_path / "arrays.npz").tensors)


@beside_shared
def test_small_edge_files_are_the_golden_ones() -> None:
    for path in EDGE.iterdir():
        if path.is_file() and (GOLDEN / path.name).is_file():
            assert path.read_bytes() == (GOLDEN / path.name).read_bytes()


@beside_shared
def test_a_tree_of_small_nodes_and_five_versions() -> None:
    database = Database(EDGE / "ocdbt_small_nodes")
    expected = json.loads((EDGE / "ocdbt_ref.json").read_text())
    assert {key: database.read(key).decode() for key in database.keys} == expected


def test_interior_nodes_versions_and_indirect_values() -> None:
    database = Database(GOLDEN / "ocdbt_deep")
    expected = json.loads((GOLDEN / "ocdbt_deep.json").read_text())
    assert {key: database.read(key).decode() for key in database.keys} == expected
    assert all(database.size(key) == len(value) for key, value in expected.items())
    assert database.size("params") is None


def test_the_newest_of_numbered_manifests() -> None:
    database = Database(GOLDEN / "ocdbt_numbered")
    assert {key: database.read(key) for key in database.keys} == {"a": b"b"}


@pytest.mark.parametrize("name", ["sharded", "plain3", "gzip2", "zlib2"])
def test_zarr_as_tensorstore_writes_it(name: str) -> None:
    expected = np.arange(130.0).reshape(10, 13)
    expected[0:4, 4:8] = 0
    expected[4:8, 8:] = 0
    assert_identical({name: _zarr.read(Folder(GOLDEN / "zarr"), name, "zarr")}, {name: expected})


def test_a_zarr_scalar_is_one_chunk() -> None:
    assert _zarr.read(Folder(GOLDEN / "zarr"), "scalar3", "zarr") == np.array(2.5)


DENSE = {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.array([0.5, -2], np.float32)}


class TestPickles:
    REMEDIES = ("flax.serialization.to_bytes", "np.savez")

    def write(self, folder: Path, value: Any) -> Path:
        path = folder / "params.pkl"
        path.write_bytes(b"\x80\x04" + encode(opcodes(value)) + b".")
        return path

    @pytest.mark.parametrize("name", ["frozen_protocol2", "jax_protocol5", "numpy_protocol5", "bfloat16", "training"])
    def test_what_jax_and_flax_pickle_is_read(self, name: str) -> None:
        checkpoint = readers.read(GOLDEN / "saves" / f"{name}.pkl")
        assert (checkpoint.format, checkpoint.named, checkpoint.config) == ("pickle", True, None)
        assert_identical(checkpoint.tensors, {f"params/dense/{n}": a for n, a in DENSE.items()})

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    @given(data=st.data())
    @settings(deadline=None, max_examples=40)
    def test_arrays_of_numpy_are_read_bit_for_bit(
        self, tmp_path_factory: Any, protocol: int, data: st.DataObject
    ) -> None:
        dtype = data.draw(st.sampled_from(["?", "i1", "u2", ">i4", "i8", "f2", "f4", ">f8", "c8", "c16"]))
        shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
        array = np.asarray(np.random.default_rng(0).integers(0, 2, shape)).astype(dtype)
        array = array.T if data.draw(st.booleans()) else array
        path = tmp_path_factory.getbasetemp() / "params.pkl"
        path.write_bytes(pickle.dumps({"a": array, "b": [array[...], (array, np.float32(2.5))]}, protocol))
        found = readers.read(path).tensors
        native = array.astype(array.dtype.newbyteorder("="))
        assert_identical(found, {"a": native, "b/0": native, "b/1/0": native, "b/1/1": np.asarray(np.float32(2.5))})

    EVIL = Global("os", "system")
    RECONSTRUCT = Global("numpy._core.multiarray", "_reconstruct")
    JAX = Global("jax._src.array", "_reconstruct_array")

    @pytest.mark.parametrize(
        ("value", "what"),
        [
            ({"params": {"w": Call(EVIL, ("touch sentinel",))}}, "found another pickle, a dict"),
            ({"params": {"w": W, "v": Call(EVIL, ("touch sentinel",))}}, "instance of 'os.system'"),
            ({"params": {"w": W, "v": EVIL}}, "global 'os.system'"),
            ({"w": W, "v": New(Global("models", "Layer"), {"a": W})}, "instance of 'models.Layer'"),
            ({"params": New(Global("models", "Variables"), {"w": W})}, "instance of 'models.Variables'"),
            (Call(EVIL, (W,)), "an instance of 'os.system'"),
            (Call(Call(Global("builtins", "getattr"), (W, "tobytes")), ()), "an instance of 'builtins.getattr'"),
            ({"w": Call(RECONSTRUCT, (1, 2, 3))}, "another pickle"),
            ({"w": Call(RECONSTRUCT, (EVIL, (0,), "b"))}, "another pickle"),
            ({"w": W, "v": Call(JAX, (EVIL, (), ()))}, "an instance of 'jax._src"),
            ({"params": {"w": W, "v": np.array([{}], object)}}, "Python objects"),
            ({"params": {"w": W, "v": np.array(["text"])}}, "expected a dtype"),
            ({"params": {"w": W, "v": np.zeros(2, [("a", "f4")])}}, "expected a dtype"),
            (3, "another pickle, a int"),
            ({}, "another pickle, a dict"),
            ({"a": 1}, "another pickle, a dict"),
            ([W], None),
        ],
    )  # fmt: skip
    def test_what_is_no_array_is_named_with_jaxs_remedies(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, what: str | None
    ) -> None:
        monkeypatch.chdir(tmp_path)
        path = self.write(tmp_path, value)
        if what is None:
            assert_identical(readers.read(path).tensors, {"0": W})
            return
        message = refusal(path)
        assert what in message
        assert "torch" not in message
        if "dtype" not in what and "Python objects" not in what:
            assert "nothing of it was run" in message
            assert all(remedy in message for remedy in self.REMEDIES)
        assert list(tmp_path.iterdir()) == [path]

    def test_flax_nnxs_own_classes_are_refused_with_jaxs_remedies(self) -> None:
        message = refusal(GOLDEN / "saves" / "nnx_state.pkl")
        assert "flax.nnx" in message
        assert all(remedy in message for remedy in self.REMEDIES)
        assert "torch" not in message

    @pytest.mark.parametrize("function", ["torch._utils._rebuild_tensor_v2", "torch.storage._load_from_bytes"])
    def test_a_pickle_of_torch_is_refused_with_torchs_remedy(self, tmp_path: Path, function: str) -> None:
        module, _, name = function.rpartition(".")
        message = refusal(self.write(tmp_path, {"w": Call(Global(module, name), (1, 2))}))
        assert "torch.save(model.state_dict()" in message
        assert "flax" not in message

    def test_what_nobody_asks_for_may_be_anything(self, tmp_path: Path) -> None:
        state = {
            "params": {"w": W},
            "apply_fn": Global("os", "system"),
            "tx": Call(Global("optax", "adam"), (1e-3,)),
            "opt_state": {"mu": New(Global("optax", "State"), {"w": W})},
        }
        for value in (state, New(Global("flax.training.train_state", "TrainState"), state)):
            assert_identical(readers.read(self.write(tmp_path, value)).tensors, {"params/w": W})

    def test_two_keys_of_one_leaf_are_refused_by_both(self, tmp_path: Path) -> None:
        message = refusal(self.write(tmp_path, {"params": {"w": W, ("w",): W}}))
        assert "['params']['w'] and ['params'][('w',)] are two names of one array" in message

    def test_bombs_are_refused_in_little_memory(self, tmp_path: Path) -> None:
        laughs = {"w": W, "a": Raw(b"]q\x000" + b"](h\x00h\x00eq\x000" * 60 + b"h\x00")}
        loop = {"w": W, "a": Raw(b"]q\x00h\x00a")}
        for value in (laughs, loop):
            assert "contains itself or is unreasonably large" in refusal(self.write(tmp_path, value))
        shape = {"w": Call(Global("numpy._core.numeric", "_frombuffer"), (Raw(b"C\x04abcd"), FLOAT, (2**40,), "C"))}
        with at_most(2):
            assert "needs" in refusal(self.write(tmp_path, shape))

    def test_bytes_after_the_pickle_are_refused(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, {"w": W})
        path.write_bytes(path.read_bytes() + b"x")
        assert "found 1 more bytes" in refusal(path)

    @given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans(), name=st.data())
    @settings(deadline=None, max_examples=200)
    def test_damage_is_read_or_refused(
        self, tmp_path_factory: Any, where: float, bit: int, cut: bool, name: st.DataObject
    ) -> None:
        data = (GOLDEN / "saves" / name.draw(st.sampled_from(["training.pkl", "jax_protocol5.pkl"]))).read_bytes()
        path = tmp_path_factory.getbasetemp() / "damaged.pkl"
        path.write_bytes(data[: int(where * len(data))] if cut else flipped(data, where, bit))
        with contextlib.suppress(CheckpointError):
            readers.read(path)


FLOAT = Raw(pickle.dumps(np.dtype("<f4"), 2)[2:-1])


def opcodes(value: Any) -> Any:
    """What `encode` takes, with NumPy's arrays as their own opcodes."""
    match value:
        case np.ndarray():
            return Raw(pickle.dumps(value, 2)[2:-1])
        case dict():
            return {key: opcodes(inner) for key, inner in value.items()}
        case list() | tuple():
            return type(value)(map(opcodes, value))
        case Call(function, args):
            return Call(opcodes(function), opcodes(args))
        case New(cls, state):
            return New(cls, opcodes(state))
    return value


@pytest.mark.parametrize("name", ["nnx_keystr.npz", "nnx_paths.npz", "nnx_model_and_optimizer"])
def test_models_of_flax_nnx_are_named_after_their_modules(name: str) -> None:
    tensors = as_tree(readers.read(GOLDEN / "saves" / name)).tensors
    assert_identical(tensors, {f"dense/{n}": a for n, a in DENSE.items()})


def test_orbax_before_0_6_kept_all_arrays_in_one_file(tmp_path: Path) -> None:
    expected = readers.read(GOLDEN / "names" / "a_msgpack.msgpack").tensors
    shutil.copytree(GOLDEN / "orbax_0.5", tmp_path / "saves" / "checkpoint_3")
    for path in (GOLDEN / "orbax_0.5", tmp_path / "saves", tmp_path / "saves" / "checkpoint_3"):
        assert_identical(readers.read(path).tensors, expected)
    (tmp_path / "saves" / "checkpoint_3" / "checkpoint").unlink()
    assert "found no array" in refusal(tmp_path / "saves" / "checkpoint_3")


def test_orbax_before_0_6_kept_some_arrays_beside_the_file(tmp_path: Path) -> None:
    root = copied("tiny_folders", tmp_path)
    metadata = json.loads((root / "_METADATA").read_text())
    metadata["tree_metadata"]["('params', 'w')"]["value_metadata"]["skip_deserialize"] = True
    (root / "_METADATA").write_text(json.dumps(metadata))
    params = {"w": TINY["params/w"] + 1, **{n: f"PLACEHOLDER://params.{n}" for n in "zhP"}}
    msgpack(root / "checkpoint", {"params": params, "batch_stats": {"mean": "PLACEHOLDER://batch_stats.mean"}})
    assert_identical(readers.read(root).tensors, {**TINY, "params/w": TINY["params/w"] + 1})


def test_a_file_without_names_is_told_how_to_get_them() -> None:
    checkpoint = readers.read(GOLDEN / "edge.eqx")
    for arch in (None, "s5", "equinox-mamba"):
        with pytest.raises(CheckpointError, match=r"leaves\.json") as caught:
            families.build(checkpoint, arch=arch)
        message = str(caught.value)
        assert families.equinox.SNIPPET in message
        assert "one of memax-lru, equinox-s4, with" in message
        assert "s4-example" not in message


def test_the_documentation_has_the_snippet_of_the_message() -> None:
    page = (Path(__file__).parents[1] / "docs" / "jax.md").read_text(encoding="utf-8")
    assert families.equinox.SNIPPET in page


@pytest.mark.parametrize("save", ["npz", "npy"])
def test_arrays_of_objects_are_named_for_what_they_are(tmp_path: Path, save: str) -> None:
    buffer = io.BytesIO()
    tree = np.array({"params": {"w": W}}, object)
    np.savez(buffer, params=tree) if save == "npz" else np.save(buffer, tree)
    (tmp_path / f"params.{save}").write_bytes(buffer.getvalue())
    message = refusal(tmp_path / f"params.{save}")
    assert "Python objects" in message
    assert "nothing of it was run" in message
    assert "np.savez(path, **arrays)" in message


# RFC 3720, appendix B.4.
@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
    ],
)
def test_crc32c_is_castagnolis(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum


@pytest.mark.parametrize("size", [4095, 4096, 4097, 50_001])
def test_crc32c_in_lanes_is_crc32c_bitwise(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ 0x82F63B78 * (register & 1)
    assert crc32c(data) == register ^ 0xFFFFFFFF


class TestEqx:
    RECORDS = (np.arange(8, dtype=np.float32).reshape(4, 2), np.ones(4, np.float32), np.int64(3))
    SNIPPET = (
        {"path": ".layers[0].weight", "saved": True, "shape": [4, 2], "dtype": "float32"},
        {"path": ".layers[0].bias", "saved": True, "shape": [4], "dtype": "float32"},
        {"path": ".activation", "saved": False, "shape": None, "dtype": "custom_jvp"},
        {"path": ".size", "saved": True, "shape": None, "dtype": "int"},
    )

    def write(self, folder: Path, leaves: Any = SNIPPET, records: Any = RECORDS) -> Path:
        path = folder / "model.eqx"
        path.write_bytes(b"".join(map(jf.record, records)))
        if leaves is not None:
            (folder / "leaves.json").write_text(json.dumps(leaves))
        return path

    def test_records_without_names_are_numbered(self) -> None:
        checkpoint = readers.read(GOLDEN / "edge.eqx")
        assert (checkpoint.named, checkpoint.config, checkpoint.format) == (False, None, "eqx")
        expected = []
        with (GOLDEN / "edge.eqx").open("rb") as file:
            for _ in range(9):
                array = np.load(file, allow_pickle=False)
                widened = (array.view("<u2").astype(np.uint32) << 16).view(np.float32) if array.dtype == "V2" else array
                expected.append(widened)
        assert_identical(checkpoint.tensors, {f"[{i}]": array for i, array in enumerate(expected)})

    def test_batch_norm_state_follows_the_model(self) -> None:
        found = readers.read(GOLDEN / "bn.eqx").tensors
        assert [array.dtype.name for array in found.values()] == ["float32"] * 2 + ["bool", "int32"] + ["float32"] * 2

    def test_leaves_json_names_the_records(self, tmp_path: Path) -> None:
        checkpoint = readers.read(self.write(tmp_path))
        assert checkpoint.named
        expected = dict(zip(["layers[0].weight", "layers[0].bias", "size"], map(np.asarray, self.RECORDS)))
        assert_identical(checkpoint.tensors, expected)

    def test_leaves_json_may_name_kinds(self, tmp_path: Path) -> None:
        leaves = [
            {"path": ".w", "kind": "array", "shape": [4, 2], "dtype": "float32"},
            {"path": ".f", "kind": "NOT SAVED", "value": "<function>"},
            {"path": "[1].b", "kind": "array", "shape": [4], "dtype": "float32"},
            {"path": ".n", "kind": "scalar:int", "value": 3},
        ]
        assert list(readers.read(self.write(tmp_path, leaves)).tensors) == ["w", "[1].b", "n"]

    def test_the_snippet_of_the_documentation_is_understood(self, tmp_path: Path) -> None:
        saved = [(4, 2), (4,), (3, 4), (3,)]
        path = self.write(tmp_path, None, [np.zeros(shape, np.float32) for shape in saved])
        shutil.copy(GOLDEN / "leaves_snippet.json", tmp_path / "leaves.json")
        found = readers.read(path).tensors
        assert list(found) == ["layers[0].weight", "layers[0].bias", "layers[1].weight", "layers[1].bias"]

    def test_the_first_line_is_the_configuration(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, None)
        # The brace at byte 8 is where a safetensors file has its own.
        path.write_bytes(b'{"args":{"N": 4}}\n' + path.read_bytes())
        checkpoint = readers.read(path)
        assert checkpoint.config == {"args": {"N": 4}}
        assert len(checkpoint.tensors) == 3

    def test_fortran_order_is_kept(self, tmp_path: Path) -> None:
        array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
        assert_identical(readers.read(self.write(tmp_path, None, [array])).tensors, {"[0]": array})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"shape": [2, 4]}, "[0] layers[0].weight: expected float32 (2, 4), found float32 (4, 2)"),
            ({"dtype": "float64"}, "expected float64 (4, 2), found float32 (4, 2)"),
            ({"dtype": "bfloat16"}, "expected bfloat16"),
            ({"saved": False}, "expected 2 records"),
            ({"saved": "yes"}, "saved: expected true or false"),
            ({"path": ".layers[0].bias"}, "stands in it twice"),
            ({"path": None}, "expected an object with path"),
            ({"shape": [-4, 2]}, "shape"),
            ({"dtype": 3}, "dtype: expected a string"),
        ],
    )
    def test_records_that_leaves_json_does_not_name_are_refused(
        self, tmp_path: Path, change: dict[str, Any], message: str
    ) -> None:
        first, *rest = self.SNIPPET
        with pytest.raises(CheckpointError, match=r"leaves\.json") as caught:
            readers.read(self.write(tmp_path, [{**first, **change}, *rest]))
        assert message in str(caught.value)

    def test_objects_are_refused_not_unpickled(self, tmp_path: Path) -> None:
        header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
        data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"cos\nsystem\n(S'false'\ntR."
        (tmp_path / "model.eqx").write_bytes(data)
        assert "plain array" in refusal(tmp_path / "model.eqx")

    @pytest.mark.parametrize("shape", ["(2, 3, ", "(99999999999, ", "(-1, ", "(1,) + (2,", "(" * 300])
    def test_headers_that_numpy_does_not_write_are_refused(self, tmp_path: Path, shape: str) -> None:
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}), }}\n".encode()
        (tmp_path / "m.eqx").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16))
        with at_most(2):
            assert "record [0]" in refusal(tmp_path / "m.eqx")

    @given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans(), line=st.booleans())
    @settings(deadline=None, max_examples=150)
    def test_damage_is_read_or_refused(
        self, tmp_path_factory: Any, where: float, bit: int, cut: bool, line: bool
    ) -> None:
        path = self.write(tmp_path_factory.getbasetemp())
        data = (b'{"N": 4}\n' if line else b"") + path.read_bytes()
        path.write_bytes(data[: int(where * len(data))] if cut else flipped(data, where, bit))
        with contextlib.suppress(CheckpointError):
            readers.read(path)


class TestMsgpack:
    def test_a_training_state_holds_one_model(self, tmp_path: Path) -> None:
        state = {
            "step": 3,
            "params": {"seq": {"B": W}},
            "batch_stats": {"mean": W[0]},
            "opt_state": {"0": {"mu": {"params": {"seq": {"B": -W}}}}},
        }
        expected = {"params/seq/B": W, "batch_stats/mean": W[0]}
        assert_identical(readers.read(msgpack(tmp_path / "checkpoint_3", state)).tensors, expected)
        assert_identical(readers.read(msgpack(tmp_path / "s", {"model": state, "config": {"d": 3}})).tensors, expected)

    @pytest.mark.parametrize("inner", [True, False])
    def test_variables_filed_under_params_are_found(self, tmp_path: Path, inner: bool) -> None:
        stats = {"batch_stats": {"mean": W[0]}}
        state = {"params": {"params": {"B": W}, **(stats if inner else {})}, **({} if inner else stats)}
        found = readers.read(msgpack(tmp_path / "m", state)).tensors
        assert_identical(found, {"params/B": W, "batch_stats/mean": W[0]})

    def test_two_models_in_one_file_are_refused(self, tmp_path: Path) -> None:
        both = {"actor": {"params": {"w": W}}, "critic": {"params": {"w": W}}}
        assert "found those of actor, critic" in refusal(msgpack(tmp_path / "m", both))

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({"a": jf.Raw(b"\x91" * 5000)}, "nested more than"),
            ({"a": jf.Raw(b"\x81\xa1a" * 5000)}, "nested more than"),
            ({"a": jf.Raw(b"\xdd\x00\x00\x0f\xff" * 99 + bytes(0xFFF))}, "left"),
            ({"a": jf.Raw(b"\xdf\x7f\xff\xff\xff")}, "entries declared"),
            ({"a": jf.Raw(b"\xc6\x7f\xff\xff\xff")}, "bytes declared"),
            ({"a": jf.Raw(b"\xc9\x7f\xff\xff\xff\x01")}, "bytes declared"),
            ({"a": jf.Raw(b"\xc1")}, "no value starts with"),
            ({"a": jf.Raw(b"\xa2\xff\xff")}, "not UTF-8"),
            ({"a": jf.Raw(b"\x81\x90\x01")}, "string as key"),
            ({"a": jf.Raw(b"\x82\xa1a\x01\xa1a\x02")}, "stands twice"),
            ({"a": b"bare"}, "bare bytes"),
            ({"a": "PLACEHOLDER://params.a"}, "open the directory"),
            ({"a": jf.Raw(jf.extension(9, b""))}, "extensions 1 to 3"),
            ({"a": jf.Raw(jf.extension(1, b""))}, "0 are left"),
            ({"a": jf.Raw(jf.extension(2, jf.pack([1.0])))}, "complex number"),
            ({"a": jf.Raw(jf.extension(1, jf.array_payload((2,), "float32", bytes(9))))}, "needs 8 bytes, found 9"),
            ({"a": jf.Raw(jf.extension(1, jf.array_payload((2**40, 2**40), "int8", b"")))}, "an array's shape"),
            ({"a": jf.Raw(jf.extension(1, jf.array_payload((0, 2**62), "int8", b"")))}, "an array's shape"),
            ({"a": jf.Raw(jf.extension(1, jf.array_payload((-1, -1), "int8", b"x")))}, "an array's shape"),
            ({"a": jf.Raw(jf.extension(1, jf.array_payload((1,), "object", bytes(8))))}, "expected a dtype"),
            ({"a": jf.Raw(jf.extension(1, jf.array_payload((1,), "V8", bytes(8))))}, "expected a dtype"),
            ({"a": jf.Raw(jf.extension(3, jf.array_payload((), "bool", b"\2")))}, "booleans"),
            ({"a": {"__msgpack_chunked_array__": True, "shape": {"0": 7}, "chunks": {"0": W}}}, "found 6 numbers"),
            ({"a": {"__msgpack_chunked_array__": True, "shape": {"1": 6}, "chunks": {"0": W}}}, "under the keys"),
            ({"a": {"__msgpack_chunked_array__": True, "shape": {"0": 0}, "chunks": {}}}, "expected chunks"),
            ({"a": None}, "found no array"),
            ({"a/b": W, "a": {"b": W}}, "two arrays are named"),
        ],
    )  # fmt: skip
    def test_bombs_and_damage_are_refused_in_little_memory(self, tmp_path: Path, value: Any, message: str) -> None:
        path = msgpack(tmp_path / "model.msgpack", value)
        with at_most(2):
            assert message in refusal(path)

    def test_values_are_counted(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_msgpack, "_MAX_VALUES", 1000)
        assert "more than 1000 values" in refusal(msgpack(tmp_path / "m", {"a": [[0] * 500] * 3}))

    def test_bytes_after_the_end_are_refused(self, tmp_path: Path) -> None:
        path = msgpack(tmp_path / "m", {"params": {"w": W}})
        path.write_bytes(path.read_bytes() + b"\0")
        assert "expected the end" in refusal(path)

    @given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
    @settings(deadline=None, max_examples=120)
    def test_damage_is_read_or_refused(self, tmp_path_factory: Any, where: float, bit: int, cut: bool) -> None:
        data = (GOLDEN / "edge_chunked.msgpack").read_bytes()
        path = tmp_path_factory.getbasetemp() / "damaged.msgpack"
        path.write_bytes(data[: int(where * len(data))] if cut else flipped(data, where, bit))
        with contextlib.suppress(CheckpointError):
            readers.read(path)


class TestDirectories:
    def test_the_latest_step_or_the_one_asked_for(self) -> None:
        manager = GOLDEN / "tiny_manager"
        for step, value in [(None, 10), (10, 10), (2, 2)]:
            found = readers.read(manager, step=step).tensors
            assert_identical(
                found, {"params/w": np.full(3, value, np.float32), "batch_stats/mean": np.zeros(3, np.float32)}
            )
        assert "expected step 3, found steps 2, 10" in refusal(manager, 3)

    def test_a_step_and_an_item_open_by_themselves(self) -> None:
        assert set(readers.read(GOLDEN / "tiny_manager" / "run_2").tensors) == {"params/w", "batch_stats/mean"}
        assert set(readers.read(GOLDEN / "tiny_manager" / "run_2" / "params").tensors) == {"w"}
        assert "single checkpoint" in refusal(GOLDEN / "tiny_zarr3", 2)

    def test_steps_of_flax_are_counted_not_sorted_as_text(self, tmp_path: Path) -> None:
        for step in (9, 10, 100):
            msgpack(tmp_path / f"checkpoint_{step}", {"params": {"w": W + step}})
        (tmp_path / "checkpoint_999").write_text("no checkpoint")
        assert_identical(readers.read(tmp_path).tensors, {"params/w": W + 100})
        assert_identical(readers.read(tmp_path, step=9).tensors, {"params/w": W + 9})

    def test_steps_of_two_trainings_are_refused(self, tmp_path: Path) -> None:
        for name in ("a_1", "b_1"):
            msgpack(tmp_path / name, {"params": {"w": W}})
        assert "found a_1, b_1" in refusal(tmp_path)

    def test_one_model_in_several_containers_is_the_fullest(self, tmp_path: Path) -> None:
        msgpack(tmp_path / "params.msgpack", {"w": W})
        msgpack(tmp_path / "variables.msgpack", {"params": {"w": W}, "batch_stats": {"mean": W[0]}})
        (tmp_path / "io.npz").write_bytes(b"PK\x03\x04")
        assert_identical(readers.read(tmp_path).tensors, {"params/w": W, "batch_stats/mean": W[0]})
        msgpack(tmp_path / "z.msgpack", {"params": {"w": W + 1}})
        assert "expected one model, found two" in refusal(tmp_path)
        assert "found no steps" in refusal(tmp_path, 1)

    def test_the_old_aggregate_file_refers_to_arrays_beside_it(self, tmp_path: Path) -> None:
        root = copied("tiny_folders", tmp_path)
        for path in root.iterdir():
            if path.is_file():
                path.unlink()
        placed = {
            "params": {n: f"PLACEHOLDER://params.{n}" for n in "wzhP"},
            "batch_stats": {"mean": TINY["batch_stats/mean"]},
        }
        msgpack(root / "checkpoint", placed)
        assert_identical(readers.read(root).tensors, TINY)
        msgpack(root / "checkpoint", {"params": dict.fromkeys("ab", "PLACEHOLDER://params.w")})
        assert "two leaves are stored as" in refusal(root)
        msgpack(root / "checkpoint", {"params": {"w": "PLACEHOLDER://../../w"}})
        assert "inside the checkpoint" in refusal(root)

    def test_an_unfinished_save_is_not_a_step(self, tmp_path: Path) -> None:
        unfinished = tmp_path / "11.orbax-checkpoint-tmp-1795322463"
        shutil.copytree(GOLDEN / "tiny_zarr3", unfinished)
        assert "none that was saved to the end" in refusal(tmp_path)
        assert "did not finish" in refusal(unfinished)
        shutil.copytree(GOLDEN / "tiny_zarr3", tmp_path / "7")
        assert_identical(readers.read(tmp_path).tensors, TINY)

    def test_either_mark_of_a_commit_will_do_and_one_must_be_there(self, tmp_path: Path) -> None:
        root = copied("tiny_zarr3", tmp_path)
        (root / "commit_success.txt").unlink()
        assert_identical(readers.read(root).tensors, TINY)
        metadata = json.loads((root / "_CHECKPOINT_METADATA").read_text())
        (root / "_CHECKPOINT_METADATA").write_text(json.dumps({**metadata, "commit_timestamp_nsecs": None}))
        assert "commit_success.txt" in refusal(root)
        (root / "_CHECKPOINT_METADATA").unlink()
        assert "commit_success.txt" in refusal(root)
        # Orbax before 0.6 wrote neither, nor this key.
        tree = json.loads((root / "_METADATA").read_text())
        tree.pop("store_array_data_equal_to_fill_value")
        (root / "_METADATA").write_text(json.dumps(tree))
        assert_identical(readers.read(root).tensors, TINY)

    def test_a_directory_of_something_else_is_no_checkpoint(self, tmp_path: Path) -> None:
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "readme.txt").write_text("text")
        assert "a directory of notes" in refusal(tmp_path)


class TestOrbax:
    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        for name in ("tiny_zarr3", "tiny_folders", "tiny_chunks"):
            root = copied(name, tmp_path)
            for path in jf.files_of(root):
                if path.name[0] == "_" or path.name in ("commit_success.txt", "process_0", "manifest.ocdbt"):
                    continue
                data = path.read_bytes()
                path.unlink()
                with contextlib.suppress(CheckpointError):
                    # What only the optimiser's state needs may be gone.
                    assert_identical(readers.read(root).tensors, readers.read(GOLDEN / name).tensors)
                    assert name == "tiny_zarr3"
                path.write_bytes(data)

    @pytest.mark.parametrize("name", ["tiny_folders", "tiny_chunks"])
    def test_a_truncated_chunk_is_refused(self, tmp_path: Path, name: str) -> None:
        root = copied(name, tmp_path)
        chunks = [p for p in jf.files_of(root) if p.name.isdigit() or p.name == "0.0"]
        assert chunks
        for chunk in chunks:
            data = chunk.read_bytes()
            for size in (0, 1, len(data) // 2, len(data) - 1):
                chunk.write_bytes(data[:size])
                refusal(root)
            chunk.write_bytes(data)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda m: m.pop("tree_metadata"), "tree_metadata"),
            (lambda m: m["tree_metadata"].update(x=3), "key_metadata"),
            (lambda m: m["tree_metadata"].update(x={"key_metadata": []}), "key_metadata"),
            (lambda m: m["tree_metadata"].update(x={"key_metadata": [{"key": "params"}]}), "value_metadata"),
        ],
    )
    def test_damaged_metadata_is_refused(self, tmp_path: Path, change: Any, message: str) -> None:
        root = copied("tiny_zarr3", tmp_path)
        metadata = json.loads((root / "_METADATA").read_text())
        change(metadata)
        (root / "_METADATA").write_text(json.dumps(metadata))
        assert message in refusal(root)

    @pytest.mark.parametrize("name", ["..", "a/../../b", "", "\ud800", "c:", "a\0b", "a" * 5000])
    def test_names_that_lead_out_of_the_directory_are_refused(self, tmp_path: Path, name: str) -> None:
        root = copied("tiny_folders", tmp_path)
        metadata = json.loads((root / "_METADATA").read_text())
        entry = metadata["tree_metadata"]["('params', 'w')"]
        entry["key_metadata"] = [{"key": "params"}, {"key": f"/../{name}/"}]
        (root / "_METADATA").write_text(json.dumps(metadata))
        refusal(root)

    def test_a_database_without_arrays_says_so(self) -> None:
        assert "found 60 keys and none" in refusal(GOLDEN / "ocdbt_deep")

    def test_a_database_without_a_description_is_listed(self, tmp_path: Path) -> None:
        metadata = {"zarr_format": 2, "order": "C", "dtype": "<f4", "shape": [2, 3], "chunks": [2, 3]}
        values = {"params.w/.zarray": json.dumps(metadata).encode(), "params.w/0.0": W.tobytes()}
        assert_identical(readers.read(jf.database(tmp_path / "db", values)).tensors, {"params/w": W})

    @given(data=st.data(), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
    @settings(deadline=None, max_examples=120)
    def test_damage_is_read_or_refused(
        self, tmp_path_factory: Any, data: st.DataObject, where: float, bit: int, cut: bool
    ) -> None:
        name = data.draw(st.sampled_from(["tiny_zarr3", "tiny_folders", "tiny_manager", "orbax_std"]))
        root = tmp_path_factory.getbasetemp() / "damaged" / name
        if not root.exists():
            shutil.copytree(GOLDEN / name, root)
        path = data.draw(st.sampled_from([p for p in jf.files_of(root) if p.stat().st_size]))
        right = path.read_bytes()
        path.write_bytes(right[: int(where * len(right))] if cut else flipped(right, where, bit))
        try:
            with contextlib.suppress(CheckpointError):
                readers.read(root)
        finally:
            path.write_bytes(right)


class TestOcdbt:
    def test_a_flipped_bit_of_a_node_is_found_by_its_checksum(self, tmp_path: Path) -> None:
        root = copied("ocdbt_deep", tmp_path)
        manifest = root / "manifest.ocdbt"
        manifest.write_bytes(flipped(manifest.read_bytes(), 0.5, 3))
        with pytest.raises(CheckpointError, match=r"manifest\.ocdbt: damaged: expected checksum"):
            Database(root)

    @pytest.mark.parametrize(
        "file", ["../data", "/data", "a//data", "./data", "..", "", "a/../../data", "a\\data", "a\0"]
    )
    def test_paths_out_of_the_directory_are_refused(self, tmp_path: Path, file: str) -> None:
        node = jf.leaf({"a": b"b"})
        (tmp_path / "data").write_bytes(node)
        root = tmp_path / "db"
        root.mkdir()
        (root / "manifest.ocdbt").write_bytes(jf.manifest((file, 0), 0, len(node)))
        with pytest.raises(CheckpointError, match="inside the checkpoint"):
            Database(root)
        (root / "data").write_bytes(inner := jf.pointing_leaf("a", (file, 0), 0, 1))
        (root / "manifest.ocdbt").write_bytes(jf.manifest(("data", 0), 0, len(inner)))
        with pytest.raises(CheckpointError, match="inside the checkpoint"):
            Database(root)

    def test_base_paths_do_not_grow_without_end(self, tmp_path: Path) -> None:
        node = b""
        for height in range(1, 200):
            node = jf.interior(height, "k", ("a/data", 2), 0, len(node) or 16)
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "data").write_bytes(node)
        (tmp_path / "manifest.ocdbt").write_bytes(jf.manifest(("a/data", 2), 0, len(node), 199))
        with pytest.raises(CheckpointError, match=r"a/data"):
            Database(tmp_path)

    def test_a_node_that_leads_to_itself_is_refused(self, tmp_path: Path) -> None:
        length = len(jf.interior(9, "k", ("data", 0), 0, 50))
        node = jf.interior(9, "k", ("data", 0), 0, length)
        assert len(node) == length
        (tmp_path / "data").write_bytes(node)
        (tmp_path / "manifest.ocdbt").write_bytes(jf.manifest(("data", 0), 0, length, 9))
        with pytest.raises(CheckpointError, match="leads to this node twice"):
            Database(tmp_path)

    def test_values_beyond_their_file_are_refused(self, tmp_path: Path) -> None:
        node = jf.pointing_leaf("a", ("data", 0), 1 << 60, 1)
        (tmp_path / "data").write_bytes(node)
        (tmp_path / "manifest.ocdbt").write_bytes(jf.manifest(("data", 0), 0, len(node)))
        with pytest.raises(CheckpointError, match="the file has"):
            Database(tmp_path).read("a")
        node = jf.pointing_leaf("a", ("data", 0), 0, 1 << 60)
        (tmp_path / "data").write_bytes(node)
        (tmp_path / "manifest.ocdbt").write_bytes(jf.manifest(("data", 0), 0, len(node)))
        with pytest.raises(CheckpointError, match="which the data files do not have"):
            Database(tmp_path)

    def test_declared_counts_take_no_memory(self, tmp_path: Path) -> None:
        body = b"\0" + jf.table([]) + jf.varint(1 << 40)
        node = jf.framed(jf.NODE_MAGIC, body)
        (tmp_path / "data").write_bytes(node)
        (tmp_path / "manifest.ocdbt").write_bytes(jf.manifest(("data", 0), 0, len(node)))
        with at_most(1), pytest.raises(CheckpointError, match="more than 1000000 entries"):
            Database(tmp_path)

    @given(data=st.data(), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    @settings(deadline=None, max_examples=100)
    def test_damage_under_a_right_checksum_is_read_or_refused(
        self, tmp_path_factory: Any, data: st.DataObject, where: float, bit: int
    ) -> None:
        root = tmp_path_factory.getbasetemp() / "repaired"
        if not root.exists():
            shutil.copytree(GOLDEN / "ocdbt_deep", root)
        path = data.draw(st.sampled_from(jf.files_of(root)))
        right = path.read_bytes()
        path.write_bytes(jf.with_checksums(flipped(right, where, bit)))
        try:
            with contextlib.suppress(CheckpointError):
                database = Database(root)
                for key in database.keys:
                    database.read(key)
        finally:
            path.write_bytes(right)


class TestZarr:
    def read(self, root: Path, metadata: Any, **chunks: bytes) -> Array:
        (root / "w").mkdir(exist_ok=True)
        (root / "w" / ".zarray").write_text(json.dumps(metadata))
        for key, data in chunks.items():
            (root / "w" / key).write_bytes(data)
        return _zarr.read(Folder(root), "w", str(root))

    def test_a_chunk_of_zeros_may_be_left_out_where_a_fill_value_says_so(self, tmp_path: Path) -> None:
        assert not self.read(tmp_path, {**ZARR2, "fill_value": 0.0}).any()
        for fill in (None, 1.0, "NaN"):
            with pytest.raises(CheckpointError, match=r"chunk w/0\.0, one of 1, is missing"):
                self.read(tmp_path, {**ZARR2, "fill_value": fill})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"shape": [2**40, 3], "chunks": [2**40, 3]}, "are stored"),
            ({"chunks": [2**40, 3]}, "are stored"),
            ({"shape": [2**30, 3], "chunks": [1, 1], "fill_value": 0}, "chunks at most"),
            ({"shape": [0, 2**40], "chunks": [1, 1], "fill_value": 0}, "chunks at most"),
            ({"shape": [2**26, 3], "chunks": [2**26, 3], "fill_value": 0}, "are stored"),
            ({"shape": [2**44], "chunks": [2**44], "compressor": {"id": "zstd"}}, "are stored"),
            ({"chunks": [0, 3]}, "expected chunks"),
            ({"chunks": [2]}, "expected chunks"),
            ({"dtype": "|O"}, "expected a dtype"),
            ({"dtype": [["a", "<f4"]]}, "expected a dtype"),
            ({"compressor": {"id": "blosc"}}, "found 'blosc'"),
            ({"filters": [{"id": "delta"}]}, "no filters"),
            ({"order": "K"}, "order C or F"),
            ({"zarr_format": 3}, "zarr_format 2"),
            ({"dimension_separator": ".."}, "dimension_separator"),
            ({"shape": None}, "an array's shape"),
            ({"dtype": "<f8"}, "48 bytes declared, 24 are stored"),
        ],
    )
    def test_metadata_that_the_chunks_do_not_justify_are_refused(
        self, tmp_path: Path, change: dict[str, Any], message: str
    ) -> None:
        chunks = {"0.0": W.tobytes(), "0": W.tobytes()}
        with at_most(2), pytest.raises(CheckpointError) as caught:
            self.read(tmp_path, {**ZARR2, **change}, **chunks)
        assert message in str(caught.value)

    @given(data=st.data(), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
    @settings(deadline=None, max_examples=120)
    def test_damage_is_read_or_refused(
        self, tmp_path_factory: Any, data: st.DataObject, where: float, bit: int, cut: bool
    ) -> None:
        name = data.draw(st.sampled_from(["sharded", "plain3", "gzip2"]))
        root = tmp_path_factory.getbasetemp() / "zarr"
        if not root.exists():
            shutil.copytree(GOLDEN / "zarr", root)
        path = data.draw(st.sampled_from(jf.files_of(root / name)))
        right = path.read_bytes()
        path.write_bytes(right[: int(where * len(right))] if cut else flipped(right, where, bit))
        try:
            with contextlib.suppress(CheckpointError):
                _zarr.read(Folder(root), name, str(root))
        finally:
            path.write_bytes(right)

    @pytest.mark.parametrize("at", [0.0, 0.02, 0.5, 0.99])
    def test_checksums_of_a_shard_are_verified(self, tmp_path: Path, at: float) -> None:
        shutil.copytree(GOLDEN / "zarr" / "sharded", tmp_path / "w")
        path = tmp_path / "w" / "c" / "0" / "0"
        path.write_bytes(flipped(path.read_bytes(), at, 2))
        with pytest.raises(CheckpointError, match=r"w/c/0/0.*checksum"):
            _zarr.read(Folder(tmp_path), "w", str(tmp_path))


class TestCompression:
    @pytest.mark.parametrize("known", [True, False])
    def test_zstd_gives_no_more_than_expected(self, known: bool) -> None:
        zstandard = pytest.importorskip("zstandard")
        data = zstandard.ZstdCompressor(write_content_size=known).compress(bytes(50_000_000))
        with at_most(3), pytest.raises(CheckpointError, match="at most"):
            decompress(data, "zstd", 1000, "x")
        assert decompress(zstandard.ZstdCompressor(write_content_size=known).compress(b"abc"), "zstd", 3, "x") == b"abc"

    def test_a_declared_size_that_no_zstd_data_have_is_refused(self) -> None:
        frame = bytes.fromhex("28b52ffd") + b"\xe0" + (1 << 40).to_bytes(8, "little") + b"\1\0\0"
        with at_most(1), pytest.raises(CheckpointError, match="declare 1099511627776 bytes"):
            decompress(frame, "zstd", 1 << 50, "x")

    def test_without_zstandard_it_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "zstandard", None)
        with pytest.raises(CheckpointError, match="pip install zstandard"):
            readers.read(GOLDEN / "orbax_std")


ALONE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"jax", "jaxlib", "flax", "equinox", "orbax", "tensorstore", "optax", "torch"}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from ssmrt import readers
for path in sys.argv[1:]:
    print(len(readers.read(path).tensors))
"""


def test_no_framework_is_needed() -> None:
    names = ["edge.msgpack", "edge.eqx", "orbax_std", "tiny_zarr3", "tiny_folders", "tiny_manager"]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *(str(GOLDEN / name) for name in names)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(readers.__file__).parents[2]), "PATH": ""},
    )
    assert done.stdout.split() == ["14", "9", "6", "5", "5", "2"]
