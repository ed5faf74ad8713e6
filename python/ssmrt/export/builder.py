"""An ONNX graph in the making: unique plain names, one scope a layer, every tensor's shape static."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import KIND_OF, Gate, Node, Residual, Sequential
from ..errors import ExportError
from .optional import require

Array = NDArray[Any]

IR_VERSION = 8
OPSETS = range(13, 21)


@dataclass(frozen=True)
class State:
    """One layer's memory: graph input ``state_{i}``, graph output ``next_state_{i}``.

    ``start`` is what it holds before a stream's first sample, the same for every stream of the batch, its first axis:
    float32 numbers in the order of its other axes. None: zeros.
    """

    input: str
    output: str
    shape: tuple[int, ...]
    layer: str
    kind: str
    start: tuple[float, ...] | None = None

    def initial(self) -> NDArray[np.float32]:
        """What it holds before the first sample, in its shape."""
        start = np.zeros(self.shape[1:]) if self.start is None else np.reshape(self.start, self.shape[1:])
        return np.broadcast_to(start, self.shape).astype(np.float32)


def sanitize(name: str) -> str:
    """``name`` as an identifier of C."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return plain if re.match(r"[A-Za-z_]", plain) else f"_{plain}"


class GraphBuilder:
    """Collects nodes in running order, weights and states; `model` makes the ``ModelProto``.

    Tensors are named ``{layer}_{what}``; `scope` sets the layer.
    """

    def __init__(self, opset: int):
        self._onnx = require("onnx")
        self.opset = opset
        self.states: list[State] = []
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._shared: dict[tuple[str, Any], str] = {}
        self._taken: set[str] = set()
        self._layers: dict[str, str] = {}
        self._scope = "model"
        self._layer = ""
        self._kind = ""

    @property
    def layer(self) -> str:
        """The name of the layer in work, for errors."""
        return self._layer

    @contextmanager
    def scope(self, node: Node) -> Iterator[None]:
        """Name what follows after ``node``; a nameless one is called after its parent and its kind."""
        saved = self._scope, self._layer, self._kind
        self._kind = KIND_OF[type(node)]
        if node.name:
            self._scope, self._layer = sanitize(node.name), node.name
            other = self._layers.setdefault(self._scope, node.name)
            if other != node.name:
                raise ExportError(
                    f"layers {other!r} and {node.name!r} would both be called {self._scope!r} in the graph;"
                    " rename one of them with dataclasses.replace(node, name=...)"
                )
        elif not isinstance(node, Sequential | Residual | Gate):
            self._scope = f"{self._scope}_{self._kind}"
            self._layer = f"{self._layer}.{self._kind}".lstrip(".")
        try:
            yield
        finally:
            self._scope, self._layer, self._kind = saved

    def reserve(self, name: str) -> str:
        """Take ``name`` as it stands, for the graph's inputs and outputs."""
        if name in self._taken:
            raise ExportError(f"the name {name!r} is taken by layer {self._layer!r}; rename that layer")
        self._taken.add(name)
        return name

    def _unique(self, name: str) -> str:
        found, count = name, 1
        while found in self._taken:
            count += 1
            found = f"{name}_{count}"
        self._taken.add(found)
        return found

    def _store(self, array: Array, name: str) -> str:
        self._initializers.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def weight(self, array: Array, what: str) -> str:
        """A float32 constant of the layer."""
        return self._store(self._single(array, what), self._unique(f"{self._scope}_{what}"))

    def _single(self, array: Array, what: str) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            single = np.asarray(array, np.float32)
        if not np.isfinite(single).all():
            raise ExportError(f"layer {self._layer!r}: {what} is not finite in float32; the model cannot be exported")
        return single

    def int8(self, array: Array, what: str) -> str:
        """An int8 constant of the layer."""
        return self._store(np.asarray(array, np.int8), self._unique(f"{self._scope}_{what}"))

    def scalar(self, value: float) -> str:
        """A float32 constant shared by the whole graph."""
        if not np.isfinite(np.float32(value)):
            raise ExportError(f"layer {self._layer!r}: the constant {value} is not finite in float32")
        key = ("scalar", float(np.float32(value)))
        if key not in self._shared:
            text = sanitize(f"const_{value:g}")
            self._shared[key] = self._store(np.asarray(value, np.float32), self._unique(text))
        return self._shared[key]

    def ints(self, values: Sequence[int], what: str = "shape") -> str:
        """An int64 vector shared by the whole graph: shapes, axes, indices."""
        key = ("ints", tuple(values))
        if key not in self._shared:
            text = sanitize("_".join([what, *map(str, values)]))
            self._shared[key] = self._store(np.asarray(values, np.int64), self._unique(text))
        return self._shared[key]

    def op(self, kind: str, *inputs: str, what: str | None = None, out: str | None = None, **attributes: Any) -> str:
        """Append a node with one output and return that output's name."""
        out = self._unique(f"{self._scope}_{what or kind.lower()}") if out is None else out
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def split(self, x: str, sizes: Sequence[int], what: Sequence[str]) -> list[str]:
        """Cut the last axis into runs of ``sizes``."""
        outs = [self._unique(f"{self._scope}_{name}") for name in what]
        name = self._unique(f"{self._scope}_split")
        node = self._onnx.helper.make_node("Split", [x, self.ints(sizes, "sizes")], outs, name=name, axis=-1)
        self._nodes.append(node)
        return outs

    def reshape(self, x: str, shape: Sequence[int], what: str = "reshape") -> str:
        """``x`` in another shape."""
        return self.op("Reshape", x, self.ints(shape), what=what)

    def mean(self, x: str, what: str) -> str:
        """The mean over the last axis, which stays as 1."""
        if self.opset >= 18:
            return self.op("ReduceMean", x, self.ints([-1], "axes"), what=what, keepdims=1)
        return self.op("ReduceMean", x, what=what, axes=[-1], keepdims=1)

    def sum(self, x: str, axes: Sequence[int], what: str) -> str:
        """The sum over ``axes``, which stay as 1."""
        return self.op("ReduceSum", x, self.ints(axes, "axes"), what=what, keepdims=1)

    def slice(self, x: str, axis: int, start: int, stop: int, what: str, out: str | None = None) -> str:
        """``x[start:stop]`` along ``axis``."""
        bounds = [self.ints([value], "index") for value in (start, stop, axis)]
        return self.op("Slice", x, *bounds, what=what, out=out)

    def state(self, shape: Sequence[int], start: Array | None = None) -> State:
        """A new memory of the layer in work; write it with ``op(..., out=state.output)``, once.

        ``start`` has what it holds at first, in any shape of its order without the batch; None: zeros.
        """
        index = len(self.states)
        numbers = None
        if start is not None and start.any():
            numbers = tuple(map(float, self._single(start, "x0").ravel()))
        state = State(
            self.reserve(f"state_{index}"),
            self.reserve(f"next_state_{index}"),
            tuple(int(size) for size in shape),
            self._layer,
            self._kind,
            numbers,
        )
        self.states.append(state)
        return state

    def model(
        self,
        x: tuple[str, str, Sequence[int]],
        y: tuple[str, Sequence[int]],
        metadata: dict[str, str],
        probes: Sequence[tuple[str, Sequence[int]]] = (),
    ) -> Any:
        """The ``ModelProto``, checked. ``x`` is (name, "FLOAT" or "INT64", shape); ``probes`` are further outputs."""
        helper, types = self._onnx.helper, self._onnx.TensorProto

        def value(name: str, shape: Sequence[int], kind: int = types.FLOAT) -> Any:
            return helper.make_tensor_value_info(name, kind, list(shape))

        inputs = [value(x[0], x[2], getattr(types, x[1])), *(value(s.input, s.shape) for s in self.states)]
        outputs = [value(*y), *(value(s.output, s.shape) for s in self.states), *(value(*p) for p in probes)]
        graph = helper.make_graph(self._nodes, "ssmrt", inputs, outputs, self._initializers)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=IR_VERSION,
            producer_name="ssmrt",
        )
        helper.set_model_props(model, metadata)
        self._onnx.checker.check_model(model, full_check=True)
        return model
