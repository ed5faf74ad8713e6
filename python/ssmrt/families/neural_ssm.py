"""neural-ssm's DeepSSM (DecodEPFL/SSM): residual blocks of an LRU or an L2-bounded system and a feed-forward branch.

Its cells answer from the state before the update, y[t] = C x[t] + D u[t], x[t+1] = A x[t] + B u[t], which is the
usual layer one sample late.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Activation, Conv1d, DiagonalMimo, Document, Gate, Glu, Linear, Node, Norm, Residual, Sequential
from ..errors import UnsupportedError
from ..readers.checkpoint import Checkpoint
from . import parts, torch_layers, torch_lru
from .config import Config
from .facts import TRAINING, facts, named
from .tensors import Dim, Tensors

ARCH = "neural-ssm"

FACTS = (
    TRAINING
    | named(ARCH, "DeepSSM")
    | facts(
        used="cert_scale_temperature",
        checked="d_input d_output d_model d_state n_layers ff param gamma learn_x0 per_channel_gates d_hidden"
        " nl_layers",
        idle="bias rmin rmax max_phase scale dim_amp train_gamma train_ff_lip init l2ru_eye_scale l2ru_rand_scale rho"
        " max_phase_b phase_center random_phase offdiag_scale defect_block_size defect_max_radius defect_factor_margin"
        " tv_init_rho tv_init_delta0 tv_init_param_scale tvc_init_rho tvc_init_delta0 tvc_init_param_scale"
        " tvc_init_sign tvc_init_b tvc_init_c tvc_init_d bcd_nonlinearity select_input use_cuda_graph zak_d_margin"
        " zak_x2_margin zak_x2_init_scale ssm_residual_init ff_residual_init auto_residual_init"
        " budget_init_utilization",
        only={"select_context_dim": (0,)},
    )
)

Array = NDArray[Any]

_BLOCK = re.compile(r"blocks\.0\.(ssm_|ff_)?res_logit")
# Upstream's constants: no argument of DeepSSM reaches them.
_CONTRACTION_EPS = 0.002
_SMALLEST_NORM = 1e-5
_RADIUS_EPS = 1e-3
_LIP_EPS = 1e-6
_GLU_BOUNDS = (0.75, 1.0)
_BUDGET_MARGIN = 1e-3

# A tensor that tells each kind of cell and of feed-forward branch.
_CELLS = {
    "lru": "Bp",
    "l2n": "rho_raw",
}
_FF = {
    "MBLIP": "branch_logits",
    "LGLU2": "A.W_raw",
    "BLGLU2": "split_logit",
    "LGLU": "lin.parametrizations.weight.original",
    "GLU": "output_linear.0.weight",
    "MLP": "net.0.weight",
}


def matches(tensors: Mapping[str, Any]) -> bool:
    """Whether the names are those of a DeepSSM."""
    return any(map(_BLOCK.fullmatch, tensors))


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model as upstream runs it in evaluation, from each stream's start and from its learned initial state.

    Raises
    ------
    CheckpointError
        A tensor is missing, left over or misshapen, or contradicts the config.
    ConfigRequired
        ``cert_scale_temperature`` is not known, where the model has a prescribed gain.
    UnsupportedError
        A cell is neither ``lru`` nor ``l2n``, or a feed-forward branch is ``LMLP`` or ``TLIP``.
    """
    said = Config(config, checkpoint, FACTS, ARCH)
    tensors = Tensors(checkpoint.tensors, checkpoint.source)
    certified = "encoder_w" in tensors
    encoder, decoder = ("encoder_w", "decoder_w") if certified else ("encoder.weight", "decoder.weight")
    first, last = tensors.f64(encoder, "H", "I"), tensors.f64(decoder, "O", "H")
    count = parts.layer_count(tensors, "blocks.", ".")
    blocks = [_Block(tensors.scope(f"blocks.{i}."), f"blocks.{i}", said, checkpoint.source) for i in range(count)]
    if certified:
        product = sum(block.log_gain() for block in blocks)
        first, last = _capped(first, 1.0), _capped(last, 1.0) * _attenuation(tensors, said, product)
    else:
        said.agree("gamma", None, "encoder.weight, not encoder_w", also=())
    tensors.finish()

    dims = tensors.dims
    sizes = {
        "d_input": (dims["I"], encoder),
        "d_output": (dims["O"], decoder),
        "d_model": (dims["H"], encoder),
        "n_layers": (count, "the number of blocks.i"),
    }
    parts.check_sizes(said, sizes)
    said.finish()
    nodes = [node for block in blocks for node in block.nodes]
    root = Sequential((Linear(first, name="encoder"), *nodes, Linear(last, name="decoder")))
    return Document(root, dims["I"], dims["O"], {"arch": ARCH})


