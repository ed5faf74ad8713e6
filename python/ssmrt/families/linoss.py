"""LinOSS (Rusch & Rus 2025) as tk-rusch/linoss trains it in Equinox: oscillators that are driven by all inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..document import Activation, Document, Glu, Linoss, Node, Pool, Residual, Sequential
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

DISCRETIZATION_WHY = "the file looks the same for both, and they move the oscillators differently"


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


def oscillators(layer: Tensors, scheme: str, *, damped: bool, name: str) -> Linoss:
    """P oscillators, stepped by the sigmoid of ``steps``; ``damped`` goes with ``scheme`` "IMEX", and not with "IM"."""
    steps, A, G = layer.f64("steps", "P"), layer.f64("A_diag", "P"), None
    # What overflows is refused by the engine.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        dt = 1 / (1 + np.exp(-steps))
        if damped:
            G = np.maximum(layer.f64("G_diag", "P"), 0)
            # Upstream keeps A between the two critical dampings.
            low, high = (((np.sqrt(1 + dt * G) + sign) / dt) ** 2 for sign in (-1, 1))
            A = np.clip(A, low, high)
        else:
            A = np.maximum(A, 0)
        grows = scheme == "IMEX" and not damped and bool((dt**2 * A > 4).any())
    return Linoss(
        A=A,
        B=layer.complex("B", "P", "H"),
        C=layer.complex("C", "H", "P"),
        D=layer.f64("D", "H"),
        dt=dt,
        G=G,
        disc="im" if scheme == "IM" else "imex",
        # What was trained so runs as upstream; a rate may not make a model so.
        allow_unstable=grows,
        name=name,
    )
