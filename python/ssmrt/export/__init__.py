"""Documents as ONNX graphs, and as C99 for microcontrollers. Knows neither the engine's plans nor torch."""

from .c import CReport as CReport
from .c import export_c as export_c
from .onnx_export import export_onnx as export_onnx
from .onnx_stream import OnnxStream as OnnxStream
from .report import ExportReport as ExportReport
