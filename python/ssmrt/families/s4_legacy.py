"""The kernel layouts of upstream's versions 2 and 3, whose names and signs differ from version 4's.

Version 3 has Im(A) itself where version 4 has -Im(A), and log(dt) without a choice. Version 2 has A and Q
as they are, and the length L of its kernel in the number of its FFT nodes only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .config import Config
from .s4_kernel import TRANSFORMS, WHY_A, WHY_DISC, Complex, Kernel, Real, applied, banded, step_size
from .tensors import Tensors


def version(t: Tensors) -> int | None:
    """2 or 3, where ``t`` holds a kernel of that version, complete or not; else None."""
    names = set(t.names)
    if names & {"inv_w_real", "inv_A_real", "L"}:
        return 3
    if names & {"omega", "z", "w", "Q", "log_w_real"}:
        return 2
    return 3 if "log_dt" in names else None


def read(t: Tensors, config: Config) -> Kernel:
    """The kernel, with version 4's meaning of every parameter."""
    config.agree("dt_transform", "exp", "log_dt")
    if version(t) == 2:
        config.agree("hurwitz", "w" not in t, "kernel.kernel.w" if "w" in t else "log_w_real")
        return _read_2(t)
    diagonal = "inv_A_real" in t or "A_imag" in t
    return _read_3_diag(t, config) if diagonal else _read_3_nplr(t, config)


def _real_function(config: Config, floor: float) -> Callable[[Real], Real]:
    # Version 4's name for it is taken as well.
    name = "real_transform" if "real_transform" in config and "real_type" not in config else "real_type"
    chosen = config.get(name, "exp", choices=tuple(TRANSFORMS), why=WHY_A)
    return (lambda p: np.maximum(p, 0) + floor) if chosen == "relu" else TRANSFORMS[chosen]


def _read_3_nplr(t: Tensors, config: Config) -> Kernel:
    dt = step_size(np.exp, t, "log_dt", "H")[:, None]
    name = "inv_w_real" if "inv_w_real" in t else "log_w_real"
    A = -applied(_real_function(config, 0.0), t, name, "S", "n") + 1j * t.f64("w_imag", "S", "n")
    C = t.complex("C", "M", "H", "n")
    kernel = Kernel(dt, A, t.complex("B", 1, "S", "n")[0], C, P=t.complex("P", "R", "S", "n"), length=_length(t, "L"))
    return banded(kernel, config, t, dt.shape[0])


def _read_3_diag(t: Tensors, config: Config) -> Kernel:
    dt = step_size(np.exp, t, "log_dt", "H")[:, None]
    disc = config.get("disc", "bilinear", choices=("zoh", "bilinear", "dss"), why=WHY_DISC)
    A = -applied(_real_function(config, 1e-4), t, "inv_A_real", "S", "n") + 1j * t.f64("A_imag", "S", "n")
    # The initial A, from which the two above were made; the model does not use it.
    t.ignore("A")
    kernel = Kernel(dt, A, t.complex("B", "S", "n"), t.complex("C", "M", "H", "n"), disc=disc)
    return banded(kernel, config, t, dt.shape[0])


def _read_2(t: Tensors) -> Kernel:
    dt = step_size(np.exp, t, "log_dt", "H")[:, None]
    P = t.complex("P", "R", "S", "n")
    C = t.complex("C", "M", "H", "n")
    B = t.complex("B", 1, "S", "n")[0]
    nodes = t.complex("omega", "nodes")
    t.ignore("z")
    kernel = Kernel(dt, np.zeros_like(B), B, C, P=P, length=_nodes(nodes))
    if "w" in t:
        # The low-rank term is P Q^T there, and P Q^H in a Document.
        return replace(kernel, A=t.complex("w", "S", "n"), Q=t.complex("Q", "R", "S", "n").conj())
    A = -applied(np.exp, t, "log_w_real", "S", "n") + 1j * t.f64("w_imag", "S", "n")
    return replace(kernel, A=A)


def _nodes(omega: Complex) -> int:
    """The L of e^(-2 pi i k / L) for k = 0 .. L // 2, of which there are as many for L even and L + 1."""
    if omega.size < 2:
        return 1
    even = 2 * (omega.size - 1)
    angle = -np.angle(omega[1])
    return min((even, even + 1), key=lambda length: abs(angle - 2 * np.pi / length))


def _length(t: Tensors, name: str) -> int:
    length = t.integer(name)
    if length < 0:
        raise t.misfit(name, "no negative number", str(length))
    return length
