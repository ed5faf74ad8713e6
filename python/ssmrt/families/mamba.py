"""``mamba``: the first generation of state-spaces/mamba (Gu & Dao 2023): language models, backbones, blocks, mixers.

Also under the names of Hugging Face's transformers, of johnma2006/mamba-minimal and of mambapy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import (
    Activation,
    Conv1d,
    Document,
    Embedding,
    Function,
    Gate,
    Linear,
    Node,
    Norm,
    Residual,
    Selective,
    Sequential,
)
from ..errors import UnsupportedError
from ..readers.checkpoint import Checkpoint
from . import parts
from .config import Config
from .facts import HUGGING_FACE, TRAINING, facts, named
from .tensors import Tensors
from .torch_layers import layer_norm, linear

ARCH = "mamba"

_OWN = facts(
    checked="d_model d_state d_conv expand dt_rank bias conv_bias",
    idle="dt_min dt_max dt_init dt_scale dt_init_floor use_fast_path layer_idx device dtype",
    only={"layer": ("Mamba1", None)},
)
FACTS = (
    TRAINING
    | HUGGING_FACE
    | _OWN
    | named(ARCH, "MambaForCausalLM", "MambaModel", "MambaLMHeadModel", "MixerModel", "Mamba")
    | facts(
        used="layer_norm_epsilon norm_epsilon rms_norm_eps hidden_act",
        checked="hidden_size n_layer n_layers num_hidden_layers state_size conv_kernel expand_factor d_inner"
        " intermediate_size time_step_rank use_bias use_conv_bias rms_norm vocab_size pad_vocab_size_multiple"
        " tie_embeddings tie_word_embeddings",
        idle="attn_cfg initializer_cfg residual_in_fp32 fused_add_norm rescale_prenorm_residual time_step_scale"
        " time_step_min time_step_max time_step_init_scheme time_step_floor use_mambapy use_associative_scan base_std"
        " mup_base_width pscan use_cuda",
        only={
            "d_intermediate": (0, None),
            "attn_layer_idx": ([], (), None),
            "inner_layernorms": (False,),
            "mup": (False,),
            "mixer_rms_eps": (None,),
        },
        inner={"ssm_cfg": _OWN},
        own=("model_type", "architectures", "ssm_cfg", "transformers_version"),
    )
)

# The second and third generation have neither.
_LAYER = re.compile(r"((backbone\.|mamba\.)?(layers\.)?\d+\.)?(mixer\.)?(x_proj|dt_proj)\.weight")

_EPSILONS = ("layer_norm_epsilon", "norm_epsilon", "rms_norm_eps")

# What transformers calls the function between the convolution and the S6; the gate's is silu whatever it is.
_FUNCTIONS: dict[str, Function] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "sqrelu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "linear": "identity",
}


def matches(tensors: Mapping[str, NDArray[np.generic]]) -> bool:
    """Whether the tensors are those of a Mamba-1 model, or of a part of one."""
    return any(_LAYER.fullmatch(name) for name in tensors)


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model or part.

    A language model makes L tokens (L, vocabulary) logits, the vocabulary as it is padded in the file. One without
    a head (transformers' MambaModel) answers with the last norm's (L, d_model); a stack of blocks, a block and a
    mixer take (L, d_model) too.

    Raises `CheckpointError` where a tensor is missing, left over or misshapen, or contradicts the config, and
    `UnsupportedError`.
    """
    source = checkpoint.source
    t = Tensors(checkpoint.tensors, source)
    said = Config(config, checkpoint, FACTS, ARCH)
    root = "backbone." if any(n.startswith("backbone.") for n in t.names) else ""
    tokens = _embedding(t, root)
    # mambapy's language model has its blocks in a part; the list of blocks may come without a model around it.
    stacks = (f"{root}layers.", "mamba.layers.", "")
    stack = next((s for s in stacks if any(re.match(rf"{re.escape(s)}\d", n) for n in t.names)), stacks[0])
    count = parts.layer_count(t, stack, ".")
    blocks = [_block(t.scope(f"{stack}{i}."), f"{stack}{i}", said, source) for i in range(count)]
    nodes: list[Node] = [] if tokens is None else [tokens]
    if count:
        nodes += blocks
        for option in ("n_layer", "n_layers", "num_hidden_layers"):
            said.agree(option, count, f"the number of {stack or 'blocks'}")
    elif "mixer.A_log" in t:
        nodes.append(_block(t, "block", said, source))
    else:
        nodes.append(_mixer(t, "mixer", said))
    if tokens is not None or f"{root}norm_f.weight" in t:
        nodes.append(_norm(t, f"{root}norm_f", f"{root}norm_f", said))
    head = None if tokens is None else _head(t, tokens, root, said)
    t.finish()
    said.finish()
    H = t.dims["H"]
    if head is not None:
        return Document(Sequential((*nodes, head), name=ARCH), 1, head.weight.shape[0], {"arch": ARCH})
    return Document(Sequential(tuple(nodes), name=ARCH), H if tokens is None else 1, H, {"arch": ARCH})


