"""`main`: the commands, and how their failures look."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, Protocol

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
_ABOUT = """Trained state-space models on plain CPUs, one sample at a time.

Four of the commands below on the demo's model, as they take your own checkpoint too:

    ssmrt demo --save spotter.ssm.safetensors
    ssmrt verify spotter.ssm.safetensors
    ssmrt plot spotter.ssm.safetensors --output layers.png
    ssmrt export spotter.ssm.safetensors spotter.onnx
"""
SHELLS = ("bash", "zsh", "tcsh")
# The words in usages that stand for files and folders.
_PATHS = ("MODEL", "INPUT", "OUT", "FILE", "JSON", "NPY")
_EXPECTED = (SsmrtError, ValueError, TypeError, ImportError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ssmrt`` with these arguments (None: the process's own); the exit code.

    A failure is one line on stderr and exit code 2; ``SSMRT_TRACEBACK=1`` lets it through, for who looks for its
    cause. Exit code 1 is `verify`'s "no".
    """
    try:
        arguments, unknown = _parser().parse_known_args(argv)
        if unknown:
            # By the command's own parser, so that the error points to its help.
            arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
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


class _Completion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *found: Any) -> NoReturn:
        try:
            import shtab
        except ModuleNotFoundError:
            raise ImportError("this needs shtab: pip install shtab") from None
        for part in _all_parsers(parser):
            for action in part._actions:
                if action.metavar in _PATHS:
                    action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(parser, shell=found[1]))
        parser.exit()


def _all_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ssmrt", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"ssmrt {__version__}")
    parser.add_argument(
        "--print-completion",
        choices=SHELLS,
        action=_Completion,
        help='print what completes its words in a shell: eval "$(ssmrt --print-completion bash)"',
    )
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
        one.set_defaults(command=command, parser=one)
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
