"""What every reader answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint, whatever the container.

    ``tensors`` are the model's own, under the names of the file ("." joins in PyTorch's, "/" in Flax's,
    ``jax.tree_util.keystr`` for Equinox), optimiser and averaged copies left out. Where the file has no
    names (``named`` is False) they are "[0]", "[1]", ... in the file's order.
    ``config`` is the configuration that the file itself holds, None where it holds none.
    """

    tensors: Mapping[str, NDArray[np.generic]]
    source: str
    format: str
    config: Mapping[str, Any] | None = None
    named: bool = field(default=True, kw_only=True)
