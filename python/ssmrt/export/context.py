"""What every lowering is given: the graph, and how the graph is to be laid out in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .builder import GraphBuilder
from .layout import Layout
from .systems import Systems

Array = NDArray[Any]


@dataclass(frozen=True)
class Context:
    """A signal of d channels is (batch, d) in a step graph and (batch, chunk, d) in a chunk graph."""

    b: GraphBuilder
    batch: int
    chunk: int | None  # samples a call; None in a step graph
    rate: float
    layout: Layout
    systems: Systems  # of the state-space layers at the rate
    linear: Callable[[str, Array, Array | None], str]  # (x, weight (d_out, d_in), bias) of the mixing layers

    @property
    def samples(self) -> int:
        """Samples a call."""
        return 1 if self.chunk is None else self.chunk

    def signal(self, channels: int) -> tuple[int, ...]:
        """The shape of a signal."""
        return (self.batch, channels) if self.chunk is None else (self.batch, self.chunk, channels)

    def by_channel(self, x: str, channels: int) -> str:
        """(batch, d, samples) of a signal."""
        if self.chunk is None:
            return self.b.reshape(x, [self.batch, channels, 1], "column")
        return self.b.op("Transpose", x, what="by_channel", perm=[0, 2, 1])

    def from_channels(self, y: str, channels: int, outputs: int, *, head_major: bool) -> str:
        """The signal of ``y`` (batch, H, M, samples) in any shape of that order; (M H), or (H M) with head_major."""
        width = channels * outputs
        if self.chunk is None and (head_major or outputs == 1):
            return self.b.reshape(y, [self.batch, width], "row")
        if outputs == 1:
            y = self.b.reshape(y, [self.batch, channels, self.samples], "channels")
            return self.b.op("Transpose", y, what="by_sample", perm=[0, 2, 1])
        y = self.b.reshape(y, [self.batch, channels, outputs, self.samples], "channels")
        y = self.b.op("Transpose", y, what="by_sample", perm=[0, 3, 1, 2] if head_major else [0, 3, 2, 1])
        return self.b.reshape(y, self.signal(width), "row")
