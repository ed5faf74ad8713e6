"""S4's stored output matrix, which includes the truncation of the kernel to l_max samples.

S4 trains C~ = C (I - Abar^L) with L = l_max (Gu et al. 2021, lemma C.4), so that l_max is part of what C~
means. A Document holds the true C.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from ..readers.checkpoint import Checkpoint
from .config import Config

Complex = NDArray[np.complex128]
Real = NDArray[np.float64]

TRUNCATED = (
    "the stored C is C (I - Abar^L) for this length L, the sequence length in training;"
    " another one changes the output by 10 to 60 %"
)

# Upstream discretises in float32, which costs up to 1e-4; another l_max moves C by more than this.
_SAME = 1e-2


def length(
    config: Config, name: str, checkpoint: Checkpoint, *, why: str = TRUNCATED, stored: tuple[int, str] | None = None
) -> int:
    """The l_max that config calls ``name``; ``stored`` is (its value, the tensor that says so).

    Nobody has a default for it. Raises where the file's tensors or its own configuration say another one.
    """
    if stored is not None:
        return int(config.agree(name, *stored))
    config.required(name, why=why)
    value = config.positive(name, 1)
    own = (checkpoint.config or {}).get(name, value)
    if own != value:
        raise CheckpointError(
            f"{checkpoint.source}: config[{name!r}] contradicts the file's own configuration:"
            f" expected {own!r}, found {value!r}"
        )
    return value


def discrete_A(A: Complex, P: Complex, dt: Real) -> Complex:
    """Abar of one channel by the bilinear transform: A, P (N,), dt () -> (N, N). Gu et al. 2021, eq. 3."""
    scaled = np.eye(A.size) * (2 / dt)
    full = np.diag(A) - np.outer(P, P.conj())
    return np.asarray(np.linalg.solve(scaled - full, scaled + full))


def true_C(A: Complex, P: Complex, stored: Complex, dt: Real, l_max: int, source: str) -> Complex:
    """C = stored (I - Abar^l_max)^-1 with A, P, stored and the answer (H, N), dt (H,).

    ``stored`` is the row vector that multiplies the state: conjugated already where upstream does so.
    Raises `CheckpointError` where I - Abar^l_max has no inverse.
    """
    eye = np.eye(A.shape[1])
    C = np.empty_like(stored)
    for h in range(A.shape[0]):
        try:
            with np.errstate(all="ignore"):
                power = np.linalg.matrix_power(discrete_A(A[h], P[h], dt[h]), l_max)
                C[h] = np.linalg.solve((eye - power).T, stored[h])
        except np.linalg.LinAlgError:
            C[h] = np.nan
        if not np.isfinite(C[h]).all():
            raise CheckpointError(
                f"{source}: channel {h}: the true C cannot be recovered: I - Abar^{l_max} has no finite inverse"
            )
    return C


def contradicts(A: Complex, depending: Complex, stored_A: Complex, stored_depending: Complex) -> bool:
    """Whether a stored discrete system was made with another l_max.

    A (H, N, N) is the discrete state matrix, ``depending`` (H, N) the part of the system in which l_max shows.
    A stored system that was made from other parameters altogether is out of date and says nothing.
    """

    def same(ours: Complex, stored: Complex) -> bool:
        return bool(np.abs(ours - stored).max() <= _SAME * np.abs(ours).max())

    return any(same(A[h], stored_A[h]) and not same(depending[h], stored_depending[h]) for h in range(A.shape[0]))
