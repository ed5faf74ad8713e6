"""The rooms import what ARCHITECTURE.md says, and nothing else."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "ssmrt"
CORE = ROOT / "rust" / "core" / "src"
EXTRAS = {"rich", "matplotlib", "onnx", "onnxruntime", "zstandard", "soundfile", "pyarrow"}


def tables() -> list[dict[str, set[str] | None]]:
    """For each table of rooms: room -> rooms it may import; None is any."""
    found: list[dict[str, set[str] | None]] = []
    for line in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells == ["room", "what it does", "depends on"]:
            found.append({})
        elif len(cells) == 3 and found and cells[0].startswith("`"):
            rooms = re.findall(r"`(\w+)`", cells[0])
            allowed = None if cells[2] == "everything" else set(re.findall(r"`(\w+)`", cells[2])) | set(rooms)
            found[-1].update(dict.fromkeys(rooms, allowed))
    return found[:2]


PYTHON, RUST = tables()


def python_imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(imported module, whether at the top of the file); the package's own rooms start with a dot."""
    package = ("ssmrt", *path.relative_to(PACKAGE).parts[:-1])
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            assert node.module is not None
            yield node.module.partition(".")[0], id(node) in top
        elif isinstance(node, ast.ImportFrom):
            base = (*package[: len(package) - node.level + 1], *(node.module or "").split("."))
            names = [part for part in base if part]
            if len(names) > 1:
                yield f".{names[1]}", id(node) in top
            else:
                yield from ((f".{alias.name}", id(node) in top) for alias in node.names)


def room_of(path: Path, base: Path) -> str:
    return path.relative_to(base).parts[0].rpartition(".")[0] or path.relative_to(base).parts[0]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_python_rooms_import_downwards(path: Path) -> None:
    room = room_of(path, PACKAGE)
    assert room in PYTHON, f"{room}: a room that ARCHITECTURE.md does not know"
    allowed = PYTHON[room]
    for name, _ in python_imports(path):
        if name.startswith(".") and name != ".__version__" and allowed is not None:
            assert name[1:] in allowed, f"{path.name} imports {name[1:]}, which {room} may not"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_numpy_is_imported_at_the_top(path: Path) -> None:
    for name, top in python_imports(path):
        if not name.startswith(".") and name not in sys.stdlib_module_names and name != "numpy":
            assert name in EXTRAS, f"{path.name} imports {name}, which no extra brings"
            assert not top, f"{path.name} imports {name} before it is needed"


def test_extras_bring_what_is_imported_and_nothing_else() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = dict(re.findall(r"^(\w+) = \[(.*)\]$", section, re.MULTILINE))
    brought = {
        name.replace("-", "_")
        for extra, packages in extras.items()
        if extra not in ("test", "lint")
        for name in re.findall(r'"([\w-]+)', packages)
    }
    sources = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    imported = {
        name for name in EXTRAS if re.search(rf'(import|from) {name}\b|\brequire\("{name}"\)', sources) is not None
    }
    assert brought == imported == EXTRAS


def test_nothing_imports_the_command_line() -> None:
    users = {
        room_of(path, PACKAGE)
        for path in PACKAGE.rglob("*.py")
        if any(name == ".cli" for name, _ in python_imports(path))
    }
    assert users <= {"__main__", "cli"}


