"""From the Document's tree to C: which operations, in what order, in which buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...document import (
    Activation,
    Conv1d,
    DiagonalMimo,
    Embedding,
    Gate,
    Glu,
    Linear,
    Linoss,
    Node,
    Norm,
    Pool,
    Residual,
    Selective,
    Sequential,
    Ssd,
    StateSpace,
    walk,
)
from ...errors import ExportError
from . import mixing, pointwise, recurrences, selective, windowed
from .program import Out, Program, Value

Array = NDArray[Any]

RUNS = ("softmax", "log_softmax")


def run(p: Program, x: Value, node: Node, target: Value | None = None) -> Value:
    """The output of ``node``, in ``target`` where that is given. ``x`` is freed where it is owned."""
    return _chain(p, x, flat(node), None if target is None else Out(target))


def flat(node: Node) -> list[Node]:
    """The nodes one after the other, without those that do nothing."""
    if isinstance(node, Sequential):
        return [inner for child in node.children for inner in flat(child)]
    if isinstance(node, Activation) and node.function == "identity":
        return []
    if isinstance(node, Pool) and node.mode == "last":
        return []
    return [node]


def _chain(p: Program, x: Value, nodes: Sequence[Node], out: Out | None) -> Value:
    """All ``nodes``, the last of which stores as ``out`` says (None: in a buffer of its own)."""
    groups = fused(nodes)
    if not groups:
        if out is None:
            return x
        pointwise.apply(p, x, out)
        p.free(x)
        return out.value
    for group in groups[:-1]:
        x = _run(p, x, group, None)
    return _run(p, x, groups[-1], out)


def fused(nodes: Sequence[Node]) -> list[list[Node]]:
    """Neighbours that one C function computes: a product with its gate; anything with the function behind it."""
    groups: list[list[Node]] = []
    for node in nodes:
        last = groups[-1] if groups else []
        if isinstance(node, Norm) and node.kind == "affine" and len(last) == 1 and isinstance(last[0], Linear):
            groups[-1] = [_scaled(last[0], node)]
        elif last and _joins(last, node):
            last.append(node)
        else:
            groups.append([node])
    return groups


def _joins(last: Sequence[Node], node: Node) -> bool:
    if isinstance(node, Glu):
        return len(last) == 1 and isinstance(last[0], Linear)
    joined = isinstance(node, Activation) and node.function not in RUNS
    return joined and not isinstance(last[-1], Activation | Residual | Gate | Embedding)


def _scaled(linear: Linear, norm: Norm) -> Linear:
    """The product with the norm's weights in it."""
    weight = np.asarray(linear.weight, np.float64)
    bias = np.zeros(len(weight)) if linear.bias is None else np.asarray(linear.bias, np.float64)
    if norm.weight is not None:
        weight, bias = weight * norm.weight[:, None], bias * norm.weight
    return replace(linear, weight=weight, bias=bias if norm.bias is None else bias + norm.bias)


def _run(p: Program, x: Value, group: Sequence[Node], out: Out | None) -> Value:
    with p.scope(group[0]):
        return _operation(p, x, group, out)


def _operation(p: Program, x: Value, group: Sequence[Node], out: Out | None) -> Value:
    node = group[0]
    if isinstance(node, Residual):
        return _residual(p, x, node, out)
    if isinstance(node, Gate):
        return _gate(p, x, node, out)
    if isinstance(node, Embedding):
        return _embedding(p, x, node, out)
    behind = group[-1] if isinstance(group[-1], Activation) and len(group) > 1 else None
    width = _width(node, x.width) // (2 if len(group) > 1 and isinstance(group[1], Glu) else 1)
    # Most operations may write over what they read.
    apart = isinstance(node, Linear) or width != x.width
    again = out is not None and out.value.pointer == x.pointer
    if out is not None and ((again and apart) or (out.store != "=" and (again or behind is not None))):
        between = _operation(p, replace(x, owned=x.owned and not again), group, None)
        return _chain(p, between, [], out)
    if out is None:
        value = x if x.owned and not apart else p.buffer(width)
        out = Out(value)
    _emit(p, x, out, group)
    if x.pointer != out.value.pointer:
        p.free(x)
    if behind is not None:
        pointwise.apply(p, out.value, out, behind.function)
    return out.value


