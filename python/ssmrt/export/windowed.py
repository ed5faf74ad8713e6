"""Layers that remember samples rather than modes: delay lines and pooling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Conv1d, Pool
from .context import Context

Array = NDArray[Any]


def fir(c: Context, columns: str, kernel: Array, past: Array | None = None) -> str:
    """Causal convolution of ``columns`` (batch, H, samples) with ``kernel`` (M, H, K): (batch, H, M, samples).

    The state is a delay line of the last K - 1 samples of every channel; ``past`` (H, K - 1) are those at the start.
    """
    b = c.b
    outputs, channels, length = kernel.shape
    window = columns
    if length > 1:
        state = b.state((c.batch, channels, length - 1), past)
        window = b.op("Concat", state.input, columns, what="window", axis=2)
        b.slice(window, 2, c.samples, c.samples + length - 1, "delay_line", out=state.output)
    reverse = kernel[..., ::-1]
    if c.chunk is not None:
        weight = b.weight(reverse.transpose(1, 0, 2).reshape(channels * outputs, 1, length), "kernel")
        return b.op("Conv", window, weight, what="conv", group=channels, kernel_shape=[length])
    if outputs > 1:
        column = b.reshape(window, [c.batch, channels, length, 1], "window_column")
        return b.op("MatMul", b.weight(reverse.transpose(1, 0, 2), "kernel"), column, what="conv")
    return b.sum(b.op("Mul", window, b.weight(reverse[0], "kernel"), what="taps"), [2], "conv")


def conv1d(c: Context, x: str, node: Conv1d) -> str:
    """`Conv1d`."""
    channels = len(node.weight)
    y = fir(c, c.by_channel(x, channels), node.weight[None, :, ::-1], node.x0)
    y = c.from_channels(y, channels, 1, head_major=False)
    return y if node.bias is None else c.b.op("Add", y, c.b.weight(node.bias, "bias"), what="biased")


def pool(c: Context, x: str, node: Pool, width: int) -> str:
    """`Pool`, answering at every sample as if the sequence ended there."""
    if node.mode == "last":
        return x
    if node.mode == "first":
        return _first(c, x, width)
    return _running(c, x, width, mean=node.mode == "mean")


def _first(c: Context, x: str, width: int) -> str:
    b = c.b
    state = b.state((c.batch, width + 1))
    seen, value = b.split(state.input, [1, width], ["seen", "value"])
    sample = x if c.chunk is None else b.slice(x, 1, 0, 1, "first_sample")
    sample = sample if c.chunk is None else b.reshape(sample, [c.batch, width], "first_row")
    kept = b.op("Where", b.op("Greater", seen, b.scalar(0.5), what="is_seen"), value, sample, what="kept")
    one = b.op("Max", seen, b.scalar(1.0), what="seen_now")
    b.op("Concat", one, kept, out=state.output, axis=1)
    if c.chunk is None:
        return kept
    spread = b.reshape(kept, [c.batch, 1, width], "kept_row")
    return b.op("Expand", spread, b.ints([c.batch, c.chunk, width]), what="kept_samples")


def _running(c: Context, x: str, width: int, *, mean: bool) -> str:
    """The running sum or mean m, with Kahan's correction e: (count, m, e).

    The mean moves by (x - m) / count, so that it stays a weighted mean when the count, which float32 holds
    exactly up to 2^24, stops growing.
    """
    b = c.b
    state = b.state((c.batch, 1 + 2 * width))
    count, m, e = b.split(state.input, [1, width, width], ["count", "value", "correction"])
    steps = c.samples
    last = m
    if c.chunk is None:
        n = total = b.op("Add", count, b.scalar(1.0), what="count_now")
        move = b.op("Div", b.op("Sub", x, m, what="away"), n, what="move") if mean else x
    else:
        until = b.weight(np.tril(np.ones((steps, steps))), "until")
        m, e = (b.reshape(v, [c.batch, 1, width], "row") for v in (m, e))
        if mean:
            n = b.op(
                "Add", b.reshape(count, [c.batch, 1, 1], "count_row"), b.weight(np.arange(1, steps + 1)[:, None], "k")
            )
            away = b.op("MatMul", until, b.op("Sub", x, m, what="away"), what="away_until")
            move = b.op("Div", away, n, what="move")
        else:
            move = b.op("MatMul", until, x, what="move")
        total = b.op("Add", count, b.scalar(float(steps)), what="count_now")
    corrected = b.op("Sub", move, e, what="corrected")
    pooled = b.op("Add", m, corrected, what="pooled")
    end, moved = pooled, corrected
    if c.chunk is not None:
        end, moved = (
            b.reshape(b.slice(v, 1, steps - 1, steps, "end"), [c.batch, width], "end_row") for v in (pooled, corrected)
        )
    error = b.op("Sub", b.op("Sub", end, last, what="gained"), moved, what="lost")
    b.op("Concat", total, end, error, out=state.output, axis=1)
    return pooled
