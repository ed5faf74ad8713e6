"""Label a folder or a Parquet file of recordings on all machines of a Ray cluster, one model an actor.

    pip install ssmrt "ray[data]"
    python examples/ray_data.py model.ssm.safetensors recordings/ labels/ --actors 2
    python examples/ray_data.py model.ssm.safetensors recordings.parquet labels/

A folder holds sounds, of any sampling rate; a Parquet file a recording a row, with its `samples` (a list of numbers,
full scale at 1) and its `rate`. Written are Parquet files with a row a recording: the sound's path or the table's other
columns, its label, the label's score, its seconds, and `error` where it could not be heard: then the others go on.

Without RAY_ADDRESS, the cluster is this machine. On another one, leave a core to those who read and write.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ssmrt
from ssmrt import audio

Batch = dict[str, Any]
WRITTEN = {"label", "score", "seconds", "error"}


class Labeller:
    """An actor: loads the model once, and hears batch after batch."""

    def __init__(self, data: bytes):
        self.model = ssmrt.Model.parse(data)
        if self.model.labels is None or self.model.sample_rate is None:
            raise ValueError("expected a model with labels and its sampling rate: ssmrt convert writes them")

    def __call__(self, batch: Batch) -> Batch:
        """The labels of rows with `samples` and `rate`, or of those with the `path` of a sound."""
        rows = [dict(zip(batch, row)) for row in zip(*batch.values())]
        answers = [self.answer(row) for row in rows]
        return {name: np.array([answer[name] for answer in answers]) for name in answers[0]}

    def answer(self, row: dict[str, Any]) -> dict[str, Any]:
        """A recording's row of the result."""
        kept = {name: value for name, value in row.items() if name not in ("samples", "rate")}
        try:
            if "samples" in row:
                samples, rate = heard(row)
            else:
                sound = audio.read(row["path"])
                samples, rate = sound.mono(), float(sound.rate)
            label, score = self.label(samples, rate)
        except (ssmrt.SsmrtError, OSError, ValueError) as error:
            return {**kept, "label": "", "score": np.nan, "seconds": np.nan, "error": str(error)}
        return {**kept, "label": label, "score": score, "seconds": len(samples) / rate, "error": ""}

    def label(self, samples: np.ndarray, rate: float) -> tuple[str, float]:
        """The label of samples (length,), and its score."""
        model = self.model
        y = model(samples[:, None], rate=model.sample_rate / rate)
        y = y if model.pooled else y.mean(axis=0)
        return model.labels[y.argmax()], float(y.max())


def heard(row: dict[str, Any]) -> tuple[np.ndarray, float]:
    """The samples (length,) of a row, and how many of them are a second."""
    try:
        samples, rate = np.asarray(row["samples"], np.float32), float(row["rate"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"samples, rate: expected a list of numbers and a number: {error}") from None
    if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
        raise ValueError(f"samples: expected a list of finite numbers, found {str(row['samples'])[:40]}")
    if not 0 < rate < np.inf:
        raise ValueError(f"rate: expected samples a second, found {rate:g}")
    return samples, rate


def recordings(source: Path) -> ray.data.Dataset:
    """A row a recording."""
    if source.is_dir():
        paths = sorted(str(path) for path in source.iterdir() if path.suffix.lower() in (".wav", ".flac", ".ogg"))
        if not paths:
            raise FileNotFoundError(f"{source}: expected sounds (.wav, .flac, .ogg), found none")
        return ray.data.from_items([{"path": path} for path in paths])
    table = ray.data.read_parquet(str(source))
    columns = table.schema().names
    if not {"samples", "rate"} <= set(columns):
        raise ValueError(f"{source}: expected columns samples and rate, found {', '.join(columns)}")
    if taken := WRITTEN & set(columns):
        raise ValueError(f"{source}: expected other names than those of the result, found {', '.join(sorted(taken))}")
    return table


def label(model: Path, source: Path, out: Path, actors: int, batch: int = 16) -> None:
    """Label recordings with so many actors, each on one core."""
    data = model.read_bytes()
    # Where the model will not do, that is said before a cluster starts.
    Labeller(data)
    if "RAY_ADDRESS" not in os.environ:
        # Actors keep their cores: one more, and be it in name only, reads and writes, which would wait for ever.
        ray.init(num_cpus=actors + 1)
    # The model travels to the actors as bytes: their machines need no file of it.
    found = recordings(source).map_batches(
        Labeller,
        fn_constructor_kwargs={"data": data},
        batch_size=batch,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
        runtime_env={"env_vars": {"SSMRT_NUM_THREADS": "1"}},
    )
    found.write_parquet(str(out))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model in ssmrt's own format, with labels and its sampling rate")
    parser.add_argument("source", type=Path, help="a folder of sounds, or a Parquet file")
    parser.add_argument("out", type=Path, help="the folder of the labels, as Parquet files")
    parser.add_argument("--actors", type=int, default=2, help="models at once (default: 2)")
    given = parser.parse_args()
    try:
        label(given.model, given.source, given.out, given.actors)
    except (ssmrt.SsmrtError, OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    main()
