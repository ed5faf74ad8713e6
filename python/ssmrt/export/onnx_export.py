"""`export_onnx`: a Document as an ONNX graph in real arithmetic."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import checks, writing
from ..document import Document, Embedding, Pool, first, walk
from ..errors import ExportError
from .builder import OPSETS, GraphBuilder
from .context import Context
from .contract import Contract, ssmrt_version
from .layout import LAYOUTS
from .lower import lower
from .quantize import Float, Int8, Mixing, Range, signal_to_noise
from .report import ExportReport, Quantization, count
from .session import Session
from .systems import Systems

Array = NDArray[Any]


class HasDocument(Protocol):
    """A model."""

    @property
    def document(self) -> Document:
        """What it runs."""
        ...


@dataclass(frozen=True)
class Options:
    """The arguments of `export_onnx` that shape the graph, checked."""

    mode: str = "step"
    chunk: int | None = None
    batch: int = 1
    rate: float = 1.0
    opset: int = 17
    layout: str = "planes"

    def __post_init__(self) -> None:
        """Raise `ExportError` where an argument is of another kind or out of range."""
        try:
            checks.word("mode", self.mode, ("step", "chunk"))
            checks.whole("batch", self.batch, 1)
            checks.positive("rate", self.rate)
            opset = checks.whole("opset", self.opset)
            checks.word("layout", self.layout, tuple(LAYOUTS))
            if self.chunk is not None:
                checks.whole("chunk", self.chunk, 1)
        except (TypeError, ValueError) as error:
            raise ExportError(str(error)) from None
        if self.mode == "chunk" and self.chunk is None:
            raise ExportError("chunk: mode='chunk' needs a number of samples a call, found None")
        if self.mode == "step" and self.chunk is not None:
            raise ExportError(f"chunk={self.chunk!r} has no meaning in mode='step'; use mode='chunk'")
        if opset not in OPSETS:
            raise ExportError(f"opset: expected {OPSETS.start} to {OPSETS.stop - 1}, found {opset}")


def document_of(model: Document | HasDocument) -> Document:
    """The Document of a model, or itself."""
    document = getattr(model, "document", model)
    if not isinstance(document, Document):
        raise TypeError(f"model: expected an ssmrt model or Document, found {type(model).__name__}")
    return document


def build(
    document: Document, options: Options, mixing: Mixing | None = None, *, probe: bool = False
) -> tuple[Any, Contract]:
    """The ``ModelProto`` and its contract. With ``probe`` the mixing layers' inputs are outputs ``probe_{i}`` too."""
    mixing = Float() if mixing is None else mixing
    b = GraphBuilder(options.opset)
    chunk = None if options.chunk is None else int(options.chunk)
    x, y = b.reserve("x"), b.reserve("y")

    def linear(x: str, weight: Array, bias: Array | None) -> str:
        return mixing(b, x, weight, bias, row=chunk is None)

    systems = Systems(document, float(options.rate))
    c = Context(b, int(options.batch), chunk, float(options.rate), LAYOUTS[options.layout], systems, linear)
    out, _ = lower(c, x, document.d_input, document.root)
    b.op("Identity", out, out=y)
    head = first(document.root)
    contract = Contract(
        mode=options.mode,
        chunk=chunk,
        batch=int(options.batch),
        rate=float(options.rate),
        d_input=document.d_input,
        d_output=document.d_output,
        vocabulary=len(head.weight) if isinstance(head, Embedding) else None,
        pooling=next((node.mode for node in walk(document.root) if isinstance(node, Pool)), None),
        states=tuple(b.states),
        layout=options.layout,
        quantize=None if isinstance(mixing, Float) else "int8",
        ssmrt_version=ssmrt_version(),
        meta={str(key): str(value) for key, value in document.meta.items()},
    )
    kind = "FLOAT" if contract.vocabulary is None else "INT64"
    probes = []
    if probe and isinstance(mixing, Float):
        for i, (entering, width) in enumerate(mixing.inputs):
            probes.append((b.op("Identity", entering, out=b.reserve(f"probe_{i}")), c.signal(width)))
    model = b.model((x, kind, contract.x_shape()), (y, contract.y_shape()), contract.metadata(), probes)
    return model, contract


