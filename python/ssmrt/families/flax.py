"""What the Flax families share: the parameter tree's root, and linen's own modules as nodes."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from ..document import Linear, Norm
from ..errors import CheckpointError
from ..readers.checkpoint import Checkpoint
from .config import Config
from .tensors import Tensors

LAYER_NORM_EPS = 1e-6
BATCH_NORM_EPS = 1e-5

_OPTIMISER = re.compile(r"(^|/)opt\w*/")
_COLLECTIONS = ("params", "batch_stats", "prime", "cache")


def holds(names: Iterable[str], pattern: str) -> bool:
    """Whether a name below ``params/``, or below nothing, matches ``pattern`` in full."""
    return bool(_roots(names, pattern))


def _roots(names: Iterable[str], pattern: str) -> list[str]:
    """What stands before ``pattern``, once each; an optimiser's copies of the parameters are not the model's."""
    compiled = re.compile(rf"((?:.*/)?params/|)(?:{pattern})")
    found = dict.fromkeys(match[1] for name in names if (match := compiled.fullmatch(name)))
    return [root for root in found if not _OPTIMISER.search(root)]


def _root_of_parameters(name: str) -> str | None:
    """What stands before the name of a parameter, which must have a place in the model; None for what is none."""
    match = re.match(r"(?:.*?/)?params/", name)
    return match[0] if match and not _OPTIMISER.search(name) else None


class Variables:
    """Flax's variable collections, whatever they are filed under: ``params``, and ``batch_stats`` where it is there.

    ``bare`` is a tree of parameters alone, which says nothing about the other collections.
    """

    def __init__(self, checkpoint: Checkpoint, pattern: str):
        roots = _roots(checkpoint.tensors, pattern)
        if not roots:
            raise CheckpointError(f"{checkpoint.source}: expected a tensor named like {pattern!r}, found none")
        if len(roots) > 1:
            prefixes = " or ".join(f"prefix={root.removesuffix('params/') or root!r}" for root in roots)
            raise CheckpointError(f"{checkpoint.source}: the file holds {len(roots)} models; pass {prefixes}")
        root = roots[0]
        self.bare = root == ""
        base = root.removesuffix("params/")
        kept = checkpoint.tensors
        if not self.bare:
            kept = {
                n: a
                for n, a in kept.items()
                if n.removeprefix(base).split("/")[0] in _COLLECTIONS or _root_of_parameters(n) not in (None, root)
            }
        self._all = Tensors(kept, checkpoint.source)
        self.source = checkpoint.source
        self.params = self._all.scope(root)
        self.stats = self._all.scope(f"{base}batch_stats/")
        self.prime = self._all.scope(f"{base}prime/")
        # The state of a decoder that was stopped mid-sequence: a model starts from rest.
        self._passing = self._all.scope(f"{base}cache/")

    @property
    def has_stats(self) -> bool:
        """Whether running statistics are there, which only batch normalisation has."""
        return not self.bare and bool(self.stats.names)

    def finish(self) -> None:
        """Raise where a tensor was left over."""
        for name in self._passing.names:
            self._passing.ignore(name)
        self._all.finish()


def dense(tensors: Tensors, name: str, d_in: int | str, d_out: int | str) -> Linear:
    """``nn.Dense``: its kernel is (d_in, d_out)."""
    kernel = tensors.take(f"{name}/kernel", d_in, d_out)
    return Linear(np.ascontiguousarray(kernel.T), tensors.optional(f"{name}/bias", d_out), name=name)


def layer_norm(tensors: Tensors, name: str, d: int | str) -> Norm:
    """``nn.LayerNorm`` with its default epsilon."""
    scale, bias = tensors.optional(f"{name}/scale", d), tensors.optional(f"{name}/bias", d)
    return Norm("layer", scale, bias, eps=LAYER_NORM_EPS, name=name)


def batch_norm(params: Tensors, stats: Tensors, name: str, d: int | str) -> Norm:
    """``nn.BatchNorm`` in evaluation: its running statistics folded into one affine map, in float64."""
    mean, var = stats.f64(f"{name}/mean", d), stats.f64(f"{name}/var", d)
    if (var < 0).any():
        raise stats.misfit(f"{name}/var", "variances", f"{var.min():.3g}")
    scale, bias = params.optional(f"{name}/scale", d), params.optional(f"{name}/bias", d)
    weight = (1.0 if scale is None else scale.astype(np.float64)) / np.sqrt(var + BATCH_NORM_EPS)
    shift = (0.0 if bias is None else bias.astype(np.float64)) - mean * weight
    return Norm("affine", weight, shift, name=name)


def uses_batch_norm(variables: Variables, config: Config, key: str, batch: object, layer: object) -> bool:
    """Whether the norms are batch norms, which config calls ``key`` = ``batch`` and not ``layer``.

    A file of all collections tells by its running statistics. A file of parameters alone cannot tell, and
    cannot be run where they were batch norms.
    """
    if not variables.bare:
        found = batch if variables.has_stats else layer
        at = "batch_stats" if variables.has_stats else "a file without batch_stats"
        return bool(config.agree(key, found, at) == batch)
    said = config.get(
        key,
        batch,
        choices=(batch, layer),
        why="the file holds parameters alone, in which batch and layer normalisation look the same",
    )
    if said == batch:
        raise CheckpointError(
            f"{variables.source}: config[{key!r}] = {batch!r}: expected the running statistics batch_stats/.../mean"
            " and var, found parameters alone; save the whole variables, params and batch_stats"
        )
    return False
