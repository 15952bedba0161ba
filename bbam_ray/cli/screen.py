"""What a search, a run or a comparison shows on the console while it works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import MofNCompleteColumn

from bbam_ray.cli.bars import Advance, bar
from bbam_ray.cli.progress import StudyTable
from bbam_ray.commands.progress_lines import epoch_line
from bbam_ray.commands.study_progress import StudyListener, StudyProgress
from bbam_ray.results.redaction import redacted

if TYPE_CHECKING:
    from bbam_ray.scale.study.events import Event


class Screen(StudyListener):
    """Shows messages, epochs and the table of a running study.

    Args:
        json: standard output is reserved for one JSON object; people read standard error.
        quiet: show only warnings.

    Attributes:
        console: for warnings and results.
        progress_console: for everything else.
    """

    def __init__(self, *, json: bool, quiet: bool) -> None:
        self.console = Console(stderr=json, soft_wrap=True, highlight=False)
        self.progress_console = Console(quiet=True) if quiet or json else self.console
        self._bars = Console(stderr=True, quiet=quiet)
        self._advance: Advance = lambda what, done, total: None
        self._table: StudyTable | None = None

    @contextmanager
    def bars(self) -> Iterator[None]:
        """Show bars for ``progress`` while the block runs."""
        with bar(self._bars, MofNCompleteColumn()) as self._advance:
            yield

    def progress(self, what: str, done: int, total: int) -> None:
        self._advance(what, done, total)

    def message(self, text: str) -> None:
        self.progress_console.print(text, markup=False)

    def warning(self, text: str) -> None:
        self.console.print(text, style="yellow", markup=False)

    def error(self, text: str) -> None:
        errors = Console(stderr=True, soft_wrap=True, highlight=False)
        errors.print(f"error: {redacted(text)}", markup=False)

    def study_started(self, progress: StudyProgress) -> None:
        self._table = StudyTable(self.progress_console, progress)
        self._table.start()

    def study_event(self, event: Event, line: str | None) -> None:
        if line is not None and not self.progress_console.is_terminal:
            self.progress_console.print(line, markup=False)

    def study_ended(self) -> None:
        if self._table is not None:
            self._table.stop()

    def epoch(self, row: dict[str, Any], epochs: int) -> None:
        self.progress_console.print(epoch_line(row, epochs), markup=False)
