"""The facts that a checkpoint does not hold, under the names of upstream's constructor arguments."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError, ConfigRequired


class Config:
    """What was said about the model: ``given`` by the caller over ``found`` in the file.

    Whoever says anything at all (``{}`` too) takes upstream's default for the rest; where nothing was said,
    a fact that the tensors do not decide raises `ConfigRequired`.
    """

    def __init__(
        self,
        given: Mapping[str, Any] | None,
        found: Mapping[str, Any] | None,
        source: str,
        path: tuple[str, ...] = (),
    ):
        self.silent = given is None and found is None
        self._values = _merge(found or {}, given or {})
        self._source = source
        self._path = path
        self._asked: set[str] = set()

    def scope(self, *names: str) -> Config:
        """The mapping at ``names`` as a Config of its own; empty where there is none."""
        value: Any = self._values
        for name in names:
            self._asked.add(name)
            value = value.get(name) if isinstance(value, Mapping) else None
        inner = Config(None, value if isinstance(value, Mapping) else {}, self._source, (*self._path, *names))
        inner.silent = self.silent
        return inner

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def raw(self, name: str) -> Any:
        """What was said about ``name``, unchecked; None where nothing."""
        self._asked.add(name)
        return self._values.get(name)

    def get(self, name: str, default: Any, *, choices: tuple[Any, ...] | None = None, why: str | None = None) -> Any:
        """The fact ``name``. ``why`` says what it changes: then silence raises `ConfigRequired`.

        Without ``why`` silence means ``default``: for facts of which a wrong value would be seen in the tensors.
        """
        self._asked.add(name)
        if name not in self._values:
            if self.silent and why is not None:
                raise ConfigRequired(name, why=why, choices=choices, default=default, path=self._path)
            return default
        value = self._values[name]
        if choices is not None and value not in choices:
            raise CheckpointError(
                f"{self._source}: {self._place(name)}: expected one of {', '.join(map(repr, choices))}, found {value!r}"
            )
        return value

    def required(self, name: str, *, why: str) -> Any:
        """The fact ``name``, for which upstream has no default; raises `ConfigRequired` where it was not said."""
        self._asked.add(name)
        if self._values.get(name) is None:
            raise ConfigRequired(name, why=why, path=self._path)
        return self._values[name]

    def positive(self, name: str, default: int) -> int:
        """The fact ``name``, an integer above zero; silence means ``default``."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.invalid(name, "an integer above zero")
        return value

    def invalid(self, name: str, expected: str) -> CheckpointError:
        """The error that what was said about ``name`` cannot be."""
        return CheckpointError(
            f"{self._source}: {self._place(name)}: expected {expected}, found {self._values.get(name)!r}"
        )

    def agree(self, name: str, actual: Any, tensor: str) -> Any:
        """``actual``, which the tensors say; raises where the config says otherwise."""
        self._asked.add(name)
        if self._values.get(name, actual) != actual:
            raise CheckpointError(
                f"{self._source}: {self._place(name)} contradicts the tensors: expected {actual!r} from {tensor},"
                f" found {self._values[name]!r}"
            )
        return actual

    def number(self, name: str, default: float) -> float:
        """The fact ``name`` as a finite number."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(name, "a number", value)
        return float(value)

    def count(self, name: str, default: int) -> int:
        """The fact ``name`` as an integer above zero; None stands for ``default``."""
        value = self.get(name, default)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.wrong(name, "an integer above zero", value)
        return value

    def wrong(self, name: str, expected: str, found: object) -> CheckpointError:
        """The error that ``name`` was given a value that makes no sense."""
        return CheckpointError(f"{self._source}: {self._place(name)}: expected {expected}, found {found!r}")

    def finish(self) -> None:
        """Raise where a name given is nearly one that was asked for: a slip of the pen, not another setting."""
        for name in self._values:
            if name not in self._asked and (near := difflib.get_close_matches(name, self._asked, 1, 0.85)):
                raise CheckpointError(f"{self._source}: {self._place(name)} is unknown; did you mean {near[0]!r}?")

    def _place(self, name: str) -> str:
        return "config" + "".join(f"[{part!r}]" for part in (*self._path, name))


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``under``, mapping by mapping."""
    both = dict(under)
    for name, value in over.items():
        below = both.get(name)
        both[name] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return both
