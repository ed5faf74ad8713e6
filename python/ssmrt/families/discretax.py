"""discretax' models in Equinox: blocks of S4D, S5, LRU or LinOSS layers, each with a batch norm and a channel mixer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import (
    Activation,
    Diagonal,
    DiagonalMimo,
    Document,
    Embedding,
    Function,
    Glu,
    Linoss,
    Node,
    Pool,
    Residual,
    Sequential,
)
from ..errors import CheckpointError, UnsupportedError
from ..readers.checkpoint import Checkpoint
from . import equinox, linoss, lru, parts
from .config import Config
from .facts import TRAINING, facts, named
from .tensors import Tensors

ARCH = "discretax"

_LAYER = facts(
    used="conj_sym clip_eigs discretization step_rescale damping",
    checked="state_dim",
    idle="ssm_blocks C_init dt_min dt_max r_min r_max theta_max max_phase transposed key",
)
_CHANNELS = facts(used="non_linearity", checked="use_bias", idle="hidden_ratio")
SEQUENCE_MIXER = _LAYER | facts(checked="target in_features")
CHANNEL_MIXER = _CHANNELS | facts(checked="target in_features out_features intermediate_dim", idle="key")
HEAD = facts(used="kind reduce", checked="target in_features out_features", idle="key")
ENCODER = facts(checked="target in_features out_features num_classes use_bias", idle="key")
FACTS = (
    TRAINING
    | named(ARCH, "Sequential", "LinOSS", "LRU", "S5", "StandardBlock")
    | _LAYER
    | _CHANNELS
    | facts(
        used="prenorm",
        checked="model num_blocks in_features hidden_dim out_features num_classes",
        idle="drop_rate",
        only={"target": ("StandardBlock", None)},
        inner={
            "sequence_mixer": SEQUENCE_MIXER,
            "channel_mixer": CHANNEL_MIXER,
            "head": HEAD,
            "encoder": ENCODER,
        },
    )
)

_BLOCK = re.compile(r"(\[0\]\.)?(layers\[\d+\]\.)?(blocks\[\d+\]\.)?(sequence_mixer\.|channel_mixer\.|prenorm$).*")
_FUNCTIONS: dict[str, Function] = {
    "gelu": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}

Array = NDArray[Any]


def matches(tensors: Mapping[str, Any]) -> bool:
    """Whether the names are those of StandardBlocks, in a model or a Sequential, beside their State or alone."""
    return any(map(_BLOCK.fullmatch, tensors))


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model as upstream runs it in evaluation.

    Raises
    ------
    CheckpointError
        A tensor is missing, left over or misshapen, or contradicts the config; or the State is missing.
    ConfigRequired
        A fact that no file holds is not known: of S5 ``conj_sym``, ``discretization`` and, where it would clip,
        ``clip_eigs``; of LinOSS ``discretization``; ``kind`` of a head; ``non_linearity`` of an MLP. In a file of
        arrays alone also ``prenorm`` and ``reduce``.
    UnsupportedError
        A layer is DeltaNet, or LinOSS in a form that upstream cannot run; a head does not average.
    """
    said = Config(config, checkpoint, FACTS, ARCH)
    model = _Model(checkpoint, said)
    children = model.children()
    model.saved.finish()
    _check(said, model)
    said.finish()
    tensors = model.saved.model
    d_input = 1 if isinstance(children[0], Embedding) else tensors.dims.get("I", tensors.dims["H"])
    return Document(Sequential(children), d_input, tensors.dims.get("O", tensors.dims["H"]), {"arch": ARCH})