def _attenuation(tensors: Tensors, said: Config, log_product: float) -> float:
    """What keeps the product of all gains below the prescribed one: exp(-t softplus(log(product / gamma) / t))."""
    gamma = float(tensors.f64("gamma_t"))
    told = said.raw("gamma")
    # The file has it in float32.
    same = isinstance(told, int | float) and np.float32(told) == np.float32(gamma)
    said.agree("gamma", gamma, "gamma_t", also=(told,) if same else ())
    if not gamma > 0:
        raise tensors.misfit("gamma_t", "a number above zero", f"{gamma:.3g}")
    said.get("cert_scale_temperature", 0.05, why="how smoothly the decoder is attenuated to the prescribed gain")
    temperature = max(said.number("cert_scale_temperature", 0.05), 1e-6)
    return float(np.exp(-temperature * _softplus(np.asarray((log_product - np.log(gamma)) / temperature))))


class _Block:
    """x + a cell(x), then x + b ff(x); a and b are sigmoids, one for all channels or one each."""

    def __init__(self, tensors: Tensors, name: str, said: Config, source: str):
        self._tensors = tensors
        self._name = name
        self._said = said
        self._source = source
        # Before there were two there was one for both.
        shared = "res_logit" in tensors
        self._cell_share = self._share("res_logit" if shared else "ssm_res_logit")
        self._ff_share = self._share("res_logit" if shared else "ff_res_logit")
        cell, self._gamma = self._cell(tensors.scope("lru."), f"{name}.lru")
        ff, self._lip = self._feed_forward(tensors.scope("ff."), f"{name}.ff")
        self.nodes = (
            Residual(cell, beta=self._cell_share, name=f"{name}.ssm_residual"),
            Residual(ff, beta=self._ff_share, name=f"{name}.ff_residual"),
        )

    def _share(self, name: str) -> float | Array:
        shape: tuple[Dim, ...] = ("H",) if self._tensors.shape(name) else ()
        self._said.agree("per_channel_gates", bool(shape), f"{self._name}.{name}")
        share = _sigmoid(self._tensors.f64(name, *shape))
        return share if shape else float(share)

    def log_gain(self) -> float:
        """The logarithm of the bound on the block's gain, for which the largest share of all channels counts."""
        return float(np.log1p(np.max(self._cell_share) * self._gamma) + np.log1p(np.max(self._ff_share) * self._lip))

    def _kind(self, kinds: Mapping[str, str], scope: Tensors, fact: str, what: str) -> str:
        kind = next((kind for kind, tensor in kinds.items() if tensor in scope), None)
        if kind is None:
            raise UnsupportedError(
                f"{self._source}: {self._name}: {what} with the tensors {', '.join(scope.names[:6]) or 'of none'};"
                f" supported: {', '.join(kinds)}"
            )
        self._said.agree(fact, kind, self._name, also=("BudgetedLGLU2",) if kind == "BLGLU2" else ())
        return kind

    def _cell(self, cell: Tensors, name: str) -> tuple[Node, float]:
        """The cell, and its gain; infinite where there is no bound."""
        kind = self._kind(_CELLS, cell, "param", "a cell")
        start = None
        if kind == "lru":
            system, D, gain = torch_lru.system(cell, "Bp", "H", name), cell.f64("D", "H", "H"), np.inf
            states = len(system.A)
            if "x0_param" in cell:
                start = cell.complex("x0_param", 1, "P")[0]
        else:
            system, D, gain = _l2_bounded(cell, name)
            states = 2 * len(system.A)
            basis = cell.f64("S", states, states)
            if "x0_param" in cell:
                start = _paired(basis @ cell.f64("x0_param", 1, states)[0])
        self._said.agree("d_state", states, name)
        self._said.agree("learn_x0", start is not None, f"{name}.x0_param")
        late = before_the_update(system, start, name)
        return Residual(late, skip=Linear(D, name=f"{name}.D"), name=f"{name} + D"), gain

    def _feed_forward(self, ff: Tensors, name: str) -> tuple[Node, float]:
        """The branch that each sample goes through, and its Lipschitz constant where it has one."""
        kind = self._kind(_FF, ff, "ff", "a feed-forward branch")
        if kind == "GLU":
            linear = torch_layers.linear(ff, "output_linear.0", "2H", "H", f"{name}.output_linear")
            gelu, glu = Activation("gelu", name=f"{name}.activation"), Glu(name=f"{name}.glu")
            return Sequential((gelu, linear, glu), name=name), np.inf
        if kind == "MLP":
            return self._mlp(ff, name), np.inf
        if kind == "LGLU":
            scale = _softplus(ff.f64("raw_lip", "H")) + _LIP_EPS
            weight = Linear(_spectral_norm(ff.scope("lin.parametrizations.weight.")), name=f"{name}.lin")
            glu = Glu(name=f"{name}.glu")
            return Sequential((weight, glu, Norm("affine", scale, name=f"{name}.lip")), name=name), np.inf
        if kind == "LGLU2":
            scale = _softplus(ff.f64("raw_lip", "H")) + _LIP_EPS
            A, B = (_capped(ff.f64(f"{w}.W_raw", "H", "H"), bound) for w, bound in zip("AB", _GLU_BOUNDS))
            gated = _gated(A, B, name)
            return Sequential((gated, Norm("affine", scale, name=f"{name}.lip")), name=name), float(scale.max())
        lip = float(_softplus(ff.f64("raw_lip")) + _LIP_EPS)
        if kind == "MBLIP":
            return self._mixer(ff, name, lip), lip
        split = float(np.clip(_sigmoid(ff.f64("split_logit")), _LIP_EPS, 1 - _LIP_EPS))
        budget = (1 - _BUDGET_MARGIN) * lip
        A, B = (_capped(ff.f64(f"{w}.W_raw", "width", "H"), 1.0) for w in ("A0", "B0"))
        out = _capped(ff.f64("W0.W_raw", "H", "width"), 1.0)
        gated = _gated(budget * split * A, 4 * budget * (1 - split) * B, name)
        H, width = ff.dims["H"], ff.dims["width"]
        if isinstance(told := self._said.raw("d_hidden"), int) and max(told, H) != width:
            self._said.agree("d_hidden", width, f"{name}.A0.W_raw")
        return Sequential((gated, Linear(out, name=f"{name}.W0")), name=name), lip

    def _mixer(self, ff: Tensors, name: str, lip: float) -> Node:
        """The sum of four branches: two maps that are sorted in pairs, a gated one, a tanh and a linear one."""
        A, B, C, D, one = (
            _capped(ff.f64(f"{place}.W_raw", "width", "H"), bound)
            for place, bound in (*zip("AB", _GLU_BOUNDS), ("C", 1.0), ("D", 1.0), ("branch1.lin1", 1.0))
        )
        two = _capped(ff.f64("branch1.lin2.W_raw", "width", "width"), 1.0)
        width, H = A.shape
        if width % 2:
            raise ff.misfit("A.W_raw", "an even number of rows", str(A.shape))
        out = _capped(ff.f64("out.W_raw", "H", 4 * width), 1.0)
        logits = ff.f64("branch_logits", 4)
        share = np.exp(logits - logits.max())
        shares = np.sqrt(np.maximum(share / share.sum(), _LIP_EPS))
        outs = [lip * part * w for part, w in zip(np.split(out, 4, 1), shares)]
        told = self._said.raw("d_hidden")
        if isinstance(told, int):
            # Up to 16 it is a multiple of the channels.
            rows = max(2 * H, told * H if told <= 16 else told)
            if rows + rows % 2 != width:
                self._said.contradict("d_hidden", f"expected one for {width} rows of {name}.A.W_raw, found {told!r}")
        first = Linear(one, name=f"{name}.branch1.lin1"), _sorted_in_pairs(width, f"{name}.branch1.sort1")
        second = Linear(two, name=f"{name}.branch1.lin2"), _sorted_in_pairs(width, f"{name}.branch1.sort2")
        branches: list[tuple[Node, ...]] = [
            (*first, *second),
            (_gated(A, B, name),),
            (Linear(C, name=f"{name}.C"), Activation("tanh", name=f"{name}.C.tanh")),
        ]
        total: Node = Linear(outs[3] @ D, name=f"{name}.D")
        for i, branch in enumerate(branches):
            mapped = Sequential((*branch, Linear(outs[i], name=f"{name}.out.{i}")), name=f"{name}.branch.{i}")
            total = Residual(mapped, skip=total, name=f"{name}.sum.{i}")
        return total

    def _mlp(self, ff: Tensors, name: str) -> Node:
        """Linear maps one after the other, a GELU, and one more."""
        last = max(int(n.split(".")[1]) for n in ff.names if re.fullmatch(r"net\.\d{1,9}\.weight", n))
        sizes: list[Dim] = ["H", *["hidden"] * (last - 1)]
        maps = [
            torch_layers.linear(ff, f"net.{i}", "hidden", sizes[i], f"{name}.net.{i}", bias=False)
            for i in range(last - 1)
        ]
        out = torch_layers.linear(ff, f"net.{last}", "H", "hidden", f"{name}.net.{last}", bias=False)
        self._said.agree("d_hidden", ff.dims["hidden"], f"{name}.net.0.weight")
        self._said.agree("nl_layers", last - 2, f"the linear maps of {name}.net")
        return Sequential((*maps, Activation("gelu", name=f"{name}.gelu"), out), name=name)


