"""Runs contests: a process for each engine, entries timed in turn, round after round."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import work
from contests import Contest, Entry

HERE = Path(__file__).resolve().parent
ENGINES = {
    "ssmrt-1": ("ssmrt", {"SSMRT_NUM_THREADS": "1"}),
    "ssmrt-2": ("ssmrt", {"SSMRT_NUM_THREADS": "2"}),
    "jax": ("jax", {"JAX_PLATFORMS": "cpu"}),
    "torch": ("torch", {}),
    "onnx": ("onnx", {}),
    "numpy": ("numpy", {}),
    "rust": ("rust", {}),
}


class Failed(Exception):
    """An engine failed, or answered wrongly."""


class Engine:
    """A worker process."""

    def __init__(self, name: str, python: str, folder: Path, extra: dict[str, str]):
        module, env = ENGINES[name]
        path = [p for p in [os.environ.get("PYTHONPATH", "")] if p]
        # A development build in the checkout goes before an installed package, but after what the caller names.
        path += [str(work.ROOT / "python")] if list((work.ROOT / "python/ssmrt").glob("_native*")) else []
        environment = {**os.environ, **env, **extra, "PYTHONPATH": os.pathsep.join(path)}
        self.name = name
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), module, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One request, one reply; a reply with "skip" says why it was not done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"{self.name}: the process ended with {self.process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise Failed(f"{self.name}: {do} {arguments}:\n{reply['error']}")
        return reply

    def busy(self) -> float:
        """Seconds of processor time so far, its children's included."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def machine_busy() -> float:
    """Seconds of processor time that the whole machine has spent, on all cores."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def load() -> list[float]:
    """The load averages."""
    return [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else []


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    model = platform.processor()
    try:
        info = Path("/proc/cpuinfo").read_text()
        lines = dict(
            line.split("\t:", 1) if "\t:" in line else line.split(":", 1) for line in info.splitlines() if ":" in line
        )
        lines = {k.strip(): v.strip() for k, v in lines.items()}
        model = f"{lines.get('model name', model)} (family {lines.get('cpu family')}, model {lines.get('model')})"
    except OSError:
        pass
    cores = os.cpu_count()
    return {
        "processor": model,
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


@dataclass
class Timing:
    """All calls of one entry, nanoseconds."""

    rounds: list[work.Array] = field(default_factory=list)
    prepare_s: float = 0.0
    first_call_s: float = 0.0

    def stats(self) -> dict[str, Any]:
        """Minimum, median and tail in microseconds; ``rounds`` has each round's median."""
        calls = np.concatenate(self.rounds) / 1e3
        q = np.quantile(calls, [0.5, 0.9, 0.99, 0.999])
        out = {"min": calls.min(), "p50": q[0], "p90": q[1], "p99": q[2], "p99.9": q[3], "max": calls.max()}
        return {
            **{k: float(f"{v:.6g}") for k, v in out.items()},
            "calls": len(calls),
            "rounds": [float(f"{np.median(r) / 1e3:.5g}") for r in self.rounds],
            "prepare_s": round(self.prepare_s, 4),
            "first_call_s": round(self.first_call_s, 4),
        }

    def histogram(self) -> dict[str, Any]:
        """Calls by duration on a logarithmic scale, microseconds."""
        calls = np.concatenate(self.rounds) / 1e3
        edges = np.geomspace(max(calls.min() * 0.98, 0.01), calls.max() * 1.02, 241)
        counts, edges = np.histogram(calls, edges)
        return {"edges": [float(f"{e:.5g}") for e in edges], "counts": counts.tolist()}


