"""Which lines the tests reach, of Python and of Rust: ``make coverage``.

    python tools/measure_coverage.py [--report]

Runs Python's tests; then the engine's own, and some of Python that drive the engine, over an extension with
counters, which is built for it and lies in a copy of the package. A line of Rust that any of them reaches counts; lines
of test modules are no lines of the engine. Every file with lines that none reaches is listed with them. ``--report``
shows what was counted last. ``SSMRT_CASES=golden`` leaves out what Python's tests leave out then.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "target" / "coverage"
PACKAGE = TARGET / "python"
PROFILES = TARGET / "profiles"
PROGRAMS = TARGET / "programs.json"
MERGED = TARGET / "rust.profdata"
# Others compute for many minutes with counters.
ENGINE = "document generate layers linoss mamba2 model nn parts verify weights"
COVERAGE = [sys.executable, "-m", "coverage"]
# With the checks of debug builds, with which tests go through fewer samples.
PROFILE = {"codegen-units": "16", "debug": "0", "debug-assertions": "true"}
CARGO = ["cargo", *(f"--config=profile.release.{key}={value}" for key, value in PROFILE.items())]


# Of each file, its lines and those of them that no test reaches.
Files = dict[str, tuple[int, list[int]]]


def counting(package: Path) -> dict[str, str]:
    """Where counters are written, those of Rust by a few processes to the same file; and which package is tested."""
    return {
        **os.environ,
        "LLVM_PROFILE_FILE": str(PROFILES / "%4m.profraw"),
        "COVERAGE_FILE": str(TARGET / "python.coverage"),
        "PYTHONPATH": str(package),
    }


def build() -> list[str]:
    """The extension and the engine's test programs; the paths of all."""
    env = {**os.environ, "CARGO_TARGET_DIR": str(TARGET), "RUSTFLAGS": "-Cinstrument-coverage"}
    # Of procedural macros, while they are run.
    env["LLVM_PROFILE_FILE"] = str(TARGET / "build" / "%m.profraw")
    command = [*CARGO, "build", "--release", "-p", "ssmrt-py", "--features", "pyo3/extension-module"]
    subprocess.run(command, cwd=ROOT, env=env, check=True)
    shutil.rmtree(PACKAGE, ignore_errors=True)
    shutil.copytree(ROOT / "python", PACKAGE, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    extension = PACKAGE / "ssmrt" / "_native.abi3.so"
    shutil.copy(TARGET / "release" / "lib_native.so", extension)
    command = [*CARGO, "test", "--release", "-p", "ssmrt-core", "--lib", "--tests", "--no-run", "--message-format=json"]
    told = subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = (json.loads(line).get("executable") for line in told.splitlines())
    return [str(extension), *(str(program) for program in found if program)]


def tests(programs: list[str]) -> bool:
    """Python's, the engine's, whose programs are those behind the extension, and Python's over that: did all pass."""
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    passed = [subprocess.run([*COVERAGE, "run", *pytest], cwd=ROOT, env=counting(ROOT / "python")).returncode == 0]
    for program in programs[1:]:
        told = subprocess.run([program, "-q"], cwd=ROOT / "rust" / "core", env=counting(PACKAGE))
        passed.append(told.returncode == 0)
    # Threads that count in the same place wait for one another.
    alone = {**counting(PACKAGE), "SSMRT_NUM_THREADS": "1"}
    modules = [f"tests/test_{name}.py" for name in ENGINE.split()]
    passed.append(subprocess.run([sys.executable, *pytest, *modules], cwd=ROOT, env=alone).returncode == 0)
    return all(passed)


def answer(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(
        command, cwd=ROOT, env=counting(PACKAGE), check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def tool(name: str) -> str:
    """One of LLVM's, as rustup's component llvm-tools has them."""
    host = next(
        line.removeprefix("host: ") for line in answer("rustc", "-vV").splitlines() if line.startswith("host: ")
    )
    path = Path(answer("rustc", "--print", "sysroot").strip()) / "lib" / "rustlib" / host / "bin" / name
    if not path.exists():
        raise SystemExit("expected LLVM's tools beside rustc, found none: rustup component add llvm-tools")
    return str(path)


def of_python() -> Files:
    """Of every module, its statements and the lines of those that none reached."""
    subprocess.run([*COVERAGE, "combine", "-q"], cwd=ROOT, env=counting(PACKAGE))
    files: dict[str, Any] = json.loads(answer(*COVERAGE, "json", "-q", "-o", "-"))["files"]
    found = {}
    for name, file in files.items():
        path = str(Path("python") / (ROOT / name).resolve().relative_to(ROOT / "python"))
        found[path] = (len(file["executed_lines"]) + len(file["missing_lines"]), file["missing_lines"])
    return found


def of_rust(programs: list[str]) -> Files:
    """Of every file, its lines outside of test modules and those that none reached."""
    subprocess.run([tool("llvm-profdata"), "merge", "-sparse", "-o", MERGED, *PROFILES.glob("*.profraw")], check=True)
    objects = [f"--object={program}" for program in programs]
    return dict(in_lcov(answer(tool("llvm-cov"), "export", "--format=lcov", f"--instr-profile={MERGED}", *objects)))


def in_lcov(told: str) -> Iterator[tuple[str, tuple[int, list[int]]]]:
    """The files of a report as LCOV has it, of the crates here alone."""
    for record in told.split("end_of_record\n"):
        lines = record.splitlines()
        path = next((Path(line.removeprefix("SF:")) for line in lines if line.startswith("SF:")), None)
        if path is None or not path.is_relative_to(ROOT / "rust") or "tests" in path.parts:
            continue
        tested = test_module(path)
        counts = [line.removeprefix("DA:").split(",") for line in lines if line.startswith("DA:")]
        own = [(int(line), int(count)) for line, count, *_ in counts if int(line) < tested]
        if own:
            yield str(path.relative_to(ROOT)), (len(own), [line for line, count in own if count == 0])


def test_module(path: Path) -> int:
    """The line where a file's module of tests begins, which is its last."""
    source = path.read_text().splitlines()
    return next((number for number, line in enumerate(source, 1) if line == "#[cfg(test)]"), len(source) + 1)


def spans(lines: list[int]) -> str:
    """Lines as `3-5 9`."""
    runs: list[list[int]] = []
    for line in sorted(lines):
        if runs and line == runs[-1][1] + 1:
            runs[-1][1] = line
        else:
            runs.append([line, line])
    return " ".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def report(language: str, files: Files) -> None:
    """Prints the files with lines that none reached, and the share of lines that some test did."""
    for path, (_, missed) in sorted(files.items()):
        if missed:
            print(f"{path}: {spans(missed)}")
    lines, missed = sum(n for n, _ in files.values()), sum(len(missed) for _, missed in files.values())
    print(f"{language}: {lines - missed} of {lines} lines, {100 * (1 - missed / lines):.1f} %\n")


def main() -> int:
    """Count and show; 1 where a test failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--report", action="store_true", help="of the last run")
    passed = True
    if not parser.parse_args().report:
        shutil.rmtree(PROFILES, ignore_errors=True)
        PROGRAMS.write_text(json.dumps(build()))
        passed = tests(json.loads(PROGRAMS.read_text()))
    report("Python", of_python())
    report("Rust", of_rust(json.loads(PROGRAMS.read_text())))
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