def _embedding(t: Tensors, root: str) -> Embedding | None:
    """The table of tokens, which only a part of a model does without."""
    name = root + ("embeddings" if f"{root}embeddings.weight" in t else "embedding")
    if not root and f"{name}.weight" not in t and "lm_head.weight" not in t:
        return None
    return Embedding(t.take(f"{name}.weight", "vocabulary", "H"), name=name)


def _head(t: Tensors, tokens: Embedding, root: str, said: Config) -> Linear | None:
    """The logits' layer: the embedding itself where it is tied, as safetensors files leave a tied one out.

    None where there is no model around a ``backbone``, and so no head.
    """
    rows = tokens.weight.shape[0]
    multiple = said.count("pad_vocab_size_multiple", 8)
    if "pad_vocab_size_multiple" in said and rows % multiple:
        said.contradict("pad_vocab_size_multiple", f"expected a divisor of {rows} rows of {tokens.name}")
    size = said.raw("vocab_size")
    padded = -(-size // multiple) * multiple if isinstance(size, int) else None
    said.agree("vocab_size", rows, tokens.name, also=(size,) if padded == rows else ())
    told = [name for name in ("tie_embeddings", "tie_word_embeddings") if said.raw(name) is not None]
    if "lm_head.weight" not in t:
        for name in told if root else ():
            said.agree(name, True, "the missing lm_head.weight")
        return Linear(tokens.weight, t.optional("lm_head.bias", "vocabulary"), name="lm_head") if root else None
    weight = t.take("lm_head.weight", "vocabulary", "H")
    for name in told:
        if said.raw(name) and not np.array_equal(weight, tokens.weight):
            said.contradict(name, f"lm_head.weight is not {tokens.name}.weight")
    return Linear(weight, t.optional("lm_head.bias", "vocabulary"), name="lm_head")


def _block(t: Tensors, name: str, said: Config, source: str) -> Residual:
    """The residual x + mixer(norm(x))."""
    first = "mixer.x_proj.weight" in t or "mixer.dt_proj.weight" in t
    if not first or any(n.startswith(("mlp.", "norm2.")) for n in t.names):
        raise UnsupportedError(f"{source}: {name}: only blocks of a norm and a Mamba mixer are supported")
    inner = _mixer(t.scope("mixer."), f"{name}.mixer", said)
    norm = _norm(t, "norm", f"{name}.norm", said)
    return Residual(Sequential((norm, *inner.children), name=inner.name), name=name)


def _norm(t: Tensors, name: str, node_name: str, said: Config) -> Norm:
    """A layer norm where there is a bias, else one by the root of the mean square."""
    biased = f"{name}.bias" in t
    said.agree("rms_norm", not biased, f"{name}.bias" if biased else f"the missing {name}.bias")
    eps = said.number(said.alias(*_EPSILONS), 1e-5)
    if biased:
        return layer_norm(t, name, "H", node_name, eps)
    return Norm("rms", t.take(f"{name}.weight", "H"), eps=eps, name=node_name)


def _mixer(t: Tensors, name: str, said: Config) -> Sequential:
    """The mixer, held against every size that the config tells."""
    own = said.scope("ssm_cfg")
    places = [(own, "conv_bias"), (said, "conv_bias"), (said, "use_conv_bias")]
    without = any(place.raw(option) is False for place, option in places)
    told = said.raw("hidden_act")
    if told is not None and (not isinstance(told, str) or told not in _FUNCTIONS):
        raise said.wrong("hidden_act", f"one of {', '.join(map(repr, _FUNCTIONS))}", told)
    node = mixer(t, name, conv_bias=not without, function=_FUNCTIONS[told or "silu"])
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


def mixer(t: Tensors, name: str, *, conv_bias: bool = False, function: Function = "silu") -> Sequential:
    """out_proj(S6(silu(conv(x))) * silu(z)) with (x, z) = in_proj(u); Gu & Dao 2023, fig. 3.

    ``conv_bias``: whether the convolution's bias must be there. ``function`` is the one after the convolution.
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
