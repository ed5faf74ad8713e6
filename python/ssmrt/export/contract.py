"""What a caller of the graph must know, as JSON in the model's ``metadata_props`` under "ssmrt"."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..errors import ExportError
from .builder import State

KEY = "ssmrt"
FORMAT = 1


@dataclass(frozen=True)
class Contract:
    """How to call the graph: feed every ``next_state_{i}`` back as ``state_{i}``, starting from zeros or, where
    a layer has an initial state, from the numbers of ``start``.

    A step graph takes one sample a call, ``x`` (batch, d_input); a chunk graph takes ``chunk`` of them, ``x``
    (batch, chunk, d_input). Token models take integers (batch,) or (batch, chunk). Only ``x`` and ``y`` and the
    states are named; all other facts are for people.
    """

    mode: str
    chunk: int | None
    batch: int
    rate: float  # multiplies every step size of the trained model; baked in
    d_input: int
    d_output: int
    vocabulary: int | None  # number of tokens; None where the input is real
    pooling: str | None  # a pooled model answers as if the sequence ended with this sample
    states: tuple[State, ...]
    layout: str  # of complex modes in a state; "planes" or "blocks"
    quantize: str | None
    ssmrt_version: str
    meta: dict[str, str]

    def x_shape(self) -> tuple[int, ...]:
        """The input's shape."""
        samples = () if self.chunk is None else (self.chunk,)
        return (self.batch, *samples) if self.vocabulary is not None else (self.batch, *samples, self.d_input)

    def y_shape(self) -> tuple[int, ...]:
        """The output's shape."""
        return (self.batch, self.d_output) if self.chunk is None else (self.batch, self.chunk, self.d_output)

    def as_dict(self) -> dict[str, Any]:
        """The contract in plain types."""
        dtype = "float32" if self.vocabulary is None else "int64"
        return {
            "format": FORMAT,
            **asdict(self),
            "states": [
                {**asdict(state), "dtype": "float32", "start": "zero" if state.start is None else list(state.start)}
                for state in self.states
            ],
            "input": {"name": "x", "dtype": dtype, "shape": list(self.x_shape())},
            "output": {"name": "y", "dtype": "float32", "shape": list(self.y_shape())},
        }

    def metadata(self) -> dict[str, str]:
        """The ``metadata_props`` that hold it."""
        return {KEY: json.dumps(self.as_dict())}


def from_metadata(metadata: dict[str, str], source: str) -> Contract:
    """The contract in a graph's ``metadata_props``; ``source`` names the file in errors."""
    if KEY not in metadata:
        raise ExportError(f"{source}: expected a graph that ssmrt exported, found one without the contract {KEY!r}")
    try:
        facts = json.loads(metadata[KEY])
        if facts["format"] != FORMAT:
            raise ExportError(f"{source}: expected contract format {FORMAT}, found {facts['format']!r}; update ssmrt")
        names = Contract.__dataclass_fields__
        states = tuple(_state(item) for item in facts["states"])
        return Contract(**{**{name: facts[name] for name in names}, "states": states})
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{source}: the contract is damaged: {error!r}") from None


def _state(item: dict[str, Any]) -> State:
    fields = {name: item[name] for name in State.__dataclass_fields__}
    start = None if item["start"] == "zero" else tuple(map(float, item["start"]))
    state = State(**{**fields, "shape": tuple(item["shape"]), "start": start})
    state.initial()
    return state


def ssmrt_version() -> str:
    """The installed version."""
    try:
        return version("ssmrt")
    except PackageNotFoundError:
        return "unknown"


def pairs(states: Sequence[State]) -> list[tuple[str, str]]:
    """(input, output) of every state."""
    return [(state.input, state.output) for state in states]
