"""Mamba at the shape of mamba-130m, both generations, beside what its memory and its matrix products need alone.

    python benches/mamba.py [--threads 1,16] [--quick] [--json run.json]

24 layers, d_model 768, d_state 16 (Mamba-2: 128, heads of 64), a vocabulary of 2048, random weights as transformers
draws them, made here: torch is needed for nothing but the comparison with transformers, which is left out where it
cannot be imported. Every number of threads has processes of its own, one after the other. Times are medians.

- ``token``: one sample of one stream from Python; beside it NumPy's sum over as many bytes as the token's matrices, by
  as many threads (``sum``).
- ``prefill``: 512 tokens at once; beside it the matrix products alone, by NumPy's BLAS with as many threads
  (``products``).
- ``error``: the root of the mean square of what the logits of 64 tokens are off from ssmrt's own in float64, by that
  of the logits.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Tensors = dict[str, Array]

LAYERS, D_MODEL, D_INNER, TAPS, VOCABULARY = 24, 768, 1536, 4, 2048
PREFILL, CHECKED = 512, 64
KINDS = ("mamba", "mamba2")
# Bytes of a weight, and how far answers may be off: of float32 nearly nothing, else what their digits leave.
FORMS = {"float32": (4, 1e-4), "bfloat16": (2, 0.05), "int8": (1, 0.2)}
# Of Mamba-1.
N, RANK = 16, 48
# Of Mamba-2.
STATE, HEAD, HEADS, GROUPS = 128, 64, 24, 1

CONFIGS: dict[str, dict[str, Any]] = {
    "mamba": {
        "vocab_size": VOCABULARY,
        "hidden_size": D_MODEL,
        "num_hidden_layers": LAYERS,
        "state_size": N,
        "time_step_rank": RANK,
        "conv_kernel": TAPS,
    },
    "mamba2": {
        "vocab_size": VOCABULARY,
        "hidden_size": D_MODEL,
        "num_hidden_layers": LAYERS,
        "state_size": STATE,
        "num_heads": HEADS,
        "head_dim": HEAD,
        "n_groups": GROUPS,
        "conv_kernel": TAPS,
    },
}


def matrices(kind: str) -> dict[str, tuple[int, int]]:
    """The shapes (rows, columns) of a layer's matrices by their names."""
    if kind == "mamba":
        return {
            "in_proj": (2 * D_INNER, D_MODEL),
            "x_proj": (RANK + 2 * N, D_INNER),
            "dt_proj": (D_INNER, RANK),
            "out_proj": (D_MODEL, D_INNER),
        }
    return {"in_proj": (2 * D_INNER + 2 * GROUPS * STATE + HEADS, D_MODEL), "out_proj": (D_MODEL, D_INNER)}


def weights(kind: str) -> Tensors:
    """A model of this kind under the names of transformers, drawn as it draws them."""
    rng = np.random.default_rng(0)

    def uniform(shape: tuple[int, ...], fan_in: int) -> Array:
        return (rng.random(shape, np.float32) * 2 - 1) / np.float32(np.sqrt(fan_in))

    tensors: Tensors = {"backbone.embeddings.weight": 0.1 * rng.standard_normal((VOCABULARY, D_MODEL), np.float32)}
    channels = D_INNER if kind == "mamba" else D_INNER + 2 * GROUPS * STATE
    steps = D_INNER if kind == "mamba" else HEADS
    for i in range(LAYERS):
        layer: Tensors = {f"{name}.weight": uniform(shape, shape[1]) for name, shape in matrices(kind).items()}
        dt = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), steps))
        bias = dt + np.log(-np.expm1(-dt))
        if kind == "mamba":
            layer |= {"A_log": np.log(np.tile(np.arange(1.0, N + 1), (D_INNER, 1))), "dt_proj.bias": bias}
        else:
            layer |= {"A_log": np.log(np.arange(1.0, HEADS + 1)), "dt_bias": bias, "norm.weight": np.ones(D_INNER)}
        layer |= {
            "D": np.ones(steps),
            "conv1d.weight": uniform((channels, 1, TAPS), TAPS),
            "conv1d.bias": uniform((channels,), TAPS),
        }
        tensors |= {f"backbone.layers.{i}.mixer.{name}": x.astype(np.float32) for name, x in layer.items()}
        tensors[f"backbone.layers.{i}.norm.weight"] = np.ones(D_MODEL, np.float32)
    tensors["backbone.norm_f.weight"] = np.ones(D_MODEL, np.float32)
    return tensors


