"""``mamba2``: the second generation of state-spaces/mamba (Dao & Gu 2024): language models, backbones, blocks, mixers.

Also under the names of Hugging Face's transformers and of mamba2-jax.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Activation, Conv1d, Document, Gate, Linear, Node, Norm, Residual, Sequential, Ssd
from ..errors import ConfigRequired
from ..readers.checkpoint import Checkpoint
from . import mamba_model, parts
from .config import Config
from .facts import HUGGING_FACE, MAX_INTEGER, TRAINING, facts, named
from .tensors import Tensors
from .torch_layers import linear

ARCH = "mamba2"

_OWN = facts(
    used="ngroups dt_limit norm_before_gate",
    checked="d_model d_state d_conv expand headdim d_ssm D_has_hdim rmsnorm bias conv_bias learnable_init_states",
    idle="conv_init A_init_range dt_min dt_max dt_init_floor chunk_size use_mem_eff_path layer_idx process_group"
    " sequence_parallel device dtype",
    only={"layer": ("Mamba2", None), "activation": ("swish", "silu")},
)
FACTS = (
    TRAINING
    | HUGGING_FACE
    | _OWN
    | mamba_model.MODEL
    | named(ARCH, "Mamba2ForCausalLM", "Mamba2Model", "MambaLMHeadModel", "MixerModel", "Mamba2")
    | facts(
        used="n_groups state_size time_step_limit group_size transformers_version",
        checked="conv_kernel num_heads head_dim intermediate_size use_bias use_conv_bias",
        idle="time_step_rank emb_initializer_range A_initializer_range",
        inner={"ssm_cfg": _OWN},
    )
)

_KIND = mamba_model.Kind(ARCH, ("layer_norm_epsilon", "norm_epsilon"), ("dt_bias", "A_log"))

# transformers counts from here on as upstream does, each group's channels by themselves.
_BY_GROUPS = 5

_LAYER = re.compile(r"((backbone\.)?(layers\.)?\d+\.)?(mixer\.)?dt_bias")


def matches(tensors: Mapping[str, NDArray[np.generic]]) -> bool:
    """Whether the tensors are those of a Mamba-2 model, or of a part of one."""
    names = {name.replace("/", ".") for name in tensors}
    found = next((name for name in names if _LAYER.fullmatch(name)), None)
    if found is None:
        return False
    mixer = found.removesuffix("dt_bias")
    return f"{mixer}A_log" in names and not names & {
        f"{mixer}x_proj.weight",
        f"{mixer}B_bias",
        f"{mixer}q_conv1d.weight",
    }


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model or part, as `mamba_model.build` makes it.

    Raises `CheckpointError` where a tensor is missing, left over or misshapen, or contradicts the config,
    `ConfigRequired` and `UnsupportedError`.
    """
    tensors = _as_in_torch(checkpoint.tensors)
    jax = tensors is not checkpoint.tensors
    t = Tensors(tensors, checkpoint.source)
    said = Config(config, checkpoint, FACTS, ARCH)
    return mamba_model.build(t, said, _KIND, lambda t, name: _mixer(t, name, said, jax=jax), checkpoint.source)


