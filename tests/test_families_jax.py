"""Documents made from JAX checkpoints: real ones, and small ones of every variant that upstream ran in float64."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from cases import GOLDEN, SHARED, Case, relative_error
from numpy.typing import NDArray
from ssmrt import families
from ssmrt.document import Document, Dplr, to_bytes, walk
from ssmrt.errors import CheckpointError, ConfigRequired, SsmrtError, UnsupportedError
from ssmrt.families import truncated
from ssmrt.families.config import Config
from ssmrt.readers import read
from ssmrt.readers.checkpoint import Checkpoint

Array = NDArray[Any]


def rows() -> Iterator[Any]:
    """The golden models, and the whole table where it stands beside the checkout."""
    for folder, place in ((GOLDEN, "golden"), (SHARED, "shared")):
        table = folder / "cases.json"
        if not table.is_file():
            yield pytest.param(None, marks=pytest.mark.skip(reason=f"{table} is not there"), id=f"{place}:none")
            continue
        for row in json.loads(table.read_text()):
            if row["name"].startswith("jax/"):
                yield pytest.param(Case(folder / row["name"], row), id=f"{place}:{row['name']}")


ROWS = list(rows())


def golden(name: str) -> Case:
    row = next(r for r in json.loads((GOLDEN / "cases.json").read_text()) if r["name"] == name)
    return Case(GOLDEN / name, row)


def checkpoint(name: str) -> tuple[Checkpoint, dict[str, Any]]:
    """A golden model's only file and its config."""
    case = golden(name)
    path, config = case.files[0]
    return read(path), dict(config or {})


def with_tensors(found: Checkpoint, **changes: Array | None) -> Checkpoint:
    """With tensors replaced, added, or (None) left out; "__" in a name stands for "/"."""
    tensors = dict(found.tensors)
    for name, array in changes.items():
        name = name.replace("__", "/")
        if array is None:
            del tensors[name]
        else:
            tensors[name] = array
    return replace(found, tensors=tensors)


def without_source(document: Document) -> bytes:
    return to_bytes(replace(document, meta={}))


@pytest.mark.parametrize("case", ROWS)
def test_document_answers_as_upstream_in_float64(case: Case) -> None:
    path, config = case.files[0]
    document = families.build(read(path), config=config)
    for u, y64 in case.io:
        y = oracle.run(document, u, lengths=case.lengths, resets=case.start)
        assert relative_error(y, y64) < case.tolerance64
    for u, y64 in case.stream_io:
        assert relative_error(oracle.run(document, u, streamed=True), y64) < case.tolerance64


@pytest.mark.parametrize("case", ROWS)
def test_every_file_gives_the_same_document(case: Case) -> None:
    documents = {str(path): without_source(families.build(read(path), config=config)) for path, config in case.files}
    assert len(set(documents.values())) == 1


def test_arch_is_found_from_the_names() -> None:
    for case in (row.values[0] for row in ROWS if str(row.id).startswith("golden")):
        path, config = case.files[0]
        found = read(path)
        told = families.build(found, config=config, arch=case.arch)
        assert to_bytes(families.build(found, config=config)) == to_bytes(told)


def test_rate_is_step_rescale() -> None:
    found, config = checkpoint("jax/small/s5_last_gelu")
    case = golden("jax/small/s5_last_gelu")
    u, y64 = case.array("u"), case.array("y64_rescale")
    assert relative_error(oracle.run(families.build(found, config=config), u, rate=2.0), y64) < 1e-9
    rescaled = families.build(found, config={**config, "step_rescale": 2.0})
    assert relative_error(oracle.run(rescaled, u), y64) < 1e-9


def test_autoregressive_tokens_begin_with_silence() -> None:
    found, config = checkpoint("jax/annotated_s4_ar_embed")
    first = next(iter(walk(families.build(found, config=config).root)), None)
    embedding = first.children[0]  # type: ignore[union-attr]
    assert not embedding.weight[0].any()
    assert found.tensors["params/encoder/Embed_0/embedding"][0].any()


