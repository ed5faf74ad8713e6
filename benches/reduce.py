"""The figures of ssmrt.reduce: words lost, errors, and what the smaller model costs, as ratios within one process.

    python benches/reduce.py KWS [--seeds 3] [--clips 20] [--part words|errors|costs]

KWS is a folder with the spotters ``kws_s4d.pth`` and ``kws_s4.pth`` in the format of upstream's example and
``test_clips.npz``: ``mulaw`` int8 (clips, 16000) and ``labels``. Times are minima over many short runs of all models
in turn, and ratios medians of those within a turn, so that what else the machine does cancels out. Instructions are
counted under emulation, where the tools of the exported C are installed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import ssmrt
from numpy.typing import NDArray
from ssmrt import document as doc
from ssmrt.reduction import METHODS, Reducer

Array = NDArray[np.float32]
GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
ROUNDS = 40


def clips(folder: Path) -> tuple[Array, NDArray[np.int64]]:
    """Sounds (clips, 16000, 1), and the words in them."""
    with np.load(folder / "test_clips.npz") as arrays:
        level, labels = arrays["mulaw"] / 127, arrays["labels"]
    sounds = np.sign(level) * (256 ** np.abs(level) - 1) / 255
    return sounds[..., None].astype(np.float32), labels


def right(model: ssmrt.Model, sounds: Array, labels: NDArray[np.int64]) -> int:
    """Words heard."""
    answers = [model(sounds[i : i + 20]).argmax(-1) for i in range(0, len(sounds), 20)]
    return int((np.concatenate(answers) == labels).sum())


def words(folder: Path, seeds: int, count: int) -> None:
    """Words lost of those that were not calibrated with."""
    sounds, labels = clips(folder)
    for name in ("kws_s4d", "kws_s4"):
        model = ssmrt.load(folder / f"{name}.pth", config={})
        heard = None
        for seed in range(seeds):
            drawn = np.random.default_rng(seed).choice(len(sounds), count, replace=False)
            rest = np.setdiff1d(np.arange(len(sounds)), drawn)
            heard = right(model, sounds[rest], labels[rest])
            reducer = Reducer(model, sounds[drawn])
            for modes in (8, 4):
                small, report = reducer.to_modes(modes)
                lost = heard - right(small, sounds[rest], labels[rest])
                print(
                    f"{name}, seed {seed}: {heard} of {len(rest)} words in full, {lost} lost with {report.states} of"
                    f" {report.states_before} states, error of the scores {report.error:.1e}",
                    flush=True,
                )


def errors() -> None:
    """LSSL with 64 states on slow noise: states for an error of 1e-3."""
    rng = np.random.default_rng(0)
    A, B = ssmrt.hippo("legt", 64)
    model = ssmrt.dense(A, B, rng.standard_normal((4, 1, 64)), None, np.geomspace(0.01, 0.1, 4), dtype="float64")
    u = rng.standard_normal((5, 8000, 4))
    for pole in (0.97, 0.97, 0.97):
        for t in range(1, u.shape[1]):
            u[:, t] += pole * u[:, t - 1]
    _, report = ssmrt.reduce(model, u / u.std(), tolerance=1e-3)
    print(f"LSSL, LegT: error {report.error:.1e} with {report.states} states of {report.states_before}", flush=True)


def rows() -> None:
    """S5 and LRU models of the tests: states for an error of 1e-2 on noise."""
    u = np.random.default_rng(0).uniform(-1, 1, (20, 64, 1))
    cases = {case["name"]: case for case in json.loads((GOLDEN / "cases.json").read_text())}
    for name in ("jax/s5_cls_default", "jax/s5_cls_bidir_bilinear", "jax/lru_cls_batchnorm", "jax/memax_lru"):
        case = cases[name]
        model = ssmrt.load(GOLDEN / name / case["files"][0], config=case["config"], arch=case["arch"])
        for method in METHODS:
            _, report = ssmrt.reduce(model, u, tolerance=1e-2, method=method)
            print(
                f"{name}, {method}: error {report.error:.1e} with {report.states} of {report.states_before} states",
                flush=True,
            )


def without_state(node: doc.Node) -> doc.Node:
    """The node without the layers below it that have a state: what no reduction can remove."""
    inner: dict[str, Any] = {}
    for field in fields(node):
        value = getattr(node, field.name)
        if isinstance(value, doc.Node):
            inner[field.name] = without_state(value)
        elif field.name == "children":
            inner[field.name] = tuple(without_state(child) for child in value if not isinstance(child, doc.Diagonal))
    return replace(node, **inner)


def costs(folder: Path, count: int) -> None:
    """Costs of the spotter with an eighth of its states by those of the full one, and how far down they could go."""
    sounds, _ = clips(folder)
    full = ssmrt.load(folder / "kws_s4d.pth", config={})
    reducer = Reducer(full, sounds[:count])
    models = {
        "full": full,
        "an eighth": reducer.to_modes(4)[0],
        "one mode a channel": reducer.to_modes(1)[0],
        "no state-space layers": ssmrt.Model(replace(full.document, root=without_state(full.document.root))),
    }

    def stepped(streams: int, samples: int) -> Callable[[ssmrt.Model], Callable[[], float]]:
        def make(model: ssmrt.Model) -> Callable[[], float]:
            stream, u = model.stream(streams), np.full((streams, 1), 0.1, np.float32)
            y = stream.step(u)

            def run() -> float:
                start = time.perf_counter()
                for _ in range(samples):
                    stream.step(u, out=y)
                return (time.perf_counter() - start) / samples / streams

            return run

        return make

    def whole(model: ssmrt.Model) -> Callable[[], float]:
        def run() -> float:
            start = time.perf_counter()
            model(sounds[0])
            return time.perf_counter() - start

        return run

    for what, make in (("a sample", stepped(1, 320)), ("a clip", whole), ("1000 streams, each", stepped(1000, 16))):
        runs = [make(model) for model in models.values()]
        taken = np.array([[run() for run in runs] for _ in range(ROUNDS)])
        for name, best, ratio in zip(models, taken.min(0), np.median(taken / taken[:, :1], 0)):
            print(f"{what}, {name}: {best * 1e6:.2f} us, {ratio:.2f} of the full one's", flush=True)

    reports = {}
    for name, model in models.items():
        with tempfile.TemporaryDirectory() as out:
            reports[name] = ssmrt.export_c(model, out, target="cortex-m4", flash=1 << 40, ram=1 << 40)
        report, whole_report = reports[name], reports["full"]
        said = f"{report.state} bytes of state, {report.state / whole_report.state:.2f}"
        if report.instructions is not None and whole_report.instructions is not None:
            ratio = report.instructions / whole_report.instructions
            said += f"; {report.instructions} instructions a sample, {ratio:.2f} of the full one's"
        print(f"cortex-m4, {name}: {said}", flush=True)


def main() -> None:
    """All of them, or a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="KWS", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=20, help="to calibrate with")
    parser.add_argument("--part", choices=("words", "errors", "costs"))
    arguments = parser.parse_args()
    if arguments.part in (None, "costs"):
        costs(arguments.folder, 5)
    if arguments.part in (None, "errors"):
        errors()
        rows()
    if arguments.part in (None, "words"):
        words(arguments.folder, arguments.seeds, arguments.clips)


if __name__ == "__main__":
    main()
