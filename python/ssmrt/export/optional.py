"""Packages that only some exports need."""

from __future__ import annotations

import importlib
from typing import Any

# Their names on the index: the extras of pyproject.toml, whose `ssmrt` itself may have come from elsewhere.
PACKAGES = {"onnx": "onnx onnxruntime", "onnxruntime": "onnx onnxruntime"}


def require(module: str) -> Any:
    """The module, or an ImportError that says how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ImportError(f"this needs {module.replace('_', '-')}: pip install {PACKAGES[module]}") from None