def test_wrapped_trees_are_found() -> None:
    found, config = checkpoint("jax/small/lru_last")
    wrapped = {f"state/{name}": array for name, array in found.tensors.items()}
    wrapped["state/opt_state/count"] = np.zeros((), np.int32)
    document = families.build(replace(found, tensors=wrapped), config=config)
    assert without_source(document) == without_source(families.build(found, config=config))


def test_bare_parameters_are_a_model_too() -> None:
    found, config = checkpoint("jax/small/s5_last_gelu")
    bare = replace(found, tensors={n.removeprefix("params/"): a for n, a in found.tensors.items()})
    assert without_source(families.build(bare, config=config)) == without_source(families.build(found, config=config))
    with pytest.raises(ConfigRequired, match="batchnorm"):
        families.build(bare)


FACTS = {
    "jax/annotated_s4_ar_embed": {"classification": (False, True), "prenorm": (True, False), "l_max": None},
    "jax/annotated_dss_cls": {"classification": (False, True), "prenorm": (True, False), "l_max": None},
    "jax/annotated_s4d_cls": {"classification": (False, True), "prenorm": (True, False)},
    "jax/s5_cls_default": {
        "prenorm": (True, False),
        "mode": ("pool", "last"),
        "conj_sym": (True, False),
        "discretization": ("zoh", "bilinear"),
        "clip_eigs": (False, True),
        "activation": ("half_glu1", "half_glu2"),
    },
    "jax/small/s5_clip": {
        "prenorm": (True, False),
        "mode": ("pool", "last"),
        "conj_sym": (True, False),
        "discretization": ("zoh", "bilinear"),
        "clip_eigs": (False, True),
    },
    "jax/lru_cls_batchnorm": {"prenorm": (False, True), "pooling": ("mean", "last", "none"), "multidim": None},
}


def missing(found: Checkpoint) -> ConfigRequired | None:
    try:
        families.build(found)
    except ConfigRequired as error:
        return error
    return None


@pytest.mark.parametrize("name", FACTS)
def test_facts_that_no_file_holds_are_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, config = checkpoint(name)
    flat = {**config, **config.pop("layer_args", {})}
    asked: dict[str, Any] = {}
    told: dict[str, Any] = {}

    class Silent(Config):
        """Knows what was told so far and stays silent about the rest."""

        def __init__(self, *args: Any) -> None:
            super().__init__(told, replace(found, config=None), *args[2:])
            self.silent = True

    module = sys.modules[f"ssmrt.families.{families.FAMILIES[golden(name).arch]}"]
    monkeypatch.setattr(module, "Config", Silent)
    while (error := missing(found)) is not None:
        assert error.name not in told
        assert error.default == (None if error.name == "l_max" else (error.choices or (1,))[0])
        asked[error.name], told[error.name] = error.choices, flat[error.name]
    assert asked == FACTS[name]


def test_upstreams_defaults_are_taken_on_request() -> None:
    found, config = checkpoint("jax/s5_cls_default")
    assert without_source(families.build(found, config={})) == without_source(families.build(found, config=config))
    with pytest.raises(ConfigRequired, match="upstream has no default") as caught:
        families.build(checkpoint("jax/annotated_s4_cls")[0], config={})
    assert caught.value.name == "l_max"
    assert caught.value.default is None


def test_true_C_undoes_the_truncation() -> None:
    rng = np.random.default_rng(0)
    shape = (3, 8)
    A = -rng.uniform(0.1, 1, shape) + 1j * rng.normal(size=shape) * 20
    P, C = (rng.normal(size=shape) + 1j * rng.normal(size=shape) for _ in range(2))
    dt = rng.uniform(0.01, 0.1, 3)
    for l_max in (1, 7, 64, 10**6):
        powers = [np.linalg.matrix_power(truncated.discrete_A(*channel), l_max) for channel in zip(A, P, dt)]
        stored = np.stack([c - c @ power for c, power in zip(C, powers)])
        np.testing.assert_allclose(truncated.true_C(A, P, stored, dt, l_max, "x"), C, rtol=0, atol=1e-11)


