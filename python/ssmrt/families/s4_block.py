"""``s4-block``: one S4 layer of the state-spaces/s4 repository, versions 2 to 4, by itself.

Gu et al. 2021 (S4: diagonal plus low-rank, bilinear), Gu et al. 2022 (S4D: diagonal), Gupta et al. 2022 (DSS).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Document, Gate, Node, Sequential
from ..errors import ConfigRequired, UnsupportedError
from ..readers.checkpoint import Checkpoint
from . import s4_kernel, s4_legacy
from .config import Config
from .facts import TRAINING, facts, named
from .s4_kernel import Kernel
from .tensors import Tensors
from .torch_layers import CHOICES, activation, is_glu, linear, option

ARCH = "s4-block"

FACTS = (
    TRAINING
    | named(ARCH, "S4Block", "S4", "S4D", "FFTConv")
    | facts(
        used="dt_transform real_transform real_type imag_transform disc dt_fast bandlimit l_max activation mult_act"
        " hyper_act final_act postact swap_channels gate bottleneck resample",
        checked="d_model d_state channels bidirectional n_ssm rank mode kernel is_real dt_tie version hurwitz",
        idle="transposed tie_dropout drop_kernel initializer weight_norm verbose deterministic init init_args measure"
        " measure_args real_random real_scale imag_random imag_scale B_random B_init B_scale P_scale normalize"
        " dt_min dt_max backend keops real_tolerance trainable tie_state length_correction precision gate_act",
        only={
            "_name_": ("s4", "standalone", "fftconv", None),
            "layer": ("fftconv", "FFTConv", None),
            "shift": (False,),
            "linear": (False,),
        },
    )
)

# Where a layer's kernel and its D are: version 4, its inner layer by itself, versions 2 and 3.
_PLACES = (("layer.kernel.", "layer.D"), ("kernel.kernel.", "D"), ("kernel.", "D"))

_DPLR = ("nplr", "dplr", "s4")
_DIAG = ("diag", "s4d")

WHY_ACTIVATION = "the function between the convolution and the output layer is not in the file"
WHY_L_MAX = "the convolution is cut off after this many samples; None: never"
WHY_SWAP = "whether the outputs of a channel lie side by side decides which weight meets which"


def matches(tensors: Mapping[str, NDArray[np.generic]]) -> bool:
    """Whether the tensors are those of one layer."""
    return is_layer(Tensors(tensors, ""))


def is_layer(t: Tensors) -> bool:
    """Whether the scope is that of an S4 layer of any version, complete or not."""
    return _place(t) is not None


def _place(t: Tensors) -> tuple[str, str] | None:
    """Where the kernel and D are."""
    for kernel, D in _PLACES:
        inner = t.scope(kernel)
        if _version(inner, kernel) is not None:
            return kernel, D
    return None


def _version(inner: Tensors, place: str) -> int | None:
    """The version of the kernel at that place, None where there is none."""
    if place == "kernel.kernel.":
        return s4_legacy.version(inner)
    return 4 if "inv_dt" in inner or "A_real" in inner else None


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The layer as a model: (..., d_model) to (..., d_model)."""
    t = Tensors(checkpoint.tensors, checkpoint.source)
    said = Config(config, checkpoint, FACTS, ARCH)
    # What a file says of itself is some trainer's; that a fact is missing there says nothing.
    said.silent = config is None
    layer, d_output = block(t, said, "", checkpoint.source)
    t.finish()
    said.finish()
    return Document(layer, _channels(layer), d_output, {"arch": ARCH})


def _channels(layer: Sequential) -> int:
    """The channels that the layer takes."""
    node: Node = layer
    while isinstance(node, Sequential | Gate):
        node = node.children[0] if isinstance(node, Sequential) else node.left
    weight = getattr(node, "weight", None)
    return int(weight.shape[1] if weight is not None else node.C.shape[1])  # type: ignore[attr-defined]


