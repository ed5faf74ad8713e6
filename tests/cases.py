"""The real checkpoints that tests run: a row is a model, its files, and what float64 says it answers.

The rows are those of ``../shared/checkpoints/cases.json`` and ``cases_more.json`` where that folder stands beside the
checkout, and those of ``tests/golden/cases.json``, which has small copies of some of them in the same format and more
small ones of its own. ``SSMRT_CASES=golden`` leaves it at the latter.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared" / "checkpoints"

REFERENCE_ERROR = {
    # I - Abar^L is conditioned 7e4 there: two formulas in float64 differ by this much.
    "torch/s4_nplr/fout_r1": 3e-9,
    # Upstream's convolution adds 1e-7 to what it divides by; its decode mode and the paper's formula do not.
    "jax/annotated_dss_cls": 1e-6,
}


@dataclass(frozen=True)
class Case:
    """One row. Arrays have time second: u (B, L, D) or tokens (B, L); y64 (B, L, D), or (B, D) where it pools."""

    folder: Path
    row: Mapping[str, Any]

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        return str(self.row["name"])

    @property
    def arch(self) -> str:
        return str(self.row["arch"])

    @property
    def config(self) -> Mapping[str, Any] | None:
        return self.row.get("config")

    @property
    def streams(self) -> bool:
        return bool(self.row["streams"])

    @property
    def tolerance64(self) -> float:
        """How near float64 must come to y64, as max |difference| / max |y64|."""
        return REFERENCE_ERROR.get(self.name, 1e-9)

    @property
    def files(self) -> list[tuple[Path, Mapping[str, Any] | None]]:
        """Each file with the config that it needs beside it: None where the file holds its own."""
        needing = self.row.get("config_needed_for", self.row["files"])
        return [(self.folder / f, self.config if f in needing else None) for f in self.row["files"]]

    @cached_property
    def _arrays(self) -> Mapping[str, Array]:
        with np.load(self.folder / "io.npz") as arrays:
            return {name: arrays[name] for name in arrays.files}

    def array(self, name: str) -> Array:
        """An array of io.npz, time second."""
        array = self._arrays[name]
        if array.ndim == 3:
            array = array.transpose({"BDL": (0, 2, 1), "LBD": (1, 0, 2)}.get(self.row["layout"], (0, 1, 2)))
            if array.dtype.kind == "i":
                array = array[..., 0]
        return np.ascontiguousarray(array)

    @property
    def io(self) -> list[tuple[Array, Array]]:
        """Pairs (u, y64)."""
        return [(self.array(u), self.array(y)) for u, y in self.row["io"]]

    @property
    def stream_io(self) -> list[tuple[Array, Array]]:
        """Pairs (u, y64) that are only for streaming."""
        return [(self.array(u), self.array(y)) for u, y in self.row.get("stream_io", [])]

    @property
    def start(self) -> Array | None:
        """Boolean (B, L): the state is zero before that sample."""
        return self.array(self.row["start"]) if "start" in self.row else None

    @property
    def lengths(self) -> Array | None:
        """Integer (B,): where the sequences end."""
        return self.array(self.row["lengths"]) if "lengths" in self.row else None


def _rows() -> Iterator[tuple[Path, Mapping[str, Any]]]:
    seen: set[str] = set()
    for folder in [GOLDEN] if os.environ.get("SSMRT_CASES") == "golden" else [SHARED, GOLDEN]:
        for path in sorted(folder.glob("cases*.json")):
            rows = json.loads(path.read_text())
            yield from ((folder, row) for row in rows if row["name"] not in seen)
            seen |= {row["name"] for row in rows}


def cases(prefix: str = "", arch: str | None = None) -> Iterator[Case]:
    """The rows whose name starts with ``prefix`` (and whose arch is ``arch``)."""
    for folder, row in _rows():
        if row["name"].startswith(prefix) and arch in (None, row["arch"]):
            yield Case(folder / row["name"], row)


def relative_error(y: Array, reference: Array) -> float:
    """The largest |y - reference| / the largest |reference|; infinite where shapes differ or a number is not finite."""
    if y.shape != reference.shape or not np.isfinite(y).all():
        return float("inf")
    return float(np.abs(y - reference).max() / np.abs(reference).max())
