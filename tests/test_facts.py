"""Every name of upstream's configurations is believed or refused: it decides, is checked, is refused or is idle."""

from __future__ import annotations

import functools
import json
import runpy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import GOLDEN, Case
from numpy.typing import NDArray
from oracle import run
from ssmrt import families
from ssmrt.document import Document, to_bytes
from ssmrt.errors import CheckpointError, ConfigRequired, SsmrtError, UnsupportedError
from ssmrt.families import discretax, mamba, mamba2, s4_block, s4_decoder, s4_example, s4_sequence_model
from ssmrt.families.facts import HUGGING_FACE, TRAINING, Facts, Fate, Only, facts
from ssmrt.readers import read
from ssmrt.readers.checkpoint import Checkpoint

ROOT = Path(__file__).parents[1]

Array = NDArray[Any]
Config = Mapping[str, Any]

# The parameters of upstream's constructors, configuration classes and command lines, without those that are modules.
UPSTREAM: dict[str, tuple[Facts, str]] = {
    "state-spaces/s4 e757cef example.py S4Model and arguments": (
        s4_example.FACTS,
        "d_input d_output d_model n_layers dropout prenorm lr weight_decay epochs dataset grayscale num_workers"
        " batch_size resume",
    ),
    "state-spaces/s4 e757cef S4D, S4DKernel": (
        s4_example.FACTS,
        "d_model d_state dropout transposed dt_min dt_max lr",
    ),
    "state-spaces/s4 e757cef S4Block": (
        s4_block.FACTS,
        "d_model bottleneck gate gate_act mult_act final_act postact initializer weight_norm dropout tie_dropout"
        " transposed layer",
    ),
    "state-spaces/s4 e757cef FFTConv": (
        s4_block.FACTS,
        "d_model l_max channels swap_channels bidirectional activation transposed dropout tie_dropout drop_kernel"
        " mode kernel",
    ),
    "state-spaces/s4 e757cef SSMKernel, SSMKernelDiag, dplr": (
        s4_block.FACTS,
        "d_model channels l_max lr wd verbose d_state deterministic dt_min dt_max dt_tie dt_transform rank n_ssm"
        " measure init disc dt_fast real_transform imag_transform bandlimit backend is_real real_random real_scale"
        " imag_random imag_scale B_random B_init B_scale P_scale normalize",
    ),
    "state-spaces/s4 v3.0.0 S4 and its kernels": (
        s4_block.FACTS,
        "d_model d_state l_max channels bidirectional activation postact initializer weight_norm hyper_act dropout"
        " tie_dropout bottleneck gate transposed verbose shift linear measure rank dt_min dt_max deterministic lr"
        " mode n_ssm measure_args keops real_type real_tolerance bandlimit disc",
    ),
    "state-spaces/s4 v2 S4 and its kernel": (
        s4_block.FACTS,
        "d_model d_state l_max channels bidirectional activation postact hyper_act dropout transposed verbose"
        " measure rank dt_min dt_max trainable lr length_correction hurwitz tie_state precision resample",
    ),
    "state-spaces/s4 e757cef SequenceModel": (
        s4_sequence_model.MODEL,
        "d_model n_layers transposed dropout tie_dropout prenorm bidirectional n_repeat layer residual norm pool"
        " track_norms dropinp drop_path",
    ),
    "state-spaces/s4 e757cef SequenceDecoder": (s4_decoder.FACTS, "d_model d_output l_output use_lengths mode"),
    "state-spaces/s4 e757cef FFN": (
        s4_sequence_model.FFN,
        "expand d_output transposed activation initializer dropout tie_dropout",
    ),
    "state-spaces/s4 e757cef configs/config.yaml": (
        s4_sequence_model.WHOLE,
        "train tolerance wandb hydra callbacks model loader dataset task encoder decoder optimizer scheduler trainer",
    ),
    "state-spaces/s4 e757cef LSSL, StateSpace": (
        families.family("lssl").FACTS,
        "d order dt_min dt_max channels dropout",
    ),
    "state-spaces/s4 e757cef Platypus": (
        families.family("lssl").FACTS,
        "d d_model measure measure_args learn lr noise init dt channels bias activation ff weight_norm dropout l_max",
    ),
    "mamba_ssm 2.3.2 MambaConfig": (
        mamba.FACTS,
        "d_model d_intermediate n_layer vocab_size ssm_cfg attn_layer_idx attn_cfg rms_norm residual_in_fp32"
        " fused_add_norm pad_vocab_size_multiple tie_embeddings",
    ),
    "mamba_ssm 2.3.2 MixerModel": (mamba.FACTS, "norm_epsilon initializer_cfg device dtype"),
    "mamba_ssm 2.3.2 Mamba": (
        mamba.FACTS,
        "d_model d_state d_conv expand dt_rank dt_min dt_max dt_init dt_scale dt_init_floor conv_bias bias"
        " use_fast_path layer_idx device dtype",
    ),
    "transformers 5.24.0 MambaConfig": (
        mamba.FACTS,
        "transformers_version architectures model_type output_hidden_states return_dict dtype"
        " chunk_size_feed_forward is_encoder_decoder id2label label2id problem_type vocab_size hidden_size"
        " state_size num_hidden_layers layer_norm_epsilon pad_token_id bos_token_id eos_token_id expand conv_kernel"
        " use_bias use_conv_bias hidden_act initializer_range residual_in_fp32 time_step_rank time_step_scale"
        " time_step_min time_step_max time_step_init_scheme time_step_floor rescale_prenorm_residual use_cache"
        " use_mambapy use_associative_scan tie_word_embeddings intermediate_size output_attentions _name_or_path",
    ),
    "transformers 5.24.0 FalconMambaConfig": (mamba.FACTS, "mixer_rms_eps"),
    "mamba_ssm 03a38fb Mamba2": (
        mamba2.FACTS,
        "d_model d_state d_conv conv_init expand headdim d_ssm ngroups A_init_range D_has_hdim rmsnorm norm_before_gate"
        " dt_min dt_max dt_init_floor dt_limit bias conv_bias chunk_size use_mem_eff_path layer_idx process_group"
        " sequence_parallel device dtype",
    ),
    "mamba_ssm 2.3.2 MambaConfig of a Mamba-2": (
        mamba2.FACTS,
        "d_model d_intermediate n_layer vocab_size ssm_cfg attn_layer_idx attn_cfg rms_norm residual_in_fp32"
        " fused_add_norm pad_vocab_size_multiple tie_embeddings",
    ),
    "transformers 5.24.0 config.json of a Mamba2ForCausalLM": (
        mamba2.FACTS,
        " ".join(json.loads((GOLDEN / "torch" / "hf_mamba2" / "config.json").read_text())),
    ),
    "mamba2-jax 1.1.2 Mamba2Config": (
        mamba2.FACTS,
        "vocab_size pad_token_id bos_token_id eos_token_id hidden_size state_size head_dim chunk_size expand"
        " conv_kernel num_hidden_layers layer_norm_epsilon use_bias use_conv_bias hidden_act emb_initializer_range"
        " A_initializer_range time_step_min time_step_max time_step_floor time_step_limit residual_in_fp32"
        " tie_word_embeddings",
    ),
    "mambapy 1.2.0 MambaConfig": (
        mamba.FACTS,
        "d_model n_layers dt_rank d_state expand_factor d_conv dt_min dt_max dt_init dt_scale dt_init_floor"
        " rms_norm_eps base_std bias conv_bias inner_layernorms mup mup_base_width pscan use_cuda vocab_size"
        " pad_vocab_size_multiple",
    ),
    "mamba-minimal ModelArgs": (
        mamba.FACTS,
        "d_model n_layer vocab_size d_state expand dt_rank d_conv pad_vocab_size_multiple conv_bias bias",
    ),
    "annotated-s4 StackedModel, SequenceBlock, layers": (
        families.family("annotated-s4").FACTS,
        "layer d_output d_model n_layers prenorm dropout embedding classification training glu decode N l_max scaling",
    ),
    "lindermanlab/S5 ClassificationModel, S5SSM, run_train.py": (
        families.family("s5").FACTS,
        "d_output d_model n_layers padded activation dropout training mode prenorm batchnorm bn_momentum"
        " step_rescale H P C_init discretization dt_min dt_max conj_sym clip_eigs bidirectional USE_WANDB"
        " wandb_project wandb_entity dir_name dataset ssm_size_base blocks activation_fn liquid bsz epochs"
        " early_stop_patience ssm_lr_base lr_factor dt_global lr_min cosine_anneal warmup_end lr_patience"
        " reduce_factor p_dropout weight_decay opt_config jax_seed append_integration_timestep"
        " use_integration_timestep",
    ),
    "minimal-LRU ClassificationModel, LRU, run_train.py": (
        families.family("lru").FACTS,
        "d_output d_model n_layers dropout training pooling norm prenorm multidim d_hidden r_min r_max max_phase"
        " use_wandb wandb_project wandb_entity dir_name dataset jax_seed batch_size epochs early_stop_patience"
        " lr_base lr_min lr_factor cosine_anneal warmup_end lr_patience reduce_factor p_dropout weight_decay",
    ),
    "memax 53d9424 ResidualModel, MultiHeadResidualModel": (
        families.family("memax-lru").FACTS,
        "input_size output_size recurrent_size num_heads num_layers activation key",
    ),
    "discretax 0.3.0 LinOSS, LRU, S5, StandardBlock": (
        discretax.FACTS,
        "key hidden_dim num_blocks state_dim discretization damping r_min theta_max drop_rate prenorm use_bias r_max"
        " max_phase ssm_blocks C_init conj_sym clip_eigs dt_min dt_max step_rescale in_features sequence_mixer"
        " channel_mixer",
    ),
    "discretax 0.3.0 sequence mixers": (
        discretax.SEQUENCE_MIXER,
        "target in_features key state_dim discretization damping r_min theta_max r_max max_phase ssm_blocks C_init"
        " conj_sym clip_eigs dt_min dt_max step_rescale transposed",
    ),
    "discretax 0.3.0 channel mixers": (
        discretax.CHANNEL_MIXER,
        "target in_features key out_features use_bias non_linearity intermediate_dim hidden_ratio",
    ),
    "discretax 0.3.0 heads": (discretax.HEAD, "target in_features out_features key reduce"),
    "discretax 0.3.0 encoders": (discretax.ENCODER, "target in_features key out_features use_bias num_classes"),
    "tk-rusch/linoss 83e6318 LinOSS, experiment_configs": (
        families.family("linoss").FACTS,
        "num_blocks N ssm_size H output_dim classification output_step discretization key seeds data_dir"
        " output_parent_dir lr_scheduler num_steps print_steps batch_size model_name metric dataset_name use_presplit T"
        " dt0 linoss_discretization scale time lr hidden_dim ssm_dim ssm_blocks",
    ),
    "lrnnx 1.0.0 LRU, LRU-pytorch 0.1.3 LRU": (
        families.family("torch-lru").FACTS,
        "d_model d_state r_min r_max max_phase in_features out_features state_features rmin rmax",
    ),
    "s5-pytorch 0.2.1 S5SSM, S5, S5Block; lrnnx 1.0.0 S5": (
        families.family("torch-s5").FACTS,
        "lambdaInit V Vinv h p dt_min dt_max liquid factor_rank discretization bcInit degree bidir width state_width"
        " block_count dim state_dim ff_mult glu ff_dropout attn_dropout d_model d_state conj_sym",
    ),
    "lrnnx 1.0.0 S4, S4D": (
        families.family("lrnnx-s4").FACTS,
        "d_model bottleneck gate final_act postact dropout tie_dropout transposed l_max channels d_state dt_min dt_max"
        " dt_tie dt_transform dt_fast rank n_ssm init deterministic real_transform imag_transform is_real lr wd verbose"
        " disc swap_channels drop_kernel",
    ),
    "neural-ssm 0.44.0 DeepSSM, SSMConfig": (
        families.family("neural-ssm").FACTS,
        "d_input d_output d_model d_state n_layers dropout bias rmin rmax max_phase ff scale dim_amp d_hidden nl_layers"
        " param gamma train_gamma train_ff_lip init l2ru_eye_scale l2ru_rand_scale rho max_phase_b phase_center"
        " random_phase offdiag_scale defect_block_size defect_max_radius defect_factor_margin tv_init_rho"
        " tv_init_delta0 tv_init_param_scale tvc_init_rho tvc_init_delta0 tvc_init_param_scale tvc_init_sign tvc_init_b"
        " tvc_init_c tvc_init_d bcd_nonlinearity learn_x0 select_context_dim select_input use_cuda_graph zak_d_margin"
        " zak_x2_margin zak_x2_init_scale cert_scale_temperature ssm_residual_init ff_residual_init"
        " auto_residual_init budget_init_utilization per_channel_gates",
    ),
    "memax 0.1.1 linen ResidualModel, get_residual_memory_models": (
        families.family("memax-linen").FACTS,
        "hidden output num_layers models layer_kwargs model_kwargs output_size recurrent_size activation",
    ),
    "memorax 1.0.1 LRUCell, S5Cell, MambaCell": (
        families.family("memorax").FACTS,
        "features hidden_dim r_min r_max max_phase dtype param_dtype state_size c_init discretization dt_min dt_max"
        " clip_eigens step_rescale num_heads head_dim expansion_factor kernel_init bias_init",
    ),
    "yardenas SequenceBlock": (families.family("equinox-s4").FACTS, "hidden_size hippo_n sequence_length key"),
    "mamba-jax MambaLLM": (
        families.family("equinox-mamba").FACTS,
        "dim num_layers vocab_size state_dim kernel_size expand dt_rank dt_min dt_max dt_init dt_scale"
        " dt_init_floor conv_bias bias use_kernel norm_eps res_dtype dtype key",
    ),
}


