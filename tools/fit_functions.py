"""Fits the polynomials of the engine's element-wise functions, and keeps the Rust sources equal to the fits.

``python tools/fit_functions.py`` prints every constant with the error of its float evaluation; ``--write`` puts
them into the sources; ``--check`` fails unless they are there already. Needs mpmath and numpy.

Each fit is a minimax polynomial by Remez' exchange on a grid of Chebyshev points, in 50 digits. Its coefficients
are rounded one after the other from the lowest, the rest being fitted anew each time, so that later
coefficients make good what rounding the earlier ones did.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mpmath as mp  # type: ignore[import-untyped]
import numpy as np

mp.mp.dps = 50
SOURCES = Path(__file__).parent.parent / "rust" / "core" / "src" / "kernels"
GRID = 600

Real = Callable[[mp.mpf], mp.mpf]


@dataclass(frozen=True)
class Fit:
    """The polynomial sum_k c_k x^k nearest ``target`` over ``interval`` in ``weight`` times the absolute error."""

    name: str
    file: str
    dtype: type[np.floating]
    interval: tuple[float, float]
    degree: int
    target: Real
    weight: Real
    fixed: tuple[float, ...] = ()  # the first coefficients, where they must be exact


def phi(t: mp.mpf) -> mp.mpf:
    """The normal distribution's tail beyond t."""
    return mp.erfc(t / mp.sqrt(2)) / 2


def log1p_slope(u: mp.mpf) -> mp.mpf:
    """log(1 + u) / u."""
    return mp.log1p(u) / u if u else mp.mpf(1)


FITS = (
    # 2^f, relative error; an exact 1 in front makes 2^f - 1 accurate near 0.
    Fit("EXP2_32", "lanes.rs", np.float32, (-0.5, 0.5), 6, lambda f: mp.mpf(2) ** f, lambda f: mp.mpf(2) ** -f, (1.0,)),
    Fit(
        "EXP2_64", "lanes.rs", np.float64, (-0.5, 0.5), 11, lambda f: mp.mpf(2) ** f, lambda f: mp.mpf(2) ** -f, (1.0,)
    ),
    # log2 of the normal tail, weighted by what it does to t 2^q; an exact -1 in front keeps gelu(x) / x near 0.
    Fit(
        "LOG2_TAIL",
        "pointwise.rs",
        np.float32,
        (0.0, 5.0),
        6,
        lambda t: mp.log(phi(t), 2),
        lambda t: t * phi(t) * mp.log(2),
        (-1.0,),
    ),
    # log(1 + u) / u, relative error.
    Fit("LOG1P", "pointwise.rs", np.float32, (0.0, 1.0), 8, log1p_slope, lambda u: 1 / log1p_slope(u), (1.0,)),
)


def remez(xs: list[mp.mpf], ys: list[mp.mpf], ws: list[mp.mpf], powers: range) -> list[mp.mpf]:
    """Coefficients of ``powers`` that make max |w (y - p(x))| least over the grid."""
    n = len(powers)
    usable = [i for i, w in enumerate(ws) if w > 0]
    reference = [usable[round(j * (len(usable) - 1) / n)] for j in range(n + 1)]
    for _ in range(60):
        system = mp.matrix(n + 1, n + 1)
        right = mp.matrix(n + 1, 1)
        for row, i in enumerate(reference):
            for column, k in enumerate(powers):
                system[row, column] = xs[i] ** k
            system[row, n] = (-1) ** row / ws[i]
            right[row] = ys[i]
        solution = mp.lu_solve(system, right)
        coefficients = [solution[k] for k in range(n)]
        level = abs(solution[n])
        errors = [
            ws[i] * (ys[i] - sum(c * xs[i] ** k for c, k in zip(coefficients, powers, strict=True))) for i in usable
        ]
        extrema: list[tuple[mp.mpf, int]] = []
        for error, i in zip(errors, usable, strict=True):
            if extrema and (error > 0) == (extrema[-1][0] > 0):
                if abs(error) > abs(extrema[-1][0]):
                    extrema[-1] = (error, i)
            elif error != 0:
                extrema.append((error, i))
        while len(extrema) > n + 1:
            if len(extrema) == n + 2:
                extrema.pop(0 if abs(extrema[0][0]) < abs(extrema[-1][0]) else -1)
            else:
                least = min(range(len(extrema)), key=lambda j: abs(extrema[j][0]))
                if least in (0, len(extrema) - 1):
                    extrema.pop(least)
                else:  # Neighbours of a dropped extremum have one sign: only the greater stays.
                    low, high = extrema[least - 1], extrema[least + 1]
                    extrema[least - 1 : least + 2] = [max(low, high, key=lambda e: abs(e[0]))]
        if len(extrema) < n + 1 or max(abs(e) for e, _ in extrema) <= level * (1 + mp.mpf("1e-6")):
            return coefficients
        reference = [i for _, i in extrema]
    return coefficients


