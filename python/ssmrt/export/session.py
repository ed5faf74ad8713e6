"""A graph run by ONNX Runtime, its states carried from call to call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import ExportError
from . import contract
from .optional import require

Array = NDArray[Any]


class Session:
    """``run(x)`` gives the graph's ``y`` and moves on; ``states`` are the arrays that go in next.

    ``exact`` turns the optimisations off that change results: above BASIC, ONNX Runtime replaces products with
    int8 weights by approximate ones.
    """

    def __init__(self, model: str | Path | bytes, *, exact: bool = False, threads: int = 1):
        ort = require("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if exact:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self._name = name = "the graph" if isinstance(model, bytes) else str(model)
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # ONNX Runtime's exceptions have no class in common but this.
            raise ExportError(f"{name}: expected an ONNX graph; ONNX Runtime says: {error}") from None
        try:
            metadata = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise ExportError(f"{name}: the graph's metadata are no text: {error}") from None
        self.contract = contract.from_metadata(metadata, name)
        self._check_faces(name)
        self._names = ["y", *(state.output for state in self.contract.states)]
        self.states: list[Array] = []
        self.reset()

    def _check_faces(self, name: str) -> None:
        """Refuse a graph whose inputs and outputs are not those of its contract."""
        facts = self.contract
        number = "float" if facts.vocabulary is None else "int64"
        inputs = {"x": (number, facts.x_shape()), **{s.input: ("float", s.shape) for s in facts.states}}
        outputs = {"y": ("float", facts.y_shape()), **{s.output: ("float", s.shape) for s in facts.states}}
        for what, expected, nodes in (
            ("inputs", inputs, self._session.get_inputs()),
            ("outputs", outputs, self._session.get_outputs()),
        ):
            found = {node.name: (node.type.removeprefix("tensor(")[:-1], tuple(node.shape)) for node in nodes}
            if not expected.items() <= found.items():
                raise ExportError(f"{name}: the contract is damaged: expected {what} {expected}, found {found}")

    def reset(self) -> None:
        """All states to their start."""
        self.states = [state.initial() for state in self.contract.states]

    def run(self, x: Array, probes: Sequence[str] = ()) -> tuple[Array, list[Array]]:
        """One call: y, and the tensors named by ``probes``."""
        feed = {state.input: value for state, value in zip(self.contract.states, self.states, strict=True)}
        try:
            y, *rest = self._session.run([*self._names, *probes], {"x": x, **feed})
        except Exception as error:
            # As above.
            raise ExportError(f"{self._name}: the graph is damaged; ONNX Runtime says: {error}") from None
        count = len(self.states)
        self.states = rest[:count]
        return y, rest[count:]