@pytest.mark.parametrize("source", UPSTREAM)
def test_every_name_of_upstream_has_its_fate(source: str) -> None:
    table, names = UPSTREAM[source]
    assert not [name for name in names.split() if name not in table.names]


ROWS = [Case(GOLDEN / row["name"], row) for row in json.loads((GOLDEN / "cases.json").read_text())]


def rows(arch: str) -> list[tuple[Case, Checkpoint]]:
    """The golden models of a family, without what their files say of themselves."""
    found = [row for row in ROWS if row.arch == arch]
    return [(row, replace(read(row.files[0][0]), config=None)) for row in found]


MODELS = {arch: rows(arch) for arch in families.FAMILIES}
# The tables of names, and the family that reads them.
TABLES: dict[str, tuple[str, Facts]] = {
    **{arch: (arch, families.family(arch).FACTS) for arch in families.FAMILIES},
    # The others are s4-block's.
    "s4-example of S4Block": ("s4-example", s4_example.MODEL),
    "s4-sequence-model whole": ("s4-sequence-model", s4_sequence_model.WHOLE),
}


def models(table: str) -> list[tuple[Case, Checkpoint, Config]]:
    """The golden models of the family whose config has that table, and their config."""
    found = [(row, file, row.config or {}) for row, file in MODELS[TABLES[table][0]]]
    if table.startswith("s4-example"):
        found = [each for each in found if ("s4block" in each[0].name) == (table != "s4-example")]
    if table == "s4-sequence-model":
        # The backbone's arguments without the "model" around them.
        found = [(row, file, {**config, **config["model"]}) for row, file, config in found]
        found = [(row, file, {k: v for k, v in config.items() if k != "model"}) for row, file, config in found]
    return found


