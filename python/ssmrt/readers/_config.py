"""The configuration that a training framework pickled, as plain dicts and lists."""

from __future__ import annotations

import re
from typing import Any

from ..errors import CheckpointError
from ._numpy_pickle import Ndarray
from ._pickle import Global, Record

MAX_VALUES = 100_000
MAX_DEPTH = 100

# Stands for a value that says nothing about a model: a tensor, the annotation of a type.
_NOTHING = object()
_UNKNOWN = object()
_ANNOTATIONS = ("typing", "builtins", "__builtin__")
_REFERENCE = re.compile(r"\$\{([\w]+(?:\.[\w]+)*)\}")


def plain(value: Any, source: str) -> Any:
    """``value`` with OmegaConf's nodes, namespaces and paths turned into dicts, lists, strings and numbers.

    A class, a function or an instance of a class, of which nothing is known, is its name in angle brackets,
    ``"<torch.nn.modules.activation.GELU>"``, so that a model that asks for it does not take a default instead.
    Tensors and annotations of types are left out. OmegaConf's ``${a.b}`` is replaced by what stands there; its
    functions (``${eval: ...}``) stay text. Raises `CheckpointError` where the value contains itself or is beyond all
    measure.
    """
    _check_size(value, source)

    def convert(value: Any) -> Any:
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Global):
            return _NOTHING if value.module in _ANNOTATIONS else _name(value)
        if isinstance(value, Ndarray):
            return _number(value, source)
        if isinstance(value, Record):
            content = _content(value)
            return _name(value.cls) if content is _UNKNOWN else convert(content)
        if isinstance(value, dict):
            pairs = ((key, convert(item)) for key, item in value.items() if isinstance(key, str | int))
            return {str(key): item for key, item in pairs if item is not _NOTHING}
        if isinstance(value, list | tuple):
            items = (convert(item) for item in value)
            return [item for item in items if item is not _NOTHING]
        return _NOTHING

    converted = convert(value)
    return None if converted is _NOTHING else _resolve(converted, converted)


def _check_size(root: Any, source: str) -> None:
    """Raise where values stand in one another without end, or too often: before any of them is copied."""
    left = MAX_VALUES

    def count(value: Any, depth: int) -> None:
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise CheckpointError(f"{source}: the configuration in the file contains itself or is unreasonably large")
        if isinstance(value, Record):
            count(_content(value), depth + 1)
        elif isinstance(value, dict | list | tuple):
            for item in value.values() if isinstance(value, dict) else value:
                count(item, depth + 1)

    count(root, 0)


def is_known(record: Record) -> bool:
    """Whether it is an instance of a class of plain data, and so no tensor of whatever kind."""
    return _content(record) is not _UNKNOWN


def _name(value: Global) -> str:
    return f"<{str(value)[:200]}>"


def _number(value: Ndarray, source: str) -> Any:
    """A scalar of NumPy's as Python's own."""
    if value.shape != ():
        return _NOTHING
    number = value.array(f"{source}: a number of the configuration").item()
    return number if isinstance(number, bool | int | float) else _NOTHING


def _content(record: Record) -> Any:
    module, name = record.cls.module, record.cls.name
    if module.startswith("omegaconf."):
        return record.state.get("_content", record.state.get("_val", _NOTHING))
    if name in ("Namespace", "SimpleNamespace"):
        return dict(record.state)
    if name == "AttributeDict":
        return dict(record.items)
    if module.startswith("pathlib") and all(isinstance(part, str) for part in record.args):
        return "/".join(record.args)
    if name in ("Size", "set", "frozenset") and record.args:
        return record.args[0]
    if str(record.cls) == "torch.device":
        return ":".join(map(str, record.args))
    return _UNKNOWN


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
