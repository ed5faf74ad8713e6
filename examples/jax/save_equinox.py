"""Save an Equinox module so that it can be read without Equinox: the leaves, and beside them their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax


def save(folder: Path, module: Any) -> Path:
    """Write ``model.eqx`` and ``leaves.json`` into ``folder``; answers with the former's path."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(module):
        rows.append(
            {
                "path": jax.tree_util.keystr(path),
                "saved": bool(eqx.is_array_like(leaf)),
                "shape": list(leaf.shape) if eqx.is_array(leaf) else None,
                "dtype": str(leaf.dtype) if eqx.is_array(leaf) else type(leaf).__name__,
            }
        )
    (folder / "leaves.json").write_text(json.dumps(rows, indent=1))
    eqx.tree_serialise_leaves(folder / "model.eqx", module)
    return folder / "model.eqx"