def median(call: Callable[[], Any], seconds: float) -> float:
    """Milliseconds of a call, of as many as take so long, and of three at least."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


def off(found: Array, exact: Array) -> float:
    """The root of the mean square of the differences, by that of the numbers."""
    return float(np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact**2)))


def tokens(count: int) -> Array:
    """So many tokens."""
    return np.random.default_rng(1).integers(0, VOCABULARY, count)


def sums(nbytes: int, threads: int, seconds: float) -> float:
    """Milliseconds of NumPy's sum over so many bytes, each thread its own part."""
    parts = np.array_split(np.ones(nbytes // 4, np.float32), threads)
    if threads == 1:
        return median(parts[0].sum, seconds)
    with ThreadPoolExecutor(threads) as pool:
        return median(lambda: sum(pool.map(np.sum, parts)), seconds)


def products(kind: str, seconds: float) -> float:
    """Milliseconds of the matrix products of a prefill."""
    rng = np.random.default_rng(2)
    layer = [rng.standard_normal(shape, np.float32) for shape in matrices(kind).values()]
    model = [[w.copy() for w in layer] for _ in range(LAYERS)]
    model.append([rng.standard_normal((VOCABULARY, D_MODEL), np.float32)])
    inputs = {n: rng.standard_normal((PREFILL, n), np.float32) for n in (RANK, D_MODEL, D_INNER)}

    def run() -> None:
        for layer in model:
            for w in layer:
                inputs[w.shape[1]] @ w.T

    return median(run, seconds)


def run_ssmrt(kind: str, threads: int, seconds: float, folder: Path) -> dict[str, Any]:
    """What ssmrt needs, in this process."""
    import ssmrt

    tensors = weights(kind)
    reference = folder / f"{kind}.npy"
    if not reference.exists():
        np.save(reference, ssmrt.load(tensors, config=CONFIGS[kind], dtype="float64")(tokens(CHECKED)))
    exact = np.load(reference)
    numbers = int(sum(np.prod(shape) for shape in matrices(kind).values())) * LAYERS + VOCABULARY * D_MODEL
    found: dict[str, Any] = {"version": ssmrt.__version__}
    for form, (size, most) in FORMS.items():
        try:
            model = ssmrt.load(tensors, config=CONFIGS[kind], weights=None if form == "float32" else form)  # type: ignore[arg-type]
        except ValueError as error:
            found[form] = {"skipped": str(error)}
            continue
        found[form] = timed(model, exact, most, seconds)
        found[form] |= {"bytes": numbers * size, "sum": sums(numbers * size, threads, seconds)}
    found["products"] = products(kind, seconds)
    return found


def timed(model: Any, exact: Array, most: float, seconds: float) -> dict[str, Any]:
    """The times of a model of ssmrt, once its answers are off by no more than ``most``."""
    u, many = tokens(CHECKED), tokens(PREFILL)
    stream, y = model.stream(), np.empty((1, VOCABULARY), np.float32)
    errors = {"prefill": off(model(u), exact), "tokens": off(np.stack([stream.step(t)[0] for t in u[:, None]]), exact)}
    if not max(errors.values()) < most:
        raise SystemExit(f"wrong answers, off by {errors}")
    one = u[:1]
    return {
        "isa": model.isa,
        "token": median(lambda: stream.step(one, out=y), seconds),
        "prefill": median(lambda: model(many), seconds),
        "error": errors,
    }


def run_transformers(kind: str, threads: int, seconds: float, folder: Path) -> dict[str, Any]:
    """What transformers needs, in this process: its own reference path, with its cache."""
    try:
        import torch
        import transformers
    except ImportError as error:
        return {"skipped": str(error)}
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity_error()
    names = {"mamba": ("MambaConfig", "MambaForCausalLM"), "mamba2": ("Mamba2Config", "Mamba2ForCausalLM")}[kind]
    config_class, model_class = (getattr(transformers, name) for name in names)
    model = model_class(config_class(**CONFIGS[kind], tie_word_embeddings=True)).eval()
    tensors = {name: torch.from_numpy(x) for name, x in weights(kind).items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"transformers has other tensors: {missing} and not {unexpected}")
    model.tie_weights()
    exact = np.load(folder / f"{kind}.npy")
    u = torch.from_numpy(tokens(CHECKED))[None]
    many = torch.from_numpy(tokens(PREFILL))[None]
    with torch.no_grad():
        error = {"prefill": off(model(u).logits[0].numpy(), exact)}
        if error["prefill"] > 1e-2:
            raise SystemExit(f"transformers gives something else, off by {error['prefill']}")
        cache = model(u[:, :-1], use_cache=True).cache_params
        arguments: dict[str, Any] = {"cache_params": cache, "use_cache": True}
        if "cache_position" in inspect.signature(model.forward).parameters:
            arguments["cache_position"] = torch.tensor([CHECKED - 1])
        last = model(u[:, -1:], **arguments).logits[0, -1].numpy()
        error["tokens"] = off(last, exact[-1])
        row = {
            "versions": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "token": median(lambda: model(u[:, -1:], **arguments), seconds),
            "prefill": median(lambda: model(many), seconds),
            "error": error,
        }
    return row


RUNNERS = {"ssmrt": run_ssmrt, "transformers": run_transformers}


def in_process(engine: str, kind: str, threads: int, seconds: float, folder: Path) -> dict[str, Any]:
    """An engine's figures, from a new process with so many threads."""
    names = ("SSMRT_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(threads))}
    command = [sys.executable, __file__, "--worker", engine, kind, str(threads), str(seconds), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        if engine == "ssmrt":
            raise SystemExit(done.stderr)
        return {"skipped": done.stderr.strip().rpartition("\n")[2]}
    found: dict[str, Any] = json.loads(done.stdout.rstrip().rpartition("\n")[2])
    return found


HEAD = f"{'ms':<29}{'threads':>8}{'token':>9}{'/ sum':>8}{'prefill':>9}{'/ products':>11}{'error':>9}"


def table(result: dict[str, Any]) -> str:
    """A run's figures, a row for each engine and form of weights."""
    lines = []
    rows = {f"ssmrt {form}": result["ssmrt"][form] for form in FORMS}
    rows["transformers"] = result.get("transformers", {"skipped": "left out"})
    for name, row in rows.items():
        label = f"{result['kind']} {name}"
        if "skipped" in row:
            lines.append(f"{label:<29}{result['threads']:>8}  {row['skipped']}")
            continue
        beside = f"{row['token'] / row['sum']:>8.2f}" if "sum" in row else f"{'':>8}"
        share = row["prefill"] / result["ssmrt"]["products"]
        lines.append(
            f"{label:<29}{result['threads']:>8}{row['token']:>9.2f}{beside}{row['prefill']:>9.1f}{share:>11.2f}"
            f"{row['error']['prefill']:>9.1e}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table, write JSON."""
    if sys.argv[1:2] == ["--worker"]:
        engine, kind, threads, seconds, folder = sys.argv[2:]
        print("\n" + json.dumps(RUNNERS[engine](kind, int(threads), float(seconds), Path(folder))))
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default=f"1,{cores}", help="numbers of threads; default: one, and all cores")
    parser.add_argument("--quick", action="store_true", help="Mamba-1 on all cores only, about half a minute")
    parser.add_argument("--json", type=Path, help="where the figures go")
    arguments = parser.parse_args()
    counts = [cores] if arguments.quick else sorted({int(n) for n in arguments.threads.split(",")})
    seconds = 0.5 if arguments.quick else 1.5
    results = []
    print(HEAD)
    with tempfile.TemporaryDirectory() as name:
        for kind in KINDS[: 1 if arguments.quick else None]:
            for threads in counts:
                result: dict[str, Any] = {"kind": kind, "threads": threads}
                for engine in RUNNERS:
                    result[engine] = in_process(engine, kind, threads, seconds, Path(name))
                results.append(result)
                print(table(result), flush=True)
    if arguments.json is not None:
        machine = {"machine": platform.machine(), "cores": cores, "python": platform.python_version()}
        arguments.json.write_text(json.dumps({**machine, "numpy": np.__version__, "results": results}, indent=1))


if __name__ == "__main__":
    main()
