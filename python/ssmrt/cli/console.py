"""Lines on a terminal: with colours where rich is installed, plain elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = "_.:-=+*#"

Part = str | tuple[str, str]


class Console:
    """Prints lines made of parts; a part is text, or (text, style) in rich's words."""

    def __init__(self) -> None:
        self._rich: Any = None
        if sys.stdout.isatty():
            try:
                from rich.console import Console as Rich
            except ImportError:
                return
            self._rich = Rich(highlight=False, soft_wrap=True)

    def line(self, *parts: Part) -> None:
        """One line."""
        if self._rich is not None:
            from rich.text import Text

            self._rich.print(Text.assemble(*parts))
        else:
            text = "".join(part if isinstance(part, str) else part[0] for part in parts)
            print(printable(text), flush=True)


@contextmanager
def progress(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where that is a terminal and rich is installed; gives what moves it on."""
    if sys.stderr.isatty():
        try:
            from rich.console import Console as Rich
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        except ImportError:
            pass
        else:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            # What is printed meanwhile goes to stdout, as without a bar.
            with Progress(*columns, console=Rich(stderr=True), transient=True, redirect_stdout=False) as bar:
                task = bar.add_task(name, total=total)
                yield lambda samples: bar.advance(task, samples)
            return
    yield lambda samples: None


def printable(text: str) -> str:
    """The text in what stdout can print."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(str.maketrans(BARS + "µ✓✗→", _PLAIN_BARS + "u+x>"))
        text = text.encode(encoding, "replace").decode(encoding)
    return text