def fit(spec: Fit) -> list[float]:
    """The rounded coefficients, from x^0 up."""
    lo, hi = (mp.mpf(b) for b in spec.interval)
    xs = [(lo + hi) / 2 - (hi - lo) / 2 * mp.cos(mp.pi * j / (GRID - 1)) for j in range(GRID)]
    ys = [spec.target(x) for x in xs]
    ws = [spec.weight(x) for x in xs]
    found = list(spec.fixed)
    while len(found) <= spec.degree:
        rest = [y - sum(mp.mpf(c) * x**k for k, c in enumerate(found)) for x, y in zip(xs, ys, strict=True)]
        free = remez(xs, rest, ws, range(len(found), spec.degree + 1))
        found.append(float(spec.dtype(float(free[0]))))
    return found


def error(spec: Fit, coefficients: list[float]) -> float:
    """The greatest weighted error of the rounded coefficients in exact arithmetic."""
    worst = mp.mpf(0)
    for x in np.linspace(*spec.interval, 2001):
        p = mp.polyval([mp.mpf(c) for c in reversed(coefficients)], mp.mpf(x))
        worst = max(worst, abs(spec.weight(mp.mpf(x)) * (spec.target(mp.mpf(x)) - p)))
    return float(worst)


def literal(value: float, dtype: type[np.floating]) -> str:
    """The shortest Rust literal that reads back as ``value``."""
    if value in (0.0, 1.0, -1.0):
        return f"{value:.1f}"
    mantissa, exponent = np.format_float_scientific(dtype(value), unique=True).split("e")
    return f"{mantissa}e{int(exponent)}"


def constant(spec: Fit, coefficients: list[float]) -> str:
    """The Rust array."""
    rust = "f32" if spec.dtype is np.float32 else "f64"
    numbers = "".join(f"    {literal(c, spec.dtype)},\n" for c in coefficients)
    return f"const {spec.name}: [{rust}; {len(coefficients)}] = [\n{numbers}];"


def tokens(text: str) -> list[str]:
    """The text without what rustfmt may change."""
    return re.findall(r"[^\s,\[\]]+|[\[\]]", text)


def main() -> int:
    """Prints, writes or checks; 1 where a check fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the constants into the Rust sources")
    parser.add_argument("--check", action="store_true", help="fail unless the Rust sources hold these constants")
    parser.add_argument("names", nargs="*", help="only these constants")
    arguments = parser.parse_args()
    status = 0
    for spec in FITS:
        if arguments.names and spec.name not in arguments.names:
            continue
        coefficients = fit(spec)
        text = constant(spec, coefficients)
        print(f"{text}  // error {error(spec, coefficients):.2e} on {spec.interval}\n")
        path = SOURCES / spec.file
        if arguments.write or arguments.check:
            source = path.read_text()
            found = re.search(rf"const {spec.name}: \[f(?:32|64); \d+\] =\s*\[[^\]]*\];", source)
            if found is None:
                print(f"{path}: expected a constant {spec.name}, found none", file=sys.stderr)
                status = 1
            elif arguments.check and tokens(found[0]) != tokens(text):
                print(f"{path}: {spec.name} is not what this script fits; run it with --write", file=sys.stderr)
                status = 1
            elif arguments.write:
                path.write_text(source.replace(found[0], text))
    return status


if __name__ == "__main__":
    sys.exit(main())