def issue_398_layer(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The annotated S4's first layer as the Equinox issue has it: channels first, C complex, C not conjugated."""
    seq = {
        n.rpartition("/")[2]: np.moveaxis(a, 1, 0) for n, a in tensors.items() if n.startswith("params/layers_0/seq")
    }
    seq["C"] = (seq["C"][..., 0] + 1j * seq["C"][..., 1]).astype(np.complex64)
    return {f".{name}": array for name, array in seq.items()}


def first_dplr(document: Document) -> Dplr:
    return next(node for node in walk(document.root) if isinstance(node, Dplr))


def test_issue_398_layer_is_the_annotated_layer_with_channels_first() -> None:
    found, config = checkpoint("jax/small/annotated_s4_cls")
    annotated = first_dplr(families.build(found, config=config))
    layer = Checkpoint(issue_398_layer(found.tensors), "layer", "eqx")
    document = families.build(layer, config={"sequence_size": config["layer_args"]["l_max"]})
    assert (document.d_input, document.d_output) == (5, 5)
    for name in ("A", "P", "B", "C", "D", "dt"):
        np.testing.assert_array_equal(getattr(first_dplr(document), name), getattr(annotated, name))
    with pytest.raises(ConfigRequired, match="sequence_size"):
        families.build(layer)


def kept_system(ssm: Dplr) -> dict[str, Array]:
    """The discrete system that a layer keeps for its recurrent mode, float32 as upstream computes it."""
    assert ssm.dt is not None
    A = np.stack([truncated.discrete_A(*channel) for channel in zip(ssm.A, ssm.P[0], ssm.dt)])
    B = ssm.dt[:, None, None] / 2 * ((np.eye(A.shape[1]) + A) @ ssm.B[..., None])
    return {"0": A.astype(np.complex64), "1": B.astype(np.complex64), "2": ssm.C[0][:, None].astype(np.complex64)}


def test_length_contradicting_a_kept_kernel_or_system_is_refused() -> None:
    found, config = checkpoint("jax/small/annotated_s4_cls")
    l_max = config["layer_args"]["l_max"]
    ssm = first_dplr(families.build(found, config=config))
    tensors = issue_398_layer(found.tensors)
    with_kernel = Checkpoint({**tensors, ".conv_kernel": np.zeros((5, l_max), np.float32)}, "layer", "eqx")
    with_system = Checkpoint({**tensors, **{f".ssm[{i}]": a for i, a in kept_system(ssm).items()}}, "layer", "eqx")
    for layer in (with_kernel, with_system):
        families.build(layer, config={"sequence_size": l_max})
        with pytest.raises(CheckpointError, match=r"sequence_size|ssm\[2\]"):
            families.build(layer, config={"sequence_size": l_max + 1})
    assert first_dplr(families.build(with_kernel)).C.shape == (1, 5, 6)

    prime = {f"prime/layers_0/seq/ssm/{i}": np.moveaxis(a, 0, 1) for i, a in kept_system(ssm).items()}
    decoder = replace(found, tensors={**found.tensors, **prime})
    families.build(decoder, config=config)
    with pytest.raises(CheckpointError, match="another l_max"):
        families.build(decoder, config={**config, "layer_args": {"l_max": l_max - 1}})


def test_length_contradicting_the_files_own_is_refused(tmp_path: Path) -> None:
    case = golden("jax/equinox_s4_yardenas")
    shutil.copy(case.folder / "model_hp.eqx", tmp_path)
    alone = read(tmp_path / "model_hp.eqx")
    families.build(alone, arch=case.arch)
    with pytest.raises(CheckpointError, match=r"sequence_length.*64.*63"):
        families.build(alone, arch=case.arch, config={"sequence_length": 63})


@pytest.mark.parametrize("l_max", [0, -64, 64.0, True, "64"])
def test_length_must_be_a_count(l_max: object) -> None:
    found, config = checkpoint("jax/annotated_s4_cls")
    with pytest.raises(CheckpointError, match=r"l_max.*integer above zero"):
        families.build(found, config={**config, "layer_args": {"l_max": l_max}})


TEMPLATES = ["jax/memax_lru", "jax/memax_head_lru", "jax/equinox_s4_yardenas"]


def unnamed(name: str) -> tuple[Checkpoint, Case]:
    case = golden(name)
    found = read(case.folder / "model.eqx")
    records = {f"[{i}]": array for i, array in enumerate(found.tensors.values())}
    return replace(found, tensors=records, named=False), case


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_gives_the_names_of_leaves_json(name: str, tmp_path: Path) -> None:
    case = golden(name)
    named = without_source(families.build(read(case.folder / "model.eqx"), config=case.config))
    for file in case.row["files"]:
        shutil.copy(case.folder / file, tmp_path)
        alone = read(tmp_path / file)
        assert not alone.named
        assert without_source(families.build(alone, arch=case.arch, config=case.config)) == named


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_checks_every_record(name: str) -> None:
    found, case = unnamed(name)
    whole = without_source(families.build(found, arch=case.arch, config=case.config))
    for key, array in found.tensors.items():
        number = {"i": np.int64(7), "f": np.float32(7), "c": np.complex64(7)}
        kinds = [np.full(array.shape, number[kind]) for kind in "ifc" if kind != array.dtype.kind]
        shapes = [np.zeros((*array.shape, 1), array.dtype), np.zeros((7, 7, 7), array.dtype)]
        values = [array + 1] if array.dtype.kind == "i" else []
        for wrong in (*kinds, *shapes, *values):
            with pytest.raises(CheckpointError):
                families.build(
                    replace(found, tensors={**found.tensors, key: wrong}), arch=case.arch, config=case.config
                )
        fewer = {k: a for k, a in found.tensors.items() if k != key}
        fewer = {f"[{i}]": a for i, a in enumerate(fewer.values())}
        with pytest.raises(CheckpointError, match="records"):
            families.build(replace(found, tensors=fewer), arch=case.arch, config=case.config)
    assert without_source(families.build(found, arch=case.arch, config=case.config)) == whole


def several_heads(tensors: Mapping[str, Array], count: int) -> dict[str, Array]:
    """A model of memax' with each layer's mixer in so many heads, which compute the same."""
    out: dict[str, Array] = {}
    for name, array in tensors.items():
        layer, _, what = name.partition("].heads[0].")
        if what:
            for j, part in enumerate(np.split(array, count)):
                out.setdefault(f"{layer}].heads[{j}].{what}", part)
        elif name.endswith(("].num_heads", "].head_dim")):
            out[name] = np.array(count if name.endswith("num_heads") else 8 // count)
        else:
            out[name] = array
    return {**out, "num_heads": np.array(count)}


def test_heads_side_by_side_are_one_map() -> None:
    found, config = checkpoint("jax/memax_head_lru")
    heads = replace(found, tensors=several_heads(found.tensors, 4))
    one = without_source(families.build(found, config=config))
    assert without_source(families.build(heads, config=config)) == one
    # Equinox writes each head's weight and bias together.
    order = [*(n for n in heads.tensors if ".heads[" not in n)]
    for i in (1, 0):
        at = next(j for j, n in enumerate(order) if n.endswith(f"mixers[{i}].out_features")) + 1
        order[at:at] = [f"mixers[{i}].heads[{j}].{what}" for j in range(4) for what in ("weight", "bias")]
    records = {f"[{i}]": heads.tensors[name] for i, name in enumerate(order)}
    unnamed = replace(found, tensors=records, named=False)
    assert without_source(families.build(unnamed, arch="memax-lru", config=config)) == one
    with pytest.raises(CheckpointError, match=r"'num_heads'.*expected 4"):
        families.build(unnamed, arch="memax-lru", config={**config, "num_heads": 1})


def test_a_prefix_takes_a_part_of_equinox_names() -> None:
    found, config = checkpoint("jax/memax_head_lru")
    both = {f".{who}.{name}": array for name, array in found.tensors.items() for who in ("actor", "critic")}
    with pytest.raises(CheckpointError, match=r"(?s)prefix='actor\.' .*prefix='critic\.' "):
        families.build(replace(found, tensors=both), config=config)
    part = families.build(replace(found, tensors=both), config=config, prefix=".critic.")
    assert without_source(part) == without_source(families.build(found, config=config))


def test_template_takes_a_length_that_was_not_static() -> None:
    found, case = unnamed("jax/equinox_s4_yardenas")
    arrays = list(found.tensors.values())
    arrays.insert(7, np.array(64))
    tensors = {f"[{i}]": array for i, array in enumerate(arrays)}
    families.build(replace(found, tensors=tensors), arch=case.arch)
    with pytest.raises(CheckpointError, match="sequence_length"):
        families.build(replace(found, tensors=tensors), arch=case.arch, config={"sequence_length": 32})


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "layer": ("jax/annotated_s4_cls", {"layer": "dss"}),
    "embedding": ("jax/annotated_s4_cls", {"embedding": True}),
    "N": ("jax/annotated_s4_cls", {"layer_args": {"l_max": 64, "N": 64}}),
    "d_model": ("jax/annotated_s4d_cls", {"d_model": 33}),
    "n_layers": ("jax/annotated_s4d_cls", {"n_layers": 3}),
    "d_output": ("jax/annotated_s4d_cls", {"d_output": 11}),
    "prenorm": ("jax/annotated_s4d_cls", {"prenorm": "yes"}),
    "batchnorm": ("jax/s5_cls_default", {"batchnorm": False}),
    "ssm_size_base": ("jax/s5_cls_default", {"conj_sym": False}),
    "activation": ("jax/s5_cls_default", {"activation": "full_glu"}),
    "bidirectional": ("jax/s5_cls_bidir_bilinear", {"bidirectional": False}),
    "step_rescale": ("jax/s5_cls_default", {"step_rescale": 0}),
    "discretization": ("jax/s5_cls_default", {"discretization": "euler"}),
    "norm": ("jax/lru_cls_batchnorm", {"norm": "layer"}),
    "multidim": ("jax/lru_cls_batchnorm", {"multidim": 3}),
    "prenrom": ("jax/lru_cls_batchnorm", {"prenrom": True}),
    "hidden": ("jax/memax_lru", {"hidden": 25}),
    "num_layers": ("jax/memax_lru", {"num_layers": 10**12}),
    "hippo_n": ("jax/equinox_s4_yardenas", {"hippo_n": 17}),
}


@pytest.mark.parametrize("name", WRONG)
def test_config_contradicting_the_tensors_is_refused(name: str) -> None:
    model, said = WRONG[name]
    found, config = checkpoint(model)
    with pytest.raises(CheckpointError, match=name):
        families.build(found, config={**config, **said})


def test_tensors_that_do_not_fit_are_named() -> None:
    found, config = checkpoint("jax/small/s5_last_gelu")
    seq = "params__encoder__layers_1__seq__"
    nan = np.array(found.tensors["params/encoder/layers_1/seq/Lambda_re"])
    nan[0] = np.nan
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "missing": ({f"{seq}log_step": None}, r"layers_1/seq/log_step .*nothing"),
        "left over": ({f"{seq}E": np.zeros(3, np.float32)}, r"layers_1/seq/E .*\(3,\)"),
        "shape": ({f"{seq}D": np.zeros(7, np.float32)}, r"layers_1/seq/D .*H=6.*\(7,\)"),
        "NaN": ({f"{seq}Lambda_re": nan}, r"layers_1/seq/Lambda_re .*NaN"),
        "overflow": ({f"{seq}log_step": np.full((4, 1), 1e30, np.float32)}, "layers_1/seq/log_step .*1e"),
        "complex": ({f"{seq}D": np.zeros(6, np.complex64)}, "layers_1/seq/D .*real numbers.*complex64"),
        "integers": ({f"{seq}D": np.zeros(6, np.int32)}, "layers_1/seq/D .*int32"),
        "gap": ({"params__encoder__layers_3__norm__bias": np.zeros(6, np.float32)}, "layers_2"),
    }
    for change, message in wrong.values():
        with pytest.raises(CheckpointError, match=message):
            families.build(with_tensors(found, **change), config=config)


