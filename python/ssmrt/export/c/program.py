"""What a lowering writes into: tables of constants, the state, buffers, C functions and their calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...document import Node
from ...errors import ExportError
from ..systems import Systems
from .functions import NAMES

Array = NDArray[Any]


# Of each type of constants its name in a step, that of its table, and bytes.
TABLES = {
    "float": ("w", "weights", 4),
    "uint16_t": ("n", "counts", 2),
    "int8_t": ("b", "weights8", 1),
    "int16_t": ("q", "weights16", 2),
    "int32_t": ("i", "weights32", 4),
    "uint8_t": ("e", "shifts", 1),
}


@dataclass(frozen=True)
class Value:
    """A signal of ``width`` floats at ``base``, a C expression. What is ``owned`` is a buffer of one user.

    In a block sample t is at ``base + stride * t``; ``stride`` 0: there is one for all.
    """

    base: str
    width: int
    owned: bool = False
    stride: int = 0

    @property
    def pointer(self) -> str:
        """Where it is for the sample at hand."""
        return f"{self.base} + {self.stride} * t" if self.stride else self.base


@dataclass(frozen=True)
class Out:
    """Where an operation stores, and how: ``store`` is "=", "+=" or "*="."""

    value: Value
    store: str = "="

    def __call__(self, place: str, number: str) -> str:
        """The statement that stores ``number`` at ``place``."""
        return f"{place} {self.store} {number};"

    @property
    def suffix(self) -> str:
        """What tells a C function that stores so from others."""
        return {"=": "", "+=": "_add", "*=": "_multiply"}[self.store]


@dataclass(frozen=True)
class Held:
    """The state of a layer: ``size`` floats from ``offset``, zero at first or ``start``."""

    layer: str
    offset: int
    size: int
    start: Array | None = None


@dataclass
class Costs:
    """Operations of a step."""

    multiply_adds: int = 0
    functions: int = 0  # exponentials and what is made of them
    other: int = 0  # on single numbers


@dataclass
class Program:
    """One step of a model as C, or with ``samples`` a block of steps. Call ``scope`` around each node, so that errors
    and comments name it.
    """

    systems: Systems
    rate: float
    samples: int | None = None
    number: str = "float"  # of a signal
    held: str = "float"  # of a state
    tables: dict[str, list[tuple[str, Array]]] = field(default_factory=dict)  # by type, (layer, numbers)
    states: list[Held] = field(default_factory=list)
    kernels: dict[str, str] = field(default_factory=dict)
    functions: set[str] = field(default_factory=set)
    calls: list[tuple[str, str]] = field(default_factory=list)  # (layer, statement)
    layer_costs: dict[str, Costs] = field(default_factory=dict)
    work: int = 0  # floats of all buffers
    # Where matrices are, by the identities of their weights and biases, which are kept for it.
    matrices: dict[tuple[int, int], tuple[str, Array, Array | None]] = field(default_factory=dict)
    layer: str = ""
    _used: list[tuple[int, int]] = field(default_factory=list)  # (begin, end) of the buffers in use

    @contextmanager
    def scope(self, node: Node) -> Iterator[None]:
        """Within it, ``node`` is the layer."""
        before = self.layer
        self.layer = node.name or before
        yield
        self.layer = before

    def constants(self, array: Array) -> str:
        """The C expression that points to these weights, float."""
        with np.errstate(over="ignore"):
            single = np.asarray(array, np.float64).astype(np.float32)
        if not np.isfinite(single).all():
            raise ExportError(f"layer {self.layer!r}: its weights are beyond float32")
        return self.table("float", single)

    def table(self, kind: str, numbers: Array) -> str:
        """The C expression that points to these numbers, of a type of `TABLES`; those read by two at an even place."""
        tables = self.tables.setdefault(kind, [])
        at = sum(len(table) for _, table in tables)
        flat = np.asarray(numbers).reshape(-1)
        tables.append((self.layer, np.pad(flat, (0, len(flat) % 2)) if kind in ("float", "int16_t") else flat))
        short = TABLES[kind][0]
        return f"{short} + {at}" if at else short

    @property
    def table_bytes(self) -> dict[str, int]:
        """Bytes of constants, by layer."""
        found: dict[str, int] = {}
        for kind, tables in self.tables.items():
            for layer, numbers in tables:
                found[layer] = found.get(layer, 0) + TABLES[kind][2] * len(numbers)
        return found

    def state(self, size: int, start: Array | None = None) -> str:
        """The C expression that points to ``size`` floats of state, at an even place."""
        at = self.state_size + self.state_size % 2
        self.states.append(Held(self.layer, at, size, start))
        return f"s + {at}" if at else "s"

    @property
    def costs(self) -> Costs:
        """Of the layer."""
        return self.layer_costs.setdefault(self.layer, Costs())

    @property
    def state_size(self) -> int:
        """Floats of state."""
        return self.states[-1].offset + self.states[-1].size if self.states else 0

    def signal(self, base: str, width: int, *, owned: bool = False) -> Value:
        """A signal at ``base``, its samples one behind the other."""
        return Value(base, width, owned, 0 if self.samples is None else width)

    def buffer(self, width: int) -> Value:
        """A new buffer, the lowest that is free."""
        size = width * (self.samples or 1)
        begin = 0
        for other in sorted(self._used):
            if other[0] - begin >= size:
                break
            begin = max(begin, other[1])
        self._used.append((begin, begin + size))
        self.work = max(self.work, begin + size)
        return self.signal(f"work + {begin}" if begin else "work", width, owned=True)

    def free(self, value: Value) -> None:
        """The buffer of an owned value has no more readers."""
        if value.owned:
            begin = int(value.base.partition("+")[2] or 0)
            self._used.remove((begin, begin + value.width * (self.samples or 1)))

    def call(self, *statements: str) -> None:
        """Append statements of a step; in a block, one sample after the other."""
        if self.samples is None:
            self.calls += [(self.layer, statement) for statement in statements]
            return
        inner = "".join(f"\n        {statement}" for statement in statements)
        self.calls.append((self.layer, f"for (int t = 0; t < {self.samples}; t++) {{{inner}\n    }}"))

    def call_block(self, statement: str) -> None:
        """Append a statement that does a whole block."""
        self.calls.append((self.layer, statement))

    def kernel(self, name: str, text: str, *functions: str) -> str:
        """The name of the C function ``text``, which calls these functions."""
        self.kernels.setdefault(name, text)
        self.functions.update(NAMES.get(f, f) for f in functions if f != "identity")
        return name
