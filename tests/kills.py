"""Killed and restored: a process that keeps snapshots of its streams may be killed at any time, and nothing shows it.

    python tests/kills.py [--kills 20] [MODEL ...]

A process pushes block after block, writes each block's answers and then, beside the last one and renamed, a snapshot.
It is killed (SIGKILL) at a random time, and the next one goes on from the snapshot: so many times for each model. Then
all answers and the last snapshot must be those of a run that nobody killed, bit for bit.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soak
import ssmrt

STREAMS, BLOCK = 3, 160
# A process hears blocks for so many seconds at most before it is killed.
SECONDS = 0.3


def block(model: ssmrt.Model, number: int) -> Any:
    """What the streams hear in one block."""
    g = np.random.default_rng(number)
    if model.document.tokens:
        return g.integers(0, soak.TOKENS, (STREAMS, BLOCK))
    return g.standard_normal((STREAMS, BLOCK, model.d_input), np.float32)


def go_on(name: str, folder: Path) -> None:
    """Answers block after block from the last snapshot on, until the process is killed."""
    model = soak.model(name, "float32")
    stream, number = model.stream(STREAMS), 0
    kept, beside = folder / "snapshot", folder / "beside"
    if kept.exists():
        number, blob = int.from_bytes(kept.read_bytes()[:8], "little"), kept.read_bytes()[8:]
        stream.restore(blob)
    # Where a block that was not finished is written over.
    answers = os.open(folder / "answers", os.O_WRONLY | os.O_CREAT)
    print("ready", flush=True)
    while True:
        y = stream.push(block(model, number)).tobytes()
        os.pwrite(answers, y, number * len(y))
        number += 1
        beside.write_bytes(number.to_bytes(8, "little") + stream.snapshot())
        beside.replace(kept)


def killed(name: str, kills: int, folder: Path) -> int:
    """Starts and kills so many processes; how many blocks they answered."""
    chance = random.Random(name)
    for _ in range(kills):
        command = [sys.executable, __file__, "--go-on", str(folder), name]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise SystemExit(f"{name}: could not go on from what the last process left")
            time.sleep(chance.uniform(0, SECONDS))
            process.kill()
    return int.from_bytes((folder / "snapshot").read_bytes()[:8], "little")


def check(name: str, kills: int) -> bool:
    """Whether what killed processes left equals a run that nobody killed."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        blocks = killed(name, kills, folder)
        model = soak.model(name, "float32")
        stream, same = model.stream(STREAMS), blocks > 0
        with (folder / "answers").open("rb") as answers:
            for number in range(blocks):
                y = stream.push(block(model, number)).tobytes()
                same = same and answers.read(len(y)) == y
        same = same and (folder / "snapshot").read_bytes()[8:] == stream.snapshot()
    print(
        f"{name:8} {kills} kills, {blocks} blocks, {blocks * BLOCK} samples: {'equal' if same else 'NOT EQUAL'}",
        flush=True,
    )
    return same


def main(argv: Sequence[str] | None = None) -> int:
    """The models, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="all of them if none is named")
    parser.add_argument("--kills", type=int, default=20, help="of each model's processes")
    parser.add_argument("--go-on", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    names = arguments.models or list(soak.MODELS)
    if arguments.go_on:
        go_on(names[0], arguments.go_on)
    equal = [check(name, arguments.kills) for name in names]
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
