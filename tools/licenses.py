"""Write THIRD-PARTY-LICENSES.txt: the licence texts of the crates that are compiled into the wheels.

    python tools/licenses.py            # writes it
    python tools/licenses.py --check    # fails where it is not what Cargo.lock asks for

Texts come from the crates' own sources in Cargo's registry, so that nothing is downloaded but what a build downloads.
Where a crate leaves the choice, it is taken under the first of `PREFERRED` that it offers.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FILE = ROOT / "THIRD-PARTY-LICENSES.txt"
# For each, how the file that has its text is called.
PREFERRED = {
    "MIT": r"LICENSE-MIT(\.md|\.txt)?|LICENSE(\.md|\.txt)?",
    "Apache-2.0": r"LICENSE-APACHE|LICENSE",
    "Zlib": r"LICENSE-ZLIB|LICENSE",
    "BSD-2-Clause": r"LICENSE-BSD|LICENSE",
    "Unicode-3.0": r"LICENSE-UNICODE",
}
# Those of the wheels in .github/workflows/release.yml.
TARGETS = (
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-musl",
    "x86_64-apple-darwin",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
)
HEAD = """\
The extension module of ssmrt is compiled from ssmrt's own sources, which are licensed under MIT or Apache-2.0, from
Rust's standard library, copyright of the Rust project's contributors, which is licensed under MIT or Apache-2.0, and
from the crates listed here, each above the text of the licence under which it is used.
"""


def metadata() -> dict[str, Any]:
    """What Cargo knows of the workspace, by the lock file."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--features", "pyo3/extension-module"]
    command += ["--manifest-path", str(ROOT / "rust" / "py" / "Cargo.toml")]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def compiled() -> set[tuple[str, str]]:
    """(name, version) of the crates that the extension is linked from: neither build scripts nor procedural macros."""
    found = set()
    for target in TARGETS:
        command = ["cargo", "tree", "--locked", "--package", "ssmrt-py", "--edges", "normal,no-proc-macro"]
        command += ["--prefix", "none", "--format", "{p}", "--target", target]
        text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        found |= {(name, version) for name, version in re.findall(r"^([\w-]+) v(\S+)", text, re.MULTILINE)}
    return found


def chosen(package: dict[str, Any]) -> list[str]:
    """The licences under which a crate is used: one of each choice."""
    parts = re.sub(r"[()]", "", package["license"].replace("/", " OR ")).split(" AND ")
    offered = [re.split(r" OR ", part.strip()) for part in parts]
    taken = [next((name for name in PREFERRED if name in choice), None) for choice in offered]
    if None in taken:
        raise SystemExit(f"{package['name']}: licensed under {package['license']}, which `PREFERRED` does not know")
    return [name for name in taken if name is not None]


def text_of(package: dict[str, Any], licence: str, packages: list[dict[str, Any]]) -> str:
    """The text as it stands in the crate, or where it has none in another one of its repository."""
    siblings = [other for other in packages if other["repository"] == package["repository"] is not None]
    for other in [package, *siblings]:
        folder = Path(other["manifest_path"]).parent
        for path in sorted(folder.iterdir(), key=lambda path: (-len(path.name), path.name)):
            if re.fullmatch(PREFERRED[licence], path.name, re.IGNORECASE):
                lines = path.read_text(encoding="utf-8").replace("\f", "").splitlines()
                return "\n".join(line.rstrip() for line in lines).strip("\n")
    raise SystemExit(f"{package['name']}: no file with the text of {licence} in its sources")


def document() -> str:
    """The whole file."""
    wanted = compiled()
    users: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    packages = sorted(metadata()["packages"], key=lambda package: (package["name"], package["version"]))
    for package in packages:
        if package["source"] is None or (package["name"], package["version"]) not in wanted:
            continue
        for licence in chosen(package):
            users[licence, text_of(package, licence, packages)].append(f"{package['name']} {package['version']}")
    rule = "-" * 100
    parts = [f"{rule}\n{', '.join(names)}: {licence}\n\n{text}\n" for (licence, text), names in users.items()]
    return "\n".join([HEAD, *parts])


def main() -> int:
    """Write or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the file is out of date")
    check: bool = parser.parse_args().check
    text = document()
    if not check:
        FILE.write_text(text, encoding="utf-8")
    elif FILE.read_text(encoding="utf-8") != text:
        print(f"{FILE.name} is out of date: python tools/licenses.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
