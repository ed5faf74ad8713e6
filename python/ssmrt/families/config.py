"""The facts that a checkpoint does not hold, under the names of upstream's constructor arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from typing import Any

from ..errors import CheckpointError, ConfigRequired
from ..readers.checkpoint import Checkpoint
from .facts import Facts, refuse_unknown, refuse_unsupported


class Config:
    """What was said about the model: ``given`` by the caller over what the file says of itself.

    Whoever says anything of the model (the caller also by ``{}``) takes upstream's default for the rest; where nothing
    was said, a fact that the tensors do not decide raises `ConfigRequired`. What may be said is in the table ``facts``;
    what contradicts the tensors is kept for `finish`, so that a config of another model is one error.

    Raises
    ------
    CheckpointError
        A name of the config is in no table.
    UnsupportedError
        A value is one that ssmrt does not run.
    """

    def __init__(self, given: Mapping[str, Any] | None, checkpoint: Checkpoint, facts: Facts, arch: str):
        found = checkpoint.config
        # What a trainer notes of the training says nothing of the model.
        self.silent = given is None and not any(facts.may_be_asked(name) for name in found or {})
        self._source = checkpoint.source
        self._arch = arch
        self._facts = facts
        self._path: tuple[str, ...] = ()
        self._wrong: dict[str, str] = {}
        place = f"{self._source}: config"
        refuse_unknown(given or {}, facts, arch, place, strict=True)
        refuse_unknown(found or {}, facts, arch, place, strict=False)
        self._values = _merge(found or {}, given or {})
        refuse_unsupported(self._values, facts, arch, place)

    def scope(self, name: str) -> Config:
        """The mapping at ``name`` as a Config of its own; empty where there is none."""
        facts = self._facts.names[name]
        assert isinstance(facts, Facts), name
        return self._view(self._values.get(name), facts, name)

    def inner(self, values: Any, facts: Facts, *names: str) -> Config:
        """A mapping that stands at ``names`` as a Config with another table than the one that says it may be there."""
        view = self._view(values, facts, *names)
        place = f"{self._source}: {view._place()}"
        refuse_unknown(view._values, facts, self._arch, place, strict=True)
        refuse_unsupported(view._values, facts, self._arch, place)
        return view

    def _view(self, values: Any, facts: Facts, *names: str) -> Config:
        view = copy(self)
        view._values = dict(facts.mapping(values) or {})
        view._facts = facts
        view._path = (*self._path, *names)
        return view

    def _ask(self, name: str) -> None:
        if not self._facts.may_be_asked(name):
            raise LookupError(f"{self._arch} reads {name!r}, which its table of facts does not have")

    def knows(self, name: str) -> bool:
        """Whether the table has the fact ``name``."""
        return self._facts.may_be_asked(name)

    def alias(self, *names: str) -> str:
        """That of ``names``, which mean the same, under which something was said; the first where nothing was."""
        told = [name for name in names if name in self] or [names[0]]
        for other in told[1:]:
            if self._values[other] != self._values[told[0]]:
                raise self.wrong(other, f"{self._values[told[0]]!r}, as {told[0]} says", self._values[other])
        return told[0]

    def __contains__(self, name: str) -> bool:
        self._ask(name)
        return name in self._values

    def raw(self, name: str) -> Any:
        """What was said about ``name``, unchecked; None where nothing."""
        self._ask(name)
        return self._values.get(name)

    def get(self, name: str, default: Any, *, choices: tuple[Any, ...] | None = None, why: str | None = None) -> Any:
        """The fact ``name``. ``why`` says what it changes: then silence raises `ConfigRequired`.

        Without ``why`` silence means ``default``: for facts of which a wrong value would be seen in the tensors.
        """
        self._ask(name)
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
        self._ask(name)
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

    def agree(self, name: str, actual: Any, tensor: str, *, also: tuple[object, ...] = ()) -> Any:
        """``actual``, which the tensors say; where the config says otherwise, `finish` raises.

        ``also`` are other values that mean the same. None says nothing.
        """
        self._ask(name)
        value = self._values.get(name)
        if value is not None and value != actual and not any(value == one for one in also):
            self.contradict(name, f"expected {actual!r} from {tensor}, found {value!r}")
        return actual

    def contradict(self, name: str, why: str) -> None:
        """Keep for `finish` that what is said about ``name`` is not so."""
        place = self._place(name)
        self._wrong.setdefault(place, f"{place} contradicts the tensors: {why}")

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
        """Raise where the config contradicts the tensors: then it is another model's."""
        lines = "\n  ".join(self._wrong.values())
        if len(self._wrong) == 1:
            raise CheckpointError(f"{self._source}: {lines}")
        if lines:
            raise CheckpointError(f"{self._source}: the config is of another model than the tensors\n  {lines}")

    def _place(self, *names: str) -> str:
        return "config" + "".join(f"[{part!r}]" for part in (*self._path, *names))


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``under``, mapping by mapping."""
    both = dict(under)
    for name, value in over.items():
        below = both.get(name)
        both[name] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return both
