"""Whatever is done with streams in whatever order, each answers as its samples since its start, replayed at once."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import ssmrt
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from ssmrt import Document, Model
from ssmrt.document import Dense, Diagonal, DiagonalMimo, Dplr, Linear, Node, Norm, Pool, Residual, Sequential

Array = NDArray[Any]

H, STREAMS = 3, 3
SEEDS = st.integers(0, 2**32 - 1)
NONE = np.zeros((0, H))


def nodes() -> dict[str, Node]:
    """Layers that keep different things between samples."""
    g = np.random.default_rng(0)

    def noise(*shape: int) -> Array:
        return np.asarray(g.standard_normal(shape) + 1j * g.standard_normal(shape))

    A = -g.uniform(0.2, 1, (H, 20)) + 1j * g.uniform(0, 3, (H, 20))
    D, dt = g.standard_normal((1, H)), np.full(H, 0.1)
    diagonal = Diagonal(noise(1, H, 20), D, dt, A, noise(H, 20))
    dplr = Dplr(noise(1, H, 4), D, dt, A[:, :4], 0.3 * noise(1, H, 4), noise(H, 4))
    dense = Dense(
        g.standard_normal((1, H, 4)), D, dt, g.standard_normal((1, 4, 4)) / 4 - np.eye(4), g.standard_normal((1, 4))
    )
    mix = Linear(g.standard_normal((H, H)))
    return {
        "diagonal": diagonal,
        "dplr": dplr,
        "dense": dense,
        "mimo": DiagonalMimo(A[0], noise(20, H), noise(H, 20), np.ones(H), np.full(20, 0.1)),
        "cut off": replace(diagonal, kernel_length=7),
        "blocks": Sequential((mix, Residual(Sequential((diagonal, mix, Norm("layer")))), dplr, mix)),
        "pooled": Sequential((mix, dense, Pool("mean"), mix)),
    }


class Streams(RuleBasedStateMachine):
    """Streams of one model, each with what it has met since its start: samples, and the factors of their steps."""

    saved = Bundle("saved")

    @initialize(name=st.sampled_from(list(nodes())), rate=st.sampled_from([1.0, 0.5, 2.0]))
    def start(self, name: str, rate: float) -> None:
        self.model, self.rate = Model(Document(nodes()[name], H, H), "float64"), rate
        self.steps = name != "cut off"
        self.stream = self.model.stream(STREAMS, rate=rate)
        self.met = [(NONE, np.zeros(0)) for _ in range(STREAMS)]

    def replayed(self, i: int, count: int) -> Array:
        """The last answers of stream ``i``."""
        u, dt = self.met[i]
        stream = self.model.stream(rate=self.rate)
        return np.asarray(stream.push(u, dt=None if (dt == 1).all() else dt)[len(u) - count :])

    def meet(self, i: int, u: Array, dt: Array | None, y: Array) -> None:
        before, factors = self.met[i]
        self.met[i] = np.concatenate([before, u]), np.concatenate([factors, np.ones(len(u)) if dt is None else dt])
        assert_allclose(y, self.replayed(i, len(u)), rtol=1e-7, atol=1e-9)

    def factors(self, g: np.random.Generator, irregular: bool, *shape: int) -> Array | None:
        return g.choice([0.5, 1.0, 1.5], shape) if irregular and self.steps else None

    @rule(seed=SEEDS, irregular=st.booleans(), into=st.booleans())
    def step(self, seed: int, irregular: bool, into: bool) -> None:
        g = np.random.default_rng(seed)
        u, dt = g.standard_normal((STREAMS, H)), self.factors(g, irregular, STREAMS)
        out = np.empty((STREAMS, H)) if into else None
        y = self.stream.step(u, dt=dt, out=out)
        assert out is None or y is out
        for i in range(STREAMS):
            self.meet(i, u[i : i + 1], None if dt is None else dt[i : i + 1], y[i : i + 1])

    @rule(seed=SEEDS, active=st.sets(st.integers(0, STREAMS - 1)), irregular=st.booleans())
    def step_some(self, seed: int, active: set[int], irregular: bool) -> None:
        g, chosen = np.random.default_rng(seed), sorted(active)
        u, dt = g.standard_normal((len(chosen), H)), self.factors(g, irregular, len(chosen))
        y = self.stream.step(u, dt=dt, active=chosen)
        for at, i in enumerate(chosen):
            self.meet(i, u[at : at + 1], None if dt is None else dt[at : at + 1], y[at : at + 1])

    @rule(seed=SEEDS, length=st.sampled_from([0, 1, 2, 5, 16, 17, 40, 130]), irregular=st.booleans())
    def push(self, seed: int, length: int, irregular: bool) -> None:
        g = np.random.default_rng(seed)
        u, dt = g.standard_normal((STREAMS, length, H)), self.factors(g, irregular, STREAMS, length)
        y = self.stream.push(u, dt=dt)
        for i in range(STREAMS):
            self.meet(i, u[i], None if dt is None else dt[i], y[i])

    @rule(mask=st.lists(st.booleans(), min_size=STREAMS, max_size=STREAMS) | st.none())
    def reset(self, mask: list[bool] | None) -> None:
        self.stream.reset(mask)
        for i in range(STREAMS):
            if mask is None or mask[i]:
                self.met[i] = NONE, np.zeros(0)

    @rule(target=saved)
    def snapshot(self) -> tuple[bytes, Any]:
        return self.stream.snapshot(), copy.copy(self.met)

    @rule(save=saved, anew=st.booleans())
    def restore(self, save: tuple[bytes, Any], anew: bool) -> None:
        if anew:
            self.stream = self.model.stream(STREAMS, rate=self.rate)
        self.stream.restore(save[0])
        self.met = copy.copy(save[1])

    @rule(bad=st.integers(0, 8))
    def refused(self, bad: int) -> None:
        before, u = self.stream.snapshot(), np.ones((STREAMS, 5, H))
        calls: list[Any] = [
            lambda: self.stream.push(u[:2]),
            lambda: self.stream.push(u[:, :, :1]),
            lambda: self.stream.push(u, dt=np.zeros((STREAMS, 5))),
            lambda: self.stream.push(u, out=np.empty((STREAMS, 5, H), np.float32)),
            lambda: self.stream.step(u),
            lambda: self.stream.step(u[:2, 0], active=[1, 0]),
            lambda: self.stream.step(u[:1, 0], active=[STREAMS]),
            lambda: self.stream.reset([True]),
            lambda: self.stream.restore(before[:-1]),
        ]
        try:
            calls[bad]()
        except (ValueError, TypeError, ssmrt.UnsupportedError):
            assert self.stream.snapshot() == before
        else:
            raise AssertionError(f"call {bad} was not refused")

    @invariant()
    def positions(self) -> None:
        if hasattr(self, "stream"):
            assert self.stream.position.tolist() == [len(u) for u, _ in self.met]


Streams.TestCase.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
test_streams_answer_as_their_replay = Streams.TestCase
