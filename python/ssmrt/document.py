"""The Document: what a trained model is, as a small tree of typed nodes over plain arrays.

Readers and families make one; the engine, the exporters and ``save`` take one. State-space nodes hold
*continuous-time* parameters; who runs them discretises. A Document is immutable, and on disk it is one
safetensors file whose metadata holds the tree as JSON (`to_bytes`, `from_bytes`).

Shapes use H channels (d_model), N stored modes, M outputs a channel, R rank, S distinct systems of which
channel ``h`` uses ``h % S``. Arrays are NumPy arrays of the dtype given with the field; real weights may be
float32 or float64. Every node maps ``(..., d_in)`` to ``(..., d_out)`` at each sample, and those that
remember do so along time.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import CheckpointError
from .readers import safetensors

Array = NDArray[Any]

VERSION = 1

Function = Literal[
    "identity",
    "gelu",  # x Phi(x), by erf
    "gelu_tanh",  # its tanh approximation, the default of JAX and Flax
    "relu",
    "leaky_relu",  # slope 0.01 below zero
    "silu",
    "sigmoid",
    "tanh",
    "softplus",  # log(1 + exp(x)), linear above 20
    "elu",
    "sqrelu",  # relu(x)^2
    "softmax",
    "log_softmax",
]
Discretization = Literal["zoh", "bilinear", "euler", "backward_euler", "gbt", "discrete", "dss"]
Scheme = Literal["im", "imex"]  # LinOSS'


@dataclass(frozen=True, eq=False)
class Node:
    """A layer. ``name`` is its place in the checkpoint, for tables, errors and exported graphs."""

    name: str = field(default="", kw_only=True)


@dataclass(frozen=True, eq=False)
class Linear(Node):
    """y = weight x + bias."""

    weight: Array  # float (d_out, d_in)
    bias: Array | None = None  # float (d_out,)


@dataclass(frozen=True, eq=False)
class Embedding(Node):
    """y = weight[token]; the input is one integer a sample.

    A `Linear` with the same array is tied to it: both are stored, and held by the engine, as one.
    """

    weight: Array  # float (vocabulary, d_out)


@dataclass(frozen=True, eq=False)
class Norm(Node):
    """Over the channels of one sample, or over each run of ``size`` of them (None: all; not for affine).

    layer:  (x - mean + shift) / sqrt(var + eps) * weight + bias, var biased
    rms:    x / sqrt(mean(x^2) + eps) * weight + bias
    affine: x * weight + bias (batch normalisation with its running statistics folded in)
    """

    kind: Literal["layer", "rms", "affine"]
    weight: Array | None = None  # float (d,)
    bias: Array | None = None  # float (d,)
    eps: float = 1e-5
    shift: float = 0.0
    size: int | None = None


@dataclass(frozen=True, eq=False)
class Activation(Node):
    """An element-wise function; softmax and log_softmax go over runs of ``size`` channels (None: all)."""

    function: Function
    size: int | None = None


@dataclass(frozen=True, eq=False)
class Glu(Node):
    """First half of the channels times ``gate`` of the second half (Dauphin et al. 2017, eq. 1)."""

    gate: Function = "sigmoid"


@dataclass(frozen=True, eq=False)
class Conv1d(Node):
    """Causal depthwise convolution: y[t] = sum_k weight[:, K-1-k] x[t-k] + bias.

    ``x0`` are the inputs before a stream's first sample, the oldest first; None: zeros.
    """

    weight: Array  # float (d, K)
    bias: Array | None = None  # float (d,)
    x0: Array | None = field(default=None, kw_only=True)  # float (d, K-1)


@dataclass(frozen=True, eq=False)
class Pool(Node):
    """One sample from a sequence. Streamed, it answers as if the sequence ended with this sample.

    Stands in the outermost ``Sequential`` only, once at most.
    """

    mode: Literal["mean", "sum", "last", "first"]


@dataclass(frozen=True, eq=False)
class StateSpace(Node):
    """What `Diagonal`, `Dplr` and `Dense` share: H independent systems with one input and M outputs each.

    x' = A x + B u, y = C x + D u, discretised with step dt. Outputs are flattened with the M axis
    outermost, (M H); with ``head_major`` with the channel outermost, (H M).

    ``C_reverse`` makes the layer bidirectional: y[t] also gets sum over j > t of K_reverse[j-t-1] u[j].
    ``kernel_length`` cuts the convolution kernel off after that many samples.
    A system with an eigenvalue outside the unit circle is refused unless ``allow_unstable``.
    """

    C: Array  # complex128 (float64 for Dense) (M, H, N)
    D: Array  # float64 (M, H)
    dt: Array | None  # float64 (H,), None where disc is "discrete"; Diagonal also (H, N)
    C_reverse: Array | None = field(default=None, kw_only=True)  # as C
    kernel_length: int | None = field(default=None, kw_only=True)
    head_major: bool = field(default=False, kw_only=True)
    allow_unstable: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, eq=False)
class Diagonal(StateSpace):
    """S4D (Gu et al. 2022), DSS (Gupta et al. 2022): A diagonal.

    y = 2 Re(C x) + D u with ``conjugate_pairs``, else Re(C x) + D u. Channels may have fewer modes than N: the rest of
    their rows of B and C is zero, so that no answer depends on it (`mode_counts`).
    disc "discrete": A and B are the discrete ones as they stand. disc "gbt" takes ``alpha``.
    disc "dss": upstream's S4 kernel of that name, normalised by the length of each sequence (not causal):
    K[l] = Re sum_n C B (e^{dt A}-1) conj(x)/(|x|^2+1e-7) e^{dt A l}, x = A (e^{dt A L}-1).
    """

    A: Array  # complex128 (S, N)
    B: Array  # complex128 (S, N)
    disc: Discretization = "zoh"
    alpha: float = 0.5
    conjugate_pairs: bool = True

    @property
    def mode_counts(self) -> NDArray[np.int64]:
        """The number of modes (H,) that each channel has: those after are zero in B or in every reader of C."""
        channels = np.arange(self.C.shape[1]) % len(self.B)
        read = (self.C != 0).any(0) | (False if self.C_reverse is None else (self.C_reverse != 0).any(0))
        used = read & (self.B[channels] != 0)
        counts: NDArray[np.int64] = np.where(used, np.arange(1, used.shape[1] + 1), 0).max(1, initial=0)
        return counts


@dataclass(frozen=True, eq=False)
class Dplr(StateSpace):
    """S4 (Gu et al. 2021): A_full = diag(A) - sum_r P_r Q_r^H, always bilinear.

    With ``conjugate_pairs`` the full system has modes [A, conj A], vectors [P, conj P], ... and
    y = 2 Re(C x) + D u over the stored half; else y = Re(C x) + D u. Q None means P.
    C is the true C, not the stored C (I - Abar^L).
    """

    A: Array  # complex128 (S, N)
    P: Array  # complex128 (R, S, N)
    B: Array  # complex128 (S, N)
    Q: Array | None = None  # complex128 (R, S, N)
    conjugate_pairs: bool = True


@dataclass(frozen=True, eq=False)
class Dense(StateSpace):
    """LSSL (Gu et al. 2021b): a full real matrix.

    disc "gbt", the generalised bilinear transform with ``alpha``; "zoh"; or "discrete": A and B as they stand.
    ``x0`` is x before a stream's first sample, where the kernel is not cut off; None: zero.
    """

    A: Array  # float64 (S, N, N)
    B: Array  # float64 (S, N)
    alpha: float = 0.5
    disc: Discretization = field(default="gbt", kw_only=True)
    x0: Array | None = field(default=None, kw_only=True)  # float64 (H, N)


@dataclass(frozen=True, eq=False)
class DiagonalMimo(Node):
    """S5 (Smith et al. 2023), LRU (Orvieto et al. 2023): one diagonal system, all inputs to all outputs.

    y = (2 if conjugate_pairs else 1) Re(C x + C_reverse z) + D u, where z runs backwards from the end:
    z[t] = Abar z[t+1] + Bbar u[t]. disc "discrete" (LRU): A and B are the discrete ones as they stand.
    With ``reverse_over_padding`` the backward pass starts at the end of the padding, as S5's does.
    ``x0`` is x before a stream's first sample: x[0] = Abar x0 + Bbar u[0]; None: zero. z starts at zero.
    """

    A: Array  # complex128 (N,)
    B: Array  # complex128 (N, d_in)
    C: Array  # complex128 (d_out, N)
    D: Array | None  # float64 (d_out,), where d_out == d_in
    dt: Array | None  # float64 (N,), None where disc is "discrete"
    disc: Discretization = "zoh"
    alpha: float = 0.5
    conjugate_pairs: bool = True
    C_reverse: Array | None = field(default=None, kw_only=True)  # complex128 (d_out, N)
    reverse_over_padding: bool = field(default=False, kw_only=True)
    allow_unstable: bool = field(default=False, kw_only=True)
    x0: Array | None = field(default=None, kw_only=True)  # complex128 (N,)


@dataclass(frozen=True, eq=False)
class Linoss(Node):
    """LinOSS (Rusch & Rus 2025): P oscillators x'' = -A x - G x' + B u, all inputs to all outputs; y = Re(C x) + D u.

    Each is stepped by its own dt, the velocity v first and then x' = x + dt v':
    imex: v' = v + dt (-A x - G v' + B u); im, which has no G: v' = v + dt (-A x' + B u).
    """

    A: Array  # float64 (P,), never negative
    B: Array  # complex128 (P, d_in)
    C: Array  # complex128 (d_out, P)
    D: Array | None  # float64 (d_out,), where d_out == d_in
    dt: Array  # float64 (P,)
    G: Array | None = None  # float64 (P,), never negative; None: no damping
    disc: Scheme = "imex"
    allow_unstable: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, eq=False)
class Selective(Node):
    """Mamba's S6 (Gu & Dao 2023, alg. 2): the input chooses dt, B and C at each sample.

    (r, B, C) = split(x_proj x); dt = softplus(dt_proj r + dt_bias);
    h = exp(dt A) h + dt B x; y = C h + D x.

    With ``norm_eps`` r, B and C go each through an RMS norm of that eps (FalconMamba, Jamba) before they are used;
    ``dt_norm``, ``B_norm`` and ``C_norm`` are the norms' weights, None being 1.
    ``x0`` is h before a stream's first sample; None: zero.
    """

    A: Array  # float64 (d, N), negative
    x_proj: Array  # float (R + 2 N, d)
    dt_proj: Array  # float (d, R)
    dt_bias: Array  # float (d,)
    D: Array  # float64 (d,)
    norm_eps: float | None = None
    dt_norm: Array | None = None  # float (R,)
    B_norm: Array | None = None  # float (N,)
    C_norm: Array | None = None  # float (N,)
    x0: Array | None = field(default=None, kw_only=True)  # float64 (d, N)


@dataclass(frozen=True, eq=False)
class Ssd(Node):
    """Mamba-2's state-space duality (Dao & Gu 2024): the input chooses dt, B and C; one dt and one A a head.

    (x, B, C) = split(xBC(u)), of d, G N and G N channels for G ``groups`` and N = ``d_state``;
    dt = softplus(dt(u) + dt_bias), kept within ``dt_min`` and ``dt_max`` (None: unbounded). Of each head, whose
    d / heads channels are neighbours: h = exp(dt A) h + dt x B^T; y = h C + D x. Neighbouring heads
    share a group's B and C. With disc "zoh" (exp(dt A) - 1) / A multiplies x B^T, which a zero-order hold makes of B,
    in the place of dt. ``x0`` is h before a stream's first sample; None: zero.
    """

    xBC: Node
    dt: Node
    A: Array  # float64 (heads,), never positive
    dt_bias: Array  # float (heads,)
    D: Array  # float64 (d,)
    d_state: int
    groups: int
    dt_min: float = 0.0
    dt_max: float | None = None
    disc: Discretization = field(default="euler", kw_only=True)
    x0: Array | None = field(default=None, kw_only=True)  # float64 (d, N)


@dataclass(frozen=True, eq=False)
class Sequential(Node):
    """One after the other; an empty one is the identity."""

    children: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Residual(Node):
    """y = alpha skip(x) + beta child(x); skip None is the identity."""

    child: Node
    skip: Node | None = None
    alpha: float = 1.0
    beta: float | Array = 1.0  # float, or float (d,)


@dataclass(frozen=True, eq=False)
class Gate(Node):
    """y = left(x) * right(x), element by element."""

    left: Node
    right: Node


@dataclass(frozen=True, eq=False)
class Document:
    """A whole model. ``meta`` says where it came from (``arch``, ``source``, ...): strings, never needed to run.

    ``sample_rate`` is the number of samples a second of its training, ``labels`` names its outputs, each once.
    Raises ValueError where they cannot be that.

    >>> document = ssmrt.Document(ssmrt.nn.linear(np.ones((2, 3))), d_input=3, d_output=2, labels=("left", "right"))
    >>> ssmrt.Model(document)
    <ssmrt.Model model: 3 -> 2, 6 parameters, float32>
    """

    root: Node
    d_input: int  # of one sample; 1 for tokens
    d_output: int
    meta: Mapping[str, str] = field(default_factory=dict)
    sample_rate: float | None = None
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what no model can have."""
        rate, labels = self.sample_rate, self.labels
        # A bool is an int.
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if rate is not None and not (number and 0 < rate <= sys.float_info.max):
            raise ValueError(f"sample_rate: expected a positive number of samples a second, found {rate!r}")
        if labels is None:
            return
        names = isinstance(labels, tuple) and all(isinstance(label, str) and label for label in labels)
        if not names or len(set(labels)) < len(labels):
            raise ValueError(f"labels: expected names, none empty and none twice, found {labels!r}")
        if len(labels) != self.d_output:
            raise ValueError(f"labels: expected {self.d_output}, one an output, found {len(labels)}: {labels!r}")

    @property
    def tokens(self) -> bool:
        """Whether the input is integer tokens."""
        return isinstance(first(self.root), Embedding)


