"""Whether published advisories concern the crates of Cargo.lock, by a list of them that is kept here, with its date.

    python tools/advisories.py                  # fails where one does, or where a crate was not looked up
    python tools/advisories.py --from DATABASE  # writes the list anew, of a clone of github.com/rustsec/advisory-db

The list (tools/advisories.json) has the crates of all Cargo.lock files that were looked up, and the versions of the
advisories on them. Advisories that deny.toml ignores, with its reason, are let through.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_suffix(".json")


def locked() -> dict[str, set[str]]:
    """The versions of each crate."""
    versions: dict[str, set[str]] = {}
    for lock in (ROOT / "Cargo.lock", ROOT / "rust" / "fuzz" / "Cargo.lock"):
        for package in tomllib.loads(lock.read_text(encoding="utf-8"))["package"]:
            if "source" in package:
                versions.setdefault(package["name"], set()).add(package["version"])
    return versions


def within(version: str, requirement: str) -> bool:
    """Whether a version meets Cargo's requirement."""
    text = requirement.replace(" ", "")
    if text.startswith("^"):
        least = Version(text[1:])
        at = next((i for i, number in enumerate(least.release) if number), len(least.release) - 1)
        text = f">={least},<{'.'.join(map(str, (*least.release[:at], least.release[at] + 1)))}"
    return SpecifierSet(text.replace("=", "==", 1) if text[0] == "=" else text, prereleases=True).contains(version)


def read(database: Path) -> dict[str, Any]:
    """The list, of a clone of the database."""
    git = ["git", "-C", str(database)]
    date = subprocess.run(
        [*git, "log", "-1", "--format=%cs"], check=True, capture_output=True, text=True
    ).stdout.strip()
    crates: dict[str, Any] = {}
    for name in sorted(locked()):
        names = [*git, "ls-tree", "--name-only", "HEAD", f"crates/{name}/"]
        crates[name] = {}
        for file in subprocess.run(names, check=True, capture_output=True, text=True).stdout.split():
            text = subprocess.run([*git, "show", f"HEAD:{file}"], check=True, capture_output=True, text=True).stdout
            advisory = tomllib.loads(text.split("```toml", 1)[1].split("```", 1)[0])
            if "withdrawn" not in advisory["advisory"]:
                crates[name][advisory["advisory"]["id"]] = {
                    kind: advisory["versions"].get(kind, []) for kind in ("patched", "unaffected")
                }
    return {"database": "RustSec", "date": date, "crates": crates}


def main() -> None:
    """Check, or write the list."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="database", type=Path, metavar="DATABASE", help="a clone to write the list of")
    database = parser.parse_args().database
    if database is not None:
        LIST.write_text(json.dumps(read(database), indent=1) + "\n", encoding="utf-8")
    known = json.loads(LIST.read_text(encoding="utf-8"))
    ignored = tomllib.loads((ROOT / "deny.toml").read_text(encoding="utf-8"))["advisories"]["ignore"]
    let_through = {advisory["id"] for advisory in ignored}
    found = []
    for name, versions in sorted(locked().items()):
        if name not in known["crates"]:
            found.append(f"{name} was not looked up: run {Path(__file__).name} --from a clone of {known['database']}")
        for number, advisory in known["crates"].get(name, {}).items():
            fine = [*advisory["patched"], *advisory["unaffected"]]
            for version in sorted(versions):
                if number not in let_through and not any(within(version, requirement) for requirement in fine):
                    found.append(f"{number} concerns {name} {version}: {', '.join(fine) or 'no version'} is right")
    if found:
        raise SystemExit("\n".join(found))
    print(f"no advisory of {known['database']}, {known['date']}, concerns {len(locked())} crates")


if __name__ == "__main__":
    main()
