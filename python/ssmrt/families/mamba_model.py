"""What the language models of both generations of Mamba are made of: a table, blocks, norms, a head; and parts of them.

Under the names of state-spaces/mamba, of Hugging Face's transformers, of johnma2006/mamba-minimal and of mambapy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..document import Document, Embedding, Function, Linear, Node, Norm, Residual, Sequential
from ..errors import UnsupportedError
from . import parts
from .config import Config
from .facts import Facts, facts
from .tensors import Tensors
from .torch_layers import layer_norm

Mixer = Callable[[Tensors, str], Sequential]

# What the configurations of both say around the mixers.
MODEL: Facts = facts(
    used="layer_norm_epsilon norm_epsilon hidden_act",
    checked="hidden_size n_layer n_layers num_hidden_layers rms_norm vocab_size pad_vocab_size_multiple tie_embeddings"
    " tie_word_embeddings",
    idle="attn_cfg initializer_cfg residual_in_fp32 fused_add_norm rescale_prenorm_residual time_step_min time_step_max"
    " time_step_floor",
    only={"d_intermediate": (0, None), "attn_layer_idx": ([], (), None)},
    own=("model_type", "architectures", "ssm_cfg", "transformers_version"),
)

# What transformers calls the function after the convolution; the gate's is silu whatever it is.
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


@dataclass(frozen=True)
class Kind:
    """What the generations differ in."""

    arch: str
    epsilons: tuple[str, ...]  # the names under which the norms' may be said
    marks: tuple[str, ...]  # tensors of a mixer, one of which tells that a block is of this generation


def build(t: Tensors, said: Config, kind: Kind, mixer: Mixer, source: str) -> Document:
    """The model or part, of mixers that ``mixer`` makes of their tensors and name.

    A language model makes L tokens (L, vocabulary)
    logits, the vocabulary as it is padded in the file. One without a head (transformers' MambaModel) answers with the
    last norm's (L, d_model); a stack of blocks, a block and a mixer take (L, d_model) too.
    """

    def block(t: Tensors, name: str) -> Residual:
        """The residual x + mixer(norm(x))."""
        known = any(f"mixer.{mark}" in t for mark in kind.marks)
        if not known or any(n.startswith(("mlp.", "norm2.")) for n in t.names):
            raise UnsupportedError(f"{source}: {name}: only blocks of a norm and a Mamba mixer are supported")
        inner = mixer(t.scope("mixer."), f"{name}.mixer")
        norm = _norm(t, "norm", f"{name}.norm", said, kind.epsilons)
        return Residual(Sequential((norm, *inner.children), name=inner.name), name=name)

    root = "backbone." if any(n.startswith("backbone.") for n in t.names) else ""
    tokens = _embedding(t, root)
    # mambapy's language model has its blocks in a part; the list of blocks may come without a model around it.
    stacks = (f"{root}layers.", "mamba.layers.", "")
    stack = next((s for s in stacks if any(re.match(rf"{re.escape(s)}\d", n) for n in t.names)), stacks[0])
    count = parts.layer_count(t, stack, ".")
    nodes: list[Node] = [] if tokens is None else [tokens]
    if count:
        nodes += [block(t.scope(f"{stack}{i}."), f"{stack}{i}") for i in range(count)]
        for option in ("n_layer", "n_layers", "num_hidden_layers"):
            if said.knows(option):
                said.agree(option, count, f"the number of {stack or 'blocks'}")
    elif "mixer.A_log" in t:
        nodes.append(block(t, "block"))
    else:
        nodes.append(mixer(t, "mixer"))
    if tokens is not None or f"{root}norm_f.weight" in t:
        nodes.append(_norm(t, f"{root}norm_f", f"{root}norm_f", said, kind.epsilons))
    head = None if tokens is None else _head(t, tokens, root, said)
    t.finish()
    said.finish()
    H = t.dims["H"]
    if head is not None:
        return Document(Sequential((*nodes, head), name=kind.arch), 1, head.weight.shape[0], {"arch": kind.arch})
    root_node = Sequential(tuple(nodes), name=kind.arch)
    return Document(root_node, H if tokens is None else 1, H, {"arch": kind.arch})


def function(said: Config) -> Function:
    """The function after the convolution."""
    told = said.raw("hidden_act")
    if told is not None and (not isinstance(told, str) or told not in _FUNCTIONS):
        raise said.wrong("hidden_act", f"one of {', '.join(map(repr, _FUNCTIONS))}", told)
    return _FUNCTIONS[told or "silu"]


def conv_bias(said: Config, own: Config) -> bool:
    """Whether the convolution's bias must be there; ``own`` is what was said of the mixer."""
    places = [(own, "conv_bias"), (said, "conv_bias"), (said, "use_conv_bias")]
    return not any(place.raw(option) is False for place, option in places)


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
        if said.raw(name):
            if not np.array_equal(weight, tokens.weight):
                said.contradict(name, f"lm_head.weight is not {tokens.name}.weight")
            # Once, not twice.
            weight = tokens.weight
    return Linear(weight, t.optional("lm_head.bias", "vocabulary"), name="lm_head")


def _norm(t: Tensors, name: str, node_name: str, said: Config, epsilons: tuple[str, ...]) -> Norm:
    """A layer norm where there is a bias, else one by the root of the mean square."""
    biased = f"{name}.bias" in t
    said.agree("rms_norm", not biased, f"{name}.bias" if biased else f"the missing {name}.bias")
    eps = said.number(said.alias(*epsilons), 1e-5)
    if biased:
        return layer_norm(t, name, "H", node_name, eps)
    return Norm("rms", t.take(f"{name}.weight", "H"), eps=eps, name=node_name)
