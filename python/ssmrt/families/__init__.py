"""The families: each makes a Document from the tensors of one published code base's models.

A family is a module with ``ARCH`` (its name), ``matches(tensors) -> bool`` (whether the names and shapes
are its own), ``FACTS`` (what becomes of each name of a configuration) and ``build(checkpoint, config) -> Document``;
``WITHOUT_NAMES = True`` where it knows the order of the tensors in a file that has no names. A new one is one line in
`FAMILIES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..document import Document
from ..errors import CheckpointError
from ..readers.checkpoint import Checkpoint
from ..readers.names import as_tree
from . import equinox, strangers, views
from .facts import Facts
from .tensors import LeftOver

# The order is that in which they are asked whether a checkpoint is theirs.
FAMILIES = {
    "s4-example": "s4_example",
    "s4-sequence-model": "s4_sequence_model",
    "lrnnx-s4": "lrnnx_s4",
    "s4-block": "s4_block",
    "lssl": "lssl",
    "torch-lru": "torch_lru",
    "torch-s5": "torch_s5",
    "neural-ssm": "neural_ssm",
    "mamba": "mamba",
    "mamba2": "mamba2",
    "annotated-s4": "annotated_s4",
    "s5": "s5",
    "lru": "lru",
    "memax-lru": "memax",
    "memax-linen": "memax_linen",
    "memorax": "memorax",
    "discretax": "discretax",
    "linoss": "linoss",
    "equinox-s4": "equinox_s4",
    "equinox-mamba": "equinox_mamba",
}

# Other names of families: memax' ResidualModel is one, whatever its cells.
ALIASES = {"memax-s6": "memax-lru"}


class Family(Protocol):
    """What each module of `FAMILIES` offers."""

    ARCH: str
    FACTS: Facts

    def matches(self, tensors: Mapping[str, NDArray[np.generic]]) -> bool:
        """Whether the names and shapes of ``tensors`` are this family's."""

    def build(self, checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
        """The model, every tensor checked. Raises `CheckpointError`, `ConfigRequired`, `UnsupportedError`."""


def build(
    checkpoint: Checkpoint,
    *,
    config: Mapping[str, Any] | None = None,
    arch: str | None = None,
    prefix: str | None = None,
) -> Document:
    """The Document of a checkpoint.

    ``config`` is what the caller says about the model, ``arch`` the family's name; None: found from the names
    of the tensors. ``prefix`` takes the part of the file whose names start so. Raises `CheckpointError` where no
    family fits, or a part of the file only, and what the family's ``build`` raises.
    """
    arch = ALIASES.get(arch or "", arch)
    if arch is not None and arch not in FAMILIES:
        raise CheckpointError(f"arch: expected one of {', '.join(FAMILIES)}; found {arch!r}")
    if not checkpoint.named:
        if prefix is not None:
            raise CheckpointError(f"{checkpoint.source}: prefix={prefix!r}: the file has no names")
        if arch is None or not _reads_without_names(arch):
            raise _no_names(checkpoint)
        return _build(family(arch), checkpoint, config)
    whole = checkpoint
    if prefix is not None:
        checkpoint = views.part(checkpoint, prefix)
    strangers.refuse(checkpoint, config, whole)
    among = (arch,) if arch is not None else tuple(FAMILIES)
    found = identify(checkpoint, among)
    if found is not None:
        name, view = found
        try:
            return _build(family(name), view, config)
        except LeftOver as error:
            parts = views.fitting(checkpoint, lambda part: identify(part, among) is not None, numbered=False)
            raise CheckpointError(f"{error}{views.advice(checkpoint, parts)}") from None
    parts = views.fitting(checkpoint, lambda part: identify(part, among) is not None, numbered=True)
    if parts:
        raise views.only_in_parts(checkpoint, parts)
    if arch is not None:
        return _build(family(arch), checkpoint, config)
    # Where the names are those of no tree, that is what is wrong.
    as_tree(checkpoint)
    some = ", ".join(list(checkpoint.tensors)[:5]) or "none at all"
    raise CheckpointError(
        f"{checkpoint.source}: expected the tensors of one of {', '.join(FAMILIES)};"
        f" found {len(checkpoint.tensors)} tensors of another model: {some}"
    )


def _reads_without_names(arch: str) -> bool:
    return bool(getattr(family(arch), "WITHOUT_NAMES", False))


def _no_names(checkpoint: Checkpoint) -> CheckpointError:
    archs = ", ".join(filter(_reads_without_names, FAMILIES))
    return CheckpointError(
        f"{checkpoint.source}: the file has no names; pass arch=, one of {archs}, with the"
        f" constructor's arguments in config, or {equinox.LEAVES}"
    )


def _build(family: Family, checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    document = family.build(checkpoint, config)
    # Where the file lay is its owner's business: a saved model tells the name alone.
    return replace(document, meta={**document.meta, "source": Path(checkpoint.source).name})


def identify(checkpoint: Checkpoint, among: Iterable[str] = FAMILIES) -> tuple[str, Checkpoint] | None:
    """The name of the family that a checkpoint is of, and its tensors under that family's names; None: of none."""
    for view in views.known(checkpoint) if checkpoint.named else ():
        for name in among:
            if family(name).matches(view.tensors):
                return name, view
    return None


def family(arch: str) -> Family:
    """The module of a family, by the name that `FAMILIES` gives it."""
    return cast(Family, importlib.import_module(f".{FAMILIES[arch]}", __name__))
