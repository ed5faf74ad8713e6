"""memorax' LRU, S5 and Mamba cells in Flax linen: alone, in a Memoroid, in stacks of blocks and in a Network.

Its masks are ssmrt's ``resets``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..document import (
    Activation,
    DiagonalMimo,
    Document,
    Function,
    Gate,
    Glu,
    Linear,
    Node,
    Norm,
    Residual,
    Sequential,
    Ssd,
)
from ..errors import UnsupportedError
from ..readers.checkpoint import Checkpoint
from . import flax, parts
from .config import Config
from .facts import TRAINING, facts, named
from .tensors import Tensors

ARCH = "memorax"

FACTS = (
    TRAINING
    | named(ARCH, "LRUCell", "S5Cell", "MambaCell", "Memoroid", "Stack", "Network")
    | facts(
        used="discretization clip_eigens step_rescale normalization",
        checked="features hidden_dim state_size num_heads head_dim",
        idle="r_min r_max max_phase c_init dt_min dt_max dtype param_dtype kernel_init bias_init",
        only={"expansion_factor": (2,)},
        inner={
            "FFN": facts(used="activation", checked="features", idle="expansion_factor dropout_rate"),
            "GatedFFN": facts(used="activation", checked="features", idle="expansion_factor dropout_rate use_bias"),
            "GatedResidual": facts(used="gate"),
            "MLP": facts(used="activation", idle="features"),
        },
    )
)

_CELL = r"(?:torso/)?(?:(?:blocks_\d+|module)/)*(?:cell/)?(?:B_real|lambda_real|log_decay)"

# How deep modules are nested, which a file may have as deep as it likes.
_MOST_NESTED = 40

# Those of JAX that ssmrt has; its gelu is the approximate one.
_FUNCTIONS: dict[str, Function] = {
    "gelu": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "elu": "elu",
    "leaky_relu": "leaky_relu",
}


def matches(tensors: Mapping[str, Any]) -> bool:
    """Whether the names are those of a cell, alone or in what holds cells."""
    return flax.holds(tensors, _CELL)


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model as upstream runs it. A head answers with what its one map gives, before any distribution.

    Raises
    ------
    CheckpointError
        A tensor is missing, left over or misshapen, or contradicts the config.
    ConfigRequired
        ``discretization``, ``step_rescale`` or, where it would clip, ``clip_eigens`` of an S5 cell is not known; or
        where a block's norm stands, or a function of its blocks.
    UnsupportedError
        A block, feature extractor or head is another one.
    """
    said = Config(config, checkpoint, FACTS, ARCH)
    variables = flax.Variables(checkpoint, _CELL)
    network = _Network(said, checkpoint.source)
    root, d_input, d_output = network.whole(variables.params)
    variables.finish()
    said.finish()
    return Document(root, d_input, d_output, {"arch": ARCH})


Part = tuple[Node, int, int]  # a node, its inputs and its outputs


