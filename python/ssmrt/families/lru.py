"""The Linear Recurrent Unit (Orvieto et al. 2023) as minimal-LRU trains it in Flax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..document import Activation, DiagonalMimo, Document, Glu, Node, Pool, Residual, Sequential
from ..readers.checkpoint import Checkpoint
from . import flax, parts
from .config import Config
from .facts import TRAINING, facts, named
from .tensors import Tensors

ARCH = "lru"

FACTS = (
    TRAINING
    | named(ARCH, "ClassificationModel", "BatchClassificationModel")
    | facts(
        used="prenorm pooling multidim norm",
        checked="d_model d_hidden n_layers d_output",
        idle="r_min r_max max_phase training use_wandb wandb_project wandb_entity dir_name cosine_anneal lr_patience"
        " reduce_factor early_stop_patience",
    )
)

_SEQ = r"encoder/layers_0/seq/nu_log"


def matches(tensors: Mapping[str, Any]) -> bool:
    """Whether the names are those of upstream's StackedEncoderModel."""
    return flax.holds(tensors, _SEQ)


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model as upstream runs it in evaluation; with ``multidim`` m each run of m outputs has its own softmax.

    Raises
    ------
    CheckpointError
        A tensor is missing, left over or misshapen, or contradicts the config.
    ConfigRequired
        ``prenorm``, ``pooling``, ``multidim`` or ``norm`` (in a file of parameters alone) is not known.
    """
    said = Config(config, checkpoint, FACTS, ARCH)
    variables = flax.Variables(checkpoint, _SEQ)
    params = variables.params
    encoder = params.scope("encoder/")
    count = parts.layer_count(encoder, "layers_", "/")
    batch = flax.uses_batch_norm(variables, said, "norm", "batch", "layer")
    prenorm = said.get(
        "prenorm",
        False,
        choices=(False, True),
        why="the same norm stands before each layer or after its residual sum",
    )
    pooling = said.get(
        "pooling",
        "mean",
        choices=("mean", "last", "none"),
        why="the decoder sees the mean over time, the last sample or every sample",
    )
    said.get("multidim", 1, why="the softmax goes over runs of this many of the decoder's outputs")
    multidim = said.positive("multidim", 1)

    first = flax.dense(encoder, "encoder", "I", "H")
    decoder = flax.dense(params, "decoder", "H", "O")
    blocks: list[Node] = []
    for i in range(count):
        scope, stats = encoder.scope(f"layers_{i}/"), variables.stats.scope(f"encoder/layers_{i}/")
        norm = (
            flax.batch_norm(scope, stats, "normalization", "H")
            if batch
            else flax.layer_norm(scope, "normalization", "H")
        )
        out1, out2 = flax.dense(scope, "out1", "H", "H"), flax.dense(scope, "out2", "H", "H")
        inner = (
            recurrence(scope.scope("seq/"), f"encoder/layers_{i}/seq"),
            Activation("gelu_tanh"),
            parts.side_by_side(out1, out2),
            Glu(),
        )
        blocks += [Residual(Sequential((norm, *inner)))] if prenorm else [Residual(Sequential(inner)), norm]
    variables.finish()

    dims = params.dims
    parts.check_sizes(
        said,
        {"d_model": (dims["H"], "decoder/kernel"), "d_hidden": (dims["P"], "encoder/layers_0/seq/nu_log")},
    )
    said.agree("n_layers", count, "the number of encoder/layers_i")
    if dims["O"] % multidim:
        raise said.invalid("multidim", f"a divisor of the decoder's {dims['O']} outputs")
    said.agree("d_output", dims["O"] // multidim, f"decoder/kernel with {dims['O']} columns and multidim={multidim}")
    pool = [Pool("mean" if pooling == "mean" else "last")] if pooling != "none" else []
    # One softmax over all outputs unless there are several: upstream reshapes only then.
    size = multidim if multidim > 1 else None
    said.finish()
    root = Sequential((first, *blocks, *pool, decoder, parts.log_softmax("log_softmax", size)))
    return Document(root, dims["I"], dims["O"], {"arch": ARCH})


def recurrence(seq: Tensors, name: str) -> DiagonalMimo:
    """Orvieto et al. 2023, eq. 6 and 7, in discrete time; gamma is trained on its own and taken as it is.

    ``seq`` has P states, H inputs and as many outputs.
    """
    decay, phase = parts.exp(seq, "nu_log", "P"), parts.exp(seq, "theta_log", "P")
    gamma = parts.exp(seq, "gamma_log", "P")
    B = seq.f64("B_re", "P", "H") + 1j * seq.f64("B_im", "P", "H")
    return DiagonalMimo(
        A=np.exp(-decay + 1j * phase),
        B=B * gamma[:, None],
        C=seq.f64("C_re", "H", "P") + 1j * seq.f64("C_im", "H", "P"),
        D=seq.f64("D", "H"),
        dt=None,
        disc="discrete",
        conjugate_pairs=False,
        name=name,
    )
