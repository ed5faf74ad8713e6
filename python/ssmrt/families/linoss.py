"""LinOSS (Rusch & Rus 2025) as tk-rusch/linoss trains it in Equinox: oscillators that are driven by all inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Activation, DiagonalMimo, Document, Glu, Node, Norm, Pool, Residual, Sequential
from ..readers.checkpoint import Checkpoint
from . import equinox, parts
from .config import Config
from .facts import TRAINING, facts, named
from .tensors import Tensors

ARCH = "linoss"

FACTS = (
    TRAINING
    | named(ARCH, "LinOSS")
    | facts(
        used="discretization linoss_discretization output_step",
        checked="num_blocks N data_dim ssm_size ssm_dim H hidden_dim output_dim label_dim classification model_name",
        idle="drop_rate key seeds data_dir output_parent_dir num_steps print_steps metric dataset_name use_presplit T"
        " dt0 scale time ssm_blocks",
    )
)

# Modes whose eigenvalues are nearer than this nearly cancel: they would cost a float32 more than four bits.
_APART = 1 / 16

DISCRETIZATION_WHY = "the file looks the same for both, and they move the oscillators differently"

Array = NDArray[Any]


def matches(tensors: Mapping[str, Any]) -> bool:
    """Whether the names are those of a LinOSS, beside its State or alone."""
    return any(f"{prefix}blocks[0].ssm.A_diag" in tensors for prefix in ("", "[0]."))


def build(checkpoint: Checkpoint, config: Mapping[str, Any] | None) -> Document:
    """The model as upstream runs it in evaluation; for regression one answer a sample.

    Of the answers of a regression upstream keeps every ``output_step``-th, ``y[:, output_step - 1 :: output_step]``.

    Raises
    ------
    CheckpointError
        A tensor is missing, left over or misshapen, or contradicts the config; or the State is missing.
    ConfigRequired
        ``discretization`` is not known, or ``classification`` in a file of arrays alone.
    """
    said = Config(config, checkpoint, FACTS, ARCH)
    saved = equinox.Stateful(checkpoint)
    model = saved.model
    count = parts.layer_count(model, "blocks[", "].")
    name = said.alias("discretization", "linoss_discretization")
    scheme = said.get(name, "IMEX", choices=("IM", "IMEX"), why=DISCRETIZATION_WHY)
    stored = equinox.boolean(model, "classification")
    if stored is None:
        stored = said.get(
            "classification",
            True,
            choices=(True, False),
            why="a classifier averages over time and ends in a softmax, a regression in tanh at every sample",
        )
    classification = said.agree("classification", stored, "classification")
    output_step = equinox.integer(model, "output_step")
    if output_step is not None:
        said.agree("output_step", output_step, "output_step")

    blocks: list[Node] = []
    first = equinox.linear(model, "linear_encoder", "I", "H")
    last = equinox.linear(model, "linear_layer", "H", "O")
    for i in range(count):
        at = f"blocks[{i}]"
        norm = saved.batch_norm(f"{at}.norm", "H")
        for idle in ("drop.p", "drop.inference"):
            model.ignore(f"{at}.{idle}")
        w1, w2 = (equinox.linear(model, f"{at}.glu.{w}", "H", "H") for w in ("w1", "w2"))
        layer = oscillators(model.scope(f"{at}.ssm."), scheme, damped=False, name=f"{at}.ssm")
        inner = (norm, layer, Activation("gelu_tanh"), parts.side_by_side(w1, w2), Glu())
        blocks.append(Residual(Sequential(inner)))
    saved.finish()

    dims = model.dims
    sizes = {
        ("num_blocks",): (count, "the number of blocks[i]"),
        ("N", "data_dim"): (dims["I"], "linear_encoder.weight"),
        ("H", "hidden_dim"): (dims["H"], "linear_encoder.weight"),
        ("ssm_size", "ssm_dim"): (dims["P"], "blocks[0].ssm.A_diag"),
        ("output_dim", "label_dim"): (dims["O"], "linear_layer.weight"),
    }
    parts.check_sizes(said, {name: size for names, size in sizes.items() for name in names})
    said.agree("model_name", "LinOSS", "blocks[0].ssm.A_diag")
    said.finish()
    head: tuple[Node, ...] = (last, Activation("tanh", name="tanh"))
    if classification:
        head = (Pool("mean"), last, Activation("softmax", name="softmax"))
    return Document(Sequential((first, *blocks, *head)), dims["I"], dims["O"], {"arch": ARCH})


def oscillators(layer: Tensors, scheme: str, *, damped: bool, name: str) -> Node:
    """P oscillators x'' = -A x - G x' + B u, each moved by a step of its own; y = Re(C x) + D u.

    ``scheme`` is "IM", implicit, or "IMEX", implicit in the velocity and explicit in the position; only the latter
    may be ``damped``. Each scheme's real 2 x 2 matrix M drives the positions by its eigenvalues p and q alone:
    x = F B u / ((1 - p/z) (1 - q/z)). Where they are apart they are two modes side by side. Where they are near each
    other, as at critical damping and where A = 0, these would cancel, and one mode drives the other.
    """
    M, F = _discrete(layer, scheme, damped=damped)
    B, C, D = F[:, None] * layer.complex("B", "P", "H"), layer.complex("C", "H", "P"), layer.f64("D", "H")
    root = np.sqrt(((M[:, 0, 0] - M[:, 1, 1]) / 2) ** 2 + M[:, 0, 1] * M[:, 1, 0] + 0j)
    p, q = (M[:, 0, 0] + M[:, 1, 1]) / 2 + root, (M[:, 0, 0] + M[:, 1, 1]) / 2 - root
    apart = np.abs(p - q) >= _APART
    near = ~apart
    direct: Node = Norm("affine", D, name=f"{name}.D")
    if apart.any():
        poles = np.concatenate([p[apart], q[apart]])
        distances = np.concatenate([(p - q)[apart], (q - p)[apart]])
        drives = (poles / distances)[:, None] * np.concatenate([B[apart]] * 2)
        direct = _modes(poles, drives, np.concatenate([C[:, apart]] * 2, 1), D, name)
    if apart.all():
        return direct
    # A complex number is two channels between the nodes.
    one = np.eye(near.sum())
    first = _modes(q[near], B[near], np.concatenate([one, -1j * one]), None, f"{name} (first of two)")
    second = _modes(p[near], np.concatenate([one, 1j * one], 1), C[:, near], None, f"{name} (second of two)")
    return Residual(Sequential((first, second)), skip=direct)


def _modes(A: Array, B: Array, C: Array, D: Array | None, name: str) -> DiagonalMimo:
    return DiagonalMimo(
        A=A, B=B, C=C + 0j, D=D, dt=None, disc="discrete", conjugate_pairs=False, allow_unstable=True, name=name
    )


def _discrete(layer: Tensors, scheme: str, *, damped: bool) -> tuple[Array, Array]:
    """The step of each oscillator's velocity and position, M (P, 2, 2), and how B u drives the position, (P,).

    B u drives the velocity as M does a velocity: that is why nothing else is seen of M in the positions.
    """
    steps, A = layer.f64("steps", "P"), layer.f64("A_diag", "P")
    one = np.ones_like(A)
    # What overflows is refused by the engine.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        step = 1 / (1 + np.exp(-steps))
        if scheme == "IM":
            A = np.maximum(A, 0)
            inverse = 1 / (1 + step**2 * A)
            M = [[inverse, -step * A * inverse], [step * inverse, inverse]]
        elif damped:
            G = np.maximum(layer.f64("G_diag", "P"), 0)
            S = 1 + step * G
            # Upstream keeps A between the two critical dampings.
            low, high = ((2 + step * G + sign * 2 * np.sqrt(S)) / step**2 for sign in (-1, 1))
            A = low + np.maximum(A - low, 0) - np.maximum(A - high, 0)
            M = [[one / S, -step * A / S], [step / S, one - step**2 * A / S]]
        else:
            A = np.maximum(A, 0)
            M = [[one, -step * A], [step, one - step**2 * A]]
    return np.moveaxis(np.array(M), -1, 0), step * M[1][0]