def before_the_update(system: DiagonalMimo, start: Array | None, name: str) -> Sequential:
    """C x[t] with x[t+1] = A x[t] + B u[t] and x[0] = ``start``: the system's answers one sample late.

    The first answer is that of the initial state, which the delay holds at the start.
    """
    x0 = None if start is None or not start.any() else start
    first = None
    if x0 is not None:
        first = (2 if system.conjugate_pairs else 1) * (system.C @ x0).real[:, None]
    late = np.tile([1.0, 0.0], (len(system.C), 1))
    return Sequential((replace(system, x0=x0), Conv1d(late, x0=first, name=f"{name}.delay")), name=f"{name}.late")


def _l2_bounded(cell: Tensors, name: str) -> tuple[DiagonalMimo, Array, float]:
    """The cell ``l2n`` in the coordinates in which upstream scans: without D, D, and the bound on its gain.

    z' = K11 z + g K12 u, y = K21 z + g K22 u, where the matrix of all K is scaled to a spectral norm below one and
    K11 is blocks r (cos, -sin; sin, cos): each a complex number's product with r exp(i theta).
    """
    rho, theta = _sigmoid(cell.f64("rho_raw", "pairs")) * (1 - _RADIUS_EPS), cell.f64("theta", "pairs")
    N = 2 * len(rho)
    K12, K21 = cell.f64("K12_raw", N, "H"), cell.f64("K21_raw", "H", N)
    K22, gain = cell.f64("K22_raw", "H", "H"), float(parts.exp(cell, "log_gamma"))
    eigenvalues = rho * np.exp(1j * theta)
    K11 = np.zeros((N, N))
    even = np.arange(0, N, 2)
    K11[even, even] = K11[even + 1, even + 1] = eigenvalues.real
    K11[even + 1, even], K11[even, even + 1] = eigenvalues.imag, -eigenvalues.imag
    norm = max(float(np.linalg.norm(np.block([[K11, K12], [K21, K22]]), 2)), _SMALLEST_NORM) + _CONTRACTION_EPS
    system = DiagonalMimo(
        A=eigenvalues / norm,
        B=_paired(gain * K12 / norm),
        C=(K21[:, 0::2] - 1j * K21[:, 1::2]) / norm,
        D=None,
        dt=None,
        disc="discrete",
        conjugate_pairs=False,
        name=name,
    )
    return system, gain * K22 / norm, gain


