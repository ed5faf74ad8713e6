"""``mamba``: the language model of state-spaces/mamba, first generation (Gu & Dao 2023).

Also under the names of Hugging Face's transformers and of johnma2006/mamba-minimal.
"""

from __future__ import annotations

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
from .config import Config
from .tensors import Tensors
from .torch_layers import layer_norm, linear

ARCH = "mamba"

# The second and third generation have neither.
_MIXER = re.compile(r"(backbone\.)?layers\.\d+\.mixer\.(x_proj|dt_proj)\.weight")


def matches(tensors: Mapping[str, NDArray[np.generic]]) -> bool:
    """Whether the tensors are those of a Mamba-1 language model."""
    return any(_MIXER.fullmatch(name) for name in tensors)


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model: L tokens to (L, vocabulary) logits; the vocabulary as it is padded in the file."""
    source = checkpoint.source
    t = Tensors(checkpoint.tensors, source)
    facts = Config(config, checkpoint.config, source)
    root = "backbone." if any(n.startswith("backbone.") for n in t.names) else ""
    eps = facts.number("layer_norm_epsilon" if "layer_norm_epsilon" in facts else "norm_epsilon", 1e-5)
    table_name = next((n for n in ("embedding", "embeddings") if f"{root}{n}.weight" in t), "embedding")
    table = Embedding(t.take(f"{root}{table_name}.weight", "vocabulary", "H"), name=f"{root}{table_name}")
    numbers = {int(m[1]) for n in t.names if (m := re.match(rf"{re.escape(root)}layers\.(\d+)\.", n))}
    count = max(numbers, default=-1) + 1
    for option in ("n_layer", "n_layers", "num_hidden_layers"):
        facts.agree(option, count, f"{root}layers")
    biased = facts.scope("ssm_cfg").get("conv_bias", facts.get("use_conv_bias", True)) is not False
    nodes: list[Node] = [table]
    for i in range(count):
        name = f"{root}layers.{i}"
        block = t.scope(f"{name}.")
        first = "mixer.x_proj.weight" in block or "mixer.dt_proj.weight" in block
        if not first or any(n.startswith(("mlp.", "norm2.")) for n in block.names):
            raise UnsupportedError(f"{source}: {name}: only blocks of a norm and a Mamba mixer are supported")
        norm = _norm(block, "norm", f"{name}.norm", eps)
        inner = mixer(block.scope("mixer."), f"{name}.mixer", conv_bias=biased)
        nodes.append(Residual(Sequential((norm, *inner.children), name=inner.name), name=name))
    nodes.append(_norm(t, f"{root}norm_f", f"{root}norm_f", eps))
    # A tied head is the embedding; safetensors files leave it out.
    head = t.take("lm_head.weight", "vocabulary", "H") if "lm_head.weight" in t else table.weight
    bias = t.optional("lm_head.bias", "vocabulary")
    nodes.append(Linear(head, bias, name="lm_head"))
    for option in ("d_model", "hidden_size"):
        facts.agree(option, t.dims["H"], table.name)
    t.finish()
    facts.finish()
    root_node = Sequential(tuple(nodes), name=ARCH)
    return Document(root_node, 1, t.dims["vocabulary"], {"arch": ARCH})


def _norm(t: Tensors, name: str, node_name: str, eps: float) -> Norm:
    """A layer norm where there is a bias, else one by the root of the mean square."""
    if f"{name}.bias" in t:
        return layer_norm(t, name, "H", node_name, eps)
    return Norm("rms", t.take(f"{name}.weight", "H"), eps=eps, name=node_name)


def mixer(t: Tensors, name: str, *, conv_bias: bool = False) -> Sequential:
    """out_proj(S6(silu(conv(x))) * silu(z)) with (x, z) = in_proj(u); Gu & Dao 2023, fig. 3.

    ``conv_bias``: whether the convolution's bias must be there.
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
        (Linear(both.weight[:d], bias[0], name=f"{name}.in_proj.x"), conv, Activation("silu", name=f"{name}.act"), s6),
        name=f"{name}.x",
    )
    z = Sequential(
        (Linear(both.weight[d:], bias[1], name=f"{name}.in_proj.z"), Activation("silu", name=f"{name}.z.act")),
        name=f"{name}.z",
    )
    out = linear(t, "out_proj", "H", d, f"{name}.out_proj", bias=False)
    return Sequential((Gate(x, z, name=f"{name}.gate"), out), name=name)
