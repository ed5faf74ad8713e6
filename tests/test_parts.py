"""A part of a file is loaded by its prefix, and what has no place is named; strangers are named for what they are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssmrt
from cases import Case, cases, relative_error
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from oracle import run
from ssmrt.document import Document, Linear, Norm, Residual, Selective, Sequential, to_bytes, walk
from ssmrt.errors import CheckpointError, ConfigRequired, UnsupportedError
from ssmrt.families import build
from ssmrt.readers import read
from ssmrt.readers.checkpoint import Checkpoint

Array = NDArray[Any]
Tensors = dict[str, Array]


def case(name: str) -> Case:
    return next(row for row in cases(name) if row.name == name)


def tensors_of(name: str) -> Tensors:
    return dict(read(case(name).files[0][0]).tensors)


def under(prefix: str, tensors: Mapping[str, Array]) -> Tensors:
    return {prefix + name: array for name, array in tensors.items()}


def below(prefix: str, tensors: Mapping[str, Array]) -> Tensors:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def document(tensors: Mapping[str, Array], config: Mapping[str, Any] | None = None, **said: Any) -> Document:
    return build(Checkpoint(tensors, "file.pt", "torch"), config=config, **said)


def same(one: Document, other: Document) -> bool:
    return to_bytes(replace(one, meta={})) == to_bytes(replace(other, meta={}))


EXAMPLE = "torch/small/example_prenorm"
BLOCK = "torch/small/nplr_no_output"
MAMBA = "torch/mamba/mamba_dstate8"
LRU = "jax/small/lru_last"
ONE = np.ones(3, np.float32)


def config_of(name: str) -> Mapping[str, Any]:
    return case(name).config or {}


@pytest.mark.parametrize(("name", "prefix"), [(EXAMPLE, "model."), (BLOCK, "layers.0.s4."), (LRU, "student/")])
def test_a_prefix_takes_its_part_and_no_other(name: str, prefix: str) -> None:
    tensors, config = tensors_of(name), config_of(name)
    both = {**under(prefix, tensors), "criterion.weight": ONE, **under("other." + prefix, tensors)}
    assert same(document(both, config, prefix=prefix), document(tensors, config))


def test_a_prefix_is_an_argument_of_load(tmp_path: Path) -> None:
    row = case(EXAMPLE)
    np.savez(tmp_path / "file.npz", **under("model.", tensors_of(EXAMPLE)), **{"criterion.weight": ONE})  # type: ignore[arg-type]
    model = ssmrt.load(tmp_path / "file.npz", config=row.config, prefix="model.", dtype="float64")
    u, y64 = row.io[0]
    assert relative_error(model(u), y64) < 1e-9


PLACELESS: dict[str, tuple[Tensors, str, str]] = {
    "a criterion beside a model": (
        {**under("model.", tensors_of(EXAMPLE)), "criterion.weight": ONE},
        EXAMPLE,
        r"criterion\.weight has no place\nTo load .* prefix='model\.' \(",
    ),
    "a norm beside a layer": (
        {**under("s4.", tensors_of(BLOCK)), "norm.weight": ONE, "norm.bias": ONE},
        BLOCK,
        r"norm\.weight, norm\.bias have no place\nTo load .* prefix='s4\.' \(",
    ),
    "a sequence of a layer and a norm": (
        {**under("0.", tensors_of(BLOCK)), "1.weight": ONE},
        BLOCK,
        r"1\.weight has no place\nTo load .* prefix='0\.' \(",
    ),
    "a head of one's own on a backbone": (
        {**tensors_of(MAMBA), "classifier.weight": ONE},
        MAMBA,
        r"(?s)classifier\.weight .*nothing.*prefix='backbone\.' \(",
    ),
    "an embedding of one's own on blocks": (
        {**below("backbone.", {k: v for k, v in tensors_of(MAMBA).items() if "layers" in k}), "emb.weight": ONE},
        MAMBA,
        r"(?s)emb\.weight .*nothing.*prefix='layers\.' \(",
    ),
    "another model's parameters beside Flax's": (
        {**under("actor/", tensors_of(LRU)), "critic/params/Dense_0/kernel": ONE},
        LRU,
        r"critic/params/Dense_0/kernel has no place\nTo load .* prefix='actor/' \(",
    ),
}


@pytest.mark.parametrize("which", PLACELESS)
def test_tensors_without_a_place_are_named_with_the_prefixes_that_fit(which: str) -> None:
    tensors, name, message = PLACELESS[which]
    with pytest.raises(CheckpointError, match=message):
        document(tensors, config_of(name))


def test_tensors_without_a_place_beside_a_whole_model_are_named_alone() -> None:
    with pytest.raises(CheckpointError, match=r"criterion\.weight .*nothing") as raised:
        document({**tensors_of(EXAMPLE), "criterion.weight": ONE}, config_of(EXAMPLE))
    assert "prefix" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        (EXAMPLE, "student.", "teacher."),
        (EXAMPLE, "module.student.", "module.teacher."),
        (BLOCK, "a.", "b."),
        (MAMBA, "actor.", "critic."),
        (LRU, "student/", "teacher/"),
    ],
)
def test_two_parts_that_fit_are_named_together(name: str, one: str, other: str) -> None:
    tensors, config = tensors_of(name), config_of(name)
    both = {**under(one, tensors), **under(other, tensors)}
    with pytest.raises(CheckpointError, match=f"(?s)2 models.*prefix='{one}'.* or prefix='{other}'"):
        document(both, config)
    assert same(document(both, config, prefix=other), document(tensors, config))


@pytest.mark.parametrize("prefix", ["nobody.", "backbone", "backbone.layers.1"])
def test_a_prefix_of_nothing_is_refused_with_what_there_is(prefix: str) -> None:
    with pytest.raises(CheckpointError, match=rf"prefix='{prefix}'.*names start with 'backbone\.'"):
        document(tensors_of(MAMBA), prefix=prefix)


def test_a_file_without_names_has_no_prefixes() -> None:
    with pytest.raises(CheckpointError, match=r"prefix='model\.'.*no names"):
        build(Checkpoint({"[0]": ONE}, "x.eqx", "eqx", named=False), arch="memax-lru", prefix="model.")


def test_an_own_file_has_no_parts(tmp_path: Path) -> None:
    ssmrt.Model(document(tensors_of(BLOCK), config_of(BLOCK))).save(tmp_path / "own.ssm.safetensors")
    with pytest.raises(CheckpointError, match=r"prefix='a\.'.*own"):
        ssmrt.load(tmp_path / "own.ssm.safetensors", prefix="a.")


def test_names_nested_beyond_measure_are_refused() -> None:
    with pytest.raises(CheckpointError, match="another model"):
        document({"a." * 100_000 + "w": ONE, "b.w": ONE})


def hidden(whole: Document, u: Array) -> Array:
    """What a language model's head would be given."""
    root = whole.root
    assert isinstance(root, Sequential)
    assert isinstance(root.children[-1], Linear)
    return run(replace(whole, root=Sequential(root.children[:-1])), u)


