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
        source = model if isinstance(model, bytes) else str(model)
        name = "the graph" if isinstance(model, bytes) else str(model)
        try:
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # ONNX Runtime's exceptions have no class in common but this.
            raise ExportError(f"{name}: expected an ONNX graph; ONNX Runtime says: {error}") from None
        self.contract = contract.from_metadata(self._session.get_modelmeta().custom_metadata_map, name)
        self._names = ["y", *(state.output for state in self.contract.states)]
        self.states: list[Array] = []
        self.reset()

    def reset(self) -> None:
        """All states to their start."""
        self.states = [state.initial() for state in self.contract.states]

    def run(self, x: Array, probes: Sequence[str] = ()) -> tuple[Array, list[Array]]:
        """One call: y, and the tensors named by ``probes``."""
        feed = {state.input: value for state, value in zip(self.contract.states, self.states, strict=True)}
        y, *rest = self._session.run([*self._names, *probes], {"x": x, **feed})
        count = len(self.states)
        self.states = rest[:count]
        return y, rest[count:]