def block(t: Tensors, config: Config, name: str, source: str, default_dt: str = "exp") -> tuple[Sequential, int]:
    """The layer whose tensors are those of ``t``, and its number of outputs.

    ``name`` is its place in the checkpoint, "" where it stands alone; ``default_dt`` what upstream's
    configuration says about ``dt_transform``. Raises `CheckpointError`, `ConfigRequired`, `UnsupportedError`.
    """
    t = t.scope("", dims=True)
    place = _place(t)
    if place is None:
        raise t.misfit("layer.kernel.inv_dt", "an S4 layer", "nothing")
    scope, D_name = place
    inner = t.scope(scope)
    version = _version(inner, scope) or 4
    # Trainers number their own versions.
    if str(config.raw("version")).startswith("v"):
        config.agree("version", f"v{version}", scope)
    if version == 2 and config.raw("resample"):
        raise UnsupportedError(f"{source}: config['resample'] is not supported; give rate= when running instead")
    kernel = s4_kernel.read(inner, config, default_dt) if version == 4 else s4_legacy.read(inner, config)
    D = t.f64(D_name, "D rows", "H")
    M, H = D.shape
    bidirectional = len(kernel.C) == 2 * M
    if not bidirectional and len(kernel.C) != M:
        raise inner.misfit("C", f"{M} or {2 * M} rows, as D has {M}", f"{len(kernel.C)} rows")
    config.agree("bidirectional", bidirectional, f"C, which has {len(kernel.C)} rows to {M} of D")
    narrowing = "input_linear.0.weight"
    _agree(config, kernel, t.shape(narrowing)[1] if narrowing in t and len(t.shape(narrowing)) > 1 else H)

    dot = f"{name}." if name else ""
    tail = _Tail(t, config, dot, source, version, M, H)
    swap = M > 1 and version == 4 and config.get("swap_channels", False, choices=(False, True), why=WHY_SWAP)
    ssm = s4_kernel.node(
        kernel,
        D,
        name=dot + scope.removesuffix("."),
        kernel_length=_l_max(config) if version != 2 else None,
        head_major=swap,
        source=source,
    )
    return tail.around(ssm, name)


def _agree(config: Config, kernel: Kernel, d_model: int) -> None:
    """Check what the configuration says of the shapes."""
    n = kernel.C.shape[2]
    config.agree("d_model", d_model, "C")
    d_state = config.raw("d_state")
    full = n if kernel.real else 2 * n
    # An odd d_state loses its last mode.
    if d_state is not None and d_state != full and (kernel.real or d_state != full + 1):
        config.agree("d_state", full, "C")
    if config.raw("n_ssm") is not None:
        config.agree("n_ssm", kernel.A.shape[0], "A_real")
    for name in ("mode", "kernel"):
        mode, actual = config.raw(name), _DIAG if kernel.P is None else _DPLR
        if mode in ("dense", "slow", "real", "conv", "ema"):
            raise UnsupportedError(f"kernel {mode!r} is not supported")
        if mode is not None and mode not in actual:
            config.agree(name, actual[0], "the missing P" if kernel.P is None else "P")
    if kernel.P is not None and config.raw("rank") is not None:
        config.agree("rank", kernel.P.shape[0], "P")


def _l_max(config: Config) -> int | None:
    l_max = config.get("l_max", None, why=WHY_L_MAX)
    if l_max is not None and (isinstance(l_max, bool) or not isinstance(l_max, int) or l_max < 1):
        raise config.wrong("l_max", "a positive number or None", l_max)
    return l_max


