"""The families: each makes a Document from the tensors of one published code base's models.

A family is a module with ``ARCH`` (its name), ``matches(tensors) -> bool`` (whether the names and shapes
are its own) and ``build(checkpoint, config) -> Document``; ``WITHOUT_NAMES = True`` where it knows the order of the
tensors in a file that has no names. A new one is one line in `FAMILIES`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..document import Document
from ..errors import CheckpointError, UnsupportedError
from ..readers.checkpoint import Checkpoint
from ..readers.names import as_tree
from . import equinox

# The order is that in which they are asked whether a checkpoint is theirs.
FAMILIES = {
    "s4-example": "s4_example",
    "s4-sequence-model": "s4_sequence_model",
    "s4-block": "s4_block",
    "lssl": "lssl",
    "mamba": "mamba",
    "annotated-s4": "annotated_s4",
    "s5": "s5",
    "lru": "lru",
    "memax-lru": "memax",
    "equinox-s4": "equinox_s4",
    "equinox-mamba": "equinox_mamba",
}


class Family(Protocol):
    """What each module of `FAMILIES` offers."""

    ARCH: str

    def matches(self, tensors: Mapping[str, NDArray[np.generic]]) -> bool:
        """Whether the names and shapes of ``tensors`` are this family's."""

    def build(self, checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
        """The model, every tensor checked. Raises `CheckpointError`, `ConfigRequired`, `UnsupportedError`."""


def build(checkpoint: Checkpoint, *, config: Mapping[str, Any] | None = None, arch: str | None = None) -> Document:
    """The Document of a checkpoint.

    ``config`` is what the caller says about the model, ``arch`` the family's name; None: found from the names
    of the tensors. Raises `CheckpointError` where no family fits, and what the family's ``build`` raises.
    """
    if arch is not None:
        if arch not in FAMILIES:
            raise CheckpointError(f"arch: expected one of {', '.join(FAMILIES)}; found {arch!r}")
        family = _family(arch)
        if not checkpoint.named and not _reads_without_names(arch):
            raise _no_names(checkpoint)
        views = _views(checkpoint) if checkpoint.named else iter([checkpoint])
        return _build(family, next((v for v in views if family.matches(v.tensors)), checkpoint), config)
    if not checkpoint.named:
        raise _no_names(checkpoint)
    found = identify(checkpoint)
    if found is not None:
        name, view = found
        return _build(_family(name), view, config)
    _refuse_known(checkpoint)
    some = ", ".join(list(checkpoint.tensors)[:5]) or "none at all"
    raise CheckpointError(
        f"{checkpoint.source}: expected the tensors of one of {', '.join(FAMILIES)};"
        f" found {len(checkpoint.tensors)} tensors of another model: {some}"
    )


def _reads_without_names(arch: str) -> bool:
    return getattr(_family(arch), "WITHOUT_NAMES", False)


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


def identify(checkpoint: Checkpoint) -> tuple[str, Checkpoint] | None:
    """The name of the family that a checkpoint is of, and its tensors under that family's names; None: of none."""
    for view in _views(checkpoint) if checkpoint.named else ():
        for name in FAMILIES:
            if _family(name).matches(view.tensors):
                return name, view
    return None


def _family(arch: str) -> Family:
    return cast(Family, importlib.import_module(f".{FAMILIES[arch]}", __name__))


def _views(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """The checkpoint under the names by which families may know it: those of the file, then those of Flax's trees.

    A name with "/" in it is of a tree: the optimiser's copies, which may come first, are to be left out then.
    """
    if not any("/" in name for name in checkpoint.tensors):
        yield from _unwrapped(checkpoint)
    yield as_tree(checkpoint)


def _unwrapped(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """The checkpoint, and what is left of it without the names that wrappers put in front of every tensor.

    ``module.`` is DataParallel's, ``_orig_mod.`` torch.compile's, ``model.`` or ``net.`` a training class's.
    """
    tensors = {name.replace("_orig_mod.", ""): tensor for name, tensor in checkpoint.tensors.items()}
    while True:
        yield replace(checkpoint, tensors=tensors)
        outer = {name.partition(".")[0] if "." in name else None for name in tensors}
        if len(outer) != 1 or None in outer:
            return
        tensors = {name.partition(".")[2]: tensor for name, tensor in tensors.items()}


def _refuse_known(checkpoint: Checkpoint) -> None:
    """Say what the model is where that is known and ssmrt does not run it."""
    names = checkpoint.tensors
    if any(name.endswith("mixer.A_log") for name in names) and not any("x_proj" in name for name in names):
        raise UnsupportedError(f"{checkpoint.source}: a Mamba-2 or Mamba-3 model; of Mamba only the first is supported")
    if any(name.startswith(("c_layers.", "model.c_layers.")) for name in names):
        raise UnsupportedError(f"{checkpoint.source}: a SaShiMi model; its down-sampling backbone is not supported")
