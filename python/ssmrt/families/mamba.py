"""``mamba``: the first generation of state-spaces/mamba (Gu & Dao 2023): language models, backbones, blocks, mixers.

Also under the names of Hugging Face's transformers, of johnma2006/mamba-minimal and of mambapy; FalconMamba, and mixers
with norms of dt, B and C within, as mambapy and Jamba have them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Activation, Conv1d, Document, Function, Gate, Linear, Selective, Sequential
from ..readers.checkpoint import Checkpoint
from . import mamba_model
from .config import Config
from .facts import HUGGING_FACE, TRAINING, as_list, facts, named
from .tensors import Tensors
from .torch_layers import linear

ARCH = "mamba"

_OWN = facts(
    checked="d_model d_state d_conv expand dt_rank bias conv_bias",
    idle="dt_min dt_max dt_init dt_scale dt_init_floor use_fast_path layer_idx device dtype",
    only={"layer": ("Mamba1", None)},
)
_FALCON = ("FalconMambaForCausalLM", "FalconMambaModel")
_CLASSES = ("MambaForCausalLM", "MambaModel", "MambaLMHeadModel", "MixerModel", "Mamba", *_FALCON)
FACTS = (
    TRAINING
    | HUGGING_FACE
    | _OWN
    | mamba_model.MODEL
    | named(ARCH, *_CLASSES)
    | facts(
        used="rms_norm_eps mixer_rms_eps",
        checked="state_size conv_kernel expand_factor d_inner intermediate_size time_step_rank use_bias use_conv_bias"
        " inner_layernorms",
        idle="time_step_scale time_step_init_scheme use_mambapy use_associative_scan base_std mup_base_width pscan"
        " use_cuda",
        only={"mup": (False,), "model_type": (ARCH, "falcon_mamba", None)},
        inner={"ssm_cfg": _OWN},
    )
)

# The second and third generation have neither.
_LAYER = re.compile(r"((backbone\.|mamba\.)?(layers\.)?\d+\.)?(mixer\.)?(x_proj|dt_proj)\.weight")

_KIND = mamba_model.Kind(
    ARCH, ("layer_norm_epsilon", "norm_epsilon", "rms_norm_eps"), ("x_proj.weight", "dt_proj.weight")
)


def matches(tensors: Mapping[str, NDArray[np.generic]]) -> bool:
    """Whether the tensors are those of a Mamba-1 model, or of a part of one."""
    return any(_LAYER.fullmatch(name) for name in tensors)


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model or part, as `mamba_model.build` makes it.

    Raises `CheckpointError` where a tensor is missing, left over or misshapen, or contradicts the config, and
    `UnsupportedError`.
    """
    t = Tensors(checkpoint.tensors, checkpoint.source)
    said = Config(config, checkpoint, FACTS, ARCH)
    falcon = _is_falcon(said)
    return mamba_model.build(t, said, _KIND, lambda t, name: _mixer(t, name, said, falcon), checkpoint.source)


def _is_falcon(said: Config) -> bool:
    """Whether the model is a FalconMamba, whose tensors are Mamba's."""
    kind, eps = said.raw("model_type"), said.raw("mixer_rms_eps")
    told = kind == "falcon_mamba" or any(name in _FALCON for name in as_list(said.raw("architectures")))
    if kind == ARCH and (told or eps is not None):
        name = "mixer_rms_eps" if eps is not None else "architectures"
        raise said.wrong(name, f"none of FalconMamba, as model_type says {kind!r}", said.raw(name))
    return told or eps is not None


def _mixer(t: Tensors, name: str, said: Config, falcon: bool) -> Sequential:
    """The mixer, held against every size that the config tells."""
    own = said.scope("ssm_cfg")
    named = "dt_layernorm.weight" in t
    said.agree("inner_layernorms", named, f"{name}.dt_layernorm" if named else f"the missing {name}.dt_layernorm")
    eps = None
    if falcon:
        eps = said.number("mixer_rms_eps", 1e-6)
    elif named:
        # Jamba spells its norms in small letters, and has another default.
        eps = said.number("rms_norm_eps", 1e-6 if "b_layernorm.weight" in t else 1e-5)
    conv_bias, function = mamba_model.conv_bias(said, own), mamba_model.function(said)
    node = mixer(t, name, conv_bias=conv_bias, function=function, norm_eps=eps)
    check_mixer(t, said, name)
    check_mixer(t, own, name)
    return node


