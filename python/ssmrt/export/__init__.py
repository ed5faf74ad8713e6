"""Documents as ONNX graphs, and from there as C for microcontrollers. Knows neither the engine nor torch."""

from .onnx_export import export_onnx as export_onnx
from .onnx_stream import OnnxStream as OnnxStream
from .report import ExportReport as ExportReport