def _check(said: Config, model: _Model) -> None:
    """Hold what config says of the whole model against the tensors."""
    dims = model.saved.model.dims
    said.agree("num_blocks", model.count, "the number of blocks[i]")
    said.agree("model", model.kind, "sequence_mixer")
    said.scope("sequence_mixer").agree("target", f"{model.kind}SequenceMixer", "sequence_mixer")
    said.scope("channel_mixer").agree("target", model.channel_mixer, "channel_mixer")
    for place in (said, said.scope("head")):
        if "O" in dims:
            place.agree("out_features", dims["O"], "the head's linear.weight")
    for name, dim, tensor in (("in_features", "I", "linear.weight"), ("num_classes", "tokens", "embedding.weight")):
        for place in (said, said.scope("encoder")):
            if dim in dims:
                place.agree(name, dims[dim], f"the encoder's {tensor}")
    said.agree("hidden_dim", dims["H"], "sequence_mixer")
    said.scope("encoder").agree("out_features", dims["H"], "sequence_mixer")
    for name in ("sequence_mixer", "channel_mixer", "head"):
        said.scope(name).agree("in_features", dims["H"], "sequence_mixer")
    said.scope("channel_mixer").agree("out_features", dims["H"], "sequence_mixer")


class _Model:
    """The modules of a Sequential one after the other; or a model or a block alone."""

    def __init__(self, checkpoint: Checkpoint, said: Config):
        self.saved = equinox.Stateful(checkpoint)
        self.said = said
        self.source = checkpoint.source
        self.count = 0
        self.kind = ""
        self.channel_mixer = ""

    def children(self) -> tuple[Node, ...]:
        """The nodes in the order in which they run."""
        model = self.saved.model
        count = parts.layer_count(model, "layers[", "].")
        places = [f"layers[{i}]." for i in range(count)] or [""]
        found = tuple(node for place in places for node in self._module(place))
        if not self.count:
            raise CheckpointError(f"{self.source}: expected blocks with a sequence_mixer, found none")
        return found

    def _module(self, at: str) -> list[Node]:
        model = self.saved.model
        scope = model.scope(at)
        if "embedding.weight" in scope:
            self.said.scope("encoder").agree("target", "EmbeddingEncoder", f"{at}embedding.weight")
            return [Embedding(scope.take("embedding.weight", "tokens", "H"), name=f"{at}embedding")]
        if "linear.weight" in scope:
            return self._head(at) if self.count else self._encoder(at)
        count = parts.layer_count(scope, "blocks[", "].")
        return [node for place in [f"{at}blocks[{i}]." for i in range(count)] or [at] for node in self._block(place)]

    def _encoder(self, at: str) -> list[Node]:
        said = self.said.scope("encoder")
        said.agree("target", "LinearEncoder", f"{at}linear.weight")
        said.agree("use_bias", f"{at}linear.bias" in self.saved.model, f"{at}linear.bias")
        return [equinox.linear(self.saved.model, f"{at}linear", "I", "H")]

    def _head(self, at: str) -> list[Node]:
        said, model = self.said.scope("head"), self.saved.model
        reduce = equinox.boolean(model, f"{at}reduce")
        if reduce is None:
            reduce = said.get("reduce", True, choices=(True, False), why="a head averages over time, or does not")
        said.agree("reduce", reduce, f"{at}reduce")
        if not reduce:
            raise UnsupportedError(
                f"{self.source}: {at}reduce = False: upstream cannot run a head that does not average"
            )
        target = said.raw("target")
        told = {"ClassificationHead": "classification", "RegressionHead": "regression"}.get(str(target))
        if target is not None and told is None:
            said.contradict("target", f"expected ClassificationHead or RegressionHead, found {target!r}")
        kind = told or said.get(
            "kind",
            "classification",
            choices=("classification", "regression"),
            why="the head of a classifier ends in a log_softmax, that of a regression does not",
        )
        last = equinox.linear(model, f"{at}linear", "H", "O")
        return [Pool("mean"), last, *([parts.log_softmax(f"{at}log_softmax")] if kind == "classification" else [])]

    def _block(self, at: str) -> list[Node]:
        """The sum x + mixer(gelu(layer(x))), with the norm before the layer or after the sum."""
        model = self.saved.model
        scope = model.scope(at)
        self.count += 1
        prenorm = equinox.boolean(scope, "prenorm")
        if prenorm is None:
            prenorm = self.said.get(
                "prenorm",
                True,
                choices=(True, False),
                why="the same norm stands before each layer or after its residual sum",
            )
        self.said.agree("prenorm", prenorm, f"{at}prenorm")
        for idle in ("drop.p", "drop.inference"):
            scope.ignore(idle)
        layer = self._sequence_mixer(scope.scope("sequence_mixer."), f"{at}sequence_mixer")
        inner = (*layer, Activation("gelu_tanh"), *self._channel_mixer(at))
        norm = self.saved.batch_norm(f"{at}norm", "H")
        return [Residual(Sequential((norm, *inner)))] if prenorm else [Residual(Sequential(inner)), norm]

    def _fact(self, name: str) -> Config:
        """Where the config speaks of a layer's fact: beside the model's own, or in ``sequence_mixer``."""
        return one_place(name, self.said, self.said.scope("sequence_mixer"))

    def _sequence_mixer(self, mixer: Tensors, name: str) -> tuple[Node, ...]:
        if "q_proj.weight" in mixer:
            raise UnsupportedError(
                f"{self.source}: {name}: DeltaNet, whose state is a matrix that keys and values write"
            )
        kinds = {"kernel.C": "S4D", "Lambda_re": "S5", "nu_log": "LRU", "A_diag": "LinOSS"}
        kind = next((kind for tensor, kind in kinds.items() if tensor in mixer), "Identity")
        if self.kind not in ("", kind):
            raise mixer.misfit("", f"a layer of {self.kind} as in the blocks before", kind)
        self.kind = kind
        make = {"S4D": self._s4d, "S5": self._s5, "LRU": lru.recurrence, "LinOSS": self._linoss}
        if kind == "Identity":
            return ()
        layer = make[kind](mixer, name)
        if (stored := equinox.integer(mixer, "in_features")) not in (None, mixer.dims["H"]):
            raise mixer.misfit("in_features", str(mixer.dims["H"]), str(stored))
        if kind in ("LRU", "LinOSS"):
            self._size((mixer.dims["P"],), name)
        return (layer,)

    def _size(self, sizes: tuple[int, ...], name: str) -> None:
        """Hold ``state_dim`` against the tensors, which allow one of ``sizes``."""
        self._fact("state_dim").agree("state_dim", sizes[0], name, also=sizes[1:])

    def _s4d(self, mixer: Tensors, name: str) -> Diagonal:
        """S4D (Gu et al. 2022) with B = 1, and without a D."""
        kernel = mixer.scope("kernel.")
        C = kernel.complex("C", "H", "N")
        A = -parts.exp(kernel, "log_a_real", "H", "N") + 1j * kernel.f64("A_imag", "H", "N")
        modes = mixer.dims["N"]
        if (stored := equinox.integer(mixer, "state_dim")) is not None and stored // 2 != modes:
            raise mixer.misfit("state_dim", str(2 * modes), str(stored))
        mixer.ignore("transposed")
        self._size((2 * modes, 2 * modes + 1), name)
        return Diagonal(
            A=A,
            B=np.ones_like(A),
            C=C[None],
            D=np.zeros((1, len(A))),
            dt=parts.exp(kernel, "log_dt", "H"),
            name=name,
        )

    def _s5(self, mixer: Tensors, name: str) -> DiagonalMimo:
        """S5 (Smith et al. 2023, eq. 5 and 6)."""
        real, imag = mixer.f64("Lambda_re", "P"), mixer.f64("Lambda_im", "P")
        P = mixer.dims["P"]
        if (stored := equinox.integer(mixer, "P")) not in (None, P):
            raise mixer.misfit("P", str(P), str(stored))
        conj_sym = self._fact("conj_sym").get(
            "conj_sym",
            True,
            choices=(True, False),
            why="with conjugate symmetry the output is twice the real part over half of the states",
        )
        # Half of an odd number of states is rounded down.
        self._size((2 * P, 2 * P + 1) if conj_sym else (P,), name)
        clipped = np.minimum(real, parts.CLIP)
        clip = False
        if (clipped != real).any():
            clip = self._fact("clip_eigs").get(
                "clip_eigs",
                True,
                choices=(True, False),
                why=f"{name}.Lambda_re reaches {real.max():.3g}, which clip_eigs would cut off at {parts.CLIP}",
            )
        disc = self._fact("discretization").get(
            "discretization", "zoh", choices=("zoh", "bilinear"), why="the stored system is the continuous one"
        )
        place = self._fact("step_rescale")
        place.get("step_rescale", 1.0, why="it multiplies every step size")
        rescale = place.number("step_rescale", 1.0)
        if rescale <= 0:
            raise place.invalid("step_rescale", "a number above zero")
        return DiagonalMimo(
            A=(clipped if clip else real) + 1j * imag,
            B=mixer.complex("B", "P", "H"),
            C=mixer.complex("C", "H", "P"),
            D=mixer.f64("D", "H"),
            dt=rescale * parts.exp(mixer, "log_step", "P", 1)[:, 0],
            disc=disc,
            conjugate_pairs=conj_sym,
            allow_unstable=not clip,
            name=name,
        )

    def _linoss(self, mixer: Tensors, name: str) -> Linoss:
        damped = "G_diag" in mixer
        place = self._fact("discretization")
        told = place.raw("discretization")
        if damped and told == "IM":
            raise UnsupportedError(
                f"{self.source}: {name}.G_diag: LinOSS-IM with damping, which upstream saves but cannot run"
            )
        scheme = "IMEX"
        if not damped or told is not None:
            scheme = place.get("discretization", "IMEX", choices=("IM", "IMEX"), why=linoss.DISCRETIZATION_WHY)
        place = self._fact("damping")
        # Upstream makes a damped IM without G_diag.
        if not damped and scheme == "IM" and place.raw("damping") is True:
            raise UnsupportedError(
                f"{self.source}: config['damping'] = True with discretization 'IM', which upstream saves but cannot run"
            )
        place.agree("damping", damped, f"{name}.G_diag")
        return linoss.oscillators(mixer, scheme, damped=damped, name=name)

    def _channel_mixer(self, at: str) -> tuple[Node, ...]:
        """What mixes the channels of each sample."""
        name = f"{at}channel_mixer"
        mixer = self.saved.model.scope(f"{name}.")
        said = self.said.scope("channel_mixer")
        if "w1.weight" in mixer:
            self.channel_mixer = "GLU"
            self._bias("w1.bias" in mixer, name)
            w1, w2 = (equinox.linear(mixer, w, "H", "H") for w in ("w1", "w2"))
            return parts.side_by_side(w1, w2), Glu()
        if "gate_proj.weight" in mixer:
            self.channel_mixer = "SwiGLU"
            self._bias("up_proj.bias" in mixer, name)
            up, gate = (equinox.linear(mixer, f"{w}_proj", "H", "ff") for w in ("up", "gate"))
            said.agree("intermediate_dim", mixer.dims["ff"], f"{name}.up_proj.weight")
            return parts.side_by_side(up, gate), Glu("silu"), equinox.linear(mixer, "down_proj", "ff", "H")
        if "linear.weight" in mixer:
            self.channel_mixer = "MLPChannelMixer"
            self._bias("linear.bias" in mixer, name)
            place = one_place("non_linearity", self.said, said)
            function = place.get(
                "non_linearity",
                "gelu",
                choices=tuple(_FUNCTIONS),
                why="the function behind the linear map of each channel mixer",
            )
            return equinox.linear(mixer, "linear", "H", "H"), Activation(_FUNCTIONS[function])
        self.channel_mixer = "IdentityChannelMixer"
        return ()

    def _bias(self, found: bool, name: str) -> None:
        one_place("use_bias", self.said, self.said.scope("channel_mixer")).agree("use_bias", found, f"{name}'s biases")


def one_place(name: str, *places: Config) -> Config:
    """That of ``places`` which says ``name``, the first where none does; raises where two say it otherwise."""
    told = [place for place in places if name in place] or [places[0]]
    for other in told[1:]:
        if other.raw(name) != told[0].raw(name):
            raise other.invalid(name, f"{told[0].raw(name)!r}, as it is elsewhere in the config")
    return told[0]
