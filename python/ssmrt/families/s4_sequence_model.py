"""``s4-sequence-model``: the backbone that the state-spaces/s4 repository trains, with its encoder and decoder.

``config`` has the layout of the repository's own configuration (``model``, ``encoder``, ``decoder``, ``dataset``,
``task``); a backbone's arguments are also taken without the ``model`` around them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Document, Embedding, Glu, Linear, Node, Norm, Residual, Sequential
from ..errors import CheckpointError, ConfigRequired, UnsupportedError
from ..readers.checkpoint import Checkpoint
from . import lssl, s4_block, s4_decoder, s4_example
from .config import Config
from .facts import TRAINING, Facts, Only, as_list, facts, named
from .s4_decoder import decoder
from .s4_example import is_s4d, s4d
from .s4_options import IDENTITY, name_of
from .tensors import Tensors
from .torch_layers import activation, batch_norm, embedding, is_glu, layer_norm, linear, option, transposed_layer_norm

ARCH = "s4-sequence-model"

_BLOCK = re.compile(r"(?:model\.)?layers\.(\d+)\.(?:layer|norm|residual)\.")
# Kernel facts that may stand at the top of a config, where all layers share them.
_SHARED = ("dt_transform", "disc", "real_transform", "imag_transform", "dt_fast", "bandlimit", "activation", "l_max")

FFN = TRAINING | facts(used="activation _name_", checked="expand d_output", idle="transposed initializer tie_dropout")
# What a layer may be told, by its kind.
LAYERS = {"s4": s4_block.FACTS, "s4d": s4_example.S4D | TRAINING, "lssl": lssl.FACTS, "ffn": FFN}

_ENCODER = facts(used="_name_ scale", checked="n_tokens")
_POOL = facts(used="_name_ stride expand", idle="transposed causal weight_norm initializer activation")
_NORM = facts(used="_name_ eps elementwise_affine", idle="scalar affine momentum track_running_stats transposed")
_RESIDUAL = facts(
    used="_name_ alpha beta power l2 scaling_correction", idle="scalar gamma elemwise i_layer d_input d_model"
)
# The backbone's constructor; beside a layer's options it is a configuration of the repository's.
MODEL = facts(
    used="layer prenorm transposed n_repeat decoder",
    checked="d_model n_layers bidirectional",
    idle="dropout tie_dropout track_norms dropinp drop_path",
    only={"_name_": ("model", None)},
    inner={"encoder": _ENCODER, "pool": _POOL, "norm": _NORM, "residual": _RESIDUAL},
    own=("_name_", "layer"),
)
_AROUND = (
    TRAINING
    | named(ARCH, "SequenceModel")
    | facts(
        used=" ".join(_SHARED),
        idle="loader trainer train callbacks wandb tolerance hydra",
        inner={
            "encoder": _ENCODER,
            "decoder": s4_decoder.FACTS,
            "task": facts(used="_name_ rescale norm", open=True),
            "dataset": facts(used="_name_ l_output __l_max", open=True),
        },
    )
)
# The repository's configuration has the backbone's arguments in ``model``; they are taken without it too.
WHOLE = _AROUND | facts(inner={"model": MODEL})
FACTS = Facts({**MODEL.names, **_AROUND.names})

# Blocks without tensors are few.
_MOST = 4096

WHY_RESIDUAL = "how a layer's output joins its input is not in the file"


def matches(tensors: Mapping[str, NDArray[np.generic]]) -> bool:
    """Whether the tensors are those of a backbone with at least one S4 layer."""
    blocks = {m[0] for name in tensors if (m := _BLOCK.match(name)) and m[0].endswith(".layer.")}
    views = [Tensors(tensors, "", prefix) for prefix in blocks]
    return any(s4_block.is_layer(view) or is_s4d(view) or lssl.is_layer(view) for view in views)


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model: (L, d_input), or L tokens, to (d_output,) or (L, d_output) as its decoder says."""
    source = checkpoint.source
    t = Tensors(checkpoint.tensors, source)
    whole = any("model" in (mapping or {}) for mapping in (config, checkpoint.config))
    said = Config(config, checkpoint, WHOLE if whole else FACTS, ARCH)
    # A configuration of the repository's is whole: what is missing there has the constructor's default.
    said.silent = config is None and not isinstance((checkpoint.config or {}).get("model"), Mapping)
    root = "model." if any(name.startswith("model.layers.") for name in t.names) else ""
    model = said.scope("model") if whole else said
    backbone = _Backbone(t, root, said, model, source)
    body, d_model, d_out = backbone.nodes()
    before, d_input = _encoder(t, said, model, d_model, source)
    after, d_output = decoder(t, said, model, d_out, source)
    # Loss functions and tasks that are modules keep copies of what is theirs.
    for name in t.names:
        if name.startswith(("task.", "loss.", "loss_val.")):
            t.ignore(name)
    t.finish()
    said.finish()
    nodes = Sequential((*before, *body, *after), name=ARCH)
    return Document(nodes, d_input, d_output, {"arch": ARCH})