def test_a_model_without_a_head_answers_with_what_the_head_would_be_given() -> None:
    row, tensors = case(MAMBA), tensors_of(MAMBA)
    whole = document(tensors, row.config)
    u = row.io[0][0][:1, :8]
    bare = {n.replace("embedding", "embeddings"): a for n, a in below("backbone.", tensors).items()}
    headless = document(bare, {"model_type": "mamba", "architectures": ["MambaModel"], "tie_word_embeddings": True})
    assert (headless.d_input, headless.d_output) == (1, 24)
    assert_array_equal(run(headless, u), hidden(whole, u))
    assert same(headless, document(under("backbone.", bare), {}, prefix="backbone."))


def test_parts_of_a_model_are_what_it_is_made_of() -> None:
    """Embedding, then the blocks one by one, the stack of them, or mixers with their norms, then norm and head."""
    row, tensors = case(MAMBA), tensors_of(MAMBA)
    whole = document(tensors, row.config)
    u = row.io[0][0][:1, :8]
    table = np.asarray(tensors["backbone.embedding.weight"], np.float64)
    x, logits = table[u], run(whole, u)
    stack = document(tensors, prefix="backbone.layers.")
    named = document({n: a for n, a in below("backbone.", tensors).items() if n.startswith("layers.")})
    blocks = [document(tensors, prefix=f"backbone.layers.{i}.") for i in range(2)]
    mixers = [document(tensors, prefix=f"backbone.layers.{i}.mixer.") for i in range(2)]
    assert {(part.d_input, part.d_output) for part in (stack, named, *blocks, *mixers)} == {(24, 24)}
    one_by_one = x
    for block in blocks:
        one_by_one = run(block, one_by_one)
    assert relative_error(run(stack, x), one_by_one) < 1e-14
    assert relative_error(run(named, x), one_by_one) < 1e-14
    by_mixers = x
    for mixer, block in zip(mixers, blocks):
        residual = block.root.children[0]  # type: ignore[attr-defined]
        assert isinstance(residual, Residual)
        norm = residual.child.children[0]  # type: ignore[attr-defined]
        assert isinstance(norm, Norm)
        normed = Document(norm, 24, 24, {})
        by_mixers = by_mixers + run(mixer, run(normed, by_mixers))
    assert relative_error(by_mixers, one_by_one) < 1e-14
    norm_f = Document(Norm("rms", np.asarray(tensors["backbone.norm_f.weight"]), name="f"), 24, 24, {})
    assert relative_error(run(norm_f, one_by_one) @ table.T, logits) < 1e-12