def entries(table: Facts, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Fate | Only]]:
    for name, fate in table.names.items():
        if isinstance(fate, Facts):
            yield (*path, name), Fate.USED
            if not fate.open:
                yield from entries(fate, (*path, name))
        else:
            yield (*path, name), fate


FATES = [(name, path, fate) for name, (_, table) in TABLES.items() for path, fate in entries(table)]


def of(fates: object) -> Any:
    """The rows of `FATES` with that fate."""
    chosen = [each for each in FATES if each[2] is fates or type(each[2]) is fates]
    return [pytest.param(*each, id=f"{each[0]}-{'.'.join(each[1])}") for each in chosen]


def told(config: Config | None, path: tuple[str, ...], value: object) -> dict[str, Any]:
    """The config with ``value`` at ``path``; a name on the way is a mapping with that ``_name_``."""
    said = dict(config or {})
    below = said.get(path[0])
    inside = {"_name_": below} if isinstance(below, str) else below if isinstance(below, Mapping) else {}
    said[path[0]] = value if len(path) == 1 else told(inside, path[1:], value)
    return said


def built(file: Checkpoint, config: Config) -> bytes | SsmrtError:
    try:
        return to_bytes(replace(families.build(file, config=config), meta={}))
    except SsmrtError as error:
        return error


