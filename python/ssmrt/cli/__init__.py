"""The command line. Everything may be used from here; nothing uses this."""

from .main import main as main
