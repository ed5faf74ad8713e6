"""S5 (Smith et al. 2023) as lindermanlab's Flax code trains it: a classifier over a stack of S5 layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Activation, DiagonalMimo, Document, Gate, Glu, Node, Pool, Residual, Sequential
from ..errors import CheckpointError, UnsupportedError
from ..readers.checkpoint import Checkpoint
from . import flax, parts
from .config import Config
from .facts import TRAINING, facts, named
from .tensors import Tensors

ARCH = "s5"

FACTS = (
    TRAINING
    | named(ARCH, "ClassificationModel", "BatchClassificationModel")
    | facts(
        used="conj_sym discretization prenorm mode activation activation_fn clip_eigs batchnorm step_rescale",
        checked="d_model d_output n_layers bidirectional ssm_size_base blocks H P",
        # Of step_rescale_eval another evaluation speaks, not this one.
        idle="step_rescale_eval C_init dt_min dt_max dt_global bn_momentum padded training use_integration_timestep"
        " USE_WANDB wandb_project wandb_entity dir_name early_stop_patience ssm_lr_base cosine_anneal lr_patience"
        " reduce_factor opt_config",
        only={"liquid": (False,), "append_integration_timestep": (False,), "retrieval": (False,)},
    )
)

_SEQ = r"encoder/layers_0/seq/Lambda_re"

Array = NDArray[Any]


def matches(tensors: Mapping[str, Any]) -> bool:
    """Whether the names are those of upstream's StackedEncoderModel."""
    return flax.holds(tensors, _SEQ)


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model as upstream runs it in evaluation, ``step_rescale`` multiplying every step size.

    Raises
    ------
    CheckpointError
        A tensor is missing, left over or misshapen, or contradicts the config.
    ConfigRequired
        ``conj_sym``, ``discretization``, ``prenorm``, ``mode``, ``activation`` (where the tensors leave two),
        ``clip_eigs`` (where it would clip) or ``batchnorm`` (in a file of parameters alone) is not known.
    UnsupportedError
        The model compares two documents (upstream's RetrievalModel).
    """
    said = Config(config, checkpoint, FACTS, ARCH)
    variables = flax.Variables(checkpoint, _SEQ)
    params = variables.params
    if "decoder/layer1/kernel" in params:
        raise UnsupportedError(
            f"{checkpoint.source}: decoder/layer1: a RetrievalModel, which answers for a pair of documents;"
            " ssmrt runs models of one sequence"
        )
    encoder = params.scope("encoder/")
    count = parts.layer_count(encoder, "layers_", "/")
    batch = flax.uses_batch_norm(variables, said, "batchnorm", True, False)
    prenorm = said.get(
        "prenorm",
        True,
        choices=(True, False),
        why="the same norm stands before each layer or after its residual sum",
    )
    mode = said.get(
        "mode", "pool", choices=("pool", "last"), why="the classifier sees the mean over time, or the last sample"
    )
    ssm = _Ssm(said, checkpoint.source)

    first = flax.dense(encoder, "encoder", "I", "H")
    decoder = flax.dense(params, "decoder", "H", "O")
    blocks: list[Node] = []
    for i in range(count):
        scope, stats = encoder.scope(f"layers_{i}/"), variables.stats.scope(f"encoder/layers_{i}/")
        norm = flax.batch_norm(scope, stats, "norm", "H") if batch else flax.layer_norm(scope, "norm", "H")
        inner = (ssm.layer(scope.scope("seq/"), f"encoder/layers_{i}/seq"), *_activation(scope, said))
        blocks += [Residual(Sequential((norm, *inner)))] if prenorm else [Residual(Sequential(inner)), norm]
    variables.finish()

    dims = params.dims
    at = "encoder/layers_0/seq"
    sizes = {"d_model": (dims["H"], "decoder/kernel"), "d_output": (dims["O"], "decoder/kernel"), "H": (dims["H"], at)}
    parts.check_sizes(said, {**sizes, "P": (dims["P"], at)})
    said.agree("n_layers", count, "the number of encoder/layers_i")
    pool = Pool("mean" if mode == "pool" else "last")
    said.finish()
    root = Sequential((first, *blocks, pool, decoder, parts.log_softmax("log_softmax")))
    return Document(root, dims["I"], dims["O"], {"arch": ARCH})


class _Ssm:
    """The facts that all the S5 layers of a model share."""

    def __init__(self, config: Config, source: str):
        self.config = config
        self.source = source
        self.conj_sym = config.get(
            "conj_sym",
            True,
            choices=(True, False),
            why="with conjugate symmetry the output is twice the real part over half of the states",
        )
        self.discretization = config.get(
            "discretization", "zoh", choices=("zoh", "bilinear"), why="the stored system is the continuous one"
        )
        rescale = config.get("step_rescale", 1.0)
        if isinstance(rescale, bool) or not isinstance(rescale, (int, float)) or not 0 < rescale < np.inf:
            raise config.invalid("step_rescale", "a finite number above zero")
        self.rescale = float(rescale)

    def layer(self, seq: Tensors, name: str) -> DiagonalMimo:
        """The SSM (Smith et al. 2023, eq. 5 and 6); ``seq`` has P states, H inputs and as many outputs."""
        real, imag = seq.f64("Lambda_re", "P"), seq.f64("Lambda_im", "P")
        P = seq.dims["P"]
        self._check_size(P)
        clipped = np.minimum(real, parts.CLIP)
        clip = False
        if (clipped != real).any():
            clip = self.config.get(
                "clip_eigs",
                False,
                choices=(False, True),
                why=f"{name}/Lambda_re reaches {real.max():.3g}, which clip_eigs would cut off at {parts.CLIP}",
            )
        C, C_reverse = _output(seq, P)
        self.config.agree("bidirectional", C_reverse is not None, f"{name}/C or C2")
        return DiagonalMimo(
            A=(clipped if clip else real) + 1j * imag,
            B=seq.complex("B", "P", "H"),
            C=C,
            C_reverse=C_reverse,
            D=seq.f64("D", "H"),
            dt=self.rescale * parts.exp(seq, "log_step", "P", 1)[:, 0],
            disc=self.discretization,
            conjugate_pairs=bool(self.conj_sym),
            reverse_over_padding=C_reverse is not None,
            allow_unstable=not clip,
            name=name,
        )

    def _check_size(self, P: int) -> None:
        base, blocks = self.config.raw("ssm_size_base"), self.config.get("blocks", 1)
        if isinstance(base, int) and isinstance(blocks, int) and blocks > 0:
            expected = base // blocks // (2 if self.conj_sym else 1) * blocks
            if expected != P:
                raise CheckpointError(
                    f"{self.source}: config['conj_sym'] = {self.conj_sym}, config['ssm_size_base'] = {base} and"
                    f" config['blocks'] = {blocks} contradict the tensors: expected {expected} states a layer,"
                    f" found {P} in Lambda_re"
                )


def _output(seq: Tensors, P: int) -> tuple[Array, Array | None]:
    """C, and the one of the backward pass where there is one: two tensors, or one of twice the width."""
    if "C1" in seq:
        return seq.complex("C1", "H", "P"), seq.complex("C2", "H", "P")
    width = seq.shape("C")[1:2]
    if width == (2 * P,):
        both = seq.complex("C", "H", 2 * P)
        return np.ascontiguousarray(both[:, :P]), np.ascontiguousarray(both[:, P:])
    return seq.complex("C", "H", "P"), None


def _activation(scope: Tensors, config: Config) -> tuple[Node, ...]:
    """What stands between the SSM and the residual sum; the tensors leave one or two of upstream's four."""
    name = "activation_fn" if "activation_fn" in config else "activation"
    gelu, sigmoid = Activation("gelu_tanh"), Activation("sigmoid")
    if "out1/kernel" in scope:
        config.agree(name, "full_glu", "out1 and out2")
        out1, out2 = flax.dense(scope, "out1", "H", "H"), flax.dense(scope, "out2", "H", "H")
        return gelu, parts.side_by_side(out1, out2), Glu()
    if "out2/kernel" not in scope:
        config.agree(name, "gelu", "a layer without out1 and out2")
        return (gelu,)
    kind = config.get(
        name,
        "half_glu1",
        choices=("half_glu1", "half_glu2"),
        why="out2 alone may gate gelu(x) (half_glu1) or x itself (half_glu2)",
    )
    out2 = flax.dense(scope, "out2", "H", "H")
    if kind == "half_glu1":
        return gelu, Gate(Sequential(()), Sequential((out2, sigmoid)))
    return (Gate(Sequential(()), Sequential((gelu, out2, sigmoid))),)