class _Backbone:
    """Blocks of a norm, a layer and a residual sum."""

    def __init__(self, t: Tensors, root: str, said: Config, model: Config, source: str):
        self.t, self.root, self.said, self.model, self.source = t, root, said, model, source
        self.transposed = bool(model.get("transposed", False, choices=(False, True)))
        scope = t.scope(root)
        self.found = {int(m[1]) for name in scope.names if (m := re.match(r"layers\.(\d+)\.", name))}
        self.layers = self._layer_options()
        self.final_norm = any(name.startswith("norm.") for name in scope.names)

    def _layer_options(self) -> list[Mapping[str, Any]]:
        """What was said of each block's layer, in order: upstream repeats its list of layers."""
        shared = {name: self.said.raw(name) for name in _SHARED if name in self.said}
        self.shared, self.unheard = set(shared), set(shared)
        options = [{"_name_": item} if isinstance(item, str) else item for item in as_list(self.model.raw("layer"))]
        highest = max(self.found) + 1
        repeat = self.model.count("n_repeat", 1)
        if not options or not all(isinstance(item, Mapping) for item in options):
            if len(self.found) != highest:
                missing = next(i for i in range(highest) if i not in self.found)
                raise self.t.misfit(f"{self.root}layers.{missing}", f"layers 0 to {highest - 1}", "nothing")
            if not options and self.model.count("n_layers", highest // repeat) * repeat != highest:
                self.model.agree("n_layers", highest // repeat, f"{self.root}layers")
            return [shared] * highest
        for name, told in ((name, item[name]) for name in shared for item in options if name in item):
            if told != shared[name]:
                raise self.said.wrong(name, f"{told!r}, as the options of a layer say", shared[name])
        each = len(options) * repeat
        layers = self.model.count("n_layers", max(highest // each, 1)) * each
        if layers < highest or layers > _MOST:
            raise self.model.wrong("n_layers", f"{highest} blocks, as {self.root}layers has", f"{layers} in all")
        return [{**shared, **options[i % len(options)]} for i in range(layers)]

    def nodes(self) -> tuple[tuple[Node, ...], int, int]:
        """The blocks, the channels that go in and those that come out."""
        d = first = self._d_model()
        nodes: tuple[Node, ...] = ()
        repeat = self.model.count("n_repeat", 1)
        for i in range(len(self.layers)):
            block, d = self._block(i, d)
            nodes += block
            if (i + 1) % repeat == 0:
                pooled, d = self._pool(i, d)
                nodes += pooled
        if self.prenorm:
            nodes += self._norm(f"{self.root}norm", d)
        for name in sorted(self.unheard):
            self.said.contradict(name, f"expected a layer that has it, found none in {self.root}layers")
        return nodes, first, d

    def _d_model(self) -> int:
        """The channels of the first block, from whichever tensor says so."""
        scope = self.t.scope(f"{self.root}layers.0.")
        for name in scope.names:
            # Their last axis is as long as there are channels.
            if name.endswith((".D", "kernel.log_dt", "ff.0.0.weight")) or name == "norm.norm.weight":
                shape = scope.shape(name)
                if not shape:
                    raise scope.misfit(name, "(..., d_model)", str(shape))
                d = shape[-1]
                break
        else:
            if self.model.raw("d_model") is None:
                raise self.t.misfit(f"{self.root}layers.0", "a layer whose width is known", "none")
            d = self.model.count("d_model", 1)
        return int(self.model.agree("d_model", d, f"{self.root}layers.0"))

    @property
    def prenorm(self) -> bool:
        """Whether norms stand before the layers: then there is one after the last."""
        if any(re.match(rf"{re.escape(self.root)}layers\.\d+\.norm\.", name) for name in self.t.names):
            return bool(self.model.agree("prenorm", self.final_norm, f"{self.root}norm"))
        return bool(self.model.get("prenorm", True, choices=(False, True)))

    def _norm(self, name: str, d: int) -> tuple[Norm, ...]:
        """The norm called ``name``, or nothing."""
        chosen = self.model.raw("norm")
        kind = name_of(chosen)
        scope = self.t.scope(f"{name}.norm.")
        options = self.model.scope("norm")
        tracked = any(n.startswith("running_") for n in scope.names)
        if kind in ("instance", "group") or (kind == "batch" and not tracked):
            raise UnsupportedError(
                f"{self.source}: {name}: norm {kind!r} needs the statistics of the whole sequence"
                + (", as batch norm does without running ones" if kind == "batch" else "")
            )
        if kind not in (None, "none", "layer", "batch"):
            raise self.model.wrong("norm", "one of 'layer', 'batch', 'none'", kind)
        eps = options.number("eps", 1e-5)
        if eps < 0:
            raise options.wrong("eps", "no negative number", eps)
        found = "batch" if tracked else "layer" if scope.names else "none"
        if found == "none" and kind == "layer" and options.raw("elementwise_affine") is False:
            return (Norm("layer", eps=eps, name=name),)
        if found == "none" and kind is None and self.model.silent:
            why = "the norms have no tensors, so that they may be none or of a kind without any"
            raise ConfigRequired("norm", why=why, choices=("none", "layer", "batch", "instance"), default="layer")
        if chosen is not None and found != kind:
            self.model.agree("norm", found, f"{name}.norm")
        if found == "none":
            return ()
        if found == "batch":
            return (batch_norm(self.t, f"{name}.norm", d, name, eps),)
        if "m" in scope:
            return (transposed_layer_norm(self.t, f"{name}.norm", d, name),)
        inner = f"{name}.norm.ln" if "ln.weight" in scope else f"{name}.norm"
        return (layer_norm(self.t, inner, d, name, eps),)

    def _block(self, i: int, d: int) -> tuple[tuple[Node, ...], int]:
        """One block, and the channels that come out."""
        name = f"{self.root}layers.{i}"
        scope = self.t.scope(f"{name}.")
        before = self._norm(f"{name}.norm", d) if self.prenorm else ()
        layer, d_out = self._layer(i, "layer", d)
        reverse = any(n.startswith("reverse_layer.") for n in scope.names)
        self.model.agree("bidirectional", reverse, f"{name}.reverse_layer")
        if reverse:
            if self.transposed:
                raise UnsupportedError(f"{self.source}: {name}: upstream cannot run bidirectional blocks transposed")
            layer = self._both(i, layer, d, d_out)
        inside = Sequential((*before, *layer.children), name=layer.name)
        joined, d_out = self._residual(i, inside, d, d_out)
        after = () if self.prenorm else self._norm(f"{name}.norm", d_out)
        return (*joined, *after), d_out

    def _both(self, i: int, layer: Sequential, d: int, d_out: int) -> Sequential:
        """A Linear of both layers side by side; upstream does not turn the second one's input round."""
        name = f"{self.root}layers.{i}"
        other, _ = self._layer(i, "reverse_layer", d)
        mix = linear(self.t, f"{name}.bidirectional_linear", d_out, 2 * d_out, f"{name}.bidirectional_linear")
        left = Linear(mix.weight[:, :d_out], mix.bias, name=mix.name)
        right = Linear(mix.weight[:, d_out:], name=f"{mix.name}.reverse")
        total = Residual(
            Sequential((layer, left), name=f"{name}.forward_branch"),
            skip=Sequential((other, right), name=f"{name}.reverse_branch"),
            name=f"{name}.bidirectional",
        )
        return Sequential((total,), name=f"{name}.layers")

    def _layer(self, i: int, which: str, d: int) -> tuple[Sequential, int]:
        """The block's layer, or its second one, and the channels that come out."""
        name = f"{self.root}layers.{i}.{which}"
        scope = self.t.scope(f"{name}.")
        kind = self.layers[i].get("_name_")
        if s4_block.is_layer(scope):
            default = "exp" if self.model.raw("layer") else "softplus"
            return s4_block.block(scope, self._told(i, name, "s4"), name, self.source, default)
        if is_s4d(scope):
            inner = scope.scope("", dims=True)
            return s4d(inner, self._told(i, name, "s4d"), name, self.source), inner.dims["H"]
        if lssl.is_layer(scope):
            told = self._told(i, name, "lssl")
            return lssl.lssl(scope.scope("", dims=True), told, name, self.source)
        if any(n.startswith("ff.") for n in scope.names):
            return self._feed_forward(scope, self._told(i, name, "ffn"), name, d)
        if kind in IDENTITY and not scope.names:
            return Sequential((), name=name), d
        if not scope.names:
            raise scope.misfit("", "a layer's tensors" if kind is None else f"the tensors of {kind!r}", "nothing")
        some = ", ".join(scope.names[:3])
        raise UnsupportedError(
            f"{self.source}: {name}: layers of {some if kind is None else repr(kind)} are not supported; supported"
            " are s4, standalone, s4d, fftconv, lssl, ffn and id"
        )

    def _told(self, i: int, name: str, kind: str) -> Config:
        """What was said of a layer whose tensors are of ``kind``."""
        said, known = self.layers[i], LAYERS[kind].names["_name_"]
        if isinstance(known, Only) and said.get("_name_") not in known.values:
            kinds = " or ".join(repr(value) for value in known.values if value is not None)
            raise CheckpointError(
                f"{self.source}: {name}: config says {said['_name_']!r}, its tensors are those of {kinds}"
            )
        # What all layers share is told to those that know it.
        table = LAYERS[kind]
        told = {fact: value for fact, value in said.items() if fact in table.names or fact not in self.shared}
        self.unheard -= set(told)
        return self.model.inner(told, table, "layer")

    def _feed_forward(self, t: Tensors, config: Config, name: str, d: int) -> tuple[Sequential, int]:
        """Linear, activation, Linear; without an activation the first Linear has another name."""
        bare = "ff.0.weight" in t
        first = "ff.0" if bare else "ff.0.0"
        function = option(config, "activation", None if bare else "gelu", s4_block.WHY_ACTIVATION)
        if bare and function is not None:
            raise config.wrong("activation", f"None, as {name}.ff.0.weight is there", function)
        wide = linear(t, first, f"{name} wide", d, f"{name}.{first}")
        rows = wide.weight.shape[0]
        if "activation" not in config and t.shape("ff.2.weight")[-1:] == (rows // 2,):
            function = "glu"
        between = activation(function, f"{name}.ff.0.1", self.source)
        width = rows // 2 if is_glu(function) else rows
        narrow = linear(t, "ff.2", f"{name} out", width, f"{name}.ff.2")
        config.agree("expand", width / d, f"{name}.ff.2.weight")
        config.agree("d_output", narrow.weight.shape[0], f"{name}.ff.2.weight")
        return Sequential((wide, *between, narrow), name=name), narrow.weight.shape[0]

    def _residual(self, i: int, inside: Sequential, d: int, d_out: int) -> tuple[tuple[Node, ...], int]:
        """The block's input and output joined (upstream's registry of residuals)."""
        name = f"{self.root}layers.{i}.residual"
        scope = self.t.scope(f"{name}.")
        chosen, options = self.model.raw("residual"), self.model.scope("residual")
        kind = name_of(chosen)
        found = "A" if "affine" in scope else "H" if "Wx.weight" in scope else None
        if "residual" not in self.model:
            if found is None:
                self.model.get("residual", "R", choices=("R", "F", "D", "N", None), why=WHY_RESIDUAL)
            kind = found or "R"
        kind = {"residual": "R", "affine": "A", "highway": "H", "decay": "D"}.get(str(kind), kind)
        if kind in (None, "F", "N", "none", "ff", "feedforward"):
            return (inside,), d_out
        if d != d_out and kind in ("R", "A", "D", "H") and options.number("alpha", 1.0) != 0:
            raise scope.misfit("", f"a layer of {d} outputs, as it is added to its input", f"{d_out}")
        if kind == "R":
            alpha, beta = options.number("alpha", 1.0), options.number("beta", 1.0)
            return (Residual(inside, alpha=alpha, beta=beta, name=name),), d_out
        if kind == "A":
            if "affine" in scope and scope.shape("affine") not in ((1,), (d,)):
                raise scope.misfit("affine", f"(1,) or ({d},)", str(scope.shape("affine")))
            affine = scope.f64("affine", d if "affine" in scope and scope.shape("affine") == (d,) else 1)
            alpha = options.number("alpha", 1.0)
            beta_ = float(affine[0]) if affine.size == 1 else affine
            return (Residual(inside, alpha=alpha, beta=beta_, name=name),), d_out
        if kind == "D":
            beta = float((i + 1) ** -options.number("power", 0.5))
            alpha = (1 - beta**2) ** 0.5 if options.get("l2", True, choices=(False, True)) else 1 - beta
            return (Residual(inside, alpha=alpha, beta=beta, name=name),), d_out
        if kind == "H":
            return (self._highway(scope, name, inside, d, options),), d_out
        raise self.model.wrong("residual", "one of 'R', 'A', 'D', 'F', 'H', 'N' or None", kind)

    def _highway(self, t: Tensors, name: str, inside: Sequential, d: int, options: Config) -> Node:
        """Highway: s (1 - r) x + r z, where z = Wy y and r = sigmoid(Wx x + z) (Srivastava et al. 2015, eq. 3).

        As s x + (z - s x) sigmoid(Wx x + z): one Glu of a sum.
        """
        if self.transposed:
            raise UnsupportedError(f"{self.source}: {name}: upstream cannot run highway residuals transposed")
        s = 1.732 if options.raw("scaling_correction") else 1.0
        gate = linear(t, "Wx", d, d, f"{name}.Wx")
        elementwise = "Wy" in t
        out = Linear(np.diag(t.take("Wy", d))) if elementwise else linear(t, "Wy", d, d, "")
        twice = Linear(
            np.concatenate([out.weight, out.weight]),
            None if out.bias is None else np.concatenate([out.bias, out.bias]),
            name=f"{name}.Wy",
        )
        zero = np.zeros(d) if gate.bias is None else np.zeros_like(gate.bias)
        skip = Linear(
            np.concatenate([-s * np.eye(d), gate.weight]),
            np.concatenate([zero, zero if gate.bias is None else gate.bias]),
            name=f"{name}.Wx",
        )
        total = Residual(Sequential((inside, twice), name=f"{name}.branch"), skip=skip, name=f"{name}.sum")
        gated = Sequential((total, Glu(name=f"{name}.r")), name=f"{name}.gated")
        return Residual(gated, alpha=s, name=name)

    def _pool(self, i: int, d: int) -> tuple[tuple[Node, ...], int]:
        """Upstream's pooling between blocks, as far as it keeps the sampling rate."""
        name = f"{self.root}layers.{i}.pool"
        options = self.model.scope("pool")
        kind = options.get("_name_", None, choices=(None, "pool", "avg", "sample", "spectral", "linear"))
        if options.count("stride", 1) != 1:
            raise UnsupportedError(f"{self.source}: {name}: config['pool']['stride']: pooling is not supported")
        if any(n.startswith("linear.") for n in self.t.scope(f"{name}.").names):
            layer = linear(self.t, f"{name}.linear", f"{name} out", d, name)
            options.agree("expand", layer.weight.shape[0] / d, f"{name}.linear.weight")
            return (layer,), layer.weight.shape[0]
        if kind == "linear" or options.raw("expand") is not None:
            if kind in ("sample", "spectral") and options.count("expand", 1) != 1:
                raise UnsupportedError(f"{self.source}: {name}: config['pool']['expand'] of {kind!r} is not supported")
            if kind not in ("sample", "spectral"):
                raise self.t.misfit(f"{name}.linear.weight", "the Linear of a pool that expands", "nothing")
        return (), d


def _encoder(t: Tensors, said: Config, model: Config, d_model: int, source: str) -> tuple[tuple[Node, ...], int]:
    """What makes channels of the input, and how many numbers a sample has."""
    options = as_list(said.raw("encoder")) + (as_list(model.raw("encoder")) if model is not said else [])
    task = said.scope("task")
    numbers = sorted({int(m[1]) for n in t.names if (m := re.match(r"encoder\.(\d+)\.", n))})
    if task.raw("_name_") == "lm":
        options.insert(0, {"_name_": "embedding", "scale": bool(task.get("rescale", True))})
    elif task.raw("_name_") not in (None, "base") and (
        task.raw("_name_") != "forecasting" or task.get("norm", "mean") is not None
    ):
        raise UnsupportedError(f"{source}: task {task.raw('_name_')!r} is not supported")
    if not options:
        options = [_encoder_kind(t, n, source) for n in numbers]
    nodes: tuple[Node, ...] = ()
    for item in options:
        kind = name_of(item)
        if kind is None and isinstance(item, Mapping):
            raise said.wrong("encoder", "a mapping with a _name_", item)
        if kind in IDENTITY:
            continue
        if kind == "onehot":
            nodes += (Embedding(np.eye(d_model, dtype=np.float32), name="encoder.onehot"),)
            continue
        if kind not in ("linear", "embedding"):
            raise UnsupportedError(f"{source}: encoder {kind!r} is not supported; supported are linear, embedding, id")
        if not numbers:
            raise t.misfit("encoder.0.weight", f"the tensors of encoder {kind!r}", "nothing")
        name = f"encoder.{numbers.pop(0)}"
        told = said.inner(item, _ENCODER, "encoder")
        if kind == "embedding":
            table = embedding(t, name, d_model, name)
            told.agree("n_tokens", table.weight.shape[0], f"{name}.weight")
            if told.raw("scale"):
                table = Embedding(table.weight * np.float64(np.sqrt(d_model)), name=name)
            nodes += (table,)
        else:
            for fact in ("n_tokens", "scale"):
                if told.raw(fact):
                    told.contradict(fact, f"expected a table of tokens, found {name} of a linear encoder")
            nodes += (linear(t, name, d_model, "d_input", name),)
    if any(isinstance(node, Embedding) for node in nodes[1:]):
        raise UnsupportedError(f"{source}: an encoder of tokens stands behind another encoder")
    if nodes and isinstance(nodes[0], Embedding):
        return nodes, 1
    return nodes, t.dims.get("d_input", d_model)


def _encoder_kind(t: Tensors, number: int, source: str) -> str:
    """What the encoder is, by its tensors: an embedding has no bias."""
    names = sorted(t.scope(f"encoder.{number}.").names)
    if names in (["bias", "weight"], ["bias"]):
        return "linear"
    if names == ["weight"]:
        return "embedding"
    raise UnsupportedError(f"{source}: encoder.{number} has {', '.join(names)}; supported are linear and embedding")
