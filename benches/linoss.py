"""A LinOSS layer (H = P = 64) beside S5-like layers of as many modes and, if it is installed, beside discretax in JAX.

    python benches/linoss.py [ROUNDS]

This interpreter has ssmrt and NumPy, and may have `discretax==0.3.0`. All entries take turns in one process, round
after round, on the parameters of one discretax layer; each is checked against float64 NumPy first. Printed are medians,
and ratios of them: above 1 ssmrt's LinOSS is faster. `taskset -c 0` before the command and `SSMRT_NUM_THREADS=1` leave
ssmrt and JAX one core.

discretax has no step of its own: its entries for one sample are its jitted layer on a sequence of one sample, which
keeps no state, and its equations as a jitted step that does.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ssmrt
from numpy.typing import NDArray

Array = NDArray[Any]
H = P = 64
LENGTH = 5000
STEPS = 200


def parameters() -> dict[str, Array]:
    """Those of a damped layer as discretax starts it: radii 0.9 to 1, any angle."""
    g = np.random.default_rng(0)
    steps = 0.5 * g.standard_normal(P)
    dt = 1 / (1 + np.exp(-steps))
    radius = np.sqrt(g.uniform(0.9**2, 1, P))
    S = 1 / radius**2
    # The trace of the step's matrix is 2 radius cos(angle).
    A = (S + 1 - 2 * np.sqrt(S) * np.cos(g.uniform(0, np.pi, P))) / dt**2
    B, C = g.uniform(-1, 1, (P, H, 2)) / np.sqrt(H), g.uniform(-1, 1, (H, P, 2)) / np.sqrt(P)
    return {"steps": steps, "dt": dt, "G": (S - 1) / dt, "A": A, "B": B, "C": C, "D": g.standard_normal(H)}


def complex_of(pair: Array) -> Array:
    """Numbers of their real and imaginary parts."""
    return np.asarray(pair[..., 0] + 1j * pair[..., 1])


def reference(p: dict[str, Array], u: Array) -> Array:
    """The recurrence in float64."""
    z, x, y = np.zeros(P, complex), np.zeros(P, complex), []
    for force in u @ complex_of(p["B"]).T:
        z = (z + p["dt"] * (force - p["A"] * x)) / (1 + p["dt"] * p["G"])
        x = x + p["dt"] * z
        y.append(x)
    return (np.array(y) @ complex_of(p["C"]).T).real + p["D"] * u


def stepped(model: Any, u: Array) -> Callable[[], None]:
    """Samples of one stream."""
    stream, samples, y = model.stream(), np.ascontiguousarray(u[:STEPS, None]), np.empty((1, H), np.float32)

    def run() -> None:
        for sample in samples:
            stream.step(sample, out=y)

    return run


def modes(n: int) -> Any:
    """An S5-like layer of ``n`` modes."""
    g = np.random.default_rng(1)
    A = -g.uniform(0.2, 3, n) + 1j * g.uniform(0, 30, n)
    B, C = (g.standard_normal(shape) + 1j * g.standard_normal(shape) for shape in ((n, H), (H, n)))
    return ssmrt.diagonal(A, B, C, np.ones(H), 0.01, conjugate_pairs=False)


def jobs(p: dict[str, Array], u: Array) -> tuple[dict[str, Callable[[], Any]], dict[str, Callable[[], Any]]]:
    """What is timed on a sequence, and sample by sample."""
    linoss = ssmrt.linoss(p["A"], complex_of(p["B"]), complex_of(p["C"]), p["D"], p["dt"], G=p["G"])
    expected = reference(p, u.astype(np.float64))
    check("ssmrt", linoss(u), expected, 1e-5)
    sequence: dict[str, Callable[[], Any]] = {"LinOSS": lambda: linoss(u)}
    step: dict[str, Callable[[], Any]] = {"LinOSS": stepped(linoss, u)}
    for n in (P, 2 * P):
        model = modes(n)
        sequence[f"diagonal_mimo, {n} modes"] = lambda model=model: model(u)
        step[f"diagonal_mimo, {n} modes"] = stepped(model, u)
    try:
        import discretax  # noqa: F401
    except ImportError:
        print("discretax is not installed: only ssmrt is measured")
        return sequence, step
    of_sequence, of_step = discretax_jobs(p, u, expected)
    return sequence | of_sequence, step | of_step


def discretax_jobs(p: dict[str, Array], u: Array, expected: Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same for discretax' layer, jitted, its arguments on the device."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    from discretax.sequence_mixers.linoss import LinOSSSequenceMixer

    key = jax.random.key(0)
    layer = LinOSSSequenceMixer(H, key, state_dim=P)
    names = {"A_diag": "A", "G_diag": "G", "B": "B", "C": "C", "D": "D", "steps": "steps"}
    for field, name in names.items():
        layer = eqx.tree_at(lambda tree, field=field: getattr(tree, field), layer, jnp.asarray(p[name], jnp.float32))
    arrays, static = eqx.partition(layer, eqx.is_array)
    scan = jax.jit(lambda arrays, u: eqx.combine(arrays, static)(u, key))
    on_device, samples = jnp.asarray(u), [jnp.asarray(row[None]) for row in u[:STEPS]]

    @jax.jit
    def advance(arrays: Any, state: Any, u: Any) -> Any:
        layer, (z, x) = eqx.combine(arrays, static), state
        dt, B, C = jax.nn.sigmoid(layer.steps), layer.B[..., 0] + 1j * layer.B[..., 1], layer.C
        z = (z + dt * (B @ u - layer.A_diag * x)) / (1 + dt * layer.G_diag)
        x = x + dt * z
        return (z, x), ((C[..., 0] + 1j * C[..., 1]) @ x).real + layer.D * u

    rows = [sample[0] for sample in samples]
    start = (jnp.zeros(P, jnp.complex64), jnp.zeros(P, jnp.complex64))

    def by_equations() -> list[Any]:
        state, answers = start, []
        for row in rows:
            state, y = advance(arrays, state, row)
            y.block_until_ready()
            answers.append(y)
        return answers

    def by_layer() -> None:
        for sample in samples:
            scan(arrays, sample).block_until_ready()

    # Products of its 2 x 2 matrices lose that much in float32 over a whole sequence.
    check("discretax", np.asarray(scan(arrays, on_device)), expected, 0.1)
    check("discretax' equations", np.asarray(by_equations()), expected[:STEPS], 1e-3)
    return {"discretax": lambda: scan(arrays, on_device).block_until_ready()}, {
        "discretax, its layer on one sample": by_layer,
        "discretax' equations, a jitted step": by_equations,
    }


def check(name: str, y: Array, expected: Array, tolerance: float) -> None:
    """Print how far answers are from float64, and end where they are wrong."""
    error = np.abs(y - expected).max() / np.abs(expected).max()
    print(f"{name}: {error:.1e} from float64")
    if not error < tolerance:
        raise SystemExit(f"{name}: expected an error below {tolerance}, found {error:.2e}")


def measure(entries: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median seconds of a call of each, in turn."""
    times: dict[str, list[float]] = {name: [] for name in entries}
    for _ in range(rounds):
        for name, run in entries.items():
            # The entry before has left its own data in the caches.
            run()
            begin = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    u = np.random.default_rng(2).standard_normal((LENGTH, H)).astype(np.float32)
    sequence, step = jobs(parameters(), u)
    for title, entries, samples in (
        (f"a sequence of {LENGTH}, per call", sequence, 1),
        ("one sample, from Python", step, STEPS),
    ):
        medians = measure(entries, rounds)
        print(title)
        for name, seconds in medians.items():
            print(f"  {name:<36} {1e6 * seconds / samples:12.2f} us {seconds / medians['LinOSS']:10.2f}")


if __name__ == "__main__":
    main()