def _paired(real: Array) -> Array:
    """Each pair of rows as one complex row."""
    return np.asarray(real[0::2] + 1j * real[1::2])


def _sorted_in_pairs(width: int, name: str) -> Residual:
    """Channels (a, b), side by side, as (min, max): r = relu(a - b) goes from one to the other."""
    difference = np.kron(np.eye(width // 2), [[1.0, -1.0]])
    moved = (
        Linear(difference, name=f"{name}.difference"),
        Activation("relu", name=f"{name}.relu"),
        Linear(-difference.T, name=f"{name}.move"),
    )
    return Residual(Sequential(moved, name=f"{name}.moved"), name=name)


def _gated(A: Array, B: Array, name: str) -> Gate:
    """The product tanh(A x) sigmoid(B x)."""
    left = Linear(A, name=f"{name}.A"), Activation("tanh", name=f"{name}.tanh")
    right = Linear(B, name=f"{name}.B"), Activation("sigmoid", name=f"{name}.sigmoid")
    return Gate(Sequential(left, name=f"{name}.value"), Sequential(right, name=f"{name}.gate"), name=f"{name}.product")


def _capped(weight: Array, bound: float) -> Array:
    """``weight`` with a spectral norm of at most ``bound``."""
    return np.asarray(weight / max(float(np.linalg.norm(weight, 2)) / bound, 1.0))


def _spectral_norm(tensors: Tensors) -> Array:
    """``torch.nn.utils.parametrizations.spectral_norm`` in evaluation, with the vectors that training left."""
    weight = tensors.f64("original", "2H", "H")
    norm = float(tensors.f64("0._u", "2H") @ weight @ tensors.f64("0._v", "H"))
    if not norm:
        raise tensors.misfit("original", "a spectral norm above zero", "0")
    return np.asarray(weight / norm)


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))


def _softplus(x: Array) -> Array:
    """As PyTorch has it, linear above 20."""
    return np.asarray(np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20)))))