@pytest.mark.parametrize("table", TABLES)
def test_idle_names_change_nothing(table: str) -> None:
    _, file, config = models(table)[0]
    idle = [path for name, path, fate in FATES if name == table and fate is Fate.IDLE]
    # Where a mapping has to be there for it, it is there in both.
    plain = built(file, functools.reduce(lambda said, path: told(said, path, None), idle, config))
    assert isinstance(plain, bytes)
    for value in (7, "anything", {"a": 1}):
        assert built(file, functools.reduce(lambda said, path: told(said, path, value), idle, config)) == plain


@pytest.mark.parametrize(("table", "path", "fate"), of(Only))
def test_another_value_than_the_supported_is_refused(table: str, path: tuple[str, ...], fate: Only) -> None:
    _, file, config = models(table)[0]
    for value in fate.values:
        assert not isinstance(built(file, told(config, path, value)), UnsupportedError)
    for value in ("anything", 7):
        error = built(file, told(config, path, value))
        assert isinstance(error, UnsupportedError)
        assert repr(path[-1]) in str(error)
        assert repr(value) in str(error)


WRONG = (977, "another", True, False, "v1")


@pytest.mark.parametrize(("table", "path", "fate"), of(Fate.CHECKED))
def test_a_value_that_contradicts_the_tensors_is_refused(table: str, path: tuple[str, ...], fate: Fate) -> None:
    def refused() -> Iterator[bool]:
        for _, file, config in models(table):
            for value in WRONG:
                error = built(file, told(config, path, value))
                yield isinstance(error, SsmrtError) and repr(path[-1]) in str(error)

    assert any(refused()), fate


