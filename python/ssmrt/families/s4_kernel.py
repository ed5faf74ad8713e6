"""S4's and S4D's state-space kernels as upstream's versions 2 to 4 store them, made continuous-time systems.

Upstream trains functions of the parameters (an inverse of exp, softplus, ...) and, for S4, C (I - Abar^L)
in place of C. Here all that is undone, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..document import Diagonal, Dplr
from ..errors import CheckpointError
from .config import Config
from .tensors import Tensors

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Kernel:
    """The parameters of a layer's H systems; channel ``h`` uses system ``h % S``."""

    dt: Real  # (H, 1) or (H, n)
    A: Complex  # (S, n)
    B: Complex  # (S, n)
    C: Complex  # (M, H, n)
    P: Complex | None = None  # (R, S, n); None: A is diagonal
    Q: Complex | None = None  # (R, S, n); None: P
    length: int = 0  # C stands for C (I - Abar^length); 0: for C
    disc: str = "zoh"  # of a diagonal one
    real: bool = False


def softplus(x: Real) -> Real:
    """log(1 + e^x), and x above 20 as PyTorch has it."""
    return np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20))))


TRANSFORMS: dict[str, Callable[[Real], Real]] = {
    "none": lambda p: p,
    "exp": np.exp,
    "relu": lambda p: np.maximum(p, 0) + 1e-4,
    "sigmoid": lambda p: 1 / (1 + np.exp(-p)),
    "softplus": softplus,
}

WHY_DT = "dt is stored as the inverse of this function; a wrong one changes the output by up to 80 %"
WHY_A = "A is stored as the inverse of this function; a wrong one changes the output by up to 46 %"
WHY_DISC = "the discretisation is not in the file; a wrong one changes the output beyond use"
WHY_BAND = "modes above this part of the sampling rate are masked; None masks none"
WHY_FAST = "dt is stored under a further sinh where this is true"


def transform(config: Config, name: str, default: str, why: str) -> Callable[[Real], Real]:
    """The function that config calls ``name``."""
    chosen = config.get(name, default, choices=tuple(TRANSFORMS), why=why)
    return TRANSFORMS[chosen]


def applied(function: Callable[[Real], Real], t: Tensors, name: str, *shape: int | str) -> Real:
    """``function`` of the tensor ``name``, which must come out finite."""
    with np.errstate(over="ignore"):
        value = np.asarray(function(t.f64(name, *shape)))
    if not np.isfinite(value).all():
        raise t.misfit(name, "numbers whose transform is finite", "an overflow; is the transform the right one?")
    return value


def step_size(function: Callable[[Real], Real], t: Tensors, name: str, *shape: int | str) -> Real:
    """As `applied`, positive."""
    dt = applied(function, t, name, *shape)
    if (dt <= 0).any():
        raise t.misfit(name, "positive step sizes", f"{dt.min():.4g}; is the transform the right one?")
    return dt


def read(t: Tensors, config: Config, default_dt: str = "exp") -> Kernel:
    """The kernel in the layout of version 4, whose tensors are those of ``t``."""
    dt_function = transform(config, "dt_transform", default_dt, WHY_DT)
    dplr = "P" in t
    disc = "bilinear"
    if not dplr:
        disc = config.get("disc", "zoh", choices=("zoh", "bilinear", "dss"), why=WHY_DISC)
    real = "A_imag" not in t
    real_function = transform(config, "real_transform", "exp", WHY_A)
    fast = config.get("dt_fast", False, choices=(False, True), why=WHY_FAST)
    H, columns = _two(t, "inv_dt")
    n = t.dims["n"] = _two(t, "A_real")[1]
    # Who unties dt of one mode from the others' has as many columns as modes.
    dt = step_size(
        (lambda p: dt_function(np.sinh(p))) if fast else dt_function, t, "inv_dt", "H", 1 if columns == 1 else "n"
    )
    config_agree_untied(config, columns, n)
    A: Any = -applied(real_function, t, "A_real", "S", "n")
    if not real:
        imag_function = transform(config, "imag_transform", "none", WHY_A)
        A = A - 1j * applied(imag_function, t, "A_imag", "S", "n")
    config.agree("is_real", real, "the missing A_imag" if real else "A_imag")
    read_ = t.f64 if real else t.complex
    B, C = read_("B", 1, "S", "n")[0], read_("C", "M", "H", "n")
    kernel = Kernel(dt, A.astype(complex), B.astype(complex), C.astype(complex), disc=disc, real=real)
    if dplr:
        length = t.integer("l_kernel")
        if length < 0:
            raise t.misfit("l_kernel", "no negative number", str(length))
        kernel = replace(kernel, P=t.complex("P", "R", "S", "n"), length=length)
    return banded(kernel, config, t, H) if config.knows("bandlimit") else kernel


def config_agree_untied(config: Config, columns: int, n: int) -> None:
    """Check ``dt_tie``, which the tensors say unless there is one mode only."""
    if n > 1:
        config.agree("dt_tie", columns == 1, "inv_dt")