def test_mambapys_language_model_is_the_same_under_other_names() -> None:
    tensors = tensors_of(MAMBA)
    bare = below("backbone.", tensors)
    renamed = {("mamba." if name.startswith("layers.") else "") + name: array for name, array in bare.items()}
    renamed["lm_head.weight"] = tensors["backbone.embedding.weight"]
    u = case(MAMBA).io[0][0][:1, :8]
    assert_array_equal(run(document(renamed), u), run(document(tensors), u))


def test_a_block_streams() -> None:
    model = ssmrt.Model(document(tensors_of(MAMBA), prefix="backbone.layers.0."), "float64")
    u = np.random.default_rng(0).normal(size=(2, 9, 24))
    stream = model.stream(2)
    pushed = np.concatenate([stream.push(u[:, i:j]) for i, j in itertools.pairwise([0, 1, 4, 9])], 1)
    assert relative_error(pushed, model(u)) < 1e-12


def transformers() -> Tensors:
    return {n.replace("embedding", "embeddings"): a for n, a in tensors_of(MAMBA).items()}


FALCON: dict[str, Mapping[str, Any]] = {
    "model_type": {"model_type": "falcon_mamba"},
    "architectures": {"architectures": ["FalconMambaForCausalLM"]},
    "mixer_rms_eps": {"model_type": None, "mixer_rms_eps": 1e-6},
}


def selective(document: Document) -> Selective:
    return next(node for node in walk(document.root) if isinstance(node, Selective))


@pytest.mark.parametrize("fact", FALCON)
@pytest.mark.parametrize("prefix", [None, "backbone.", "backbone.layers.0."])
def test_falcon_mamba_is_told_by_its_config(fact: str, prefix: str | None) -> None:
    told = document(transformers(), FALCON[fact], prefix=prefix)
    assert same(told, build(Checkpoint(transformers(), "x", "safetensors", dict(FALCON[fact])), prefix=prefix))
    node = selective(told)
    assert (node.norm_eps, node.dt_norm, node.B_norm, node.C_norm) == (1e-6, None, None, None)
    assert selective(document(transformers(), {**FALCON[fact], "mixer_rms_eps": 0.5}, prefix=prefix)).norm_eps == 0.5
    assert selective(document(transformers(), {"model_type": "mamba"}, prefix=prefix)).norm_eps is None


