"""Packages that only some exports need."""

from __future__ import annotations

import importlib
from typing import Any

EXTRA = {"onnx": "onnx", "onnxruntime": "onnx"}


def require(module: str) -> Any:
    """The module, or an ImportError that says how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        extra = EXTRA[module]
        raise ImportError(f"this needs {module.replace('_', '-')}: pip install 'ssmrt[{extra}]'") from None
