"""ssmrt: trained state-space models on plain CPUs, one sample at a time in microseconds."""

import importlib
from typing import TYPE_CHECKING

from . import nn as nn
from . import ops as ops
from ._native import Stream as Stream
from ._native import __version__ as __version__
from .document import Document as Document
from .errors import CheckpointError as CheckpointError
from .errors import ConfigRequired as ConfigRequired
from .errors import ExportError as ExportError
from .errors import NotStreamable as NotStreamable
from .errors import SsmrtError as SsmrtError
from .errors import UnsupportedError as UnsupportedError
from .generate import generate as generate
from .layers import dense as dense
from .layers import diagonal as diagonal
from .layers import dplr as dplr
from .layers import linoss as linoss
from .layers import selective as selective
from .load import load as load
from .model import Model as Model
from .model import Modes as Modes
from .ops import discretize as discretize
from .ops import hippo as hippo
from .verify import verify as verify

if TYPE_CHECKING:
    from . import jax as jax
    from . import torch as torch
    from .export import OnnxStream as OnnxStream
    from .export import export_c as export_c
    from .export import export_onnx as export_onnx
    from .reduction import reduce as reduce
else:

    def __getattr__(name: str) -> object:
        # Streams start without the imports of exporters and reduction.
        if name == "reduce":
            from . import reduction

            return reduction.reduce
        if name in ("OnnxStream", "export_c", "export_onnx"):
            from . import export

            return getattr(export, name)
        if name in ("jax", "torch"):
            return importlib.import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "CheckpointError",
    "ConfigRequired",
    "Document",
    "ExportError",
    "Model",
    "Modes",
    "NotStreamable",
    "OnnxStream",
    "SsmrtError",
    "Stream",
    "UnsupportedError",
    "dense",
    "diagonal",
    "discretize",
    "dplr",
    "export_c",
    "export_onnx",
    "generate",
    "hippo",
    "linoss",
    "load",
    "nn",
    "ops",
    "reduce",
    "selective",
    "verify",
]


def __dir__() -> list[str]:
    # Names that are imported when they are asked for too.
    return [*__all__, "__version__", "jax", "torch"]