# What a name may be told for a change; whichever is no such value at all is refused, which is belief too.
TOLD = (True, False, 0.5, 2, "relu", "tanh", "bilinear", "softplus", "last", "embedding", None, 31, [7])


@pytest.mark.parametrize(("table", "path", "fate"), of(Fate.USED))
def test_a_name_that_decides_is_heard(table: str, path: tuple[str, ...], fate: Fate) -> None:
    def heard() -> Iterator[bool]:
        for _, file, config in models(table):
            plain = built(file, config)
            for value in TOLD:
                found = built(file, told(config, path, value))
                said = str(found) if isinstance(found, SsmrtError) else ""
                yield found != plain if isinstance(found, bytes) else path[-1] in said or repr(value) in said

    assert any(heard()), fate


JUNK: tuple[Any, ...] = ([], {}, [None], {"_name_": [1]}, float("nan"), 10**400, -1, "")


@pytest.mark.parametrize("table", TABLES)
def test_senseless_values_raise_nothing_else(table: str) -> None:
    _, file, config = min(models(table), key=lambda each: sum(a.size for a in each[1].tensors.values()))
    for name, path, fate in FATES:
        if name == table and fate is not Fate.IDLE:
            for value in JUNK:
                built(file, told(config, path, value))


@pytest.mark.parametrize("arch", families.FAMILIES)
@pytest.mark.parametrize("name", ["no_such_name", "dropuot"])
def test_a_name_of_no_table_is_refused(arch: str, name: str) -> None:
    row, file = MODELS[arch][0]
    with pytest.raises(CheckpointError, match=f"'{name}'.*not known in {arch}.*Known are"):
        families.build(file, config={**(row.config or {}), name: 1})


