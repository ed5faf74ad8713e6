"""S4 layers written for Equinox: yardenas' SequenceBlock, and the bare layer of Equinox issue #398.

Both follow the Annotated S4 with the channels on axis 0, and both need the sequence length of training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Activation, Document, Dplr, Glu, Norm, Residual, Sequential
from ..errors import CheckpointError
from ..readers.checkpoint import Checkpoint
from . import equinox, parts, truncated
from .config import Config
from .facts import TRAINING, facts, named
from .tensors import Tensors

ARCH = "equinox-s4"
WITHOUT_NAMES = True

Array = NDArray[Any]

_BARE = ("Lambda_re", "Lambda_im", "P", "B", "C", "D", "log_step")
_LENGTHS = ("sequence_size", "sequence_length", "seq_len", "l_max", "L")
_SIZES = {"H": "H", "hidden_size": "H", "N": "N", "hippo_n": "N", "state_size": "N"}
FACTS = (
    TRAINING
    | named(ARCH, "SequenceBlock", "S4Layer")
    | facts(used=" ".join(_LENGTHS), checked=" ".join(_SIZES), idle="key training decode mode rnn_mode")
)

# Tensors that such layers compute from their parameters and keep; training leaves them out of date.
_DERIVED = re.compile(r"ssm\b.*|.*kernel.*|K|Lambda|step|[ABC]_?b(ar)?|(x_k|hidden|state|cache).*")


def matches(tensors: Mapping[str, Any]) -> bool:
    """Whether the names are those of a SequenceBlock or of the bare layer."""
    names = {name.removeprefix(".") for name in tensors}
    return "cell.lambda_real" in names or names.issuperset(_BARE)


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The layer or block as upstream runs it in evaluation, (..., H) -> (..., H).

    A file without names is taken for a SequenceBlock. ``config`` holds ``hidden_size``, ``hippo_n`` and
    ``sequence_length``; for the bare layer ``H``, ``N`` and ``sequence_size``.

    Raises
    ------
    CheckpointError
        A tensor is missing, left over or misshapen, or contradicts the config.
    ConfigRequired
        The sequence length is not known.
    """
    said = Config(config, checkpoint, FACTS, ARCH)
    tensors = equinox.plain_names(checkpoint.tensors if checkpoint.named else _name_block(checkpoint, said))
    view = Tensors(tensors, checkpoint.source)
    block = "cell.lambda_real" in view
    document = _block(view, checkpoint, said) if block else _layer(view, tensors, checkpoint, said)
    view.finish()
    said.finish()
    return document


def _name_block(checkpoint: Checkpoint, config: Config) -> dict[str, Array]:
    """Names for a SequenceBlock; ``cell.sequence_length`` is there where upstream's field was not yet static."""
    records = equinox.unnamed(checkpoint)
    shape = records[0].shape if records and records[0].ndim == 2 else (1, 1)
    H = config.positive("hidden_size", shape[0])
    N = config.positive("hippo_n", shape[1])
    cell = [equinox.Record(f"cell.{name}", "real", (H, N)) for name in ("lambda_real", "lambda_imag")]
    cell += [equinox.Record(f"cell.{name}", "complex", (H, N)) for name in ("p", "b")]
    cell += [equinox.Record("cell.c", "real", (H, N, 2))]
    cell += [equinox.Record(f"cell.{name}", "real", (H, 1)) for name in ("d", "step")]
    rest = [*equinox.linear_records("out", H, H), *equinox.linear_records("out2", H, H)]
    rest += [equinox.Record("norm.weight", "real", (H,)), equinox.Record("norm.bias", "real", (H,))]
    rest += [equinox.Record("hippo_n", "int", value=N)]
    length = [equinox.Record("cell.sequence_length", "int")] if len(records) > len(cell) + len(rest) else []
    return equinox.named(checkpoint, [*cell, *length, *rest])


def _block(tensors: Tensors, checkpoint: Checkpoint, config: Config) -> Document:
    """norm, S4, gelu, out(x) sigmoid(out2(x)), and the skip."""
    cell = tensors.scope("cell.")
    real = np.minimum(cell.f64("lambda_real", "H", "N"), parts.CLIP)
    A = real + 1j * cell.f64("lambda_imag", "H", "N")
    H, N = tensors.dims["H"], tensors.dims["N"]
    for name, dim in _SIZES.items():
        config.agree(name, tensors.dims[dim], "cell.lambda_real")
    if (stored := equinox.integer(tensors, "hippo_n")) not in (None, N):
        raise tensors.misfit("hippo_n", str(N), str(stored))
    length = equinox.integer(cell, "sequence_length")
    name = config.alias("sequence_length", *_LENGTHS)
    l_max = truncated.length(
        config, name, checkpoint, stored=None if length is None else (length, "cell.sequence_length")
    )
    ssm = _dplr(
        A,
        P=cell.complex("p", "H", "N"),
        B=cell.complex("b", "H", "N"),
        stored_C=cell.complex("c", "H", "N"),
        D=cell.f64("d", "H", 1)[:, 0],
        dt=parts.exp(cell, "step", "H", 1)[:, 0],
        l_max=l_max,
        name="cell",
        source=checkpoint.source,
    )
    norm = Norm(
        "layer",
        tensors.optional("norm.weight", "H"),
        tensors.optional("norm.bias", "H"),
        eps=equinox.NORM_EPS,
        name="norm",
    )
    out, out2 = equinox.linear(tensors, "out", "H", "H"), equinox.linear(tensors, "out2", "H", "H")
    child = Sequential((norm, ssm, Activation("gelu_tanh"), parts.side_by_side(out, out2), Glu()))
    return Document(Sequential((Residual(child),)), H, H, {"arch": ARCH})


