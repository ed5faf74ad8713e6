"""Python's nodes have the fields, the defaults and the names that the engine knows, and no others."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import Any, get_args, get_type_hints

import pytest
from ssmrt import _native
from ssmrt import document as doc

SCHEMA: dict[str, dict[str, dict[str, Any]]] = json.loads(_native.schema())


def test_kinds_are_the_same() -> None:
    assert set(doc.KINDS) == set(SCHEMA)


@pytest.mark.parametrize("kind", SCHEMA)
def test_fields_are_the_same(kind: str) -> None:
    ours = {f.name for f in fields(doc.KINDS[kind])} - {"name"}
    assert ours == set(SCHEMA[kind])


@pytest.mark.parametrize("kind", SCHEMA)
def test_defaults_are_the_same(kind: str) -> None:
    for f in fields(doc.KINDS[kind]):
        if f.name == "name" or f.default is MISSING:
            continue
        known = SCHEMA[kind][f.name]
        assert "default" in known, f"{kind}.{f.name}: the engine knows no default"
        assert known["default"] == f.default, f"{kind}.{f.name}"


@pytest.mark.parametrize("kind", SCHEMA)
def test_choices_are_the_same(kind: str) -> None:
    hints = get_type_hints(doc.KINDS[kind])
    for name, known in SCHEMA[kind].items():
        if known["type"] == "choice":
            ours = set(get_args(hints[name]))
            missing = set(known["names"]) - ours
            assert not missing, f"{kind}.{name}: Python lacks {missing}"
            # A field may take fewer of a shared list of names than Python's type says; never others.
            everything = {name for fields in SCHEMA.values() for f in fields.values() for name in f.get("names", ())}
            assert ours <= everything, f"{kind}.{name}: the engine lacks {ours - everything}"


@pytest.mark.parametrize("kind", SCHEMA)
def test_types_are_the_same(kind: str) -> None:
    hints = get_type_hints(doc.KINDS[kind])
    expected = {
        "real": doc.Array,
        "complex": doc.Array,
        "number": float,
        "flag": bool,
        "count": int,
        "node": doc.Node,
        "nodes": tuple[doc.Node, ...],
        "number or real": float | doc.Array,
    }
    for name, known in SCHEMA[kind].items():
        if known["type"] == "choice":
            continue
        wanted = expected[known["type"]]
        found = hints[name]
        assert found in (wanted, wanted | None), f"{kind}.{name}: {found}"
        if known.get("default", 0) is None:
            assert type(None) in get_args(found), f"{kind}.{name}: the engine lets it be null"
