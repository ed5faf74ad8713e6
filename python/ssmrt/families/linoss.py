"""LinOSS (Rusch & Rus 2025) as tk-rusch/linoss trains it in Equinox: oscillators that are driven by all inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Activation, Dense, DiagonalMimo, Document, Glu, Linear, Node, Norm, Pool, Residual, Sequential
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

# Of a smaller step the square would be no float64.
_SMALLEST = 1e-150

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
    may be ``damped``. B u is complex, so that each eigenvalue of an oscillator's real 2 x 2 matrix M is a mode of its
    own. Where two are near each other, as at critical damping and where A = 0, M is run as it is.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        M, F = _discrete(layer, scheme, damped=damped)
    B, C, D = layer.complex("B", "P", "H"), layer.complex("C", "H", "P"), layer.f64("D", "H")
    half = (M[:, 0, 0] - M[:, 1, 1]) / 2
    root = np.sqrt(half**2 + M[:, 0, 1] * M[:, 1, 0] + 0j)
    apart = 2 * np.abs(root) >= _APART
    modes = [_mode(M[apart], F[apart], sign * root[apart]) for sign in (1, -1)]
    direct: Node = Norm("affine", D, name=f"{name}.D")
    if apart.any():
        direct = DiagonalMimo(
            A=np.concatenate([eigenvalue for eigenvalue, _ in modes]),
            B=np.concatenate([drive[:, None] * B[apart] for _, drive in modes]),
            C=np.concatenate([C[:, apart], C[:, apart]], 1),
            D=D,
            dt=None,
            disc="discrete",
            conjugate_pairs=False,
            allow_unstable=True,
            name=name,
        )
    if apart.all():
        return direct
    return Residual(_coupled(M[~apart], F[~apart], B[~apart], C[:, ~apart], name), skip=direct)


def _mode(M: Array, F: Array, root: Array) -> tuple[Array, Array]:
    """One eigenvalue of each M (P, 2, 2), half the difference of the two ``root``, and how F drives it.

    Its eigenvector is ((eigenvalue - M22) / M21, 1), so that the position is the sum of both modes.
    """
    eigenvalue = (M[:, 0, 0] + M[:, 1, 1]) / 2 + root
    other = (M[:, 0, 0] - M[:, 1, 1]) / 2 - root
    return eigenvalue, (M[:, 1, 0] * F[:, 0] - other * F[:, 1]) / (2 * root)


def _coupled(M: Array, F: Array, B: Array, C: Array, name: str) -> Node:
    """Oscillators in real form: the real and the imaginary part of B u drive two systems with the same matrix."""
    count = len(M)
    # Positions in steps, as velocities are: M is of numbers near one then, whatever the step.
    scale = M[:, 0, 0] / M[:, 1, 0]
    M, F = M.copy(), F.copy()
    M[:, 0, 1] /= scale
    M[:, 1, 0] *= scale
    F[:, 1] *= scale
    positions = np.zeros((1, 2 * count, 2))
    positions[0, :, 1] = np.tile(1 / scale, 2)
    system = Dense(
        A=M,
        B=F,
        C=positions,
        D=np.zeros((1, 2 * count)),
        dt=None,
        disc="discrete",
        allow_unstable=True,
        name=f"{name} (coupled)",
    )
    split = Linear(np.concatenate([B.real, B.imag]), name=f"{name}.B")
    return Sequential((split, system, Linear(np.concatenate([C.real, -C.imag], 1), name=f"{name}.C")))


def _discrete(layer: Tensors, scheme: str, *, damped: bool) -> tuple[Array, Array]:
    """w_t = M w_{t-1} + F (B u_t) of each oscillator, w = (velocity, position): M (P, 2, 2) and F (P, 2)."""
    step = 1 / (1 + np.exp(-layer.f64("steps", "P")))
    if (step < _SMALLEST).any():
        raise layer.misfit("steps", f"step sizes, which are sigmoids, above {_SMALLEST}", f"{step.min():.3g}")
    A = layer.f64("A_diag", "P")
    one = np.ones_like(A)
    if scheme == "IM":
        A = np.maximum(A, 0)
        inverse = 1 / (1 + step**2 * A)
        M = [[inverse, -step * A * inverse], [step * inverse, inverse]]
        F = [step * M[0][0], step * M[1][0]]
    else:
        G = np.maximum(layer.f64("G_diag", "P"), 0) if damped else 0 * one
        S = 1 + step * G
        if damped:
            # Upstream keeps A between the two critical dampings.
            low, high = ((2 + step * G + sign * 2 * np.sqrt(S)) / step**2 for sign in (-1, 1))
            A = low + np.maximum(A - low, 0) - np.maximum(A - high, 0)
        else:
            A = np.maximum(A, 0)
        M = [[one / S, -step * A / S], [step / S, one - step**2 * A / S]]
        F = [step / S, step**2 / S]
    return np.moveaxis(np.array(M), -1, 0).copy(), np.stack(F, -1)