class _Network:
    """Makes nodes of modules, which are told from one another by the names of their parameters."""

    def __init__(self, said: Config, source: str):
        self._said = said
        self._source = source

    def whole(self, params: Tensors) -> Part:
        """A Network, or what may be its torso."""
        if not any(name.startswith("torso/") for name in params.names):
            return self._module(params, "", None)
        nodes, d = [], None
        if any(name.startswith("feature_extractor/") for name in params.names):
            nodes.append(self._features(params.scope("feature_extractor/"), "feature_extractor"))
            d = nodes[-1][2]
        nodes.append(self._module(params.scope("torso/"), "torso", d))
        head = params.scope("head/")
        if head.names:
            if set(_modules(head)) != {"Dense_0"}:
                raise self._unknown(head, "head", "a head of one Dense")
            nodes.append(self._dense(head, "Dense_0", "head", nodes[-1][2]))
        return Sequential(tuple(node for node, _, _ in nodes)), nodes[0][1], nodes[-1][2]

    def _module(self, at: Tensors, name: str, d: int | None) -> Part:
        """The module whose parameters are ``at``; ``d``, its inputs, are not known at the first."""
        modules = _modules(at)
        if name.count(".") > _MOST_NESTED:
            raise self._unknown(at, name, f"modules nested up to {_MOST_NESTED} deep")
        norm = next((norm for norm in ("LayerNorm_0", "RMSNorm_0") if norm in modules), None)
        if "blocks_0" in modules:
            return self._stack(at, name, d)
        if "cell" in modules:
            return self._module(at.scope("cell/"), f"{name}.cell".lstrip("."), d)
        if "module" in modules and norm is not None:
            return self._normed(at, norm, name, d)
        if "module" in modules:
            return self._residual(at, "gate" in modules, name, d)
        if {"Dense_0", "Dense_1"} == set(modules):
            first, d_in, hidden = self._dense(at, "Dense_0", name, d)
            last, _, d_out = self._dense(at, "Dense_1", name, hidden)
            act = Activation(self._function("FFN", "activation", "gelu"), name=f"{name}.activation")
            self._said.scope("FFN").agree("features", d_out, f"{name}.Dense_1")
            return Sequential((first, act, last), name=name), d_in, d_out
        if {"up_proj", "down_proj"} == set(modules):
            return self._gated_ffn(at, name, d)
        for tensor, cell in (("B_real", _lru), ("lambda_real", _s5), ("log_decay", _mamba)):
            if tensor in at:
                return self._cell(cell(at.scope("", dims=True), self._said, name or "cell"), at, name, d)
        raise self._unknown(at, name, "Stack, Memoroid, PreNorm, PostNorm, Residual, GatedResidual, FFN, GatedFFN")

    def _cell(self, part: Part, at: Tensors, name: str, d: int | None) -> Part:
        if d not in (None, part[1]):
            raise at.misfit(at.names[0], f"a cell of {d} inputs", f"one of {part[1]}")
        self._said.agree("features", part[2], name)
        return part

    def _stack(self, at: Tensors, name: str, d: int | None) -> Part:
        blocks: list[Part] = []
        for i in range(parts.layer_count(at, "blocks_", "/")):
            blocks.append(self._module(at.scope(f"blocks_{i}/"), f"{name}.blocks_{i}".lstrip("."), d))
            d = blocks[-1][2]
        return Sequential(tuple(node for node, _, _ in blocks), name=name), blocks[0][1], blocks[-1][2]

    def _normed(self, at: Tensors, norm: str, name: str, d: int | None) -> Part:
        """PreNorm or PostNorm, whose parameters have the same names."""
        order = self._said.get(
            "normalization",
            "PreNorm",
            choices=("PreNorm", "PostNorm"),
            why="the file does not say whether a block's norm stands before its module or behind it",
        )
        before = order == "PreNorm"
        inner, d_in, d_out = self._module(at.scope("module/"), f"{name}.module".lstrip("."), d)
        width, place = (d_in if before else d_out), f"{name}.{norm}".lstrip(".")
        if norm == "LayerNorm_0":
            scale, bias = at.take(f"{norm}/scale", width), at.take(f"{norm}/bias", width)
            node = Norm("layer", scale, bias, eps=flax.LAYER_NORM_EPS, name=place)
        else:
            node = Norm("rms", at.take(f"{norm}/scale", width), eps=flax.LAYER_NORM_EPS, name=place)
        return Sequential((node, inner) if before else (inner, node), name=name), d_in, d_out

    def _residual(self, at: Tensors, gated: bool, name: str, d: int | None) -> Part:
        """The input and what the module makes of it: x + module(x), or x + gate(W x + b) module(x)."""
        inner, d_in, d_out = self._module(at.scope("module/"), f"{name}.module".lstrip("."), d)
        if d_in != d_out:
            raise at.misfit("module/", f"{d_in} outputs, as there are inputs", str(d_out))
        if gated:
            gate, _, _ = self._dense(at, "gate", name, d_in)
            function = Activation(self._function("GatedResidual", "gate", "sigmoid"), name=f"{name}.gate.function")
            inner = Gate(Sequential((gate, function), name=f"{name}.gated"), inner, name=f"{name}.product")
        return Residual(inner, name=f"{name}.residual".lstrip(".")), d_in, d_out

    def _gated_ffn(self, at: Tensors, name: str, d: int | None) -> Part:
        up, d_in, both = self._dense(at, "up_proj", name, d)
        if both % 2:
            raise at.misfit("up_proj/kernel", "an even number of outputs", str(both))
        down, _, d_out = self._dense(at, "down_proj", name, both // 2)
        # Upstream's gate comes first.
        turned = Linear(_turned(up.weight), None if up.bias is None else _turned(up.bias), name=up.name)
        glu = Glu(self._function("GatedFFN", "activation", "gelu"), name=f"{name}.glu")
        self._said.scope("GatedFFN").agree("features", d_out, f"{name}.down_proj")
        return Sequential((turned, glu, down), name=name), d_in, d_out

    def _features(self, at: Tensors, name: str) -> Part:
        """A FeatureExtractor of observations alone, by an MLP."""
        mlp = at.scope("observation_extractor/")
        count = parts.layer_count(mlp, "Dense_", "/")
        if set(_modules(at)) != {"observation_extractor"} or len(set(_modules(mlp))) != count or not count:
            raise self._unknown(at, name, "observation_extractor=MLP(...) alone")
        nodes: list[Node] = []
        first, d = None, None
        for i in range(count):
            dense, d_in, d = self._dense(mlp, f"Dense_{i}", f"{name}.observation_extractor", d)
            first = first or d_in
            act = Activation(self._function("MLP", "activation", "relu"), name=f"{dense.name}.activation")
            nodes += [dense, act]
        assert first is not None
        assert d is not None
        return Sequential(tuple(nodes), name=name), first, d

    def _dense(self, at: Tensors, module: str, name: str, d: int | None) -> tuple[Linear, int, int]:
        view = at.scope("", dims=True)
        if d is not None:
            view.dims["d_in"] = d
        view.dims.pop("d_out", None)
        linear = flax.dense(view, module, "d_in", "d_out")
        d_out, d_in = linear.weight.shape
        return Linear(linear.weight, linear.bias, name=f"{name}.{module}".lstrip(".")), d_in, d_out

    def _function(self, module: str, fact: str, default: str) -> Function:
        said = self._said.scope(module).get(
            fact,
            default,
            choices=tuple(_FUNCTIONS),
            why=f"the file does not hold the function of its {module}",
        )
        return _FUNCTIONS[said]

    def _unknown(self, at: Tensors, name: str, supported: str) -> UnsupportedError:
        found = ", ".join(at.names[:6])
        return UnsupportedError(f"{self._source}: {name or 'the model'}: {found}; supported: {supported}")


def _modules(at: Tensors) -> list[str]:
    """The names of the modules and parameters directly below."""
    return list(dict.fromkeys(name.split("/")[0] for name in at.names))


def _turned(rows: Any) -> Any:
    """The second half of the rows before the first."""
    return np.concatenate(np.split(rows, 2)[::-1])


def _lru(cell: Tensors, said: Config, name: str) -> Part:
    """Orvieto et al. 2023, eq. 6 and 7; gamma is trained on its own."""
    decay, phase = parts.exp(cell, "nu_log", "P"), parts.exp(cell, "theta_log", "P")
    B = cell.f64("B_real", "P", "H") + 1j * cell.f64("B_imag", "P", "H")
    node = DiagonalMimo(
        A=np.exp(-decay + 1j * phase),
        B=B * parts.exp(cell, "gamma_log", "P")[:, None],
        C=cell.f64("C_real", "H", "P") + 1j * cell.f64("C_imag", "H", "P"),
        D=cell.f64("D", "H"),
        dt=None,
        disc="discrete",
        conjugate_pairs=False,
        name=name,
    )
    said.agree("hidden_dim", cell.dims["P"], name)
    return node, cell.dims["H"], cell.dims["H"]


def _s5(cell: Tensors, said: Config, name: str) -> Part:
    """S5 (Smith et al. 2023, eq. 5 and 6), of which both of each conjugate pair are stored."""
    real, imag = cell.f64("lambda_real", "P"), cell.f64("lambda_imag", "P")
    clip = False
    if (real > parts.CLIP).any():
        clip = said.get(
            "clip_eigens",
            False,
            choices=(False, True),
            why=f"lambda_real reaches {real.max():.3g}, which clip_eigens would cut off at {parts.CLIP}",
        )
    disc = said.get("discretization", "zoh", choices=("zoh", "bilinear"), why="the stored system is the continuous one")
    said.get("step_rescale", 1.0, why="it multiplies every step size")
    rescale = said.number("step_rescale", 1.0)
    if rescale <= 0:
        raise said.invalid("step_rescale", "a number above zero")
    node = DiagonalMimo(
        A=(np.minimum(real, parts.CLIP) if clip else real) + 1j * imag,
        B=cell.complex("b", "P", "H"),
        C=cell.complex("c", "H", "P"),
        D=cell.f64("d", "H"),
        dt=rescale * parts.exp(cell, "log_step", "P", 1)[:, 0],
        disc=disc,
        conjugate_pairs=False,
        allow_unstable=not clip,
        name=name,
    )
    said.agree("state_size", cell.dims["P"], name)
    return node, cell.dims["H"], cell.dims["H"]


def _mamba(cell: Tensors, said: Config, name: str) -> Part:
    """A recurrence of Mamba-2's form whose heads have each their own B and C, gated by silu."""
    log_decay, skip = parts.exp(cell, "log_decay", "heads"), cell.f64("skip_weight", "heads", "head_dim")
    heads, inner = len(log_decay), skip.size
    both = cell.take("in_proj/kernel", "H", 2 * inner).T
    B, C = (cell.take(f"{part}_proj/kernel", "H", "heads N").T for part in "BC")
    if len(B) % heads:
        raise cell.misfit("B_proj/kernel", f"a multiple of the {heads} heads of outputs", str(len(B)))
    dt, out = flax.dense(cell, "dt_proj", "H", heads), flax.dense(cell, "out_proj", inner, "O")
    core = Ssd(
        xBC=Linear(np.concatenate([both[:inner], B, C]), name=f"{name}.x_B_C"),
        dt=Linear(dt.weight, name=f"{name}.dt_proj"),
        A=-log_decay,
        dt_bias=np.zeros(heads) if dt.bias is None else dt.bias,
        D=skip.ravel(),
        d_state=len(B) // heads,
        groups=heads,
        name=name,
    )
    gate = Linear(both[inner:], name=f"{name}.gate"), Activation("silu", name=f"{name}.silu")
    gated = Gate(core, Sequential(gate, name=f"{name}.z"), name=f"{name}.gated")
    sizes = {"num_heads": heads, "head_dim": skip.shape[1], "hidden_dim": len(B) // heads}
    for fact, size in sizes.items():
        said.agree(fact, size, name)
    node = Sequential((gated, Linear(out.weight, out.bias, name=f"{name}.out_proj")), name=f"{name}.mamba")
    return node, cell.dims["H"], cell.dims["O"]
