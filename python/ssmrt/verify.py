"""`verify`: whether every way to run a model gives the same answers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks
from . import document as doc
from .errors import UnsupportedError
from .model import Method, Model

Array = NDArray[Any]

FLOAT32_TO_FLOAT64 = 1e-5
FLOAT32_TO_FLOAT32 = 2e-6
FLOAT64 = 1e-10
INT8 = 0.1


@dataclass(frozen=True)
class Check:
    """One comparison: max |difference| / max |reference|. ``error`` None: it does not apply, ``note`` says why."""

    name: str
    against: str
    error: float | None
    tolerance: float
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error is None or self.error <= self.tolerance


@dataclass(frozen=True)
class Stability:
    """The largest discrete eigenvalue of a layer: whose, and its modulus."""

    layer: str
    place: str
    radius: float
    unstable: bool


@dataclass(frozen=True)
class Verification:
    """What `verify` found. ``layers`` are the errors after each layer of the outermost sequence.

    ``signal_to_noise`` is the model's own: decibels of weights that were rounded, None where none was.
    ``stability`` has a row for each state-space layer that its parameters do not show to be stable at every rate: its
    name, the modulus of its largest discrete eigenvalue, and whether that lies outside the unit circle.
    """

    checks: tuple[Check, ...]
    layers: tuple[Check, ...] = ()
    stability: tuple[Stability, ...] = ()
    signal_to_noise: float | None = None

    @property
    def ok(self) -> bool:
        """Whether every comparison is within its tolerance."""
        return all(check.ok for check in (*self.checks, *self.layers))

    def as_dict(self) -> dict[str, Any]:
        """The result in plain types."""
        return {
            "ok": self.ok,
            "checks": [{**asdict(c), "ok": c.ok} for c in self.checks],
            "layers": [{**asdict(c), "ok": c.ok} for c in self.layers],
            "stability": [asdict(s) for s in self.stability],
            "signal_to_noise": self.signal_to_noise,
        }

    def __str__(self) -> str:
        """The result as a table."""
        rows = [("", "against", "error", "tolerance", "")]
        for check in (*self.checks, *self.layers):
            error = "-" if check.error is None else f"{check.error:.1e}"
            verdict = check.note or ("ok" if check.ok else "WRONG")
            rows.append((check.name, check.against, error, f"{check.tolerance:.0e}", verdict))
        for row in self.stability:
            verdict = "UNSTABLE: its state grows" if row.unstable else "ok"
            rows.append((f"stability of {row.layer}", row.place, f"{row.radius:.6g}", "1", verdict))
        if self.signal_to_noise is not None:
            rows.append(("weights", "as given", f"{self.signal_to_noise:.1f} dB", "", "signal to noise"))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)


def verify(
    model: Model,
    onnx: str | os.PathLike[str] | None = None,
    *,
    u: ArrayLike | None = None,
    layers: bool = False,
) -> Verification:
    """Compare all ways to run a model: step = push = forward (scan, chunk, fft) = float64 = ONNX.

    Parameters
    ----------
    model
        Any model; one that is not causal is compared as far as it runs.
    onnx
        A graph that `export_onnx` made of this model.
    u
        Input (batch, length, d_input), or tokens (batch, length). None: two sequences of noise.
    layers
        Whether the outermost layers are compared one by one too, to see where an error enters.

    Raises
    ------
    ExportError
        ``onnx`` is no graph of ssmrt's. ImportError: ONNX Runtime is missing.
    ValueError, TypeError
        ``u`` does not fit the model, or the graph does not; ``model`` is none.
    """
    checks.instance("model", model, Model, "a model")
    if onnx is not None:
        onnx = checks.path("onnx", onnx)
    u = _noise(model.document) if u is None else checks.array("u", u)
    compared = list(_checks(model, u))
    if onnx is not None:
        compared.append(_onnx(model, onnx, u))
    after = tuple(_layers(model, u)) if layers else ()
    return Verification(tuple(compared), after, tuple(_stability(model)), model.signal_to_noise)


def _stability(model: Model) -> Iterator[Stability]:
    for layer in model.layers():
        if layer["radius"] is not None:
            yield Stability(layer["name"] or layer["kind"], layer["place"], layer["radius"], layer["unstable"])


def _checks(model: Model, u: Array) -> Iterator[Check]:
    exact = Model(model.document, "float64")
    single = model.dtype == np.float32
    within, to_exact = (FLOAT32_TO_FLOAT32, FLOAT32_TO_FLOAT64) if single else (FLOAT64, FLOAT64)
    reference = exact(u, method="scan")
    yield from _methods(exact, u, reference, "float64", FLOAT64)
    if single:
        yield from _methods(model, u, reference, "float64", to_exact)
    if not model.streamable:
        why = "needs the whole sequence"
        yield Check("push", "float64", None, to_exact, why)
        yield Check("step", "float64", None, to_exact, why)
        return
    running = exact.stream(len(u)).push(u)
    pushed, stepped = _pushed(model, u), _stepped(model, u)
    forward = model(u)
    yield Check("push, random chunks", "float64", error(pushed, running), to_exact)
    yield Check("step", "float64", error(stepped, running), to_exact)
    last = forward.ndim == 2
    yield Check("push, random chunks", "forward", error(pushed[:, -1] if last else pushed, forward), within)
    yield Check("step", "forward", error(stepped[:, -1] if last else stepped, forward), within)


def _methods(model: Model, u: Array, reference: Array, against: str, tolerance: float) -> Iterator[Check]:
    methods: tuple[Method, ...] = ("auto", "scan", "chunk", "fft")
    for method in methods:
        name = f"forward {method} {model.dtype}"
        try:
            yield Check(name, against, error(model(u, method=method), reference), tolerance)
        except UnsupportedError as reason:
            yield Check(name, against, None, tolerance, str(reason))


def _pushed(model: Model, u: Array) -> Array:
    rng = np.random.default_rng(1)
    cuts = np.unique(rng.integers(0, u.shape[1], 5))
    stream = model.stream(len(u))
    return np.concatenate([stream.push(part) for part in np.split(u, cuts, axis=1) if part.shape[1]], axis=1)


def _stepped(model: Model, u: Array) -> Array:
    stream = model.stream(len(u))
    return np.stack([stream.step(u[:, t]) for t in range(u.shape[1])], axis=1)


def _onnx(model: Model, path: str | os.PathLike[str], u: Array) -> Check:
    from .export import OnnxStream

    graph = OnnxStream(os.fspath(path))
    facts = graph.contract
    exact = Model(model.document, "float64")
    if (facts["d_input"], facts["d_output"]) != (exact.d_input, exact.d_output):
        raise ValueError(
            f"onnx: expected a graph of this model, {exact.d_input} -> {exact.d_output},"
            f" found {facts['d_input']} -> {facts['d_output']}"
        )
    batch, chunk = int(facts["batch"]), int(facts["chunk"] or 1)
    length = u.shape[1] // chunk * chunk
    if not length:
        raise ValueError(f"u: expected a chunk of the graph, {chunk} samples, or more, found {u.shape[1]}")
    part = np.resize(u[:, :length], (batch, *u[:, :length].shape[1:]))
    reference = exact.stream(batch, rate=float(facts["rate"])).push(part)
    quantized = facts["quantize"] is not None
    name = f"ONNX {facts['mode']}{' int8' if quantized else ''}"
    return Check(name, "float64", error(graph.push(part), reference), INT8 if quantized else FLOAT32_TO_FLOAT64)


def _layers(model: Model, u: Array) -> Iterator[Check]:
    root = model.document.root
    children = root.children if isinstance(root, doc.Sequential) else (root,)
    single = model.dtype == np.float32
    for i, (child, width) in enumerate(zip(children, model.widths())):
        part = doc.Document(doc.Sequential(children[: i + 1]), model.d_input, width, {})
        reference = Model(part, "float64")(u, method="scan")
        found = Model(part, "float32" if single else "float64")(u)
        name = f"after {child.name or doc.KIND_OF[type(child)]}"
        yield Check(name, "float64", error(found, reference), FLOAT32_TO_FLOAT64 if single else FLOAT64)


def error(found: Array, reference: Array) -> float:
    """The largest |found - reference| by the largest |reference|; infinite where a number is not finite."""
    if found.shape != reference.shape or not np.isfinite(found).all():
        return float("inf")
    scale = float(np.abs(reference).max(initial=0.0))
    return float(np.abs(found - reference).max(initial=0.0)) / (scale or 1.0)


def _noise(document: doc.Document, batch: int = 2, length: int = 300) -> Array:
    rng = np.random.default_rng(0)
    head = doc.first(document.root)
    if isinstance(head, doc.Embedding):
        return rng.integers(0, len(head.weight), (batch, length))
    return rng.standard_normal((batch, length, document.d_input), np.float32)
