"""`reduce`: a model with fewer states that answers what it is to hear as the full one does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import checks
from .. import document as doc
from ..errors import UnsupportedError
from ..model import Model
from .analysis import Analysed, analysed
from .choice import Modes
from .nodes import node_of
from .recordings import Recordings, recordings
from .refit import refit
from .report import Layer, Report, Try
from .tree import Signals, rebuilt, run

Method = Literal["balanced", "select"]
METHODS: tuple[Method, ...] = ("balanced", "select")

# How often the search for a tolerance halves or doubles what each layer may lose, and how often it then bisects.
_STEPS = 12
_BISECTIONS = 2


def reduce(
    model: Model,
    data: ArrayLike | Sequence[ArrayLike] | Iterator[ArrayLike],
    *,
    modes: int | None = None,
    tolerance: float | None = None,
    method: Method = "balanced",
    labels: Sequence[int | str] | None = None,
) -> tuple[Model, Report]:
    """Make a model with fewer states that answers ``data``, and what is like it, as ``model`` does.

    Every time-invariant layer (S4D, S4, LSSL, DSS without its normalisation, S5, LRU) becomes a diagonal one with the
    same step sizes, so that ``rate`` and ``dt`` go on working; layers of Mamba stay as they are. A few seconds of
    typical signal are enough. How it works, and when it fails: docs/reduce.md.

    Parameters
    ----------
    model
        Any model with a time-invariant state-space layer.
    data
        What the model is to hear: (length, d_input) or (batch, length, d_input), any float dtype, or tokens
        (length,) or (batch, length); a list of such arrays; an iterator of blocks (n, d_input) of one signal. A fifth
        of it is held back to judge the result: sequences, or of a single one its end.
    modes
        The stored modes that a channel (S5, LRU: a layer) keeps at most. Each stands for itself and its conjugate:
        two real states.
    tolerance
        Instead of ``modes``: the root mean square error of the model's answers to held-back data, by the root mean
        square of the answers. Channels then keep different numbers of modes.
    method
        "balanced": truncation of states that the data do not excite or the answers do not show (Moore 1981; Enns
        1984), for every kind of layer. "select": modes as they are, chosen jointly, for diagonal layers.
    labels
        One a sequence, as numbers of outputs or as `Model.labels` names them: the report then has the accuracy of the
        held-back sequences. For models that pool, and data of several sequences.

    Returns
    -------
    The model, in the same precision, and what was done. Where no smaller model is within ``tolerance`` the model is
    the full one, a warning says so, and ``report.met`` is False.

    Raises
    ------
    ValueError, TypeError
        Data that does not fit the model, is not finite, or never changes; neither or both of ``modes`` and
        ``tolerance``; an argument of another kind.
    UnsupportedError
        The model has no layer that can be reduced; the message says why for each.

    >>> model = ssmrt.diagonal([[-0.5 + 3j, -1 + 9j]], [[1, 1]], [[1, 0.1]], None, 0.1)
    >>> small, report = ssmrt.reduce(model, np.sin(np.arange(1000.0) / 30), modes=1)
    >>> report.states_before, report.states
    (4, 2)
    """
    if (modes is None) == (tolerance is None):
        raise ValueError(f"expected either modes or tolerance, found modes={modes!r} and tolerance={tolerance!r}")
    reducer = Reducer(model, data, method=method, labels=labels)
    if modes is not None:
        return reducer.to_modes(modes)
    assert tolerance is not None
    return reducer.to_tolerance(tolerance)


class Reducer:
    """A model and what it hears, analysed once for all sizes."""

    def __init__(
        self,
        model: Model,
        data: ArrayLike | Sequence[ArrayLike] | Iterator[ArrayLike],
        *,
        method: Method = "balanced",
        labels: Sequence[int | str] | None = None,
    ):
        checks.instance("model", model, Model, "a model")
        self._method = checks.word("method", method, METHODS)
        self._model = model
        self._document = model.document
        self._recordings = recordings(data, self._document)
        self._full = [model(u) for u in self._recordings.held_back]
        pooled = self._full[0].ndim == 2
        self._labels = None if labels is None else _labels(labels, model, self._recordings, pooled)
        self._layers: list[Analysed] = []
        self._tries: list[Try] = []
        heard = self._recordings.calibrate
        rebuilt(self._document.root, heard, heard, self._analyse)
        if all(layer.left for layer in self._layers):
            why = "; ".join(
                f"{layer.node.name or doc.KIND_OF[type(layer.node)]}: {layer.left}" for layer in self._layers
            )
            raise UnsupportedError(f"expected a layer that can be reduced, found none{': ' if why else ''}{why}")

    def to_modes(self, modes: int) -> tuple[Model, Report]:
        """With so many modes a system at most."""
        most = checks.whole("modes", modes, 1)
        samples = sum(u.shape[1] for u in self._recordings.calibrate)
        fitted = max(layer.fitted(most) for layer in self._layers)
        if samples < fitted:
            raise ValueError(
                f"data: expected {fitted} samples or more to fit the answers of {most} modes, found {samples} and those"
                " held back"
            )
        found, report = self._build(lambda layer: layer.within(most))
        short = [layer.short_of(most) for layer in self._layers]
        if any(short):
            places = ", ".join(f"{n} of {layer.node.name or 'the layer'}" for n, layer in zip(short, self._layers) if n)
            warnings.warn(
                f"the data excite fewer states than {most} modes have, and fewer are kept, in systems: {places}. Where"
                " more are wanted, give more data, such as the model is to hear",
                UserWarning,
                stacklevel=3,
            )
        return found, report

    def to_tolerance(self, tolerance: float) -> tuple[Model, Report]:
        """The smallest that was found with an error of so much at most."""
        wanted = checks.positive("tolerance", tolerance)
        best: tuple[Model, Report] | None = None
        reached = np.inf

        def meets(loss: float) -> bool:
            nonlocal best, reached
            found, report = self._build(lambda layer: layer.losing(loss))
            smaller = report.states < report.states_before
            if smaller:
                reached = min(reached, report.error)
            if smaller and report.error <= wanted and (best is None or report.states < best[1].states):
                best = found, report
            return report.error <= wanted

        # What a layer may lose of its answers, by their size.
        low, high = wanted, wanted
        if meets(wanted):
            for _ in range(_STEPS):
                high = 2 * low
                if self._tries[-1].states == self._least or not meets(high):
                    break
                low = high
        else:
            for _ in range(_STEPS):
                low = high / 2
                if meets(low):
                    break
                high = low
        for _ in range(_BISECTIONS):
            middle = float(np.sqrt(low * high))
            low, high = (middle, high) if meets(middle) else (low, middle)
        if best is not None:
            model, report = best
            return model, replace(report, tries=tuple(self._tries))
        _, report = self._build(lambda _: None)
        warnings.warn(
            f"no smaller model is within the tolerance {wanted:g}: the best has an error of {reached:.2g}; this is the"
            " full model",
            UserWarning,
            stacklevel=3,
        )
        return self._model, replace(report, error=reached, met=False, tries=tuple(self._tries))

    def to_fit(self, fits: Callable[[Model], bool]) -> tuple[Model, Report]:
        """With the most modes a system of which ``fits`` holds, which is to hold of any smaller model too.

        Raises UnsupportedError where it does not hold of a single mode a system.
        """
        low, high = 0, max(layer.most for layer in self._layers) + 1
        best: tuple[Model, Report] | None = None
        while high - low > 1:
            modes = (low + high) // 2
            found = self.to_modes(modes)
            if fits(found[0]):
                low, best = modes, found
            else:
                high = modes
        if best is None:
            raise UnsupportedError("expected a model that fits with one mode a channel, found that it does not")
        model, report = best
        return model, replace(report, tries=tuple(self._tries))

    @property
    def _least(self) -> int:
        """The states of the layers that stay as they are."""
        return sum(layer.row("").states for layer in self._layers if layer.left)

    def _analyse(self, node: doc.Node, full: Signals, _: Signals) -> doc.Node:
        self._layers.append(analysed(node, full, self._method))
        return node

    def _build(self, modes: Callable[[Analysed], list[Modes] | None]) -> tuple[Model, Report]:
        """With the modes that ``modes`` gives for a layer; None: as it is."""
        rows: list[Layer] = []
        queue = iter(self._layers)
        held = len(self._recordings.held_back)

        def change(node: doc.Node, full: Signals, reduced: Signals) -> doc.Node:
            layer = next(queue)
            kept = None if layer.left else modes(layer)
            if kept is None:
                rows.append(layer.row("" if layer.left else "it has no more"))
                return node
            fit = refit(node_of(layer.node, kept), reduced, run(node, full), held)  # type: ignore[arg-type]
            rows.append(layer.row("", kept, fit.error, fit.size))
            return fit.node

        signals = [*self._recordings.calibrate, *self._recordings.held_back]
        root = rebuilt(self._document.root, signals, signals, change)
        found = self._model.remade(replace(self._document, root=root))
        answers = [found(u) for u in self._recordings.held_back]
        lost = sum(float(((a - b) ** 2).sum(dtype=np.float64)) for a, b in zip(answers, self._full))
        power = sum(float((b**2).sum(dtype=np.float64)) for b in self._full)
        error = float(np.sqrt(lost / power)) if power else float(lost > 0)
        states_before, states = (sum(getattr(row, name) for row in rows) for name in ("states_before", "states"))
        self._tries.append(Try(states, error))
        report = Report(
            self._method,
            tuple(rows),
            states_before,
            states,
            error,
            True,
            self._accuracies(answers),
            tuple(self._tries),
        )
        return found, report

    def _accuracies(self, answers: list[NDArray[Any]]) -> tuple[float, float] | None:
        if self._labels is None:
            return None
        before, after = (
            float(np.mean([y[0].argmax() == label for y, label in zip(scores, self._labels)]))
            for scores in (self._full, answers)
        )
        return before, after


def _labels(labels: Sequence[int | str], model: Model, given: Recordings, pooled: bool) -> list[int]:
    """Those of the held-back sequences, as numbers of outputs."""
    if not pooled or given.places is None:
        found = "one sequence" if pooled else "a model that answers every sample"
        raise ValueError(f"labels: expected data of several sequences and a model that pools, found {found}")
    if len(labels) != given.count:
        raise ValueError(f"labels: expected {given.count}, one a sequence, found {len(labels)}")
    names = model.labels or ()
    numbers = []
    for label in (labels[place] for place in given.places):
        if isinstance(label, str):
            if label not in names:
                raise ValueError(f"labels: expected one of {', '.join(names) or 'numbers'}, found {label!r}")
            numbers.append(names.index(label))
            continue
        number = checks.whole("labels", label)
        if number >= model.d_output:
            raise ValueError(f"labels: expected 0 to {model.d_output - 1}, found {number}")
        numbers.append(number)
    return numbers