def _layer(tensors: Tensors, arrays: Mapping[str, Array], checkpoint: Checkpoint, config: Config) -> Document:
    """The bare layer. Discrete systems and kernels that it keeps are checked for their length, and computed anew."""
    if not all(name in tensors for name in _BARE):
        raise CheckpointError(
            f"{checkpoint.source}: expected an S4 layer's {', '.join(_BARE)} or a SequenceBlock's cell.lambda_real,"
            f" found {', '.join(tensors.names[:8]) or 'nothing'}"
        )
    real = np.minimum(tensors.f64("Lambda_re", "H", "N"), parts.CLIP)
    A = real + 1j * tensors.f64("Lambda_im", "H", "N")
    P = tensors.complex("P", "H", "N")
    H = A.shape[0]
    dt, D = _per_channel(tensors, "log_step", H, parts.exp), _per_channel(tensors, "D", H, Tensors.f64)
    for name, dim in _SIZES.items():
        config.agree(name, tensors.dims[dim], "Lambda_re")
        if (stored := equinox.integer(tensors, name)) not in (None, tensors.dims[dim]):
            raise tensors.misfit(name, str(tensors.dims[dim]), str(stored))
    name = config.alias(*_LENGTHS)
    l_max = truncated.length(config, name, checkpoint, stored=_stored_length(tensors, arrays, H))
    ssm = _dplr(
        A,
        P=P,
        B=tensors.complex("B", "H", "N"),
        stored_C=tensors.complex("C", "H", "N"),
        D=D,
        dt=dt,
        l_max=l_max,
        name="S4Layer",
        source=checkpoint.source,
    )
    _check_stored_system(tensors, arrays, ssm, l_max)
    for other, array in arrays.items():
        # Numbers of Python's that the module keeps repeat what the shapes say, or choose between modes.
        if _DERIVED.fullmatch(other) or (array.shape == () and array.dtype.kind in "iub"):
            tensors.ignore(other)
    return Document(Sequential((ssm,)), H, H, {"arch": ARCH})


def _per_channel(tensors: Tensors, name: str, H: int, take: Callable[..., Array]) -> Array:
    """One number a channel, stored as (H,), (H, 1), (1, H), or as one for all."""
    shape = tensors.shape(name)
    array = take(tensors, name, *shape)
    if array.size not in (1, H):
        raise tensors.misfit(name, f"({H},) or one number", str(shape))
    return np.array(np.broadcast_to(array.reshape(-1), (H,)))


def _stored_length(tensors: Tensors, arrays: Mapping[str, Array], H: int) -> tuple[int, str] | None:
    """The sequence length, where an integer of the module or the length of a kept kernel tells it."""
    for name in _LENGTHS:
        if (value := equinox.integer(tensors, name)) is not None:
            return value, name
    for name, array in arrays.items():
        # One that is complex is the kernel's transform, whose length is another.
        if "kernel" in name and array.ndim == 2 and array.dtype.kind == "f" and H in array.shape:
            return array.shape[1] if array.shape[0] == H else array.shape[0], name
    return None


def _check_stored_system(tensors: Tensors, arrays: Mapping[str, Array], ssm: Dplr, l_max: int) -> None:
    """Raise where a kept discrete system of the same parameters was made for another length."""
    H, N = ssm.A.shape
    kept_A, kept_C = arrays.get("ssm[0]"), arrays.get("ssm[2]")
    if kept_A is None or kept_C is None or kept_A.shape != (H, N, N) or kept_C.size != H * N:
        return
    assert ssm.dt is not None
    discrete = np.stack([truncated.discrete_A(*channel) for channel in zip(ssm.A, ssm.P[0], ssm.dt)])
    if truncated.contradicts(discrete, ssm.C[0], kept_A, kept_C.reshape(H, N)):
        raise tensors.misfit("ssm[2]", f"the discrete C for a sequence length of {l_max}", "one for another length")


def _dplr(
    A: Array,
    *,
    P: Array,
    B: Array,
    stored_C: Array,
    D: Array,
    dt: Array,
    l_max: int,
    name: str,
    source: str,
) -> Dplr:
    C = truncated.true_C(A, P, stored_C.conj(), dt, l_max, source)
    return Dplr(C=C[None], D=D[None], dt=dt, A=A, P=P[None], B=B, conjugate_pairs=False, name=name)