KINDS: dict[str, type[Node]] = {
    "linear": Linear,
    "embedding": Embedding,
    "norm": Norm,
    "activation": Activation,
    "glu": Glu,
    "conv1d": Conv1d,
    "pool": Pool,
    "diagonal": Diagonal,
    "dplr": Dplr,
    "dense": Dense,
    "diagonal_mimo": DiagonalMimo,
    "linoss": Linoss,
    "selective": Selective,
    "ssd": Ssd,
    "sequential": Sequential,
    "residual": Residual,
    "gate": Gate,
}
KIND_OF = {cls: kind for kind, cls in KINDS.items()}


def first(node: Node) -> Node:
    """The node that meets the input."""
    if isinstance(node, Sequential) and node.children:
        return first(node.children[0])
    return node


def last(node: Node) -> Node:
    """The node that gives the answer."""
    if isinstance(node, Sequential) and node.children:
        return last(node.children[-1])
    return node


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, in the order in which they run."""
    yield node
    for child in branches(node):
        yield from walk(child)


def branches(node: Node) -> Iterator[Node]:
    """The nodes directly below ``node``."""
    for f in fields(node):
        value = getattr(node, f.name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple):
            yield from value


_SAFE_DTYPE = {"float32": "F32", "float64": "F64"}
METADATA_KEY = "ssmrt"
_KIND_KEY = "node"  # not "kind": Norm has a field of that name


def encode(document: Document) -> tuple[str, dict[str, Array]]:
    """The Document's tree as JSON, and its tensors: float32 or float64, C-contiguous.

    Complex arrays become float64 with a last axis (re, im). Arrays that are stored as they stand are not copied.
    """
    tensors: dict[str, Array] = {}
    tree = {
        "version": VERSION,
        "d_input": document.d_input,
        "d_output": document.d_output,
        "meta": dict(document.meta),
        "root": _pack(document.root, "root", tensors, {}),
    }
    if document.sample_rate is not None:
        tree["sample_rate"] = document.sample_rate
    if document.labels is not None:
        tree["labels"] = list(document.labels)
    return json.dumps(tree), tensors


# Not inside of `encode`: a function that calls itself from inside of another keeps that one's variables, all arrays,
# until garbage is collected.
def _pack(value: Any, path: str, tensors: dict[str, Array], tables: dict[int, str]) -> Any:
    if isinstance(value, Node):
        inner = {f.name: _pack(getattr(value, f.name), f"{path}.{f.name}", tensors, tables) for f in fields(value)}
        # The one linear map that is tied to the table of tokens has no tensor of its own.
        if isinstance(value, Embedding):
            tables[id(value.weight)] = f"{path}.weight"
        elif isinstance(value, Linear) and (table := tables.pop(id(value.weight), None)) is not None:
            del tensors[f"{path}.weight"]
            inner["weight"] = {"real": table}
        return {_KIND_KEY: KIND_OF[type(value)], **inner}
    if isinstance(value, tuple):
        return [_pack(item, f"{path}.{i}", tensors, tables) for i, item in enumerate(value)]
    if isinstance(value, np.ndarray):
        is_complex = np.iscomplexobj(value)
        if is_complex:
            value = np.stack([value.real, value.imag], -1).astype(np.float64)
        if value.dtype.name not in _SAFE_DTYPE:
            value = value.astype(np.float64)
        # Of an array without axes this would make one with one.
        tensors[path] = np.ascontiguousarray(value).reshape(value.shape)
        return {"complex" if is_complex else "real": path}
    return value


def decode(tree: str, real: Callable[[str], Array], complex_: Callable[[str], Array], source: str) -> Document:
    """The Document of a tree as JSON; ``real`` and ``complex_`` give the tensors by name.

    ``source`` names it in errors. Raises `CheckpointError` where the tree is damaged. What the numbers mean is checked
    by the engine, which refuses a Document that cannot run.
    """
    try:
        parsed = json.loads(tree)
        if parsed["version"] != VERSION:
            raise CheckpointError(
                f"{source}: expected format version {VERSION}, found {parsed['version']!r}; install a newer ssmrt"
            )
        root = _unpack(parsed["root"], 0, real, complex_, source)
        labels = parsed.get("labels")
        document = Document(
            root,
            int(parsed["d_input"]),
            int(parsed["d_output"]),
            dict(parsed["meta"]),
            parsed.get("sample_rate"),
            tuple(labels) if isinstance(labels, list) else labels,
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{source}: the model's tree is damaged: {error!r}") from None
    if not isinstance(root, Node):
        raise CheckpointError(f"{source}: the model's tree has no root node")
    return document


def _unpack(value: Any, depth: int, real: Callable[[str], Array], complex_: Callable[[str], Array], source: str) -> Any:
    if depth > 100:
        raise CheckpointError(f"{source}: the model's tree is nested more than 100 deep")
    if isinstance(value, list):
        return tuple(_unpack(item, depth + 1, real, complex_, source) for item in value)
    if not isinstance(value, dict):
        return value
    if _KIND_KEY in value:
        kind = KINDS.get(value[_KIND_KEY])
        if kind is None:
            raise CheckpointError(f"{source}: unknown node kind {value[_KIND_KEY]!r}; known are {', '.join(KINDS)}")
        inner = {k: _unpack(v, depth + 1, real, complex_, source) for k, v in value.items() if k != _KIND_KEY}
        try:
            return kind(**inner)
        except TypeError as error:
            raise CheckpointError(f"{source}: node {value[_KIND_KEY]!r}: {error}") from None
    return complex_(value["complex"]) if "complex" in value else real(value["real"])


def to_bytes(document: Document) -> bytes:
    """The Document as one safetensors buffer."""
    tree, tensors = encode(document)
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: tree}}
    offset = 0
    for path, array in tensors.items():
        header[path] = {
            "dtype": _SAFE_DTYPE[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in tensors.values())


def from_bytes(data: bytes, source: str) -> Document:
    """The Document in a buffer that `to_bytes` wrote; its arrays are views of the buffer where they can be.

    Raises `CheckpointError` where the buffer, which ``source`` names, is not such a file.
    """
    metadata, tensors = safetensors.parse(data, source)
    if METADATA_KEY not in metadata:
        raise CheckpointError(f"{source}: expected ssmrt's own format, found a safetensors file without its header")

    def complex_(name: str) -> Array:
        pair = tensors[name]
        if pair.dtype != np.float64 or pair.shape[-1:] != (2,):
            raise CheckpointError(
                f"{source}: tensor {name!r}: expected float64 (..., 2), found {pair.dtype} {pair.shape}"
            )
        return np.ascontiguousarray(pair).view(np.complex128)[..., 0]

    return decode(metadata[METADATA_KEY], tensors.__getitem__, complex_, source)