def _embedding(p: Program, x: Value, node: Embedding, out: Out | None) -> Value:
    """A row of the table where it lies, or a copy of it where a product with the table has it in tiles."""
    width = node.weight.shape[1]
    token = "*x" if p.samples is None else "x[t]"
    for tied in walk(p.systems.document.root):
        if isinstance(tied, Linear) and tied.weight is node.weight:
            found = Out(p.buffer(width)) if out is None else out
            mixing.row_of(p, token, found, tied)
            return found.value
    row = Value(f"{p.constants(node.weight)} + {width} * {token}", width)
    return row if out is None else _chain(p, row, [], out)


def _width(node: Node, width: int) -> int:
    if isinstance(node, Linear):
        return len(node.weight)
    if isinstance(node, StateSpace):
        return int(node.C.shape[0] * node.C.shape[1])
    if isinstance(node, DiagonalMimo | Linoss):
        return len(node.C)
    if isinstance(node, Ssd):
        return len(node.D)
    return width // 2 if isinstance(node, Glu) else width


def _emit(p: Program, x: Value, out: Out, group: Sequence[Node]) -> None:
    node = group[0]
    if isinstance(node, Linear):
        if len(group) > 1 and isinstance(group[1], Glu):
            mixing.linear_glu(p, x, out, node.weight, node.bias, group[1].gate)
        else:
            mixing.linear(p, x, out, node.weight, node.bias)
    elif isinstance(node, StateSpace):
        recurrences.state_space(p, x, out, node)
    elif isinstance(node, DiagonalMimo):
        recurrences.mimo(p, x, out, node)
    elif isinstance(node, Linoss):
        recurrences.linoss(p, x, out, node)
    elif isinstance(node, Selective):
        selective.selective(p, x, out, node)
    elif isinstance(node, Ssd):
        # Both read x, which the caller frees.
        shared = replace(x, owned=False)
        xbc, dt = run(p, shared, node.xBC), run(p, shared, node.dt)
        selective.ssd(p, xbc, dt, out, node)
        p.free(dt)
        p.free(xbc)
    elif isinstance(node, Norm):
        (pointwise.affine if node.kind == "affine" else pointwise.norm)(p, x, out, node)
    elif isinstance(node, Activation):
        if node.function in RUNS:
            pointwise.softmax(p, x, out, node.function, node.size)
        else:
            pointwise.apply(p, x, out, node.function)
    elif isinstance(node, Glu):
        pointwise.glu(p, x, out, node.gate)
    elif isinstance(node, Conv1d):
        windowed.conv1d(p, x, out, node)
    elif isinstance(node, Pool):
        windowed.pool(p, x, out, node)
    else:
        raise ExportError(f"layer {p.layer!r}: {type(node).__name__} has no C")


def _residual(p: Program, x: Value, node: Residual, out: Out | None) -> Value:
    """The child's last operation adds to the skip, which stays where it is."""
    shared = replace(x, owned=False)
    inner = flat(node.child)
    plain = node.alpha == 1.0 and not isinstance(node.beta, np.ndarray) and node.beta == 1.0
    if node.skip is None or not flat(node.skip):
        if x.owned and (out is None or out.store != "="):
            skip = x
        else:
            skip = p.buffer(x.width) if out is None or out.store != "=" else out.value
            pointwise.apply(p, x, Out(skip))
    else:
        skip = run(p, shared, node.skip, None if out is None or out.store != "=" else out.value)
    if plain and inner:
        _chain(p, shared, inner, Out(skip, "+="))
    else:
        y = _chain(p, shared, inner, None)
        if plain:
            pointwise.apply(p, y, Out(skip, "+="))
        else:
            pointwise.weighted_sum(p, skip, y, node)
        p.free(y)
    if skip.pointer != x.pointer:
        p.free(x)
    if out is None or skip.pointer == out.value.pointer:
        return skip
    return _chain(p, skip, [], out)


def _gate(p: Program, x: Value, node: Gate, out: Out | None) -> Value:
    """The right side's last operation multiplies the left side."""
    shared = replace(x, owned=False)
    inner = flat(node.right)
    left = run(p, shared, node.left, None if out is None or out.store != "=" else out.value)
    if left.pointer == x.pointer:
        # The left side is x itself, which the right side still reads.
        left = p.buffer(x.width) if out is None or out.store != "=" else out.value
        pointwise.apply(p, x, Out(left))
    _chain(p, shared, inner, Out(left, "*="))
    p.free(x)
    if out is None or left.pointer == out.value.pointer:
        return left
    return _chain(p, left, [], out)