ODD: dict[str, Any] = {
    "a scalar": np.array(1, np.float32),
    "nothing": np.zeros((0,), np.float32),
    "an axis more": lambda a: a[None],
    "an axis less": lambda a: a[0] if a.ndim else a,
    "other numbers": lambda a: a.real.astype(np.float32 if a.dtype.kind == "c" else np.complex64),
    "integers": lambda a: np.ones(a.shape, np.int32),
    "text": lambda a: np.full(a.shape, "x"),
    "huge": lambda a: np.full(a.shape, 3e38, np.float32),
    "hugely negative": lambda a: np.full(a.shape, -3e38, np.float32),
    "zero": np.zeros_like,
    "infinite": lambda a: np.full(a.shape, np.inf, np.float32),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", [row.id[7:] for row in ROWS if str(row.id).startswith("golden:jax/small")])
def test_odd_tensors_are_refused_or_taken_without_a_warning(name: str, odd: str) -> None:
    """Warnings are errors here; what is wrong in the numbers alone is the engine's to refuse."""
    found, config = checkpoint(name)
    change = ODD[odd]
    for key, array in found.tensors.items():
        new = change(array) if callable(change) else change
        with contextlib.suppress(SsmrtError):
            families.build(replace(found, tensors={**found.tensors, key: new}), config=config)


def test_negative_variances_are_refused() -> None:
    found, config = checkpoint("jax/small/lru_last")
    change = {"batch_stats__encoder__layers_0__normalization__var": np.full(6, -1, np.float32)}
    with pytest.raises(CheckpointError, match=r"var .*variances"):
        families.build(with_tensors(found, **change), config=config)


def test_batch_norm_without_its_statistics_is_refused() -> None:
    found, config = checkpoint("jax/s5_cls_default")
    params = {n.removeprefix("params/"): a for n, a in found.tensors.items() if n.startswith("params/")}
    with pytest.raises(CheckpointError, match="running statistics"):
        families.build(replace(found, tensors=params), config=config)


def test_what_is_known_but_not_run_says_so() -> None:
    s5, config = checkpoint("jax/small/s5_last_gelu")
    pair = with_tensors(s5, params__decoder__layer1__kernel=np.zeros((24, 6), np.float32))
    with pytest.raises(UnsupportedError, match="RetrievalModel"):
        families.build(pair, config=config)


def test_memax_tells_its_cells_by_their_tensors(tmp_path: Path) -> None:
    """By either name of the family, with the leaves' names and without."""
    for name, other in (("jax/memax_lru", "S6"), ("jax/small/memax_s6", "LRU")):
        found, config = checkpoint(name)
        with pytest.raises(CheckpointError, match=rf"'model_name'.*found '{other}'"):
            families.build(found, config={**config, "model_name": other})
        alone = tmp_path / "model.eqx"
        alone.write_bytes((golden(name).folder / "model.eqx").read_bytes())
        for arch, said in (("memax-lru", config), ("memax-s6", None)):
            unnamed = families.build(read(alone), config=said, arch=arch)
            assert without_source(unnamed) == without_source(families.build(found, config=config))
    wide = with_tensors(found, **{"layers[0].A_log": np.zeros(9, np.float32)})
    with pytest.raises(CheckpointError, match=r"A_log.*\(8,\), one a channel"):
        families.build(wide, config=config)


def test_memorax_asks_for_what_names_do_not_tell() -> None:
    found, config = checkpoint("jax/small/memorax_network")
    with pytest.raises(ConfigRequired, match="activation"):
        families.build(found)
    asked = (("normalization",), ("FFN", "activation"), ("GatedFFN", "activation"), ("GatedResidual", "gate"))
    whole = without_source(families.build(found, config={}))
    assert whole == without_source(families.build(found, config=config))
    for path, other in zip(asked, ("PostNorm", "tanh", "silu", "tanh")):
        said: dict[str, Any] = {path[0]: other} if len(path) == 1 else {path[0]: {path[1]: other}}
        assert without_source(families.build(found, config=said)) != whole
        with pytest.raises(CheckpointError, match=rf"{path[-1]}.*expected one of"):
            families.build(found, config={path[0]: "none"} if len(path) == 1 else {path[0]: {path[1]: "none"}})


def test_memorax_norms_stand_before_a_module_or_behind_it() -> None:
    found, config = checkpoint("jax/small/memorax_lru")
    cell, u = families.build(found, config=config), np.random.default_rng(0).normal(size=(1, 20, 4))
    scale, bias = np.array([1, 2, 3, 4], np.float32), np.array([0, 1, 0, -1], np.float32)
    tensors = {name.replace("params/", "params/module/"): array for name, array in found.tensors.items()}
    tensors |= {"params/LayerNorm_0/scale": scale, "params/LayerNorm_0/bias": bias}
    normed = replace(found, tensors=tensors)

    def norm(x: Array) -> Array:
        x = x - x.mean(-1, keepdims=True)
        return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale + bias)

    expected = {"PreNorm": oracle.run(cell, norm(u)), "PostNorm": norm(oracle.run(cell, u))}
    for normalization, y in expected.items():
        document = families.build(normed, config={"normalization": normalization})
        np.testing.assert_allclose(oracle.run(document, u), y, rtol=1e-12, atol=1e-12)