def export_onnx(
    model: Document | HasDocument,
    path: str | os.PathLike[str],
    *,
    mode: str = "step",
    chunk: int | None = None,
    batch: int = 1,
    rate: float = 1.0,
    opset: int = 17,
    quantize: str | None = None,
    calibration: ArrayLike | None = None,
    layout: str = "planes",
    contract_json: bool = False,
) -> ExportReport:
    """Write the model as an ONNX graph that takes one sample, or one chunk, a call.

    The graph has inputs ``x`` and ``state_{i}`` and outputs ``y`` and ``next_state_{i}``: float32, static shapes,
    real arithmetic, no Scan, Loop, Einsum, FFT. Feed every ``next_state_{i}`` back as ``state_{i}``, starting from
    zeros; both may be the same buffer. The contract is in ``metadata_props["ssmrt"]``.

    Parameters
    ----------
    model
        An ssmrt model, or a Document.
    path
        The file to write; on failure nothing is written.
    mode
        "step": ``x`` (batch, d_input) to ``y`` (batch, d_output). "chunk": ``chunk`` samples a call, by precomputed
        products, ``x`` (batch, chunk, d_input) to ``y`` (batch, chunk, d_output). Tokens are int64 (batch,) or
        (batch, chunk). A pooled model answers at every sample as if the sequence ended there.
    chunk
        Samples a call of mode "chunk".
    batch
        Streams side by side.
    rate
        Multiplies every step size: sampling at another rate, baked into the graph.
    opset
        13 to 20.
    quantize
        None, or "int8": the mixing layers' weights in int8, one scale an output channel.
    calibration
        With "int8", typical input (length, d_input) or (sequences, length, d_input), tokens without the last axis:
        then the mixing layers' inputs are in int8 too, with the ranges seen. Each sequence starts from zero.
    layout
        "planes": fastest in ONNX Runtime. "blocks": fewest instructions in generated C.
    contract_json
        Write the contract as JSON beside the graph too, at ``path`` with the suffix ``.json``.

    Returns
    -------
    ExportReport
        Sizes, operations a call and, quantised, the signal-to-noise ratio against float32.

    Raises
    ------
    ExportError
        A model that is not causal, a mode without meaning for it, an option out of range.
    TypeError
        ``model`` or ``path`` is none.
    """
    document = document_of(model)
    options = Options(mode, chunk, batch, rate, opset, layout)
    target = checks.path("path", path)
    proto, contract, quantization = make(document, options, quantize, calibration)
    data = proto.SerializeToString()
    files = {target: data}
    if contract_json:
        files[target.with_suffix(".json")] = json.dumps(contract.as_dict(), indent=2).encode() + b"\n"
    writing.write(files)
    state_bytes = sum(4 * prod(state.shape) for state in contract.states)
    return ExportReport(
        path=target,
        mode=mode,
        chunk=contract.chunk,
        opset=int(opset),
        states=tuple((state.layer, state.shape) for state in contract.states),
        file_bytes=len(data),
        cost=count(proto, state_bytes),
        quantization=quantization,
    )


def make(
    document: Document, options: Options, quantize: str | None, calibration: ArrayLike | None
) -> tuple[Any, Contract, Quantization | None]:
    """The ``ModelProto``, its contract and, where quantised, how well."""
    if quantize is None:
        if calibration is not None:
            raise ExportError("calibration: only quantize='int8' takes calibration data")
        return *build(document, options), None
    if quantize != "int8":
        raise ExportError(f"quantize: expected None or 'int8', found {quantize!r}")
    single = Options(rate=options.rate, opset=options.opset)
    mixing = Float()
    reference, _ = build(document, single, mixing, probe=True)
    if not mixing.inputs:
        raise ExportError("quantize='int8': the model has no mixing layer (Linear) whose weights could be int8")
    samples = _excitation(document) if calibration is None else _calibration(document, calibration)
    expected, ranges = _observe(
        reference.SerializeToString(), samples, [f"probe_{i}" for i in range(len(mixing.inputs))]
    )
    scale = ranges if calibration is not None else None
    quiet, _ = build(document, single, Int8(scale))
    found, _ = _observe(quiet.SerializeToString(), samples, [])
    before, _ = build(document, options)
    proto, contract = build(document, options, Int8(scale))
    quantization = Quantization(
        scheme="weights and inputs of mixing layers" if scale else "weights of mixing layers",
        signal_to_noise=signal_to_noise(expected, found),
        samples=expected.shape[0] * expected.shape[1],
        bytes_before=count(before, 0).weight_bytes,
        bytes_after=count(proto, 0).weight_bytes,
    )
    return proto, contract, quantization


def _excitation(document: Document, length: int = 100) -> Array:
    """White noise to compare on, where the caller has no data: (1, length, d_input), or tokens (1, length)."""
    rng = np.random.default_rng(0)
    head = first(document.root)
    if isinstance(head, Embedding):
        return rng.integers(0, len(head.weight), (1, length))
    return rng.standard_normal((1, length, document.d_input), np.float32)


def _calibration(document: Document, calibration: ArrayLike) -> Array:
    data = np.asarray(calibration)
    head = first(document.root)
    if isinstance(head, Embedding):
        data = data[None] if data.ndim == 1 else data
        if data.ndim != 2 or data.dtype.kind not in "iu" or not data.size:
            raise ExportError(
                "calibration: expected integer tokens (length,) or (sequences, length),"
                f" found {data.dtype} {data.shape}"
            )
        if data.min() < 0 or data.max() >= len(head.weight):
            raise ExportError(f"calibration: expected tokens from 0 to {len(head.weight) - 1}")
        return data.astype(np.int64)
    data = data[None] if data.ndim == 2 else data
    if data.ndim != 3 or data.shape[-1] != document.d_input or data.dtype.kind not in "fiu" or not data.size:
        raise ExportError(
            f"calibration: expected numbers (length, {document.d_input}) or (sequences, length, {document.d_input}),"
            f" found {data.dtype} {np.shape(calibration)}"
        )
    if not np.isfinite(data).all():
        raise ExportError("calibration: expected finite numbers, found NaN or infinity")
    return data.astype(np.float32)


def _observe(model: bytes, samples: Array, probes: list[str]) -> tuple[Array, list[Range]]:
    """The outputs (sequences, length, d_output), and the least and greatest value of every probe."""
    session = Session(model, exact=True)
    outputs = []
    low, high = np.full(len(probes), np.inf), np.full(len(probes), -np.inf)
    for sequence in samples:
        session.reset()
        for sample in sequence:
            y, seen = session.run(sample[None], probes)
            outputs.append(y[0])
            low = np.minimum(low, [value.min() for value in seen])
            high = np.maximum(high, [value.max() for value in seen])
    ranges = [(float(a), float(z)) for a, z in zip(low, high, strict=True)]
    return np.stack(outputs).reshape(*samples.shape[:2], -1), ranges