def rust_code(path: Path) -> str:
    """The file without comments: links in documentation are no dependencies."""
    return re.sub(r"//.*", "", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.rs")), ids=lambda path: str(path.relative_to(CORE)))
def test_rust_rooms_use_downwards(path: Path) -> None:
    room = room_of(path, CORE)
    if room == "lib":
        return
    assert room in RUST, f"{room}: a room that ARCHITECTURE.md does not know"
    allowed = RUST[room]
    assert allowed is not None
    for name in crate_uses(path):
        if (CORE / f"{name}.rs").exists() or (CORE / name).is_dir():
            assert name in allowed, f"{path.name} uses {name}, which {room} may not"


def crate_uses(path: Path) -> set[str]:
    """The first names behind ``crate::``, of ``crate::{a, b::c}`` too. Tests may use more than what they test."""
    product = rust_code(path).partition("#[cfg(test)]")[0]
    names = set(re.findall(r"\bcrate::(\w+)", product))
    for start in re.finditer(r"\bcrate::\{", product):
        depth, name = 1, ""
        for letter in product[start.end() :]:
            depth += {"{": 1, "}": -1}.get(letter, 0)
            if (depth == 1 and letter == ",") or depth == 0:
                names |= set(re.findall(r"^\s*(\w+)", name))
                name = ""
            else:
                name += letter
            if depth == 0:
                break
    return names


def test_names_in_braces_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "some.rs"
    file.write_text("use crate::{a, b::{c, d}, e};\nuse crate::f::g; // use crate::h;\n#[cfg(test)]\nuse crate::i;")
    assert crate_uses(file) == {"a", "b", "e", "f"}


@pytest.mark.parametrize("table", [PYTHON, RUST], ids=["python", "rust"])
def test_a_room_depends_on_rooms_above_it_alone(table: dict[str, set[str] | None]) -> None:
    above: set[str] = set()
    for room, allowed in table.items():
        if allowed is not None:
            assert allowed - {room} <= above, f"{room} depends on {allowed - {room} - above}, which come later"
        above.add(room)


def kernel_files() -> dict[str, Path]:
    """The modules directly in ``kernels``, by name."""
    folder = CORE / "kernels"
    modules = [path for path in folder.iterdir() if path.name != "mod.rs"]
    return {path.stem: path for path in modules}


def test_files_of_the_kernels_make_no_circle() -> None:
    files = kernel_files()
    uses: dict[str, set[str]] = {}
    for name, path in files.items():
        found: set[str] = set()
        for file in path.rglob("*.rs") if path.is_dir() else [path]:
            text = rust_code(file).partition("#[cfg(test)]")[0]
            # `super` is the folder of the kernels from a file in it, and `super::super` from a file one folder deeper.
            up = (
                r"(?:super::){2}|crate::kernels::"
                if path.is_dir() and file.stem != "mod"
                else r"super::|crate::kernels::"
            )
            found |= set(re.findall(rf"\b(?:{up})(\w+)", text))
            for group in re.findall(rf"\b(?:{up})\{{([^;]*)\}}", text):
                found |= set(re.findall(r"(?:^|[,{])\s*(\w+)", group))
        uses[name] = (found & set(files)) - {name}
    done: set[str] = set()
    while rest := {name for name in uses if name not in done}:
        free = {name for name in rest if uses[name] <= done}
        assert free, f"these files import one another: { ({name: uses[name] - done for name in rest}) }"
        done |= free


def test_tables_name_only_rooms_that_exist() -> None:
    for room in PYTHON:
        assert any((PACKAGE / name).exists() for name in (room, f"{room}.py", f"{room}.pyi")), room
    for room in RUST:
        assert (CORE / room).is_dir() or (CORE / f"{room}.rs").is_file(), room


def test_core_knows_no_python_and_the_binding_no_maths() -> None:
    def dependencies(crate: str) -> set[str]:
        text = (ROOT / "rust" / crate / "Cargo.toml").read_text(encoding="utf-8")
        section = text.partition("[dependencies]")[2].partition("\n[")[0]
        return set(re.findall(r"^([\w-]+)", section, re.MULTILINE))

    assert not dependencies("core") & {"pyo3", "numpy", "ndarray"}
    assert dependencies("py") == {"bytes", "numpy", "pyo3", "ssmrt-core"}


def test_simd_lives_in_the_kernels() -> None:
    for path in CORE.rglob("*.rs"):
        if room_of(path, CORE) != "kernels":
            assert not re.search(r"\bpulp::|std::arch|core::arch", rust_code(path)), path