# What each size of a mixer is called.
_SIZES = {
    "H": ("d_model", "hidden_size", "dim"),
    "N": ("d_state", "state_size", "state_dim"),
    "K": ("d_conv", "conv_kernel", "kernel_size"),
    "D": ("d_inner", "intermediate_size"),
    "R": ("dt_rank", "time_step_rank"),
    "expand": ("expand", "expand_factor"),
    "bias": ("bias", "use_bias"),
    "conv_bias": ("conv_bias", "use_conv_bias"),
}


def check_mixer(t: Tensors, said: Config, name: str) -> None:
    """Hold what was said of a mixer against its tensors, which were taken."""
    sizes: dict[str, Any] = {**t.dims, "expand": t.dims["D"] / t.dims["H"]}
    sizes.update(bias="in_proj.bias" in t, conv_bias="conv1d.bias" in t)
    automatic: tuple[object, ...] = ("auto",) if t.dims["R"] == math.ceil(t.dims["H"] / 16) else ()
    for size, options in _SIZES.items():
        for option in options:
            if not said.knows(option):
                continue
            value = said.raw(option)
            same = automatic if size == "R" else ()
            # Upstream rounds down.
            H, D = t.dims["H"], t.dims["D"]
            if size == "expand" and isinstance(value, int | float) and 0 < value <= D and int(value * H) == D:
                same = (value,)
            said.agree(option, sizes[size], name, also=same)


def mixer(
    t: Tensors, name: str, *, conv_bias: bool = False, function: Function = "silu", norm_eps: float | None = None
) -> Sequential:
    """out_proj(S6(silu(conv(x))) * silu(z)) with (x, z) = in_proj(u); Gu & Dao 2023, fig. 3.

    ``conv_bias``: whether the convolution's bias must be there. ``function`` is the one after the convolution.
    ``norm_eps``: that of the norms of dt, B and C, whose weights may be there.
    """
    A_log = t.f64("A_log", "D", "N")
    d, N = A_log.shape
    dt_proj = t.take("dt_proj.weight", "D", "R")
    rank = dt_proj.shape[1]
    with np.errstate(over="ignore"):
        A = -np.exp(A_log)
    if not np.isfinite(A).all():
        raise t.misfit("A_log", "logarithms of finite numbers", f"{A_log.max():.4g}")
    both = linear(t, "in_proj", 2 * d, "H", f"{name}.in_proj", bias=False)
    bias = (None, None) if both.bias is None else (both.bias[:d], both.bias[d:])
    shift = t.take("conv1d.bias", "D") if conv_bias else t.optional("conv1d.bias", "D")
    conv = Conv1d(t.take("conv1d.weight", "D", 1, "K")[:, 0], shift, name=f"{name}.conv1d")
    s6 = Selective(
        A=A,
        x_proj=t.take("x_proj.weight", rank + 2 * N, "D"),
        dt_proj=dt_proj,
        dt_bias=t.take("dt_proj.bias", "D"),
        D=t.f64("D", "D"),
        norm_eps=norm_eps,
        dt_norm=t.optional("dt_layernorm.weight", rank),
        B_norm=_either(t, "B_layernorm.weight", "b_layernorm.weight", N),
        C_norm=_either(t, "C_layernorm.weight", "c_layernorm.weight", N),
        name=f"{name}.ssm",
    )
    x = Sequential(
        (
            Linear(both.weight[:d], bias[0], name=f"{name}.in_proj.x"),
            conv,
            Activation(function, name=f"{name}.act"),
            s6,
        ),
        name=f"{name}.x",
    )
    z = Sequential(
        (Linear(both.weight[d:], bias[1], name=f"{name}.in_proj.z"), Activation("silu", name=f"{name}.z.act")),
        name=f"{name}.z",
    )
    out = linear(t, "out_proj", "H", d, f"{name}.out_proj", bias=False)
    return Sequential((Gate(x, z, name=f"{name}.gate"), out), name=name)


def _either(t: Tensors, name: str, other: str, size: int) -> NDArray[Any] | None:
    return t.take(name, size) if name in t else t.optional(other, size)
