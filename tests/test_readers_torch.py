"""Files of the PyTorch world are read exactly or refused, and nothing of them is ever run."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import enum
import functools
import io
import json
import pickle
import struct
import time
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_files as tf
from cases import Case, cases
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from ssmrt import readers
from ssmrt.errors import CheckpointError
from ssmrt.readers import safetensors
from torch_files import Call, Global, New, Raw

READERS = Path(__file__).parent / "golden" / "readers"
CODES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "ComplexDoubleStorage": "c16",
    "ComplexFloatStorage": "c8",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
ONE = np.arange(6, dtype=np.float32)
ONE_TENSOR = tf.tensor(tf.storage("0", 6), (2, 3), (3, 1))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reader") / "model.pt"


def reading(path: Path, data: bytes) -> readers.Checkpoint:
    path.write_bytes(data)
    return readers.read(path)


def tensors_of(path: Path, value: Any, storages: dict[str, bytes] | None = None, **options: Any) -> Any:
    return reading(path, tf.archive(tf.pickled(value), storages or {"0": ONE.tobytes()}, **options)).tensors


def refusal(path: Path, data: bytes) -> str:
    with pytest.raises(CheckpointError) as caught:
        reading(path, data)
    assert str(path) in str(caught.value)
    return str(caught.value)


def read_or_refuse(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with contextlib.suppress(CheckpointError):
        readers.read(path)


def numbers(kind: str, size: int) -> NDArray[Any]:
    rng = np.random.default_rng(size)
    return (rng.integers(0, 2, size) if kind == "BoolStorage" else 100 * rng.random(size)).astype(CODES[kind])


@pytest.mark.parametrize("case", list(cases("torch/")), ids=str)
def test_containers_of_one_model_agree_bitwise(case: Case) -> None:
    first, *others = (readers.read(path).tensors for path, _ in case.files)
    assert first
    for other in others:
        # safetensors keeps one of two tensors that share their storage.
        assert set(first) ^ set(other) <= {"lm_head.weight"}
        for name in first.keys() & other.keys():
            assert first[name].dtype == other[name].dtype
            np.testing.assert_array_equal(first[name], other[name], strict=True)


LIGHTNING = [(case, path) for case in cases("torch/") for path, _ in case.files if path.suffix == ".ckpt"]


@pytest.mark.parametrize(("case", "path"), LIGHTNING, ids=str)
def test_lightning_gives_its_configuration_up(case: Case, path: Path) -> None:
    found = readers.read(path).config
    assert found is not None
    assert case.config is not None
    assert {name: found[name] for name in case.config} == case.config


def test_lightning_file() -> None:
    checkpoint = readers.read(READERS / "lightning.ckpt")
    expected = json.loads((READERS / "lightning.json").read_text())
    assert checkpoint.config is not None
    assert {name: checkpoint.config[name] for name in expected} == expected
    json.dumps(checkpoint.config)
    assert len(checkpoint.tensors) == 34
    assert checkpoint.tensors["model.layers.0.layer.layer.kernel.C"].shape == (1, 24, 16, 2)
    assert checkpoint.tensors["encoder.0.weight"].shape == (24, 1)


def test_strides_and_shared_storage_of_a_real_file() -> None:
    tensors = readers.read(READERS / "v3_diag.pt").tensors
    np.testing.assert_array_equal(tensors["kernel.kernel.A"][..., 1], tensors["kernel.kernel.A_imag"])


@given(
    kind=st.sampled_from(sorted(CODES)),
    shape=st.lists(st.integers(0, 4), max_size=4),
    data=st.data(),
    order=st.sampled_from(["little", "big"]),
)
@settings(deadline=None)
def test_a_tensor_is_the_strided_view_of_its_storage(
    scratch: Path, kind: str, shape: list[int], data: st.DataObject, order: str
) -> None:
    stride = [data.draw(st.integers(0, 5)) for _ in shape]
    offset = data.draw(st.integers(0, 7))
    base = numbers(kind, 1 + offset + sum(max(n - 1, 0) * s for n, s in zip(shape, stride)))
    expected = as_strided(base[offset:], shape, [s * base.itemsize for s in stride])
    stored = base.astype(base.dtype.newbyteorder(">" if order == "big" else "<")).tobytes()
    where = tf.storage("0", base.size, kind)
    value = {"x": tf.tensor(where, tuple(shape), tuple(stride), offset)}
    actual = tensors_of(scratch, value, {"0": stored}, byteorder=order.encode())["x"]
    assert actual.dtype == base.dtype
    np.testing.assert_array_equal(actual, expected, strict=True)


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1))
@settings(deadline=None)
def test_bfloat16_is_the_upper_half_of_float32(scratch: Path, bits: list[int]) -> None:
    stored = np.array(bits, "<u2").tobytes()
    expected = np.array([b << 16 for b in bits], np.uint32)
    value = {"x": tf.tensor(tf.storage("0", len(bits), "BFloat16Storage"), (len(bits),), (1,))}
    from_torch = tensors_of(scratch, value, {"0": stored})["x"]
    header = {"x": {"dtype": "BF16", "shape": [len(bits)], "data_offsets": [0, len(stored)]}}
    from_safetensors = safetensors.parse(safetensors_bytes(header, stored), "here")[1]["x"]
    for array in (from_torch, from_safetensors):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array.view(np.uint32), expected)


@pytest.mark.parametrize("neg", [False, True])
@pytest.mark.parametrize("conj", [False, True])
def test_tensors_that_wait_to_be_conjugated_or_negated_are(scratch: Path, conj: bool, neg: bool) -> None:
    numbers = np.array([1 + 2j, 3 - 1j], np.complex64)
    bits = {name: True for name, bit in (("conj", conj), ("neg", neg)) if bit}
    made = tf.tensor(tf.storage("0", 2, "ComplexFloatStorage"), (2,), (1,))
    made = Call(made.function, (*made.args, bits))
    expected = numbers.conj() if conj else numbers
    found = tensors_of(scratch, {"x": made}, {"0": numbers.tobytes()})["x"]
    np.testing.assert_array_equal(found, -expected if neg else expected, strict=True)


def test_tensors_of_which_more_is_said_than_is_known_are_refused(scratch: Path) -> None:
    for said in ({"scale": 0.1}, {"conj": Call(SYSTEM[0], ())}, "conj"):
        value = {"x": ONE_TENSOR, "y": Call(ONE_TENSOR.function, (*ONE_TENSOR.args, said))}
        message = refusal(scratch, tf.archive(tf.pickled(value), {"0": ONE.tobytes()}))
        assert "'y': expected a tensor, found an instance of 'torch._utils._rebuild_tensor_v2'" in message


def test_untyped_storage_takes_its_dtype_from_the_tensor(scratch: Path) -> None:
    where = tf.Persistent(("storage", Global("torch.storage", "UntypedStorage"), "0", "cpu", 8))
    made = Call(
        Global("torch._utils", "_rebuild_tensor_v3"),
        (where, 1, (3,), (1,), False, Call(Global("collections", "OrderedDict"), ()), Global("torch", "uint16"), {}),
    )
    stored = np.arange(4, dtype="<u2").tobytes()
    np.testing.assert_array_equal(tensors_of(scratch, {"x": made}, {"0": stored})["x"], np.array([1, 2, 3], np.uint16))


@pytest.mark.parametrize("top", ["archive", "checkpoint", "a name with spaces"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "acc": 92.5, "epoch": 3},
        lambda state: {"state_dict": state, "optimizer_states": [{"state": {0: {"exp_avg": ONE_TENSOR}}}]},
        lambda state: {"ema": tf.ordered({"w": ONE_TENSOR}), "my_model": state, "optimizer": {"a": ONE_TENSOR}},
        lambda state: {"model_ema": tf.ordered({"w": ONE_TENSOR}), "model": state},
        lambda state: {"state_dict": tf.ordered({"ema.layer.w": ONE_TENSOR, "layer.w": ONE_TENSOR, "b": ONE_TENSOR})},
    ],
)
def test_the_model_is_found_beside_whatever_else_was_saved(scratch: Path, top: str, wrap: Any) -> None:
    state = tf.ordered({"layer.w": ONE_TENSOR, "b": ONE_TENSOR}, {"_metadata": tf.ordered({"": {"version": 1}})})
    tensors = tensors_of(scratch, wrap(state), top=top)
    assert list(tensors) == ["layer.w", "b"]
    np.testing.assert_array_equal(tensors["b"], ONE.reshape(2, 3))


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("beside", [np.float64(92.5), np.arange(5), Path("runs/1"), {1, 2}, 1 + 2j, Counter("aab")])
def test_bookkeeping_beside_the_model_is_passed_over(scratch: Path, beside: Any, protocol: int) -> None:
    code = pickle.dumps(beside, protocol)[2:-1]
    tensors = tensors_of(scratch, {"acc": Raw(code), "model": {"w": ONE_TENSOR}})
    np.testing.assert_array_equal(tensors["w"], ONE.reshape(2, 3))


@pytest.mark.parametrize(
    "names",
    [
        ["module.a", "module.b.c"],
        ["_orig_mod.a", "_orig_mod.b.c"],
        ["module._orig_mod.a", "module._orig_mod.b.c"],
        ["n_averaged", "module.module.a", "module.module.b.c"],
    ],
)
def test_wrappers_leave_no_prefix(scratch: Path, names: list[str]) -> None:
    assert list(tensors_of(scratch, tf.ordered(dict.fromkeys(names, ONE_TENSOR)))) == ["a", "b.c"]


def test_a_module_of_that_name_keeps_its_prefix(scratch: Path) -> None:
    assert list(tensors_of(scratch, {"module.a": ONE_TENSOR, "b": ONE_TENSOR})) == ["module.a", "b"]


def test_two_models_are_a_question(scratch: Path) -> None:
    value = {"generator": {"w": ONE_TENSOR}, "critic": {"w": ONE_TENSOR}}
    assert "generator, critic" in refusal(scratch, tf.archive(tf.pickled(value), {"0": ONE.tobytes()}))


def test_parameters_and_tensors_with_attributes(scratch: Path) -> None:
    parameter = Call(Global("torch._utils", "_rebuild_parameter"), (ONE_TENSOR, True, tf.ordered({})))
    subclass = Call(
        Global("torch._tensor", "_rebuild_from_type_v2"),
        (ONE_TENSOR.function, Global("torch", "Tensor"), ONE_TENSOR.args, {"_optim": {"lr": 0.001}}),
    )
    for tensor in (parameter, subclass):
        np.testing.assert_array_equal(tensors_of(scratch, {"x": tensor})["x"], ONE.reshape(2, 3))


def test_omegaconf_becomes_plain_data(scratch: Path) -> None:
    def node(value: Any) -> New:
        return New(Global("omegaconf.nodes", "AnyNode"), {"_metadata": None, "_parent": None, "_val": value})

    inner = New(Global("omegaconf.dictconfig", "DictConfig"), {"_content": {"lr": node(0.1), "n": node("${top.n}")}})
    items = New(
        Global("omegaconf.listconfig", "ListConfig"), {"_content": [node(1), node(None), node(Global("typing", "Any"))]}
    )
    hyper = {
        "inner": inner,
        "items": items,
        "top": {"n": 4, "kind": Global("builtins", "dict")},
        "where": Call(Global("pathlib", "PosixPath"), ("a", "b")),
        "args": New(Global("argparse", "Namespace"), {"d_model": 8}),
    }
    value = {"state_dict": {"w": ONE_TENSOR}, "hyper_parameters": hyper}
    checkpoint = reading(scratch, tf.archive(tf.pickled(value), {"0": ONE.tobytes()}))
    assert checkpoint.config == {
        "inner": {"lr": 0.1, "n": 4},
        "items": [1, None],
        "top": {"n": 4},
        "where": "a/b",
        "args": {"d_model": 8},
    }


def test_legacy_container(scratch: Path) -> None:
    long = tf.tensor(tf.storage("7", 3, "LongStorage", legacy=True), (2,), (1,), 1)
    half = tf.tensor(tf.storage("x", 2, "HalfStorage", legacy=True), (2,), (1,))
    skipped = tf.tensor(tf.storage("s", 1, "DoubleStorage", legacy=True), (), ())
    value = {"state_dict": tf.ordered({"a": long, "b": half}), "optimizer": {"m": skipped}}
    stored = {
        "s": (1, bytes(8)),
        "x": (2, np.array([1, 2], "<f2").tobytes()),
        "7": (3, np.arange(3, dtype="<i8").tobytes()),
    }
    data = tf.legacy(value, stored)
    tensors = reading(scratch, data).tensors
    np.testing.assert_array_equal(tensors["a"], np.array([1, 2]))
    np.testing.assert_array_equal(tensors["b"], np.array([1, 2], np.float16), strict=True)
    for cut in range(0, len(data), 7):
        refusal(scratch, data[:cut])


SYSTEM = [Global("os", "system"), Global("posix", "system"), Global("builtins", "eval"), Global("builtins", "getattr")]
ALLOWED = [
    Global("torch", "FloatStorage"),
    Global("torch", "float32"),
    Global("builtins", "dict"),
    Global("__builtin__", "list"),
    Global("typing", "Any"),
    Global("torch._utils", "_rebuild_tensor_v2"),
    Global("torch._utils", "_rebuild_parameter"),
    Global("torch._tensor", "_rebuild_from_type_v2"),
]
TOUCH = b"X\x05\x00\x00\x00touch"
HOSTILE: dict[str, bytes] = {
    **{f"calls {g.module}.{g.name}": tf.pickled(Call(g, ("touch sentinel",))) for g in SYSTEM},
    **{f"names {g.module}.{g.name}": tf.pickled({"x": g}) for g in SYSTEM},
    **{f"odd arguments of {g.name}": tf.pickled(Call(g, ("touch sentinel", 1, 2))) for g in ALLOWED},
    **{f"no arguments of {g.name}": tf.pickled(Call(g, ())) for g in ALLOWED},
    **{f"attributes of {g.name}": tf.pickled(Raw(tf.encode(g) + tf.encode({"__call__": 1}) + b"b")) for g in ALLOWED},
    "calls a name under known modules": tf.pickled(Call(Global("torch.hub", "load"), ("a/b", "c"))),
    "calls torch.load": tf.pickled(Call(Global("torch", "load"), ("x",))),
    "dotted name": tf.pickled(Call(Global("collections", "OrderedDict.fromkeys"), ([1],))),
    "callbacks are names only": tf.pickled(Call(Global("pytorch_lightning.callbacks.timer", "Timer"), ())),
    "STACK_GLOBAL": b"\x80\x04" + tf.encode("os") + tf.encode("system") + b"\x93" + tf.encode(("touch",)) + b"R.",
    "STACK_GLOBAL of numbers": b"\x80\x04K\x01K\x02\x93.",
    "INST": b"\x80\x02(" + TOUCH + b"ios\nsystem\n.",
    "OBJ": b"\x80\x02(" + tf.encode(SYSTEM[0]) + TOUCH + b"o.",
    "OBJ of a known class": b"\x80\x02(" + tf.encode(Global("argparse", "Namespace")) + b"o.",
    "NEWOBJ": b"\x80\x02" + tf.encode(SYSTEM[0]) + tf.encode(("touch",)) + b"\x81.",
    "NEWOBJ_EX": b"\x80\x04" + tf.encode(Global("argparse", "Namespace")) + b")}\x92.",
    "NEWOBJ of a function": b"\x80\x02" + tf.encode(ALLOWED[5]) + b")\x81.",
    "REDUCE of a string": b"\x80\x02" + TOUCH + b")R.",
    "REDUCE with a list": b"\x80\x02" + tf.encode(Global("collections", "OrderedDict")) + b"]R.",
    "BUILD of a tensor": tf.pickled({"x": Raw(tf.encode(ONE_TENSOR) + b"}b")}),
    "BUILD of a dict": tf.pickled(Raw(b"}}b")),
    "BUILD with a list": tf.pickled(Raw(tf.encode(Global("argparse", "Namespace")) + b")\x81]b")),
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "PERSID": b"\x80\x02Pfile\n.",
    "persistent id of a string": tf.pickled(tf.Persistent("/etc/passwd")),
    "persistent id of another kind": tf.pickled(tf.Persistent(("module", "a", "b", "c", "d"))),
    "storage that is no storage": tf.pickled(tf.Persistent(("storage", SYSTEM[0], "0", "cpu", 6))),
    "storage of a negative size": tf.pickled({"x": tf.tensor(tf.storage("0", -6), (2, 3), (3, 1))}),
    "storage outside the archive": tf.pickled({"x": tf.tensor(tf.storage("../../x", 6), (2, 3), (3, 1))}),
    "one storage of two dtypes": tf.pickled(
        {"x": ONE_TENSOR, "y": tf.tensor(tf.storage("0", 6, "LongStorage"), (2, 3), (3, 1))}
    ),
    "more numbers than stored": tf.pickled({"x": tf.tensor(tf.storage("0", 6), (2, 4), (3, 1))}),
    "storage larger than the file": tf.pickled({"x": tf.tensor(tf.storage("0", 2**50), (2,), (1,))}),
    "gigantic shape": tf.pickled({"x": tf.tensor(tf.storage("0", 6), (2**62, 2**62), (0, 0))}),
    "gigantic empty shape": tf.pickled({"x": tf.tensor(tf.storage("0", 6), (0, 2**62, 2**62), (0, 0, 0))}),
    "gigantic stride": tf.pickled({"x": tf.tensor(tf.storage("0", 6), (2, 1), (2**62, 1))}),
    "gigantic offset": tf.pickled({"x": tf.tensor(tf.storage("0", 6), (1,), (1,), 2**62)}),
    "negative stride": tf.pickled({"x": tf.tensor(tf.storage("0", 6), (2,), (-1,), 3)}),
    "negative offset": tf.pickled({"x": tf.tensor(tf.storage("0", 6), (2,), (1,), -1)}),
    "stride of another length": tf.pickled({"x": tf.tensor(tf.storage("0", 6), (2,), (1, 1))}),
    "a hundred dimensions": tf.pickled({"x": tf.tensor(tf.storage("0", 6), (1,) * 100, (1,) * 100)}),
    "bool for a size": tf.pickled({"x": tf.tensor(tf.storage("0", 6), (True,), (1,))}),
    "expansion to gigabytes": tf.pickled({"x": tf.tensor(tf.storage("0", 6), (2**28,), (0,))}),
    "many expansions": tf.pickled({str(i): tf.tensor(tf.storage("0", 6), (2**22,), (0,)) for i in range(100)}),
    "LONG4 of gigabytes": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "LONG4 of kilobytes": b"\x80\x02\x8b\x00\x08\x00\x00" + bytes(2048) + b".",
    "LONG4 of a negative size": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "LONG as text": b"\x80\x02L" + b"9" * 5000 + b"L\n.",
    "BINBYTES8 of exabytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
    "BINUNICODE of gigabytes": b"\x80\x02X\xff\xff\xff\xff.",
    "BINSTRING of a negative size": b"\x80\x02T\xff\xff\xff\xff.",
    "BYTEARRAY8 of gigabytes": b"\x80\x05\x96" + struct.pack("<Q", 2**32) + b".",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "protocol 0": b"(lp0\nI1\na.",
    "protocol 9": b"\x80\x09N.",
    "empty": b"",
    "no STOP": b"\x80\x02N",
    "STOP alone": b"\x80\x02.",
    "POP of nothing": b"\x80\x020.",
    "POP below a mark": b"\x80\x02N(0.",
    "TUPLE without mark": b"\x80\x02Nt.",
    "APPEND to a dict": b"\x80\x02}Na.",
    "SETITEM in a list": b"\x80\x02]NNs.",
    "SETITEMS with an odd number": b"\x80\x02}(Nu.",
    "memo never put": b"\x80\x02h\x07.",
    "MEMOIZE of nothing": b"\x80\x04\x94.",
    "unhashable key": b"\x80\x02}]Ns.",
    "a dict that contains itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    "key of nested tuples": b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"Ns.",
    "key of doubling tuples": b"\x80\x02})q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"Ns.",
    "deep lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a million opcodes": b"\x80\x02" + b"N0" * 500_001 + b"N.",
    "list that contains itself as configuration": tf.pickled(
        {"state_dict": {"w": ONE_TENSOR}, "hyper_parameters": {"a": Raw(b"]q\x00h\x00a")}}
    ),
    "billion laughs as configuration": tf.pickled(
        {
            "state_dict": {"w": ONE_TENSOR},
            "hyper_parameters": {"a": Raw(b"]q\x000" + b"](h\x00h\x00eq\x000" * 60 + b"h\x00")},
        }
    ),
    "a record as tensor": tf.pickled({"state_dict": {"a": ONE_TENSOR, "w": Call(SYSTEM[0], ("touch sentinel",))}}),
    "a record of a tensor as tensor": tf.pickled({"a": ONE_TENSOR, "w": Call(SYSTEM[0], (ONE_TENSOR,))}),
    "a sparse tensor": tf.pickled({"a": ONE_TENSOR, "w": Call(Global("torch._utils", "_rebuild_sparse_tensor"), (1,))}),
    "a record of a record as tensor": tf.pickled({"a": ONE_TENSOR, "w": Call(Call(SYSTEM[0], ()), (ONE_TENSOR,))}),
    "a record as parameter": tf.pickled(
        {"a": ONE_TENSOR, "w": Call(Global("torch._utils", "_rebuild_parameter"), (Call(SYSTEM[0], ()), True, {}))}
    ),
    "a record as subclass of tensor": tf.pickled(
        {"a": ONE_TENSOR, "w": Call(ALLOWED[7], (SYSTEM[0], Global("torch", "Tensor"), ("touch sentinel",), {}))}
    ),
    "a tensor of a foreign class": tf.pickled(
        {"w": Call(ALLOWED[7], (ONE_TENSOR.function, Global("packed", "Params4bit"), ONE_TENSOR.args, {}))}
    ),
    "a tensor of a class that is none": tf.pickled(
        {"w": Call(ALLOWED[7], (ONE_TENSOR.function, Call(SYSTEM[0], ()), ONE_TENSOR.args, {}))}
    ),
    "a negated bool": tf.pickled(
        {
            "w": Call(
                ONE_TENSOR.function, (*tf.tensor(tf.storage("0", 6, "BoolStorage"), (6,), (1,)).args, {"neg": True})
            )
        }
    ),
    "a record as storage": tf.pickled({"w": Call(ONE_TENSOR.function, (Call(SYSTEM[0], ()), *ONE_TENSOR.args[1:]))}),
    "a record as kind of storage": tf.pickled(
        {"w": tf.tensor(tf.Persistent(("storage", Call(SYSTEM[0], ()), "0", "cpu", 6)), (2, 3), (3, 1))}
    ),
    "a record as key of a storage": tf.pickled(
        {"w": tf.tensor(tf.Persistent(("storage", ALLOWED[0], Call(SYSTEM[0], ()), "cpu", 6)), (2, 3), (3, 1))}
    ),
    "a record as shape": tf.pickled(
        {"w": Call(ONE_TENSOR.function, (*ONE_TENSOR.args[:2], Call(SYSTEM[0], ((2, 3),)), *ONE_TENSOR.args[3:]))}
    ),
    "a record as file": tf.pickled(New(Global("builtins", "dict"), {"state_dict": {"w": ONE_TENSOR}})),
    "a record as state dict": tf.pickled({"state_dict": New(Global("models", "Model"), {"w": ONE_TENSOR})}),
    "a record with items as state dict": tf.pickled(
        {"state_dict": Raw(tf.encode(Global("collections", "UserDict")) + b")\x81" + tf.encode({"w": ONE_TENSOR})[1:])}
    ),
    "a record with state twice": tf.pickled(
        {"w": ONE_TENSOR, "x": Raw(tf.encode(New(Global("a", "B"), {"y": 1})) + tf.encode({"z": 1}) + b"b")}
    ),
    "module of a record": tf.pickled({"w": Call(tf.Persistent(("module", SYSTEM[0], "a", "b")), ("touch sentinel",))}),
    "a call with names": b"\x80\x04}" + TOUCH + tf.encode(SYSTEM[0]) + b"(" + TOUCH + b"t}\x92s.",
    "names that are none": b"\x80\x04}" + TOUCH + tf.encode(SYSTEM[0]) + b")]\x92s.",
    "a call of a call of a string": tf.pickled({"w": Call(Call("touch", ()), ())}),
    "many records": b"\x80\x02" + tf.encode(SYSTEM[0]) + b"q\x00" + b"(" + b"h\x00)R" * 100_000 + b"t.",
    "a tensor alone": tf.pickled(ONE_TENSOR),
    "no tensors": tf.pickled({"state_dict": {}, "epoch": 3}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickle_is_refused_and_runs_nothing(name: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scratch.parent)
    data = tf.archive(HOSTILE[name], {"0": ONE.tobytes()})
    scratch.write_bytes(data)
    before = time.perf_counter()
    tracemalloc.start()
    try:
        refusal(scratch, data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150 * len(data) + (1 << 20)
    assert time.perf_counter() - before < 20
    assert list(scratch.parent.iterdir()) == [scratch]


@pytest.mark.parametrize("global_", SYSTEM, ids=lambda g: g.name)
def test_the_refusal_names_the_global_and_says_what_to_do(scratch: Path, global_: Global) -> None:
    message = refusal(scratch, tf.archive(tf.pickled({"state_dict": Call(global_, ("x",))})))
    assert f"'{global_.module}.{global_.name}'" in message
    assert "nothing was run" in message
    assert "state_dict()" in message


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


class Own:
    def __init__(self) -> None:
        self.size = 3

    def method(self) -> int:
        return self.size


FOREIGN = {
    "partial": functools.partial(int, base=2),
    "function": json.dumps,
    "class": Counter,
    "instance": Own(),
    "method": Own().method,
    "enum": Colour.RED,
    "enum as key": {Colour.BLUE: 1},
    "date": datetime.date(2024, 2, 29),
    "time": datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
    "slice": slice(1, None, 2),
    "range": range(3),
    "decimal": decimal.Decimal("0.1"),
    "array": np.arange(3),
    "objects": np.array([{}, None], object),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_objects_beside_the_model_are_inert(scratch: Path, name: str, protocol: int) -> None:
    code = Raw(pickle.dumps(FOREIGN[name], protocol)[2:-1])
    if protocol > 2:
        code = Raw(code.code[9:] if code.code[:1] == b"\x95" else code.code)
    whole = {
        "state_dict": {"w": ONE_TENSOR},
        "hyper_parameters": {"size": 3, "foreign": code, "kind": "s4"},
        "callbacks": {"x": code},
    }
    checkpoint = reading(scratch, tf.archive(tf.pickled(whole), {"0": ONE.tobytes()}))
    np.testing.assert_array_equal(checkpoint.tensors["w"], ONE.reshape(2, 3))
    assert checkpoint.config is not None
    assert (checkpoint.config["size"], checkpoint.config["kind"]) == (3, "s4")
    json.dumps(checkpoint.config)


def test_a_file_of_torch_with_foreign_objects() -> None:
    checkpoint = readers.read(READERS / "foreign.ckpt")
    np.testing.assert_array_equal(checkpoint.tensors["layer.weight"], ONE.reshape(2, 3))
    np.testing.assert_array_equal(checkpoint.tensors["layer.bias"], np.array([1, -1], np.float32))
    assert checkpoint.config is not None
    said = {
        "d_model": 4,
        "lr": 0.001,
        "dropout": 0.5,
        # What is not read is not silent either: a model that asks for it is told what stands there.
        "activation": "<torch._C._nn.gelu>",
        "module": "<torch.nn.modules.activation.GELU>",
        "layer": "<functools.partial>",
        "by_color": {"plain": 2},
        "device": "cuda:0",
        "ids": [1, 2],
    }
    assert {name: checkpoint.config[name] for name in said} == said
    assert "tensor" not in checkpoint.config


def test_classes_that_older_files_keep_with_their_source(scratch: Path) -> None:
    made = New(tf.Persistent(("module", Global("models", "Model"), "/m.py", "class Model: ...")), {"training": True})  # type: ignore[arg-type]
    where = tf.tensor(tf.storage("0", 6, legacy=True), (6,), (1,))
    value = {"state_dict": {"w": where}, "hyper_parameters": {"model": made, "size": 3}}
    checkpoint = reading(scratch, tf.legacy(value, {"0": (6, ONE.tobytes())}))
    np.testing.assert_array_equal(checkpoint.tensors["w"], ONE)
    assert checkpoint.config == {"model": "<models.Model>", "size": 3}


def test_extra_state_of_a_module_is_no_tensor(scratch: Path) -> None:
    state = {"w": ONE_TENSOR, "layer._extra_state": New(Global("a", "B"), {})}
    assert list(tensors_of(scratch, state)) == ["w"]


def test_a_tensor_of_a_foreign_class_is_named(scratch: Path) -> None:
    made = Call(ALLOWED[7], (ONE_TENSOR.function, Global("packed", "Params4bit"), ONE_TENSOR.args, {}))
    message = refusal(scratch, tf.archive(tf.pickled({"w": made, "b": ONE_TENSOR}), {"0": ONE.tobytes()}))
    assert "'w': expected a tensor, found an instance of 'packed.Params4bit'" in message


@pytest.mark.parametrize("wrap", [lambda arrays: arrays, lambda arrays: {"model": arrays, "epoch": 3}])
def test_a_torch_file_of_numpy_arrays_is_named(scratch: Path, wrap: Any) -> None:
    arrays = {"w": Raw(pickle.dumps(ONE, 2)[2:-1]), "b": Raw(pickle.dumps(ONE, 2)[2:-1])}
    message = refusal(scratch, tf.archive(tf.pickled(wrap(arrays))))
    assert "NumPy arrays" in message
    assert "np.savez" in message


@pytest.mark.parametrize("entry", ["model/archive_format", "serialized_exported_program.json"])
def test_an_exported_program_is_named(scratch: Path, entry: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(entry, "pt2")
        file.writestr("model/data/weights/weight_0", bytes(8))
    assert "torch.export" in refusal(scratch, buffer.getvalue())


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_damaged_file_is_read_or_refused(scratch: Path, data: st.DataObject) -> None:
    original = (READERS / data.draw(st.sampled_from(["is_real.pt", "v3_diag.pt"]))).read_bytes()
    read_or_refuse(scratch, damaged(original, data))


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_damaged_pickle_in_a_sound_archive_is_read_or_refused(scratch: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["is_real.pt", "v3_diag.pt", "lightning.ckpt", "foreign.ckpt"]))
    with zipfile.ZipFile(READERS / name) as file:
        top = file.namelist()[0].split("/")[0]
        pickle = damaged(file.read(f"{top}/data.pkl"), data)
        storages = {n.split("/")[-1]: file.read(n) for n in file.namelist() if "/data/" in n}
    read_or_refuse(scratch, tf.archive(pickle, storages))


def damaged(original: bytes, data: st.DataObject) -> bytes:
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(0, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    return bytes(changed[: data.draw(st.one_of(st.just(len(changed)), st.integers(0, len(changed))))])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_is_refused(scratch: Path, share: float) -> None:
    whole = (READERS / "v3_diag.pt").read_bytes()
    refusal(scratch, whole[: int(share * len(whole))])


def test_zip_bomb_is_refused_before_it_is_unpacked(scratch: Path) -> None:
    zeros = bytes(1 << 26)
    data = tf.archive(tf.pickled({"x": ONE_TENSOR}), {"0": ONE.tobytes(), "1": zeros}, compression=zipfile.ZIP_DEFLATED)
    npz = io.BytesIO()
    np.savez_compressed(npz, x=np.zeros(1 << 23))
    for bomb in (data, npz.getvalue()):
        assert len(bomb) < 1 << 17
        tracemalloc.start()
        try:
            assert "declares" in refusal(scratch, bomb)
            assert tracemalloc.get_traced_memory()[1] < 1 << 21
        finally:
            tracemalloc.stop()


def test_overlapping_entries_are_refused(scratch: Path) -> None:
    data = tf.archive(tf.pickled({"x": ONE_TENSOR}), {"0": ONE.tobytes(), "1": ONE.tobytes()})
    directory = data.rindex(b"PK\x01\x02", 0, data.rindex(b"archive/version") - 40)
    first = data.index(b"PK\x01\x02")
    # The last storage's entry in the directory is pointed at the place of the first entry.
    changed = bytearray(data)
    changed[directory + 42 : directory + 46] = data[first + 42 : first + 46]
    assert "overlaps" in refusal(scratch, bytes(changed))


@pytest.mark.parametrize("top", ["../up", "/root", "a\\b", "a\nb"])
def test_odd_names_in_the_archive_are_refused(scratch: Path, top: str) -> None:
    assert "name that no checkpoint has" in refusal(scratch, tf.archive(tf.pickled({"x": ONE_TENSOR}), top=top))


def test_byteorder_is_one_of_two(scratch: Path) -> None:
    assert "byteorder" in refusal(scratch, tf.archive(tf.pickled({}), byteorder=b"middle"))


def test_torchscript_is_named(scratch: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("m/data.pkl", tf.pickled(None))
        file.writestr("m/constants.pkl", tf.pickled(()))
    assert "TorchScript" in refusal(scratch, buffer.getvalue())


def test_a_pickle_of_something_else_is_named(scratch: Path) -> None:
    assert "another pickle" in refusal(scratch, tf.pickled({"a": 1}))
    assert "nothing of it was run" in refusal(scratch, tf.pickled(Call(SYSTEM[0], ("touch sentinel",))))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 100, b"PK\x03\x04", b"\x80\x02"])
def test_other_files_are_refused_with_what_was_found(scratch: Path, content: bytes) -> None:
    refusal(scratch, content)


def test_missing_file_and_unknown_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nothing\.pt"):
        readers.read(tmp_path / "nothing.pt")
    (tmp_path / "readme.txt").write_text("no checkpoint")
    with pytest.raises(CheckpointError, match=r"directory of readme\.txt"):
        readers.read(tmp_path)


def test_npz_keeps_names_orders_and_dtypes(scratch: Path) -> None:
    arrays: dict[str, Any] = {
        "layer/w": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "scalar": np.array(2.5, np.float16),
        "flags": np.array([True, False]),
        "c": np.array([1 + 2j], np.complex64),
        "none": np.zeros((0, 3)),
        "bf16": np.array([0x3F80, 0xC000], np.uint16).view("V2"),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    tensors = reading(scratch, buffer.getvalue()).tensors
    np.testing.assert_array_equal(tensors["bf16"], np.array([1, -2], np.float32), strict=True)
    for name in arrays.keys() - {"bf16"}:
        np.testing.assert_array_equal(tensors[name], arrays[name].astype(arrays[name].dtype.newbyteorder("=")))
        assert tensors[name].dtype == arrays[name].dtype.newbyteorder("=")


@pytest.mark.parametrize("array", [np.array([{}], object), np.array(["a"]), np.zeros(2, [("a", "f4")])])
def test_npz_of_anything_but_numbers_is_refused(scratch: Path, array: NDArray[Any]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, x=array)
    assert "plain array of numbers" in refusal(scratch, buffer.getvalue())


@given(st.data())
@settings(deadline=None)
def test_damaged_npy_is_read_or_refused(scratch: Path, data: st.DataObject) -> None:
    npy = io.BytesIO()
    np.save(npy, np.arange(6.0).reshape(2, 3))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("x.npy", damaged(npy.getvalue(), data))
    read_or_refuse(scratch, buffer.getvalue())


def safetensors_bytes(header: Any, body: bytes) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(start: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - start) // 4] if shape is None else shape, "data_offsets": [start, end]}


def test_safetensors_keeps_dtypes_and_metadata() -> None:
    arrays = {
        code: np.arange(1, 4).astype(dtype)
        for code, dtype in {
            **dict.fromkeys(["F64"], "f8"),
            **{"F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1"},
            **{"U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?", "C64": "c8"},
        }.items()
    }
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for code, array in arrays.items():
        header[code] = entry(at, at + array.nbytes, [3], code)
        at += array.nbytes
    body = b"".join(a.tobytes() for a in arrays.values())
    # One space more shifts every tensor off its alignment.
    for text in (json.dumps(header), json.dumps(header) + " "):
        metadata, tensors = safetensors.parse(safetensors_bytes(text, body), "here")
        assert metadata == {"format": "pt"}
        for code, array in arrays.items():
            np.testing.assert_array_equal(tensors[code], array, strict=True)
            assert tensors[code].flags.aligned


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 3) + b"{}",
        safetensors_bytes("[]", b""),
        safetensors_bytes("1", b""),
        safetensors_bytes("{", b""),
        safetensors_bytes("[" * 100_000, b""),
        safetensors_bytes('{"a": {}}', b""),
        safetensors_bytes('{"a": ' + json.dumps(entry(0, 4)) + ', "a": ' + json.dumps(entry(0, 4)) + "}", bytes(4)),
        safetensors_bytes({"__metadata__": [1]}, b""),
        safetensors_bytes({"__metadata__": {"a": 1}}, b""),
        safetensors_bytes({"a": entry(0, 8)}, bytes(4)),
        safetensors_bytes({"a": entry(0, 4)}, bytes(8)),
        safetensors_bytes({"a": entry(4, 8)}, bytes(8)),
        safetensors_bytes({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)),
        safetensors_bytes({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)),
        safetensors_bytes({"a": entry(4, 0)}, bytes(8)),
        safetensors_bytes({"a": entry(-4, 4)}, bytes(8)),
        safetensors_bytes({"a": entry(0, 4, [2])}, bytes(4)),
        safetensors_bytes({"a": entry(0, 4, [2**40, 2**40])}, bytes(4)),
        safetensors_bytes({"a": entry(0, 4, [-1])}, bytes(4)),
        safetensors_bytes({"a": entry(0, 4, [True])}, bytes(4)),
        safetensors_bytes({"a": entry(0, 4, [1.0])}, bytes(4)),
        safetensors_bytes({"a": entry(0, 4, ["1"])}, bytes(4)),
        safetensors_bytes({"a": entry(0, 4, [1] * 65)}, bytes(4)),
        safetensors_bytes({"a": entry(0, 0, [0] + [2**62] * 3)}, b""),
        safetensors_bytes({"a": entry(0, 4, [4], "F8_E4M3")}, bytes(4)),
        safetensors_bytes({"a": {**entry(0, 4), "dtype": ["F32"]}}, bytes(4)),
        safetensors_bytes({"a": {**entry(0, 4), "data_offsets": [0]}}, bytes(4)),
        safetensors_bytes({"a": {**entry(0, 4), "data_offsets": {"0": 4}}}, bytes(4)),
    ],
)
def test_unsound_safetensors_is_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"^here: "):
        safetensors.parse(data, "here")


@given(st.data())
@settings(deadline=None)
def test_damaged_safetensors_is_read_or_refused(data: st.DataObject) -> None:
    header = {"__metadata__": {"a": "b"}, "x": entry(0, 12), "y": entry(12, 16, [2], "BF16"), "z": entry(16, 20, [])}
    with contextlib.suppress(CheckpointError):
        safetensors.parse(damaged(safetensors_bytes(header, bytes(20)), data), "here")
