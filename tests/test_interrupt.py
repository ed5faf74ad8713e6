"""Signals are heard during long calls, and an interrupted call leaves the state as it was."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import ssmrt
from numpy.testing import assert_array_equal
from ssmrt import Document, Model
from ssmrt.document import Linear, Sequential

H, N = 64, 32


def model(layers: int) -> Model:
    """One number in and out, and much work between."""
    g = np.random.default_rng(0)
    A = -g.uniform(0.1, 1, (H, N)) + 1j * g.uniform(0, 3, (H, N))
    layer = ssmrt.diagonal(A, np.ones((H, N)), g.standard_normal((H, N)), np.ones(H), 0.01).document.root
    ends = Linear(np.ones((H, 1), np.float32)), Linear(np.ones((1, H), np.float32) / H)
    return Model(Document(Sequential((ends[0], *[layer] * layers, ends[1])), 1, 1))


class Interruption(Exception):
    """What a handler raises."""


@contextmanager
def handling(handler: Callable[..., Any]) -> Iterator[None]:
    """SIGINT means ``handler``."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def signalled(after: float) -> Iterator[list[float]]:
    """A SIGINT comes after so many seconds; the list says when it came."""
    came: list[float] = []

    def send() -> None:
        came.append(time.perf_counter())
        signal.raise_signal(signal.SIGINT)

    timer = threading.Timer(after, send)
    timer.start()
    try:
        yield came
    finally:
        timer.join()


def refuse(*_: Any) -> None:
    raise Interruption


SIGNAL = np.sin(np.arange(1_000_000, dtype=np.float32)).reshape(1, -1, 1)
SHORT = SIGNAL[:, :200_000]


def test_what_a_handler_raises_ends_a_push_and_leaves_the_stream_as_it_was() -> None:
    stream, other = model(4).stream(), model(4).stream()
    for each in (stream, other):
        each.push(SIGNAL[:, :1000])
    before = stream.snapshot()
    with handling(refuse), signalled(0.02), pytest.raises(Interruption):
        stream.push(SIGNAL)
    assert stream.snapshot() == before
    assert_array_equal(stream.position, [1000])
    assert_array_equal(stream.push(SIGNAL[:, :5000]), other.push(SIGNAL[:, :5000]))


def test_what_a_handler_raises_ends_a_forward_and_leaves_the_model_as_it_was() -> None:
    used, fresh = model(4), model(4)
    state = used.forward(SIGNAL[:, :1000], return_state=True)[1]
    given = state.copy()
    with handling(refuse), signalled(0.02), pytest.raises(Interruption):
        used(SIGNAL, state=state)
    assert_array_equal(state, given)
    assert_array_equal(used(SIGNAL[:, :5000], state=state), fresh(SIGNAL[:, :5000], state=state))


def test_a_handler_that_returns_changes_nothing() -> None:
    heard: list[int] = []
    expected = model(4)(SHORT)
    with handling(lambda number, _: heard.append(number)), signalled(0.02):
        assert_array_equal(model(4)(SHORT), expected)
        assert_array_equal(model(4).stream().push(SHORT), expected)
    assert heard == [signal.SIGINT]


def test_calls_on_other_threads_run_to_their_end() -> None:
    """Python runs handlers on its main thread only."""
    expected, answers = model(4)(SHORT), []
    worker = threading.Thread(target=lambda: answers.append(model(4)(SHORT)))

    def wait() -> None:
        worker.start()
        with signalled(0.02):
            worker.join()

    with handling(refuse), pytest.raises(Interruption):
        wait()
    worker.join()
    assert_array_equal(answers[0], expected)


LONG = np.sin(np.arange(12_000_000, dtype=np.float32)).reshape(1, -1, 1)

CALLS: dict[str, Callable[[Model], Any]] = {
    "push": lambda m: m.stream().push(LONG),
    "forward": lambda m: m(LONG),
    "forward by the recurrence": lambda m: m(LONG, method="scan"),
    "forward of several": lambda m: m(LONG.reshape(4, -1, 1)),
    "forward with resets": lambda m: m(LONG, resets=np.arange(LONG.size) % 1000 == 0),
    "forward with dt": lambda m: m(LONG, dt=1 + np.arange(LONG.size) // 100_000 % 2),
}


@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_ends_a_long_call_within_a_second(call: str) -> None:
    with handling(signal.default_int_handler), signalled(0.1) as came, pytest.raises(KeyboardInterrupt):
        CALLS[call](model(4))
    assert time.perf_counter() - came[0] < 1


def test_signals_are_heard_while_a_model_is_planned() -> None:
    """A full matrix of 700 takes seconds to bring into its Schur form."""
    g = np.random.default_rng(0)
    A, C = g.standard_normal((1, 700, 700)) / 26 - 1.5 * np.eye(700), np.ones((1, 1, 700))
    start = time.perf_counter()
    with handling(refuse), signalled(0.3) as came, pytest.raises(Interruption):
        ssmrt.dense(A, np.ones((1, 700)), C, np.ones((1, 1)), 0.01)
    assert came[0] > start
    assert time.perf_counter() - came[0] < 0.5