@pytest.mark.parametrize("fact", [{"mixer_rms_eps": 1e-6}, {"architectures": ["FalconMambaForCausalLM"]}])
def test_a_mamba_is_no_falcon_mamba(fact: Mapping[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"FalconMamba, as model_type says 'mamba'"):
        document(transformers(), {"model_type": "mamba", **fact})


@pytest.mark.parametrize(("letters", "eps"), [("BC", 1e-5), ("bc", 1e-6)], ids=["mambapy", "Jamba"])
def test_norms_within_a_mixer_have_their_weights(letters: str, eps: float) -> None:
    tensors = below("backbone.layers.0.", tensors_of(MAMBA))
    plain = selective(document(tensors))
    n, rank = plain.A.shape[1], plain.dt_proj.shape[1]
    sizes = dict(zip(("dt", *letters), (rank, n, n)))
    g = np.random.default_rng(0)
    weights: Tensors = {
        f"mixer.{name}_layernorm.weight": np.asarray(g.normal(size=size)) for name, size in sizes.items()
    }
    node = selective(document({**tensors, **weights}, {"inner_layernorms": True}))
    assert node.norm_eps == eps
    for found, expected in zip((node.dt_norm, node.B_norm, node.C_norm), weights.values()):
        assert_array_equal(found, expected)
    assert selective(document({**tensors, **weights}, {"rms_norm_eps": 0.25})).norm_eps == 0.25
    with pytest.raises(CheckpointError, match="inner_layernorms"):
        document({**tensors, **weights}, {"inner_layernorms": False})


@pytest.mark.parametrize("prefix", [None, "backbone.", "backbone.layers.0.mixer."])
def test_who_says_nothing_is_asked_whether_it_is_falcon_mamba(prefix: str | None) -> None:
    """Its names and shapes are Mamba's; transformers' tables alone are called embeddings."""
    with pytest.raises(ConfigRequired, match="FalconMamba") as raised:
        document(transformers(), prefix=prefix)
    assert (raised.value.name, raised.value.default) == ("model_type", "mamba")
    document(transformers(), {"model_type": "mamba"}, prefix=prefix)
    document(transformers(), {}, prefix=prefix)
    document(tensors_of(MAMBA), prefix=prefix)


HYBRID: tuple[str, ...] = ("model.layers.0.mamba.A_log", "model.layers.0.mamba.in_proj.weight")
STRANGERS: dict[str, tuple[str, ...]] = {
    "Mamba-3": ("backbone.layers.0.mixer.B_bias", "backbone.layers.0.mixer.C_bias", "backbone.layers.0.mixer.dt_bias"),
    r"Mamba-3 model, as [\w.]*B_bias": (
        "in_proj.weight",
        "dt_bias",
        "B_bias",
        "C_bias",
        "B_norm.weight",
        "C_norm.weight",
        "D",
    ),
    "Bamba": (*HYBRID, "model.layers.0.pre_ff_layernorm.weight", "model.layers.1.self_attn.q_proj.weight"),
    "Jamba": (*HYBRID, "model.layers.0.mamba.dt_layernorm.weight", "model.layers.4.self_attn.q_proj.weight"),
    "GraniteMoeHybrid": (*HYBRID, "model.layers.0.shared_mlp.input_linear.weight"),
    "Zamba2": ("model.layers.5.mamba_decoder.mamba.A_log", "model.layers.5.shared_transformer.self_attn.q_proj.weight"),
    "Falcon-H1": (
        *HYBRID,
        "model.layers.0.pre_ff_layernorm.weight",
        "model.layers.0.self_attn.q_proj.weight",
    ),
    "Nemotron-H": ("backbone.layers.0.mixer.A_log", "backbone.layers.1.mixer.up_proj.weight"),
    "RecurrentGemma": ("model.layers.0.temporal_block.rg_lru.recurrent_param",),
    "Caduceus": ("caduceus.backbone.layers.0.mixer.submodule.mamba_fwd.A_log",),
    "bidirectional Mamba": ("layers.0.mixer.A_b_log", "layers.0.mixer.x_proj.weight"),
    "LoRA adapter.*merge it first": (
        "base_model.model.backbone.layers.0.mixer.in_proj.lora_A.weight",
        "base_model.model.backbone.layers.0.mixer.in_proj.lora_B.weight",
    ),
    "bitsandbytes 4-bit": (
        "backbone.layers.0.mixer.x_proj.weight",
        "backbone.layers.0.mixer.x_proj.weight.quant_state.bitsandbytes__nf4",
    ),
    "bitsandbytes 8-bit": ("backbone.layers.0.mixer.x_proj.weight", "backbone.layers.0.mixer.x_proj.SCB"),
    "GPTQ": ("backbone.layers.0.mixer.x_proj.qweight", "backbone.layers.0.mixer.x_proj.g_idx"),
    "AWQ": ("backbone.layers.0.mixer.x_proj.qweight", "backbone.layers.0.mixer.x_proj.qzeros"),
    "SaShiMi": ("c_layers.0.layer.layer.kernel.inv_dt", "d_layers.0.linear.weight"),
    "not causal.* 1255 samples": ("down_ssms.0.0.A", "up_ssms.0.1.B", "hid_ssms.0.1.C", "last_ssms.0.log_dt"),
}


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.parametrize("wrap", ["", "module."])
def test_known_strangers_are_named(name: str, wrap: str) -> None:
    with pytest.raises(UnsupportedError, match=name):
        document(under(wrap, dict.fromkeys(STRANGERS[name], ONE)))


SAID: dict[str, Mapping[str, Any]] = {
    "Mamba-3": {"ssm_cfg": {"layer": "Mamba3"}},
    "Bamba": {"model_type": "bamba"},
    "Jamba": {"architectures": ["JambaForCausalLM"]},
    "GraniteMoeHybrid": {"model_type": "granitemoehybrid"},
    "Zamba2": {"architectures": ["Zamba2ForCausalLM"]},
    "Falcon-H1": {"architectures": ["FalconH1ForCausalLM"]},
    "Nemotron-H": {"model_type": "nemotron_h"},
    "RecurrentGemma": {"architectures": ["RecurrentGemmaForCausalLM"]},
    "gptq": {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    "LORA adapter": {"peft_type": "LORA"},
}


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("within", [False, True], ids=["told", "in the file"])
def test_strangers_are_named_by_their_config(name: str, within: bool) -> None:
    own = dict(SAID[name]) if within else None
    with pytest.raises(UnsupportedError, match=name):
        build(Checkpoint(transformers(), "x", "safetensors", own), config=None if within else SAID[name])


def test_a_stranger_beside_a_part_does_not_matter() -> None:
    tensors = {**under("s4.", tensors_of(EXAMPLE)), **under("lm.", dict.fromkeys(STRANGERS["Mamba-3"], ONE))}
    assert same(document(tensors, config_of(EXAMPLE), prefix="s4."), document(tensors_of(EXAMPLE), config_of(EXAMPLE)))