@pytest.mark.parametrize("arch", families.FAMILIES)
def test_a_trainers_own_names_in_the_file_are_its_own(arch: str) -> None:
    row, file = MODELS[arch][0]
    own = replace(file, config={"no_such_name": 1, "my_scheduler": {"a": 1}})
    assert built(own, row.config or {}) == built(file, row.config or {})


@pytest.mark.parametrize("arch", families.FAMILIES)
@pytest.mark.parametrize("fact", [{"model_type": "gru"}, {"architectures": ["GRU"]}])
def test_a_config_names_its_family(arch: str, fact: Config) -> None:
    row, file = MODELS[arch][0]
    with pytest.raises(UnsupportedError, match=rf"{next(iter(fact))}.*{arch}"):
        families.build(file, config={**(row.config or {}), **fact})
    with pytest.raises(UnsupportedError, match=rf"{next(iter(fact))}.*{arch}"):
        families.build(replace(file, config=fact), config=row.config)
    assert built(file, {**(row.config or {}), "model_type": arch}) == built(file, row.config or {})


def test_a_config_of_transformers_in_the_file_is_known_whole() -> None:
    _, file = MODELS["mamba"][0]
    with pytest.raises(CheckpointError, match="'future_option'"):
        families.build(replace(file, config={"model_type": "mamba", "future_option": True}))


def test_a_config_of_another_model_is_one_message_that_names_both() -> None:
    row, file = next(pair for pair in MODELS["s4-example"] if pair[0].name == "torch/s4d_minimal")
    with pytest.raises(CheckpointError, match="another model") as raised:
        families.build(file, config={**(row.config or {}), "d_model": 64, "n_layers": 6, "d_output": 35})
    for part in ("'d_model'", "found 64", "expected 32", "'n_layers'", "found 6", "expected 2", "found 35"):
        assert part in str(raised.value)
    assert Path(file.source).name in str(raised.value)


def test_a_fact_in_two_places_must_be_one() -> None:
    row, file = next(pair for pair in MODELS["s4-sequence-model"] if pair[0].name == "torch/small/seq_ff")
    config = row.config or {}
    with pytest.raises(CheckpointError, match=r"'dt_transform'.*expected 'softplus', as the options of a layer say"):
        families.build(file, config={**config, "dt_transform": "exp"})
    assert built(file, {**config, "dt_transform": "softplus"}) == built(file, config)
    row, file = next(pair for pair in MODELS["annotated-s4"] if pair[0].name == "jax/annotated_s4_cls")
    with pytest.raises(CheckpointError, match=r"'l_max'.*as it is elsewhere"):
        families.build(file, config={**(row.config or {}), "l_max": 32})


def test_a_fact_under_two_names_must_be_one() -> None:
    row, file = MODELS["mamba"][0]
    with pytest.raises(CheckpointError, match=r"'norm_epsilon'.*layer_norm_epsilon"):
        families.build(file, config={"layer_norm_epsilon": 1e-5, "norm_epsilon": 1e-3})
    for name in ("layer_norm_epsilon", "norm_epsilon", "rms_norm_eps"):
        assert epsilon(families.build(file, config={name: 0.25})) == 0.25
    assert row.arch == "mamba"


def epsilon(document: Document) -> float:
    return float(document.root.children[-2].eps)  # type: ignore[attr-defined]