def test_memorax_modules_that_are_not_run_are_named() -> None:
    found, config = checkpoint("jax/small/memorax_network")
    stack = "params__torso__blocks_1__module__module"
    for changes, says in (
        ({"params__head__log_std": np.zeros(3)}, "head: .*log_std.*supported: a head of one Dense"),
        ({"params__feature_extractor__action_extractor__Dense_0__kernel": np.zeros((2, 6))}, "observation_extractor"),
        ({f"{stack}__router__kernel": np.zeros((6, 2))}, "torso.blocks_1.module.module: .*supported: Stack"),
    ):
        with pytest.raises(UnsupportedError, match=says):
            families.build(with_tensors(found, **changes), config=config)
    lru, _ = checkpoint("jax/small/memorax_lru")
    deep = {name.replace("cell/", "module/" * 5000): array for name, array in lru.tensors.items()}
    with pytest.raises(UnsupportedError, match="nested up to 40 deep"):
        families.build(replace(lru, tensors=deep), arch="memorax")
    cell = "params__torso__blocks_0__module__module__cell"
    misfits: list[tuple[dict[str, Array | None], str]] = [
        ({f"{cell}__B_proj__bias": np.zeros(8)}, "B_proj/bias.*nothing"),
        ({f"{cell}__{part}_proj__kernel": np.zeros((6, 7)) for part in "BC"}, "a multiple of the 2 heads"),
        (
            {f"{cell}__out_proj__kernel": np.zeros((6, 5)), f"{cell}__out_proj__bias": np.zeros(5)},
            "6 outputs, as there",
        ),
        ({f"{stack}__Dense_0__kernel": np.zeros((5, 12))}, r"Dense_0/kernel.*d_in=6"),
    ]
    for wrong, says in misfits:
        with pytest.raises(CheckpointError, match=says):
            families.build(with_tensors(found, **wrong), config=config)


def test_loading_needs_no_jax(tmp_path: Path) -> None:
    """Every golden file, in a fresh interpreter where importing JAX or anything built on it fails."""
    program = textwrap.dedent(
        """
        import sys

        class Nothing:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {"jax", "jaxlib", "flax", "equinox", "orbax", "tensorstore", "optax"}:
                    raise ImportError(f"{name} is not to be needed")

        sys.meta_path.insert(0, Nothing())
        import json
        from ssmrt import families
        from ssmrt.readers import read

        for path, config in json.load(open(sys.argv[1])):
            families.build(read(path), config=config)
        assert not {"jax", "flax", "equinox", "orbax", "tensorstore"} & set(sys.modules)
        """
    )
    some = [row.values[0] for row in ROWS if row.values[0] is not None and "long" not in str(row.id)]
    files = [(str(path), config) for case in some for path, config in case.files]
    listed = tmp_path / "files.json"
    listed.write_text(json.dumps(files))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(listed)], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
