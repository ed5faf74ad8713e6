"""The Annotated S4 (Rush & Karamcheti, 2022): stacks of S4, S4D, DSS or plain SSM layers in Flax.

Every tensor of a layer's ``seq`` has the channels on axis 1, because upstream maps one channel's layer over
them. States are not halved: the spectrum is whole and after training no longer symmetric.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import (
    Activation,
    Dense,
    Diagonal,
    Document,
    Dplr,
    Embedding,
    Glu,
    Linear,
    Node,
    Pool,
    Residual,
    Sequential,
    StateSpace,
)
from ..errors import CheckpointError
from ..readers.checkpoint import Checkpoint
from . import flax, parts, truncated
from .config import Config
from .facts import TRAINING, facts, named
from .tensors import Tensors

ARCH = "annotated-s4"

_LAYER = facts(used="l_max", checked="N", idle="decode scaling")
FACTS = (
    TRAINING
    | named(ARCH, "StackedModel", "BatchStackedModel")
    | facts(
        used="l_max classification prenorm",
        checked="N d_model d_output n_layers embedding glu",
        idle="training repeat decode scaling",
        inner={"layer_args": _LAYER, "layer": _LAYER | facts(checked="_name_")},
    )
)

Array = NDArray[Any]

_SEQ = r"layers_0/seq/log_step"
# Upstream scales the inputs of its autoregressive models from bytes.
_BYTE = 255.0


def matches(tensors: Mapping[str, Any]) -> bool:
    """Whether the names are those of upstream's StackedModel."""
    return flax.holds(tensors, _SEQ)


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model as upstream runs it in evaluation.

    Autoregressive models (``classification`` False) are given as in decode mode: the input is the sample
    before, 0 at the start, and upstream's shift by one is left to the caller.

    Raises
    ------
    CheckpointError
        A tensor is missing, left over or misshapen, or contradicts the config.
    ConfigRequired
        ``l_max`` (S4 and DSS), ``classification`` or ``prenorm`` is not known.
    """
    said = Config(config, checkpoint, FACTS, ARCH)
    variables = flax.Variables(checkpoint, _SEQ)
    params = variables.params
    count = parts.layer_count(params, "layers_", "/")
    kind = _layer(params.scope("layers_0/seq/"))
    # Upstream's command line calls the kind of layer so, and its constructor the layer's arguments.
    said.scope("layer").agree("_name_", kind, "the names in layers_0/seq")
    places = [said, said.scope("layer_args"), said.scope("layer")]
    told = [place for place in places if "l_max" in place]
    layer_args = told[0] if told else places[1]
    for place in told[1:]:
        if place.raw("l_max") != layer_args.raw("l_max"):
            raise place.invalid("l_max", f"{layer_args.raw('l_max')!r}, as it is elsewhere in the config")
    classification = said.get(
        "classification",
        False,
        choices=(False, True),
        why="a classifier averages over time, an autoregressive model answers at every sample",
    )
    prenorm = said.get(
        "prenorm",
        True,
        choices=(True, False),
        why="the same norm stands before each layer or after its residual sum",
    )

    encoder = _encoder(params, said, scaled=not classification)
    decoder = flax.dense(params, "decoder", "H", "O")
    blocks: list[Node] = []
    for i in range(count):
        scope = params.scope(f"layers_{i}/")
        if (other := _layer(scope.scope("seq/"))) != kind:
            raise params.misfit(f"layers_{i}/seq", f"a layer of kind {kind!r} as in layers_0", repr(other))
        prime = variables.prime.scope(f"layers_{i}/seq/ssm/")
        norm = flax.layer_norm(scope, "norm", "H")
        inner = [_seq(kind, scope.scope("seq/"), prime, layer_args, checkpoint, f"layers_{i}/seq"), *_mixer(scope)]
        blocks += [Residual(Sequential((norm, *inner)))] if prenorm else [Residual(Sequential(tuple(inner))), norm]
    variables.finish()

    dims = params.dims
    parts.check_sizes(
        said,
        {"d_model": (dims["H"], "decoder/kernel"), "d_output": (dims["O"], "decoder/kernel")},
    )
    said.agree("n_layers", count, "the number of layers_i")
    for place in places:
        place.agree("N", dims["N"], "layers_0/seq")
    said.agree("glu", "layers_0/out2/kernel" in params, "layers_0/out2")
    pool = [Pool("mean")] if classification else []
    said.finish()
    root = Sequential((encoder, *blocks, *pool, decoder, parts.log_softmax("log_softmax")))
    d_input = 1 if isinstance(encoder, Embedding) else encoder.weight.shape[1]
    return Document(root, d_input, dims["O"], {"arch": ARCH, "layer": kind})


def _layer(seq: Tensors) -> str:
    """Upstream's name for the kind of layer."""
    for kind, name in {"s4": "P", "dss": "W", "s4d": "A_re", "ssm": "A"}.items():
        if name in seq:
            return kind
    raise seq.misfit("", "the tensors of S4 (P), S4D (A_re), DSS (W) or SSMLayer (A)", ", ".join(seq.names))


def _encoder(params: Tensors, config: Config, scaled: bool) -> Linear | Embedding:
    embedding = "encoder/Embed_0/embedding" in params
    config.agree("embedding", embedding, "encoder/Embed_0/embedding" if embedding else "encoder/kernel")
    if embedding:
        # Upstream's subclass of nn.Embed makes a table of its own that it never reads.
        params.ignore("encoder/embedding")
        table = params.take("encoder/Embed_0/embedding", "O", "H").copy()
        table[:1] = 0
        return Embedding(table, name="encoder")
    linear = flax.dense(params, "encoder", "I", "H")
    return Linear(linear.weight.astype(np.float64) / _BYTE, linear.bias, name="encoder") if scaled else linear


