"""Damage to files: that of bytes, and below what holds them: a value in JSON, a member of a zip archive."""

from __future__ import annotations

import io
import json
import random
import zipfile
from typing import Any

# Numbers at which sizes, offsets and counts turn over.
EXTREMES = [0, 1, -1, 2, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1]
VALUES: list[Any] = [None, True, False, "", "x", [], {}, [0], -1, 0, 0.5, 1e308, float("nan"), float("inf"), *EXTREMES]


def damaged_bytes(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, removed, repeated or replaced by an extreme number."""
    bad = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        if not bad:
            break
        # Headers stand at one of the ends.
        near = chance.choice([64, 1024, len(bad)])
        at = chance.randrange(min(near, len(bad)))
        at = at if chance.random() < 0.6 else len(bad) - 1 - at
        length = chance.choice([1, 4, 8, 100])
        match chance.randrange(6):
            case 0:
                bad[at] ^= 1 << chance.randrange(8)
            case 1:
                bad[at] = chance.choice([0, 1, 127, 128, 255, *b'"{}[].,:/'])
            case 2:
                del bad[at : at + length]
            case 3:
                del bad[at:]
            case 4:
                bad[at:at] = bad[at : at + length]
            case 5:
                width = chance.choice([1, 2, 4, 8])
                number = chance.choice(EXTREMES) % (1 << 8 * width)
                bad[at : at + width] = number.to_bytes(width, chance.choice(["little", "big"]))
    return bytes(bad)


def damaged_json(value: Any, chance: random.Random) -> Any:
    """One place of a tree of JSON changed."""
    if isinstance(value, dict | list) and value and chance.random() < 0.85:
        copy: Any = value.copy()
        key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
        match chance.randrange(10):
            case 0:
                del copy[key]
            case 1 if isinstance(copy, dict):
                copy[chance.choice([f"{key}x", f"a.{key}", "", ".", "/".join("a" * 50)])] = copy.pop(key)
            case 2 if isinstance(copy, list):
                copy.insert(key, copy[key])
            case _:
                copy[key] = damaged_json(copy[key], chance)
        return copy
    if isinstance(value, str) and value[:1] in ("{", "[") and chance.random() < 0.8:
        try:
            # A tree within a string, as safetensors' metadata hold it.
            return json.dumps(damaged_json(json.loads(value), chance))
        except ValueError:
            pass
    if isinstance(value, int | float) and not isinstance(value, bool) and chance.random() < 0.5:
        return chance.choice([value + 1, value - 1, -value, value * 2, value * 1000])
    if isinstance(value, str) and value and chance.random() < 0.5:
        return damaged_bytes(value.encode(), chance).decode(errors="replace")
    return chance.choice(VALUES)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The bytes of a file, damaged below what holds them where that is known."""
    if chance.random() < 0.4:
        return damaged_bytes(data, chance)
    if data[:1] in (b"{", b"["):
        try:
            return json.dumps(damaged_json(json.loads(data), chance)).encode()
        except ValueError:
            return damaged_bytes(data, chance)
    length = int.from_bytes(data[:8], "little")
    if data[8:9] == b"{" and length < len(data):
        header = json.dumps(damaged_json(json.loads(data[8 : 8 + length]), chance)).encode()
        return len(header).to_bytes(8, "little") + header + data[8 + length :]
    if data[:2] == b"PK":
        return damaged_archive(data, chance)
    return damaged_bytes(data, chance)


def damaged_archive(data: bytes, chance: random.Random) -> bytes:
    """A zip archive with one member damaged, renamed, left out or there twice."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as copy:
        names = archive.namelist()
        chosen, what = chance.choice(names), chance.randrange(6)
        for name in names:
            content = archive.read(name)
            if name == chosen and what == 0:
                continue
            if name == chosen and what == 1:
                name = chance.choice([f"x{name}", f"../{name}", name.upper(), name + "/x"])
            elif name == chosen and what > 2:
                content = damaged_bytes(content, chance)
            copy.writestr(name, content)
            if name == chosen and what == 2:
                copy.writestr(name, content[::-1])
    return out.getvalue()
