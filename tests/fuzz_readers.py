"""Damaged files: whatever one holds, reading it ends soon, with an answer or with one of ssmrt's own exceptions.

    python tests/fuzz_readers.py [--seconds 10 | --rounds N] [--seed 0] [--keep FOLDER]

Each round takes a good file or folder of one container, damages one of its files (`damage.py`) and uses what came of it
in this process, whose memory is limited: checkpoints are loaded and run, graphs run, inputs heard by ``ssmrt run``. The
last lines count what came of the rounds, by container; the first find ends the run with its traceback, and ``--keep``
keeps the damaged files. A find becomes a test.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ssmrt
import torch_files
import wav_files
from damage import damaged, damaged_json
from ssmrt import cli, readers
from ssmrt.readers import _zarr
from ssmrt.readers._ocdbt import Database
from ssmrt.readers.orbax import Folder

GOLDEN = Path(__file__).parent / "golden"
# Larger files are slow to write, and hold more of the same.
MOST_BYTES = 300_000
SECONDS = 20
MEMORY = 4 << 30
SMALL = "torch/small/seq_ff"
# Parts of a container, which are read as such, and a pickle that is refused as it is.
NO_CHECKPOINTS = ("zarr", "ocdbt_deep", "ocdbt_numbered", "nnx_state.pkl")


@dataclass(frozen=True)
class Case:
    """A good file or folder, what lies beside it, and what uses it."""

    container: str
    source: Path
    use: Callable[[Path, random.Random], str]
    beside: tuple[Path, ...] = ()


def runs(model: ssmrt.Model) -> str:
    """A model that came of damage hears a few samples."""
    u = np.zeros((1, 3), np.int64) if model.document.tokens else np.ones((1, 3, model.d_input), np.float32)
    with np.errstate(all="ignore"):
        model(u)
    return "answers"


def loads(config: Any = None) -> Callable[[Path, random.Random], str]:
    """`ssmrt.load`, now and then with a damaged configuration, as a mapping or as a file."""

    def use(path: Path, chance: random.Random) -> str:
        said: Any = config
        if said and chance.random() < 0.2:
            said = damaged_json(said, chance)
            said = said if isinstance(said, dict) else None
        if said and chance.random() < 0.1:
            file = path.parent / "said.json"
            file.write_bytes(damaged(json.dumps(said).encode(), chance))
            said = file
        return runs(ssmrt.load(path, config=said))

    return use


def reads(path: Path, chance: random.Random) -> str:
    """A container alone, of no model."""
    readers.read(path)
    return "answers"


def streams(path: Path, chance: random.Random) -> str:
    """An exported graph."""
    stream = ssmrt.OnnxStream(path)
    facts = stream.contract
    u = np.ones((facts["batch"], 3 * (facts["chunk"] or 1), facts["d_input"]), np.float32)
    stream.push(u)
    return "answers"


def hears(model: Path, *options: str) -> Callable[[Path, random.Random], str]:
    """``ssmrt run``."""

    def use(path: Path, chance: random.Random) -> str:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            cli.main(["run", str(model), str(path), *options])
        return "answers"

    return use


def golden() -> Iterator[Case]:
    """Every container and family."""
    for row in json.loads((GOLDEN / "cases.json").read_text()):
        for file in row["files"]:
            source = GOLDEN / row["name"] / file
            if file == "." or file.endswith(".index.json"):
                yield Case("Hugging Face folder", source.parent if file != "." else source, loads(row.get("config")))
                continue
            container = {
                ".eqx": "eqx",
                ".safetensors": "safetensors",
                ".npz": "npz",
                ".msgpack": "msgpack",
                ".ckpt": "Lightning",
                "": "Orbax",
            }.get(source.suffix, "torch zip")
            leaves = source.with_name("leaves.json")
            beside = (leaves,) if source.suffix == ".eqx" and leaves.exists() else ()
            yield Case(container, source, loads(row.get("config")), beside)
    yield Case("leaves.json", GOLDEN / "nn/leaves.json", named, (GOLDEN / "nn/model.eqx",))
    yield Case("Lightning", GOLDEN / "readers/lightning.ckpt", reads)
    for path in sorted((GOLDEN / "readers").glob("*.pt")):
        yield Case("torch zip", path, reads)
    for path in sorted((GOLDEN / "readers_jax").iterdir()):
        for each in sorted(path.iterdir()) if path.name in ("names", "saves") else [path]:
            container = {".pkl": "pickle", ".json": "", "": "Orbax"}.get(each.suffix, each.suffix[1:])
            if container and each.name not in NO_CHECKPOINTS:
                yield Case("Orbax" if each.is_dir() else container, each, reads)
    for path in sorted((GOLDEN / "readers_jax" / "zarr").iterdir()):
        yield Case("Zarr", path, zarr)
    for path in sorted((GOLDEN / "readers_jax").glob("ocdbt_*/")):
        yield Case("OCDBT", path, ocdbt)


def zarr(path: Path, chance: random.Random) -> str:
    """One array of a folder."""
    _zarr.read(Folder(path.parent), path.name, "zarr")
    return "answers"


def ocdbt(path: Path, chance: random.Random) -> str:
    """All values of a database."""
    database = Database(path)
    for key in database.keys:
        database.read(key)
    return "answers"


def named(path: Path, chance: random.Random) -> str:
    """The checkpoint beside a list of its leaves."""
    readers.read(path.with_name("model.eqx"))
    return "answers"


def made(folder: Path) -> Iterator[Case]:
    """What no other program wrote: our own format, graphs, inputs, and the oldest container of PyTorch."""
    rows = {row["name"]: row for row in json.loads((GOLDEN / "cases.json").read_text())}
    for name in [SMALL, "torch/small/nplr_doubled", "torch/small/s5_bidir", "torch/mamba/mamba_dstate8"]:
        model = ssmrt.load(GOLDEN / name / rows[name]["files"][0], config=rows[name].get("config"))
        path = folder / f"{len(list(folder.iterdir()))}.ssm.safetensors"
        model.save(path)
        yield Case("own format", path, loads())
    read = readers.read(GOLDEN / SMALL / "model.safetensors").tensors
    arrays = {name: np.array(array, order="C") for name, array in read.items()}
    tensors = {}
    for name, array in arrays.items():
        kind = {"float32": "FloatStorage", "int64": "LongStorage"}[array.dtype.name]
        stored = torch_files.storage(name, array.size, kind, legacy=True)
        stride = tuple(step // array.itemsize for step in array.strides)
        tensors[name] = torch_files.tensor(stored, array.shape, stride)
    value = torch_files.ordered(tensors)
    storages = {name: (array.size, array.tobytes()) for name, array in arrays.items()}
    path = folder / "legacy.pt"
    path.write_bytes(torch_files.legacy(value, storages))
    yield Case("torch legacy", path, loads(rows[SMALL].get("config")))

    g = np.random.default_rng(0)
    mix = ssmrt.document.Linear(g.standard_normal((6, 6)))
    layer = ssmrt.diagonal(
        -np.ones((6, 4)) + 1j, np.ones((6, 4)), g.standard_normal((1, 6, 4)), np.ones((1, 6)), np.full(6, 0.1)
    )
    model = ssmrt.Model(ssmrt.Document(ssmrt.document.Sequential((mix, layer.document.root)), 6, 6))
    settings: list[dict[str, Any]] = [{}, {"mode": "chunk", "chunk": 4}, {"quantize": "int8"}]
    for number, said in enumerate(settings):
        path = folder / f"{number}.onnx"
        ssmrt.export_onnx(model, path, **said)
        yield Case("ONNX", path, streams)

    one = folder / "one.ssm.safetensors"
    ssmrt.diagonal([[-0.5]], [[1]], [[1]], [1.0], [0.01]).save(one)
    many = folder / "many.ssm.safetensors"
    model.save(many)
    sound = np.sin(np.arange(200.0))
    for name, data in {
        "16.wav": wav_files.wav(sound),
        "24.wav": wav_files.wav(sound, 24, extensible=True),
        "float.wav": wav_files.wav(sound, 32, tag=3),
        "long.wav": wav_files.rf64(sound),
    }.items():
        path = folder / name
        path.write_bytes(data)
        yield Case("wav", path, hears(one, "--rate", "1"))
    yield Case("raw", folder / "16.wav", hears(one, "--raw", "mulaw,8000", "--rate", "1"))
    table = g.standard_normal((20, 6))
    np.save(folder / "u.npy", table)
    np.savez(folder / "u.npz", u=table)
    np.savez_compressed(folder / "packed.npz", u=table)
    text = "\n".join([",".join("abcdef"), *(",".join(map(str, row)) for row in table.tolist())])
    (folder / "u.csv").write_text(text)
    for name in ["u.npy", "u.npz", "packed.npz", "u.csv"]:
        yield Case(f"{name[-3:]} as input", folder / name, hears(many))
    from pyarrow import parquet  # type: ignore[import-untyped]
    from pyarrow import table as columns

    parquet.write_table(columns({name: table[:, i] for i, name in enumerate("abcdef")}), folder / "u.parquet")
    yield Case("parquet", folder / "u.parquet", hears(many))


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)


def copied(case: Case, folder: Path) -> Path:
    """The file or folder with what lies beside it, elsewhere."""
    target = folder / (case.source.name or "folder")
    for source in case.beside:
        shutil.copy(source, folder)
    if case.source.is_dir():
        shutil.copytree(case.source, target)
    else:
        shutil.copy(case.source, target)
    return target


def one(case: Case, folder: Path, chance: random.Random) -> str:
    """A damaged file used: what came of it."""
    target = copied(case, folder)
    files = sorted(path for path in ([target] if target.is_file() else target.rglob("*")) if path.is_file())
    file = chance.choice(files)
    file.write_bytes(damaged(file.read_bytes(), chance))
    try:
        return case.use(target, chance)
    except ssmrt.SsmrtError as error:
        return type(error).__name__
    except (ValueError, TypeError) as error:
        # Of arrays, as everywhere.
        if case.use.__qualname__.startswith("hears"):
            return type(error).__name__
        raise


def check(case: Case) -> None:
    """Fails where a case is of no use: what is whole must be read, or its damage is not what is found."""
    with tempfile.TemporaryDirectory() as folder:
        # Of a chance that damages no configuration.
        found = case.use(copied(case, Path(folder)), random.Random(2))
    if found != "answers":
        raise SystemExit(f"{case.container}: {case.source}: expected answers of the undamaged file, found {found}")


def too_long(*_: object) -> None:
    raise TimeoutError(f"a file took more than {SECONDS} s")


def main(argv: Sequence[str] | None = None) -> int:
    """Damage and use until the time is over, or the rounds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, help="so many, however long they take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one container")
    parser.add_argument("--keep", type=Path, help="where to keep the damaged files of a find")
    arguments = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    # So that `ssmrt run` lets its failures through.
    os.environ["SSMRT_TRACEBACK"] = "1"
    signal.signal(signal.SIGALRM, too_long)
    counts: collections.defaultdict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory() as good:
        known: dict[str, list[Case]] = {}
        for case in itertools.chain(golden(), made(Path(good))):
            if size(case.source) <= MOST_BYTES and arguments.only in (None, case.container):
                check(case)
                known.setdefault(case.container, []).append(case)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        end, number = time.monotonic() + arguments.seconds, 0
        while number < arguments.rounds if arguments.rounds is not None else time.monotonic() < end:
            chance = random.Random(f"{arguments.seed}.{number}")
            case = chance.choice(known[chance.choice(list(known))])
            with tempfile.TemporaryDirectory() as folder:
                signal.alarm(SECONDS)
                try:
                    counts[case.container][one(case, Path(folder), chance)] += 1
                except BaseException:
                    print(f"seed {arguments.seed}, round {number}: {case.container}: {case.source}", file=sys.stderr)
                    if arguments.keep is not None:
                        shutil.copytree(folder, arguments.keep, dirs_exist_ok=True)
                    raise
                finally:
                    signal.alarm(0)
            number += 1
    for container, outcomes in counts.items():
        said = ", ".join(f"{n} {what}" for what, n in outcomes.most_common())
        print(f"{container:20} {outcomes.total():6}: {said}")
    print(f"{number} damaged files and folders of {sum(map(len, known.values()))}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