def _mixer(scope: Tensors) -> tuple[Node, ...]:
    """gelu, then a GLU; or one Linear, as in a SequenceBlock made with glu=False."""
    out = flax.dense(scope, "out", "H", "H")
    gelu = Activation("gelu_tanh")
    if "out2/kernel" not in scope:
        return gelu, out
    return gelu, parts.side_by_side(out, flax.dense(scope, "out2", "H", "H")), Glu()


def _seq(kind: str, seq: Tensors, prime: Tensors, config: Config, checkpoint: Checkpoint, name: str) -> StateSpace:
    D, dt = seq.f64("D", 1, "H"), parts.exp(seq, "log_step", 1, "H")[0]
    if kind == "s4":
        return _s4(seq, prime, D, dt, config, checkpoint, name)
    if kind == "dss":
        return _dss(seq, prime, D, dt, config, checkpoint, name)
    for cached in prime.names:
        prime.ignore(cached)
    return _s4d(seq, D, dt, name) if kind == "s4d" else _ssm(seq, D, dt, name)


def _s4(
    seq: Tensors, prime: Tensors, D: Array, dt: Array, config: Config, checkpoint: Checkpoint, name: str
) -> StateSpace:
    real = np.minimum(seq.f64("Lambda_re", "N", "H"), parts.CLIP)
    A = _by_channel(real + 1j * seq.f64("Lambda_im", "N", "H"))
    P, B = _by_channel(seq.complex("P", "N", "H")), _by_channel(seq.complex("B", "N", "H"))
    stored = _by_channel(seq.complex("C", "N", "H")).conj()
    l_max = truncated.length(config, "l_max", checkpoint)
    C = truncated.true_C(A, P, stored, dt, l_max, checkpoint.source)
    if prime.names:
        discrete = np.stack([truncated.discrete_A(*channel) for channel in zip(A, P, dt)])
        cached_A, _, cached_C = _cached(prime)
        if truncated.contradicts(discrete, C, cached_A, cached_C):
            raise _made_with_another(prime, l_max)
    return Dplr(C=C[None], D=D, dt=dt, A=A, P=P[None], B=B, conjugate_pairs=False, name=name)


def _s4d(seq: Tensors, D: Array, dt: Array, name: str) -> StateSpace:
    real = np.minimum(seq.f64("A_re", "N", "H"), parts.CLIP)
    A = _by_channel(real + 1j * seq.f64("A_im", "N", "H"))
    for unread in ("B_re", "B_im"):
        seq.ignore(unread)
    C = _by_channel(seq.complex("C", "N", "H"))
    return Diagonal(C=C[None], D=D, dt=dt, A=A, B=np.ones_like(A), conjugate_pairs=False, name=name)


def _dss(
    seq: Tensors, prime: Tensors, D: Array, dt: Array, config: Config, checkpoint: Checkpoint, name: str
) -> StateSpace:
    """DSS-softmax (Gupta et al. 2022, prop. 1a): Bbar = 1 / (Lambda sum_k exp(dt Lambda k)), k < l_max.

    The geometric sum makes that Bbar = (exp(dt Lambda) - 1) / Lambda B with B = 1 / (exp(dt Lambda l_max) - 1).
    """
    A = _by_channel(seq.f64("Lambda_re", "N", "H") + 1j * seq.f64("Lambda_im", "N", "H"))
    C = seq.complex("W", 1, "H", "N")
    l_max = truncated.length(
        config, "l_max", checkpoint, why="DSS divides by a sum over this many samples, the sequence length in training"
    )
    exponent = A * dt[:, None] * l_max
    shrinking = np.where(exponent.real > 0, -exponent, exponent)
    with np.errstate(divide="ignore", invalid="ignore"):
        B = np.where(exponent.real > 0, -np.exp(shrinking), 1) / np.expm1(shrinking)
    if not np.isfinite(B).all():
        raise seq.misfit("Lambda_re", f"eigenvalues for which exp(dt Lambda {l_max}) is not 1", "one that is")
    if prime.names:
        cached_A, cached_B, _ = _cached(prime)
        step = A * dt[:, None]
        discrete = np.exp(step)[:, :, None] * np.eye(A.shape[1])
        if truncated.contradicts(discrete, np.expm1(step) / A * B, cached_A, cached_B):
            raise _made_with_another(prime, l_max)
    return Diagonal(C=C, D=D, dt=dt, A=A, B=B, conjugate_pairs=False, allow_unstable=True, name=name)


def _ssm(seq: Tensors, D: Array, dt: Array, name: str) -> StateSpace:
    A = _by_channel(seq.f64("A", "N", "H", "N"))
    B = _by_channel(seq.f64("B", "N", "H", 1))[..., 0]
    C = seq.f64("C", 1, "H", "N")
    return Dense(C=C, D=D, dt=dt, A=A, B=B, allow_unstable=True, name=name)


def _cached(prime: Tensors) -> tuple[Array, Array, Array]:
    """The discrete system that a decoder keeps: Abar (H, N, N), Bbar and Cbar (H, N)."""
    A, B, C = prime.complex("0", "N", "H", "N"), prime.complex("1", "N", "H", 1), prime.complex("2", 1, "H", "N")
    return _by_channel(A), _by_channel(B)[..., 0], C[0]


def _made_with_another(prime: Tensors, l_max: int) -> CheckpointError:
    return prime.misfit("2", f"the discrete system for config['l_max'] = {l_max}", "one made with another l_max")


def _by_channel(array: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(array, 1, 0))