def _as_in_torch(tensors: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
    """The tensors of mamba2-jax, whose kernels are (in, out) and (taps, 1, channels), under upstream's names."""
    if not any(re.search(r"in_proj[./]kernel$", name) for name in tensors):
        return tensors
    renamed = {}
    for name, array in tensors.items():
        plain = name.replace("/", ".").replace("conv1d.conv.", "conv1d.").replace("final_norm.", "norm_f.")
        plain = plain.replace("embedder.embedding", "embedding.weight")
        if plain.endswith(".kernel"):
            plain, array = plain.removesuffix("kernel") + "weight", array.T
        renamed[plain] = array
    return renamed


@dataclass(frozen=True)
class _Sizes:
    """What a mixer's tensors say of its sizes."""

    heads: int
    d: int  # channels of x
    shared: int  # G N, the channels of B and of C
    beside: int  # channels that go past the recurrence, through a gate of their own

    @classmethod
    def of(cls, t: Tensors) -> _Sizes:
        (heads,), (rows, _) = _shape(t, "A_log", 1), _shape(t, "in_proj.weight", 2)
        (conv, _, _), (_, columns) = _shape(t, "conv1d.weight", 3), _shape(t, "out_proj.weight", 2)
        # in_proj has 2 beside + d of z + conv + heads rows, out_proj beside + d columns.
        beside = rows - columns - conv - heads
        d = columns - beside
        if beside < 0 or d < 1 or d % heads or conv <= d or (conv - d) % 2:
            expected = f"rows of z|x|B|C|dt for {heads} heads, {conv} channels of conv1d and {columns} of out_proj"
            raise t.misfit("in_proj.weight", expected, str(rows))
        return cls(heads, d, (conv - d) // 2, beside)


def _shape(t: Tensors, name: str, axes: int) -> tuple[int, ...]:
    found = t.shape(name)
    if len(found) != axes or 0 in found:
        raise t.misfit(name, f"{axes} axes, none empty", str(found))
    return found


def _mixer(t: Tensors, name: str, said: Config, *, jax: bool) -> Sequential:
    """out_proj(norm(SSD(silu(conv(x|B|C)), dt) * silu(z))) with (z, x|B|C, dt) = in_proj(u); Dao & Gu 2024, fig. 6.

    ``jax``: the model is mamba2-jax's.
    """
    own = said.scope("ssm_cfg")
    sizes = _Sizes.of(t)
    heads, d, beside = sizes.heads, sizes.d, sizes.beside
    groups = _groups(said, own, sizes, name)
    if heads % groups:
        raise said.wrong(said.alias("n_groups", "ngroups"), f"a divisor of the {heads} heads of {name}", groups)
    n, conv = sizes.shared // groups, d + 2 * sizes.shared
    _check(t, said, own, sizes, n, name)

    whole = linear(t, "in_proj", 2 * beside + d + conv + heads, "H", f"{name}.in_proj", bias=False)
    rows = iter(np.cumsum([beside, beside, d, conv, heads]).tolist())
    at = 0

    def part(what: str) -> Linear:
        nonlocal at
        here, at = slice(at, next(rows)), at
        at = here.stop
        bias = None if whole.bias is None else whole.bias[here]
        return Linear(whole.weight[here], bias, name=f"{name}.in_proj.{what}")

    z0, x0, z, xbc, dt = (part(what) for what in ("z0", "x0", "z", "xBC", "dt"))
    must = mamba_model.conv_bias(said, own)
    shift = t.take("conv1d.bias", conv) if must else t.optional("conv1d.bias", conv)
    taps = Conv1d(t.take("conv1d.weight", conv, 1, "K")[:, 0], shift, name=f"{name}.conv1d")
    function = mamba_model.function(said)
    # JAX's gelu is the approximation by tanh.
    act = Activation("gelu_tanh" if jax and function == "gelu" else function, name=f"{name}.act")
    direct = t.f64("D", *t.shape("D"))
    if direct.shape not in ((heads,), (d,)):
        raise t.misfit("D", f"({heads},) or ({d},)", str(direct.shape))
    low, high = _limits(said, own)
    # Mamba2Simple may have learned the state that it starts from.
    start = t.f64("init_states", heads, d // heads, n).reshape(d, n) if "init_states" in t else None
    ssd = Ssd(
        xBC=Sequential((xbc, taps, act), name=f"{name}.xBC"),
        dt=dt,
        A=-parts.exp(t, "A_log", heads),
        dt_bias=t.take("dt_bias", heads),
        D=np.repeat(direct, d // direct.size),
        d_state=n,
        groups=groups,
        dt_min=low,
        dt_max=None if math.isinf(high) else high,
        x0=start,
        name=f"{name}.ssm",
    )
    gate = Sequential((z, Activation("silu", name=f"{name}.z.act")), name=f"{name}.z")
    inner = _gated(t, ssd, gate, groups, said, own, name, fixed_eps=jax)
    out = linear(t, "out_proj", "H", beside + d, f"{name}.out_proj", bias=False)
    if not beside:
        return Sequential((*inner, out), name=name)
    past = Gate(x0, Sequential((z0, Activation("silu", name=f"{name}.z0.act")), name=f"{name}.z0"), name=f"{name}.mlp")
    left = Linear(out.weight[:, :beside], name=f"{name}.out_proj.mlp")
    right = Linear(out.weight[:, beside:], out.bias, name=f"{name}.out_proj.ssm")
    skip = Sequential((past, left), name=f"{name}.past")
    return Sequential(
        (Residual(Sequential((*inner, right), name=f"{name}.inner"), skip, name=f"{name}.sum"),), name=name
    )


def _gated(
    t: Tensors, ssd: Ssd, gate: Node, groups: int, said: Config, own: Config, name: str, *, fixed_eps: bool
) -> tuple[Node, ...]:
    """The norm of ssd * gate by groups of channels, or that of ssd times gate; without a norm's weight the product."""
    d = len(ssd.D)
    if "norm.weight" not in t:
        return (Gate(ssd, gate, name=f"{name}.gate"),)
    place = own if "norm_before_gate" in own else said
    before = place.get("norm_before_gate", False)
    if not isinstance(before, bool):
        raise place.wrong("norm_before_gate", "True or False", before)
    size = _group_size(said, d, groups)
    # transformers' is that of all norms; mamba_ssm's, which has no such name, and mamba2-jax's is fixed.
    eps = 1e-5 if fixed_eps else said.number("layer_norm_epsilon", 1e-5)
    norm = Norm("rms", t.take("norm.weight", d), eps=eps, size=None if size == d else size, name=f"{name}.norm")
    if before:
        return (Gate(Sequential((ssd, norm), name=f"{name}.y"), gate, name=f"{name}.gate"),)
    return (Gate(ssd, gate, name=f"{name}.gate"), norm)


def _groups(said: Config, own: Config, sizes: _Sizes, name: str) -> int:
    """The groups of heads that share B and C, of which the tensors say the product with the state's size alone."""
    shared = sizes.shared
    places = [(own, "ngroups"), (said, said.alias("n_groups", "ngroups"))]
    told = [(place, option) for place, option in places if place.raw(option) is not None]
    states = [(own, "d_state"), (said, said.alias("state_size", "d_state"))]
    if not told:
        for place, option in states:
            if place.raw(option) is not None:
                n = place.count(option, shared)
                if shared % n:
                    place.contradict(option, f"expected a divisor of the {shared} channels of B in {name}, found {n}")
                    return 1
                return shared // n
        why = f"the tensors hold the product of the groups and the state's size alone, {shared} in {name}"
        return int(said.get("ngroups", 1, why=why))
    place, option = told[0]
    groups = place.count(option, 1)
    if shared % groups:
        place.contradict(option, f"expected a divisor of the {shared} channels of B in {name}, found {groups}")
        return 1
    return groups


def _group_size(said: Config, d: int, groups: int) -> int:
    """The channels that the gated norm goes over."""
    choices, name = (d // groups, d), "group_size"
    version = str(said.raw("transformers_version") or "")
    major = int(m[1]) if (m := re.match(r"(\d{1,9})(\.|$)", version)) else _BY_GROUPS
    if groups > 1 and said.raw(name) is None and major < _BY_GROUPS:
        why = (
            f"transformers before 5, which wrote the file, normed all {d} channels at once, mamba_ssm each of the"
            f" {groups} groups by itself, and the tensors do not say who trained them"
        )
        raise ConfigRequired(name, why=why, choices=choices, default=choices[0])
    size = said.get(name, choices[0])
    if isinstance(size, bool) or size not in choices:
        raise said.wrong(name, f"one of {choices}", size)
    return int(size)


def _limits(said: Config, own: Config) -> tuple[float, float]:
    """The least and the greatest dt."""
    place, name = (own, "dt_limit") if "dt_limit" in own else (said, said.alias("dt_limit", "time_step_limit"))
    value = place.get(name, (0.0, math.inf))
    limits = [_limit(one) for one in value] if isinstance(value, list | tuple) else []
    if len(limits) != 2 or not 0 <= limits[0] <= limits[1] or math.isinf(limits[0]):
        raise place.wrong(name, "two numbers from 0 up, the greater one last", value)
    return limits[0], limits[1]


def _limit(value: object) -> float:
    """A number, or one of the ways in which JSON files have infinity; NaN where it is none."""
    # transformers 5 writes {"__float__": "Infinity"}.
    value = value.get("__float__") if isinstance(value, Mapping) else value
    if value in ("inf", "Infinity"):
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if value <= MAX_INTEGER or value == math.inf else math.nan


def _check(t: Tensors, said: Config, own: Config, sizes: _Sizes, n: int, name: str) -> None:
    """Hold what was said of a mixer against its tensors."""
    H, K = t.shape("in_proj.weight")[1], t.shape("conv1d.weight")[-1]
    inner = sizes.d + sizes.beside
    found: dict[str, Any] = {
        "d_model hidden_size": H,
        "d_state state_size": n,
        "d_conv conv_kernel": K,
        "headdim head_dim": sizes.d // sizes.heads,
        "num_heads": sizes.heads,
        "d_ssm": sizes.d,
        "intermediate_size": inner,
        "expand": inner / H,
        "rmsnorm": "norm.weight" in t,
        "learnable_init_states": "init_states" in t,
        "bias use_bias": "in_proj.bias" in t,
        "conv_bias use_conv_bias": "conv1d.bias" in t,
        "D_has_hdim": t.shape("D") != (sizes.heads,),
    }
    for options, value in found.items():
        for option in options.split():
            for place in (said, own):
                if not place.knows(option):
                    continue
                told = place.raw(option)
                also: tuple[object, ...] = ()
                rounded = isinstance(told, int | float) and 0 < told <= inner and int(told * H) == inner
                if (option == "expand" and rounded) or (option == "D_has_hdim" and sizes.d == sizes.heads):
                    also = (told,)
                place.agree(option, value, name, also=also)
