"""A layer with what a method of reduction makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import document as doc
from .balanced import balance
from .choice import Choice, Modes
from .report import Layer
from .select import select
from .systems import Real, Signal, measured, systems

SYSTEMS = (doc.Diagonal, doc.Dplr, doc.Dense, doc.DiagonalMimo)


@dataclass(frozen=True)
class Analysed:
    """A state-space layer. ``choice`` is None where it is left as it is, and ``left`` says why.

    ``power`` is the mean square of its systems' answers to the data, without the direct path.
    """

    node: doc.Node
    left: str
    choice: Choice | None
    power: float

    @property
    def most(self) -> int:
        """The modes of a system at full order; none where it is left as it is."""
        return 0 if self.choice is None else _modes(self.node)

    def within(self, modes: int) -> list[Modes] | None:
        """So many modes a system at most; None where it has no more."""
        assert self.choice is not None
        if modes >= _modes(self.node):
            return None
        return [self.choice.within(s, modes) for s in range(len(self.choice.values))]

    def fitted(self, modes: int) -> int:
        """The numbers that so many modes have for an answer, which the data must tell: C's and D's."""
        if self.choice is None or modes >= _modes(self.node):
            return 0
        return 2 * modes * (1 if getattr(self.node, "C_reverse", None) is None else 2) + 1

    def short_of(self, modes: int) -> int:
        """Systems of which the data show fewer states than so many modes have."""
        if self.choice is None or modes >= _modes(self.node):
            return 0
        return sum(order < self.choice.states(modes) for order in self.choice.orders)

    def losing(self, loss: float) -> list[Modes] | None:
        """The fewest modes that lose about ``loss`` of the layer's answers, by root mean square; None: no fewer."""
        assert self.choice is not None
        allowed = loss**2 * self.power
        kept = [
            self.choice.take(s, int(np.argmax(np.append(self.choice.lost(s), 0.0) <= allowed)))
            for s in range(len(self.choice.values))
        ]
        return kept if 2 * sum(len(one.mu) for one in kept) < states(self.node) else None

    def row(self, left: str, kept: Sequence[Modes] = (), error: Real | None = None, size: Real | None = None) -> Layer:
        """What became of it."""
        before = states(self.node)
        return Layer(
            self.node.name,
            doc.KIND_OF[type(self.node)],
            left or self.left,
            before,
            2 * sum(len(one.mu) for one in kept) if kept else before,
            np.array([len(one.mu) for one in kept], np.int64),
            np.zeros((0, 0)) if error is None else error,
            np.zeros((0, 0)) if size is None else size,
            np.zeros((0, 0)) if self.choice is None else self.choice.values,
        )


def analysed(node: doc.Node, heard: Sequence[Signal], method: str) -> Analysed:
    """The layer under ``method``, hearing sequences (1, length, d)."""

    def left(why: str) -> Analysed:
        return Analysed(node, why, None, 0.0)

    if isinstance(node, doc.Linoss):
        return left("its modes are oscillators")
    if not isinstance(node, SYSTEMS):
        return left("its input chooses its poles")
    if isinstance(node, doc.Diagonal) and node.disc == "dss":
        return left("its kernel depends on the length of the sequence")
    if isinstance(node, doc.Dense | doc.DiagonalMimo) and node.x0 is not None:
        return left("it starts from a learned state")
    found = systems(node)
    if not found.stable:
        return left("it has a mode that does not decay")
    if method == "select" and found.mu is None:
        return left('its modes are coupled: method="balanced" reduces it')
    covariance = measured(node, found, heard)
    choice: Choice = balance(found, covariance) if method == "balanced" else select(found, covariance)
    power = np.einsum("spi,sij,spj->", found.C, covariance, found.C) / len(found.A)
    return Analysed(node, "", choice, float(power))


def states(node: doc.Node) -> int:
    """Real numbers of state."""
    if isinstance(node, doc.Ssd):
        return len(node.D) * node.d_state
    if isinstance(node, doc.Selective):
        return int(node.A.size)
    if isinstance(node, doc.DiagonalMimo):
        return 2 * len(node.A)
    if isinstance(node, doc.Linoss):
        # A complex position and velocity each.
        return 4 * len(node.A)
    assert isinstance(node, doc.StateSpace)
    return (1 if isinstance(node, doc.Dense) else 2) * int(np.prod(node.C.shape[1:]))


def _modes(node: doc.Node) -> int:
    """Stored modes of a system at full order."""
    if isinstance(node, doc.Dense):
        return -(-int(node.C.shape[2]) // 2)
    assert isinstance(node, doc.Diagonal | doc.Dplr | doc.DiagonalMimo)
    return int(node.A.shape[-1])
