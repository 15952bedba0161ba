"""Progress and messages of a command on the console."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn

from bbam_ray.cli.bars import bar
from bbam_ray.commands.listener import Listener


class ConsoleListener(Listener):
    """Shows progress with a bar and prints messages.

    Args:
        console: for messages.
        advance: shows (what, done, total).
    """

    def __init__(self, console: Console, advance: Callable[[str, int, int], None]) -> None:
        self._console, self._advance = console, advance

    def progress(self, what: str, done: int, total: int) -> None:
        self._advance(what, done, total)

    def message(self, text: str) -> None:
        self._console.print(text, markup=False)

    def warning(self, text: str) -> None:
        self._console.print(text, style="yellow", markup=False)


@contextmanager
def console_listener(console: Console, column: Any = None) -> Iterator[ConsoleListener]:
    """A listener for one command.

    Args:
        column: how a bar shows the numbers; default: "done/total".
    """
    with bar(console, column or MofNCompleteColumn()) as advance:
        yield ConsoleListener(console, advance)
