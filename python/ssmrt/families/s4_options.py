"""How the state-spaces/s4 repository writes its options: a name, a mapping with a ``_name_``, or a list of such."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IDENTITY = (None, "id", "identity", "stop", "none")


def name_of(option: Any) -> Any:
    """The ``_name_`` of an option that is a name or a mapping."""
    return option.get("_name_") if isinstance(option, Mapping) else option


def details(option: Any) -> Mapping[str, Any]:
    """The mapping that an option is; empty for a bare name."""
    return option if isinstance(option, Mapping) else {}
