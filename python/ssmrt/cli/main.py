"""`main`: the commands, and how their failures look."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn, Protocol

from .. import __version__
from ..errors import ConfigRequired, SsmrtError
from . import bench, convert, demo, export, info, plot, reduce, run, verify


class Command(Protocol):
    """What a module in `COMMANDS` offers. Its docstring is the help."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare them."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; the exit code."""


COMMANDS: dict[str, Command] = {
    "demo": demo,
    "info": info,
    "run": run,
    "verify": verify,
    "bench": bench,
    "export": export,
    "convert": convert,
    "plot": plot,
    "reduce": reduce,
}
FAILED = 2
_EXPECTED = (SsmrtError, ValueError, TypeError, ImportError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ssmrt`` with these arguments (None: the process's own); the exit code.

    A failure is one line on stderr and exit code 2; ``SSMRT_TRACEBACK=1`` lets it through, for who looks for its
    cause. Exit code 1 is `verify`'s "no".
    """
    try:
        arguments = _parser().parse_args(argv)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = _note  # type: ignore[assignment]
            code: int = arguments.command.run(arguments)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except ConfigRequired as error:
        question, _, _ = str(error).partition(" Pass config=")
        return _fail(f"{question} Pass --config '{_example(error)}', or --config '{{}}' for upstream's defaults")
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except _EXPECTED as error:
        return _fail(str(error))
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(FAILED, f"{self.prog}: error: {_line(message)}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ssmrt", description="Trained state-space models on plain CPUs, one sample at a time.")
    parser.add_argument("--version", action="version", version=f"ssmrt {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        text = command.__doc__ or ""
        one = commands.add_parser(
            name,
            help=text.split("\n")[0].rstrip("."),
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(one)
        one.set_defaults(command=command)
    return parser


def _line(text: str) -> str:
    return " ".join(text.split())


def _fail(text: str) -> int:
    if os.environ.get("SSMRT_TRACEBACK") == "1":
        raise
    sys.stderr.write(f"ssmrt: error: {_line(text)}\n")
    return FAILED


def _note(message: Warning | str, *_: object) -> None:
    sys.stderr.write(f"ssmrt: note: {_line(str(message))}\n")


def _example(error: ConfigRequired) -> str:
    text = f'"{error.name}": ...'
    for name in reversed(error.path):
        text = f'"{name}": {{{text}}}'
    return f"{{{text}}}"