class Bench:
    """One run."""

    def __init__(self, rounds: int, seconds: float, pythons: dict[str, str], extra: dict[str, str], only: set[str]):
        self.rounds, self.seconds = rounds, seconds
        self.pythons, self.extra, self.only = pythons, extra, only
        self._folder = tempfile.TemporaryDirectory(prefix="ssmrt-bench-")
        self.folder = Path(self._folder.name)
        self.engines: dict[str, Engine] = {}
        self.missing: dict[str, str] = {}

    def engine(self, name: str) -> Engine:
        """The worker, started when first asked for."""
        if name not in self.engines:
            module = ENGINES[name][0]
            self.engines[name] = Engine(name, self.pythons.get(module, sys.executable), self.folder, self.extra)
        return self.engines[name]

    def alone(self, name: str, do: str, params: dict[str, Any]) -> dict[str, Any]:
        """One request to a new process."""
        engine = Engine(name, self.pythons.get(ENGINES[name][0], sys.executable), self.folder, self.extra)
        try:
            return engine.ask(do, params=params)
        finally:
            engine.close()

    def versions(self) -> dict[str, dict[str, str]]:
        """Of every engine that is here."""
        out = {}
        for name, (module, _) in ENGINES.items():
            if self.only and module not in self.only:
                self.missing[name] = "left out by --engines"
                continue
            reply = self.engine(name).ask("versions")
            if "skip" in reply:
                self.missing[name] = reply["skip"]
            else:
                out[name] = reply
        return out

    def close(self) -> None:
        """End all processes and remove the files between them."""
        for engine in self.engines.values():
            engine.close()
        self._folder.cleanup()

    def run(self, contest: Contest, rounds: int | None = None) -> dict[str, Any]:
        """Check every entry's answer, then time them in turn."""
        began, spent = time.perf_counter(), machine_busy() - self._busy()
        skipped: dict[str, str] = {}
        answers: dict[str, work.Array] = {}
        timings: dict[str, Timing] = {}
        entries: list[Entry] = []
        for entry in contest.entries:
            why = self.missing.get(entry.engine)
            if why is None:
                reply = self.engine(entry.engine).ask(
                    "prepare", key=entry.label, work=entry.work, params=entry.params, file=f"{entry.engine}.npy"
                )
                why = reply.get("skip")
            if why is not None:
                skipped[entry.label] = why
                continue
            if "output" in reply:
                answers[entry.label] = np.load(self.folder / reply["output"])
            timings[entry.label] = Timing([], reply["prepare_s"], reply["first_call_s"])
            entries.append(entry)
        errors = self._check(contest, answers)
        rounds = self.rounds if rounds is None else rounds
        self._rounds(contest, entries, timings, rounds)
        if "grid" in contest.facts:
            # Minima fall with patience: what looks like a wrong choice gets more of it.
            auto = timings["auto"]
            best = min(np.concatenate(t.rounds).min() for t in timings.values())
            if np.concatenate(auto.rounds).min() > 1.08 * best:
                self._rounds(contest, entries, timings, 2 * rounds)
        for name in {e.engine for e in entries}:
            self.engine(name).ask("drop")
        passed = time.perf_counter() - began
        return {
            "title": contest.title,
            "each": contest.each,
            "facts": contest.facts,
            "entries": {label: t.stats() | {"engine": e.engine} for (label, t), e in zip(timings.items(), entries)},
            "histograms": {label: t.histogram() for label, t in timings.items()} if contest.each == "sample" else {},
            "skipped": skipped,
            "errors": errors,
            "cores_taken_by_others": round(max(0.0, machine_busy() - self._busy() - spent) / passed, 2),
            "load": load(),
        }

    def _busy(self) -> float:
        return sum(e.busy() for e in self.engines.values())

    def _rounds(self, contest: Contest, entries: list[Entry], timings: dict[str, Timing], rounds: int) -> None:
        seconds = self.seconds if contest.seconds is None else contest.seconds
        seconds = min(seconds, 4 * self.seconds) if contest.seconds is not None else seconds
        for i in range(rounds):
            for entry in entries:
                timing = timings[entry.label]
                # Calls that last longer than a round's share take their time in fewer rounds, three at least.
                if i >= 3 and timing.first_call_s and timing.rounds and timing.rounds[0].min() > 2e9 * seconds:
                    continue
                self.engine(entry.engine).ask(
                    "time",
                    key=entry.label,
                    seconds=seconds,
                    least=1,
                    most=contest.most,
                    file=f"{entry.engine}.npy",
                )
                timing.rounds.append(np.load(self.folder / f"{entry.engine}.npy"))

    def _check(self, contest: Contest, answers: dict[str, work.Array]) -> dict[str, float]:
        """Relative error of every answer; a wrong one ends the run, for its time would mean nothing."""
        errors: dict[str, float] = {}
        truths: dict[str, work.Array] = {}
        for entry in contest.entries:
            if entry.label not in answers:
                continue
            source = entry.reference or contest.reference
            if source is not None:
                key = json.dumps(source)
                if key not in truths:
                    truths[key] = self._reference(*source)
                truth = truths[key]
            elif contest.agree_with in answers:
                truth = answers[contest.agree_with]
            else:
                continue
            answer = answers[entry.label]
            if answer.shape != truth.shape:
                raise Failed(f"{contest.key}, {entry.label}: expected shape {truth.shape}, found {answer.shape}")
            error = float(np.abs(answer - truth).max() / np.abs(truth).max())
            if not error <= entry.tolerance:
                raise Failed(
                    f"{contest.key}, {entry.label}: the answer is off by {error:.2e} of its largest value,"
                    f" more than {entry.tolerance:.0e}: a wrong engine is not timed"
                )
            errors[entry.label] = float(f"{error:.2e}")
        return errors

    def _reference(self, name: str, params: dict[str, Any]) -> work.Array:
        reply = self.engine("numpy").ask("prepare", key="reference", work=name, params=params, file="reference.npy")
        if "skip" in reply:
            raise Failed(f"no reference {name}: {reply['skip']}")
        self.engine("numpy").ask("forget", key="reference")
        truth: work.Array = np.load(self.folder / "reference.npy")
        return truth
