"""What an exported graph costs, counted from the graph alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from .optional import require

_FUNCTIONS = {"Erf", "Exp", "Tanh", "Sigmoid", "Sqrt", "Pow", "Atanh", "Softmax", "LogSoftmax", "Elu"}
_MOVES = {"Reshape", "Transpose", "Gather", "Concat", "Split", "Slice", "Expand"}


@dataclass(frozen=True)
class Cost:
    """Of one call of the graph."""

    nodes: int
    multiply_adds: int  # multiplications, each with or without an addition
    elementwise: int  # other operations on single numbers
    functions: int  # of which exponentials, error functions, square roots, ...
    weight_bytes: int
    state_bytes: int


def shapes_of(model: Any) -> dict[str, tuple[int, ...]]:
    """The static shape of every tensor of the graph."""
    onnx = require("onnx")
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return shapes


def count(model: Any, state_bytes: int) -> Cost:
    """The cost of ``model``, a ``ModelProto`` with static shapes."""
    onnx = require("onnx")
    shapes = shapes_of(model)
    multiply_adds = elementwise = functions = 0
    for node in model.graph.node:
        size = prod(shapes[node.output[0]])
        if node.op_type in ("MatMul", "Gemm", "Conv"):
            multiply_adds += size * _inner(node, shapes)
        elif node.op_type == "Mul":
            multiply_adds += size
        elif node.op_type in ("ReduceSum", "ReduceMean"):
            elementwise += prod(shapes[node.input[0]])
        elif node.op_type not in _MOVES:
            elementwise += size * max(1, len(node.input) - 1)
            functions += size if node.op_type in _FUNCTIONS else 0
    weights = [t for t in model.graph.initializer if t.data_type != onnx.TensorProto.INT64]
    weight_bytes = sum(len(t.raw_data) for t in weights)
    return Cost(len(model.graph.node), multiply_adds, elementwise, functions, weight_bytes, state_bytes)


def _inner(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type == "Conv":
        return prod(shapes[node.input[1]][1:])
    return shapes[node.input[0]][-1]


@dataclass(frozen=True)
class Quantization:
    """What int8 did. ``signal_to_noise`` is of the outputs over ``samples`` samples, in dB, against float32."""

    scheme: str
    signal_to_noise: float
    samples: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class ExportReport:
    """What `export_onnx` wrote."""

    path: Path
    mode: str
    chunk: int | None
    opset: int
    states: tuple[tuple[str, tuple[int, ...]], ...]  # (layer, shape)
    file_bytes: int
    cost: Cost
    quantization: Quantization | None = None

    def __str__(self) -> str:
        """The report as a table."""
        cost = self.cost
        rows = [
            ("file", f"{self.path} ({self.file_bytes} bytes)"),
            ("graph", f"{self.mode}{'' if self.chunk is None else f' of {self.chunk}'}, opset {self.opset}"),
            ("nodes", str(cost.nodes)),
            ("weights", f"{cost.weight_bytes} bytes"),
            ("state", f"{cost.state_bytes} bytes in {len(self.states)} tensors"),
            ("multiply-adds a call", str(cost.multiply_adds)),
            ("other operations a call", f"{cost.elementwise}, {cost.functions} of them functions"),
        ]
        if self.quantization is not None:
            q = self.quantization
            rows += [
                ("int8", q.scheme),
                ("signal to noise", f"{q.signal_to_noise:.1f} dB over {q.samples} samples"),
                ("weights before", f"{q.bytes_before} bytes"),
            ]
        return table(rows)


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
