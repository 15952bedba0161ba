"""Progress bars for steps that take long, such as decoding images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

Advance = Callable[[str, int, int], None]


@contextmanager
def bar(console: Console, *columns: Any) -> Iterator[Advance]:
    """A function that shows (what, done, total): a bar on a terminal, a line for each job elsewhere."""
    tasks: dict[str, Any] = {}
    layout = (TextColumn("{task.description}"), BarColumn(), *columns, TimeRemainingColumn())
    with Progress(*layout, console=console, disable=not console.is_terminal) as progress:

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
                if not console.is_terminal:
                    console.print(f"{what} ...", markup=False)
            progress.update(tasks[what], completed=done, total=total)

        yield advance