def mamba_row(name: str = "torch/mamba/mamba_dstate8") -> tuple[Case, Checkpoint]:
    return next(pair for pair in MODELS["mamba"] if pair[0].name == name)


SILENT_BEFORE: dict[str, Config] = {
    "mamba2": {"model_type": "mamba2"},
    "Mamba2": {"ssm_cfg": {"layer": "Mamba2"}},
    "hidden_act": {"hidden_act": "quick_gelu"},
    "rms_norm": {"rms_norm": False},
    "attn_layer_idx": {"attn_layer_idx": [1]},
    "d_intermediate": {"d_intermediate": 64},
    "state_size": {"state_size": 16},
    "conv_kernel": {"conv_kernel": 4},
    "vocab_size": {"vocab_size": 64},
    "pad_vocab_size_multiple": {"vocab_size": 39, "pad_vocab_size_multiple": 16},
    "tie_word_embeddings": {"tie_word_embeddings": False},
    "use_bias": {"use_bias": True},
    "use_conv_bias": {"use_conv_bias": False},
    "inner_layernorms": {"inner_layernorms": True},
    "mup": {"mup": True},
    "expand": {"expand": 4},
    "dt_rank": {"dt_rank": "auto"},
    "d_conv": {"ssm_cfg": {"d_conv": 4}},
}


@pytest.mark.parametrize("fact", SILENT_BEFORE)
def test_what_says_another_mamba_is_refused(fact: str) -> None:
    """The row has d_state 8, d_conv 3, dt_rank 4, 40 tokens, a tied head, no bias but the convolution's."""
    _, file = mamba_row()
    without_head = {n: a for n, a in file.tensors.items() if n != "lm_head.weight"}
    with pytest.raises(SsmrtError, match=fact):
        families.build(replace(file, tensors=without_head), config=SILENT_BEFORE[fact])


def test_an_expansion_that_is_no_integer_is_rounded_down() -> None:
    """The mixer has 24 channels and 48 within: 24 expand by 2.04 to 48.96, by 2.05 to 49.2."""
    _, file = mamba_row()
    families.build(file, config={"expand": 2.04})
    with pytest.raises(CheckpointError, match=r"'expand'.*expected 2\.0"):
        families.build(file, config={"expand": 2.05})


def test_a_head_of_its_own_is_not_tied() -> None:
    _, file = mamba_row()
    head = np.asarray(file.tensors["backbone.embedding.weight"]) + 1
    untied = replace(file, tensors={**file.tensors, "lm_head.weight": head})
    document = families.build(untied, config={"tie_embeddings": False})
    np.testing.assert_array_equal(document.root.children[-1].weight, head)  # type: ignore[attr-defined]
    for name in ("tie_embeddings", "tie_word_embeddings"):
        with pytest.raises(CheckpointError, match=f"{name}.*lm_head"):
            families.build(untied, config={name: True})


OTHERS: dict[str, tuple[str, Config]] = {
    "s4-example layer": ("torch/s4d_minimal", {"layer": "transformer"}),
    "s4-example activation": ("torch/s4d_minimal", {"activation": "relu"}),
    "s4-example norm": ("torch/s4d_minimal", {"norm": "batch"}),
    "s4-example bidirectional": ("torch/s4d_minimal", {"bidirectional": True}),
    "s4-example dt_transform": ("torch/s4d_minimal", {"dt_transform": "softplus"}),
    "lssl d_model": ("torch/lssl/lssl_m1", {"d_model": 17}),
    "lssl d_state": ("torch/lssl/lssl_m1", {"d_state": 16}),
    "s4-block kernel": ("torch/s4_nplr/legs_r3", {"mode": "nplr", "kernel": "diag"}),
    "s4-block linear": ("torch/s4_legacy/v3_nplr", {"linear": True}),
    "s5 liquid": ("jax/s5_cls_default", {"liquid": True}),
    "annotated-s4 l_max": ("jax/annotated_s4_cls", {"l_max": 32}),
    "memax-lru num_heads": ("jax/memax_head_lru", {"num_heads": 2}),
    "equinox-s4 seq_len": ("jax/equinox_s4_yardenas", {"seq_len": 32}),
    "s4-sequence-model prenorm": ("torch/small/seq_ff", {"prenorm": False}),
}


