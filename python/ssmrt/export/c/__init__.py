"""A Document as C99, by its own emitter."""

from .firmware import CReport as CReport
from .firmware import export_c as export_c
from .targets import TARGETS as TARGETS