def banded(kernel: Kernel, config: Config, t: Tensors, H: int) -> Kernel:
    """The kernel with C zero where the mode's frequency is too high (Nguyen et al. 2022, section 3.3)."""
    S = kernel.A.shape[0]
    if H % S:
        raise t.misfit("C", f"channels a multiple of the {S} systems", f"{H} channels")
    bandlimit = config.get("bandlimit", None, why=WHY_BAND)
    if bandlimit is None:
        return kernel
    if isinstance(bandlimit, bool) or not isinstance(bandlimit, int | float):
        raise config.wrong("bandlimit", "a number or None", bandlimit)
    frequency = kernel.dt * np.abs(kernel.A.imag)[np.arange(H) % S] / (2 * np.pi)
    return replace(kernel, C=np.where(frequency < bandlimit * 0.5, kernel.C, 0))


def _two(t: Tensors, name: str) -> tuple[int, int]:
    shape = t.shape(name)
    if len(shape) != 2:
        raise t.misfit(name, "two axes", str(shape))
    return shape


def node(
    kernel: Kernel,
    D: Real,
    *,
    name: str,
    kernel_length: int | None,
    head_major: bool,
    source: str,
) -> Diagonal | Dplr:
    """The layer. D (M, H); a kernel with twice as many rows of C is bidirectional, its second half runs back."""
    M = D.shape[0]
    C = kernel.C if kernel.P is None else true_C(kernel, source)
    forward, back = C[:M], C[M:] if len(C) > M else None
    if kernel.P is None:
        return Diagonal(
            A=kernel.A,
            B=kernel.B,
            C=forward,
            D=D,
            dt=kernel.dt[:, 0] if kernel.dt.shape[1] == 1 else kernel.dt,
            disc=kernel.disc,  # type: ignore[arg-type]
            conjugate_pairs=kernel.disc != "dss",
            C_reverse=back,
            kernel_length=kernel_length,
            head_major=head_major,
            # Its kernel is normalised by its own length and is no recurrence that could run away.
            allow_unstable=kernel.disc == "dss",
            name=name,
        )
    tied = tie(kernel)
    assert tied.P is not None
    return Dplr(
        A=tied.A,
        P=tied.P,
        B=tied.B,
        C=forward,
        D=D,
        dt=tied.dt[:, 0],
        Q=tied.Q,
        C_reverse=back,
        kernel_length=kernel_length,
        head_major=head_major,
        name=name,
    )


def tie(kernel: Kernel) -> Kernel:
    """The same system with one dt a channel: where each mode has its own, they go into A, P and B, and dt is 1.

    dt (A - P Q^H) x + dt B u is a diagonal plus low-rank system of its own.
    """
    if kernel.dt.shape[1] == 1 or kernel.P is None:
        return kernel
    H = kernel.dt.shape[0]
    system = np.arange(H) % kernel.A.shape[0]
    P = kernel.P[:, system]
    return replace(
        kernel,
        dt=np.ones((H, 1)),
        A=kernel.dt * kernel.A[system],
        B=kernel.dt * kernel.B[system],
        P=kernel.dt * P,
        Q=P if kernel.Q is None else kernel.Q[:, system],
    )


# As many (2n, 2n) matrices as stay in a processor's cache while they are squared.
_CHUNK = 1 << 17


def true_C(kernel: Kernel, source: str) -> Complex:
    """C of an S4 kernel from the stored C (I - Abar^L), (M, H, n); Gu et al. 2021, lemma C.4.

    Conjugate pairs make it a real problem in (Re x, Im x). Raises `CheckpointError` where I - Abar^L is singular.
    """
    if kernel.length == 0:
        return kernel.C
    kernel = tie(kernel)
    H, n = kernel.C.shape[1:]
    A = real_matrix(kernel)
    system = np.arange(H) % A.shape[0]
    eye = np.eye(2 * n)
    out = np.empty_like(kernel.C)
    rows = np.concatenate([kernel.C.real, -kernel.C.imag], -1)
    for part in _parts(H, max(1, _CHUNK // (4 * n * n))):
        half = kernel.dt[part, :, None] / 2 * A[system[part]]
        try:
            discrete = np.linalg.solve(eye - half, eye + half)
            remainder = eye - np.linalg.matrix_power(discrete, kernel.length)
            solved = np.linalg.solve(remainder.swapaxes(1, 2), rows[:, part].transpose(1, 2, 0))
        except np.linalg.LinAlgError:
            solved = np.full((1, 1, 1), np.nan)
        if not np.isfinite(solved).all():
            raise CheckpointError(f"{source}: C cannot be recovered: I - Abar^{kernel.length} is singular")
        true = solved.transpose(2, 0, 1)
        out[:, part] = true[..., :n] - 1j * true[..., n:]
    return out


def _parts(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def real_matrix(kernel: Kernel) -> Real:
    """A = diag(Lambda) - P Q^H on (Re x, Im x) of the stored half x of all conjugate pairs: (S, 2n, 2n)."""
    assert kernel.P is not None
    P = kernel.P
    Q = P if kernel.Q is None else kernel.Q
    n = kernel.A.shape[1]
    # x' = X x + Y conj(x)
    X = kernel.A[:, :, None] * np.eye(n) - np.einsum("rsm,rsn->smn", P, Q.conj())
    Y = -np.einsum("rsm,rsn->smn", P, Q)
    upper = np.concatenate([(X + Y).real, (Y - X).imag], 2)
    lower = np.concatenate([(X + Y).imag, (X - Y).real], 2)
    return np.concatenate([upper, lower], 1)