class _Tail:
    """What follows the convolution, and in version 3 may go beside it: activations, linear layers, gates."""

    def __init__(self, t: Tensors, config: Config, dot: str, source: str, version: int, M: int, H: int):
        self.t, self.config, self.dot, self.source = t, config, dot, source
        self.version, self.M, self.H = version, M, H
        self.output = next((n for n in ("output_linear.0", "output_linear") if self._has(n)), None)

    def _has(self, name: str) -> bool:
        return any(n.startswith(f"{name}.") and n.count(".") == name.count(".") + 1 for n in self.t.names) or any(
            n.startswith(f"{name}.parametrizations.") for n in self.t.names
        )

    def around(self, ssm: Node, name: str) -> tuple[Sequential, int]:
        """The whole layer around the convolution, and its number of outputs."""
        gated, narrowed = self._has("input_gate.0") or self._has("input_gate"), "input_linear.0.weight" in self.t
        if self.version != 3 and (
            gated or "input_linear.weight" in self.t or self.config.raw("gate") or self.config.raw("bottleneck")
        ):
            raise UnsupportedError(f"{self.source}: gate and bottleneck never ran in upstream's version 4")
        between, width = self._between()
        nodes = (ssm, *between)
        if not (gated or narrowed):
            output, width = self._output(width)
            return Sequential((*nodes, *output), name=name), width
        return self._gated(nodes, width, name, gated, narrowed)

    def _between(self) -> tuple[tuple[Node, ...], int]:
        """What stands between the convolution and the output layer, and how many channels leave it."""
        M, H, config = self.M, self.H, self.config
        taken = self._columns()
        inner = option(config, "activation", None if self._bare else "gelu", WHY_ACTIVATION)
        nodes: tuple[Node, ...] = ()
        if self.version < 4:
            hyper = config.raw("hyper_act")
            halves = taken == H * M // 2 and M % 2 == 0
            if halves and "hyper_act" not in config:
                raise ConfigRequired(
                    "hyper_act", why=f"D has {M} rows, of which half gate the others", choices=CHOICES[:-1]
                )
            if hyper is not None:
                if not halves:
                    raise config.wrong("hyper_act", f"None, as D has {M} rows", hyper)
                nodes, M = activation(f"glu-{hyper}", f"{self.dot}hyper_activation", self.source), M // 2
        elif is_glu(inner) or (taken == H * M // 2 and M % 2 == 0):
            # The inner layer made twice the channels for its GLU.
            if taken not in (None, H * M // 2) or M % 2:
                raise config.wrong("activation", f"none that halves the {M} outputs of each channel", inner)
            if not is_glu(inner):
                if "activation" in config:
                    raise config.wrong("activation", f"one that halves the {M} outputs of each channel", inner)
                inner = "glu"
            M //= 2
        if config.raw("channels") is not None:
            config.agree("channels", M, "D")
        nodes += activation(inner, f"{self.dot}activation", self.source)
        if (multiplied := config.raw("mult_act")) is not None:
            if is_glu(multiplied):
                raise config.wrong("mult_act", "a function that keeps the number of channels", multiplied)
            nodes += activation(multiplied, f"{self.dot}mult_activation", self.source)
        return nodes, H * M

    @property
    def _bare(self) -> bool:
        """Whether this is the inner layer alone, which upstream's configurations call fftconv."""
        return bool(self.config.raw("_name_") == "fftconv")

    def _columns(self) -> int | None:
        """The channels that the output layer takes; None where there is none."""
        if self.output is None:
            return None
        scope = self.t.scope(f"{self.output}.")
        weight = next(n for n in ("weight", "weight_v", "parametrizations.weight.original1", "") if n in scope or not n)
        shape = scope.shape(weight or "weight")
        return shape[1] if len(shape) > 1 else None

    def _output(self, width: int) -> tuple[tuple[Node, ...], int]:
        """The output layer and its activation; ``width`` channels come in."""
        alias = "postact" if self.config.raw("postact") is not None else "final_act"
        final = self.config.raw(alias)
        if self.output is None:
            if final is not None and not self._bare:
                raise self.t.misfit("output_linear.0.weight", f"(rows, {width}) for {alias}={final!r}", "nothing")
            return (), width
        layer = linear(self.t, self.output, "rows", width, f"{self.dot}{self.output}")
        rows = layer.weight.shape[0]
        d_out = self.H
        if rows not in (d_out, 2 * d_out):
            raise self.t.misfit(f"{self.output}.weight", f"{d_out} or {2 * d_out} rows", f"{rows} rows")
        # Without an activation the module is not in a list.
        if self.output == "output_linear":
            if final is not None and self.version == 4:
                raise self.t.misfit("output_linear.0.weight", f"({d_out}, {width}) for {alias}={final!r}", "nothing")
            after: tuple[Node, ...] = ()
        elif rows == 2 * d_out:
            final = final if alias in self.config and final is not None else "glu"
            if not is_glu(final):
                raise self.config.wrong(alias, f"'glu', as output_linear has {rows} rows", final)
            after = activation(final, f"{self.dot}output_linear.1", self.source)
            rows = d_out
        else:
            if final is None:
                why = f"output_linear has {rows} rows, so that upstream's usual glu does not stand after it"
                raise ConfigRequired("final_act", why=why, choices=CHOICES[:-1])
            if is_glu(final):
                raise self.config.wrong(alias, f"one that is no GLU, as output_linear has {rows} rows", final)
            after = activation(final, f"{self.dot}output_linear.1", self.source)
        return (layer, *after), rows

    def _gated(
        self, nodes: tuple[Node, ...], width: int, name: str, gated: bool, narrowed: bool
    ) -> tuple[Sequential, int]:
        """Version 3's gate and bottleneck (Mehta et al. 2022): output_gate(output_linear(...) * input_gate(u))."""
        act = option(self.config, "activation", "gelu", WHY_ACTIVATION)
        dot = self.dot
        if narrowed:
            wide = linear(self.t, "input_linear.0", self.H, "d_model", f"{dot}input_linear.0")
            nodes = (wide, *activation(act, f"{dot}input_linear.1", self.source), *nodes)
        else:
            self.t.dims["d_model"] = self.H
        d_model = self.t.dims["d_model"]
        if self.output is None:
            raise self.t.misfit("output_linear.0.weight", f"(rows, {width})", "nothing")
        final = self.config.raw("postact") if "postact" in self.config else "glu"
        if self.output == "output_linear":
            final = None
        layer = linear(self.t, self.output, "rows", width, f"{dot}{self.output}")
        nodes = (*nodes, layer, *activation(final, f"{dot}output_linear.1", self.source))
        rows = layer.weight.shape[0] // (2 if is_glu(final) else 1)
        if not gated:
            if rows != d_model:
                raise self.t.misfit(f"{self.output}.weight", f"{d_model} channels after postact", f"{rows}")
            return Sequential(nodes, name=name), rows
        beside = linear(self.t, "input_gate.0", rows, d_model, f"{dot}input_gate.0")
        product = Gate(
            Sequential(nodes, name=f"{dot}gated"),
            Sequential((beside, *activation(act, f"{dot}input_gate.1", self.source)), name=f"{dot}input_gate"),
            name=f"{dot}gate",
        )
        out = linear(self.t, "output_gate", d_model, rows, f"{dot}output_gate")
        return Sequential((product, out), name=name), d_model
