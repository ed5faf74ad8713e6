"""The configuration that a training framework pickled, as plain dicts and lists."""

from __future__ import annotations

import re
from typing import Any

from ..errors import CheckpointError
from ._pickle import Record

MAX_VALUES = 100_000
MAX_DEPTH = 100

# Stands for a value that is no plain data: a type, a tensor, an object of the framework's own.
_NOTHING = object()
_REFERENCE = re.compile(r"\$\{([\w]+(?:\.[\w]+)*)\}")


def plain(value: Any, source: str) -> Any:
    """``value`` with OmegaConf's nodes, namespaces and paths turned into dicts, lists, strings and numbers.

    What has no such form is left out. OmegaConf's ``${a.b}`` is replaced by what stands there; its functions
    (``${eval: ...}``) stay text. Raises `CheckpointError` where the value contains itself or is beyond all measure.
    """
    left = MAX_VALUES

    def convert(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise CheckpointError(f"{source}: the configuration in the file contains itself or is unreasonably large")
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Record):
            return convert(_content(value), depth + 1)
        if isinstance(value, dict):
            pairs = ((key, convert(item, depth + 1)) for key, item in value.items() if isinstance(key, str | int))
            return {str(key): item for key, item in pairs if item is not _NOTHING}
        if isinstance(value, list | tuple):
            items = (convert(item, depth + 1) for item in value)
            return [item for item in items if item is not _NOTHING]
        return _NOTHING

    converted = convert(value, 0)
    return None if converted is _NOTHING else _resolve(converted, converted)


def _content(record: Record) -> Any:
    module, name = record.cls.module, record.cls.name
    if module.startswith("omegaconf."):
        return record.state.get("_content", record.state.get("_val", _NOTHING))
    if name in ("Namespace", "SimpleNamespace"):
        return record.state
    if name == "AttributeDict":
        return record.items
    if module.startswith("pathlib") and all(isinstance(part, str) for part in record.args):
        return "/".join(record.args)
    if name == "Size" and record.args:
        return record.args[0]
    return _NOTHING


def _resolve(value: Any, root: Any) -> Any:
    if isinstance(value, dict):
        return {key: _resolve(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, root) for item in value]
    if isinstance(value, str) and (match := _REFERENCE.fullmatch(value)):
        target = root
        for name in match[1].split("."):
            target = target.get(name, _NOTHING) if isinstance(target, dict) else _NOTHING
        if target is None or isinstance(target, bool | int | float | str):
            return target
    return value