@pytest.mark.parametrize("which", OTHERS)
def test_what_says_another_model_is_refused(which: str) -> None:
    name, said = OTHERS[which]
    arch, fact = which.split()
    row, file = next(pair for pair in MODELS[arch] if pair[0].name == name)
    with pytest.raises(SsmrtError, match=f"'{fact}'"):
        families.build(file, config={**(row.config or {}), **said})


GELU = 0.7978845608028654


def test_the_convolutions_function_is_hidden_act_and_the_gates_is_silu() -> None:
    """Against the formula written out, with transformers' names for the functions."""
    rng = np.random.default_rng(0)
    _, file = mamba_row("torch/mambapy_backbone")
    w = {n.removeprefix("layers.0.mixer."): np.asarray(a, np.float64) for n, a in file.tensors.items()}
    u = rng.normal(size=(1, 6, 16))
    functions: dict[str, Callable[[Array], Array]] = {
        "gelu_new": lambda x: x / 2 * (1 + np.tanh(GELU * (x + 0.044715 * x**3))),
        "relu": lambda x: np.maximum(x, 0),
        "silu": lambda x: x / (1 + np.exp(-x)),
    }
    for name, function in functions.items():
        x, z = np.split(u[0] @ w["in_proj.weight"].T, 2, axis=1)
        padded = np.concatenate([np.zeros((3, x.shape[1])), x])
        taps = w["conv1d.weight"][:, 0]
        x = function(np.stack([padded[k : k + 6] * taps[:, k] for k in range(4)]).sum(0) + w["conv1d.bias"])
        r, B, C = np.split(x @ w["x_proj.weight"].T, np.cumsum([w["dt_proj.weight"].shape[1], 8]), axis=1)
        dt = np.log1p(np.exp(r @ w["dt_proj.weight"].T + w["dt_proj.bias"]))
        h, y = np.zeros((x.shape[1], 8)), np.zeros_like(x)
        for t in range(6):
            h = np.exp(-dt[t][:, None] * np.exp(w["A_log"])) * h + dt[t][:, None] * B[t] * x[t][:, None]
            y[t] = h @ C[t] + w["D"] * x[t]
        expected = (y * functions["silu"](z)) @ w["out_proj.weight"].T
        document = families.build(file, config={"hidden_act": name}, prefix="layers.0.mixer.")
        np.testing.assert_allclose(run(document, u)[0], expected, rtol=1e-11, atol=1e-13)


def test_training_changes_nothing_in_any_family() -> None:
    """A family may read a name that others leave to the training, but then its own table says so last."""
    assert all(fate is Fate.IDLE for fate in (*TRAINING.names.values(), *HUGGING_FACE.names.values()))
    assert (facts(idle="norm") | facts(used="norm")).names["norm"] is Fate.USED


def test_the_page_of_names_is_that_of_the_tables() -> None:
    """Where it is not: ``python tools/config_tables.py``."""
    tool = runpy.run_path(str(ROOT / "tools" / "config_tables.py"))
    written = tool["PAGE"].read_text(encoding="utf-8").partition(tool["MARK"])[2]
    assert written.strip() == tool["page"]().strip()


@pytest.mark.parametrize("noted", [{}, {"lr": 1e-3}, {"lr": 1e-3, "epochs": 20, "callbacks": "Timer"}])
def test_what_a_trainer_notes_of_the_training_says_nothing_of_the_model(noted: dict[str, Any]) -> None:
    checkpoint = replace(read(GOLDEN / "kws" / "kws_s4d.pth"), config=noted)
    with pytest.raises(ConfigRequired):
        families.build(checkpoint, config=None, arch=None)
    families.build(replace(checkpoint, config={**noted, "prenorm": False}), config=None, arch=None)
