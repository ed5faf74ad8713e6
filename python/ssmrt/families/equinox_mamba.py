"""Mamba (Gu & Dao 2023) as vvvm23's mamba-jax has it in Equinox: upstream's own model under keystr names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Document, Embedding, Linear, Node, Norm, Residual, Sequential
from ..readers.checkpoint import Checkpoint
from . import equinox, mamba, parts
from .config import Config
from .facts import TRAINING, facts, named
from .tensors import Tensors

ARCH = "equinox-mamba"


FACTS = (
    TRAINING
    | named(ARCH, "MambaLLM")
    | facts(
        used="norm_eps",
        checked="dim num_layers state_dim kernel_size vocab_size expand dt_rank bias conv_bias",
        idle="dt_min dt_max dt_init dt_scale dt_init_floor use_kernel layer_idx res_dtype dtype key",
    )
)


def matches(tensors: Mapping[str, NDArray[np.generic]]) -> bool:
    """Whether the names are those of a MambaLLM."""
    names = {name.removeprefix(".") for name in tensors}
    return names.issuperset({"model.layers[0].mixer.A_log", "model.layers[0].mixer.x_proj.weight"})


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model: L tokens to (L, vocabulary) logits.

    Raises `CheckpointError` where a tensor is missing, left over or misshapen, or contradicts the config.
    """
    said = Config(config, checkpoint, FACTS, ARCH)
    view = Tensors(_model(checkpoint), checkpoint.source)
    model = view.scope("model.")
    eps = said.number("norm_eps", equinox.NORM_EPS)
    count = parts.layer_count(model, "layers[", "].")
    nodes: list[Node] = [Embedding(model.take("embedding.weight", "padded", "H"), name="model.embedding")]
    for i in range(count):
        name = f"model.layers[{i}]"
        layer = model.scope(f"layers[{i}].")
        mixer = mamba.mixer(layer.scope("mixer."), f"{name}.mixer")
        mamba.check_mixer(layer.scope("mixer."), said, f"{name}.mixer")
        norm = _rms(layer, "norm", f"{name}.norm", eps)
        nodes.append(Residual(Sequential((norm, *mixer.children), name=mixer.name), name=name))
    nodes.append(_rms(model, "norm_f", "model.norm_f", eps))
    head = Linear(view.take("lm_head.weight", "vocabulary", "H"), name="lm_head")
    view.finish()
    said.agree("num_layers", count, "the number of model.layers[i]")
    said.agree("vocab_size", view.dims["vocabulary"], "lm_head.weight")
    said.finish()
    root = Sequential((*nodes, head), name=ARCH)
    return Document(root, 1, view.dims["vocabulary"], {"arch": ARCH})


def _model(checkpoint: Checkpoint) -> dict[str, NDArray[Any]]:
    """The arrays, as the mixer has them in PyTorch; Python numbers of the modules repeat what the shapes say."""
    kept = {n: a for n, a in equinox.plain_names(checkpoint.tensors).items() if a.dtype.kind in "fc"}
    for name, array in kept.items():
        if re.fullmatch(r".*\.conv1d\.bias", name) and array.ndim == 2 and array.shape[1] == 1:
            kept[name] = array[:, 0]
    return kept


def _rms(tensors: Tensors, name: str, node: str, eps: float) -> Norm:
    """``eqx.nn.RMSNorm``, which adds a bias."""
    weight, bias = tensors.optional(f"{name}.weight", "H"), tensors.optional(f"{name}.bias", "H")
    return Norm("rms", weight, bias, eps=eps, name=node)
