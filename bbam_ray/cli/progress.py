"""The live table of a running study on a terminal."""

from __future__ import annotations

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from bbam_ray.commands.study_progress import StudyProgress
from bbam_ray.results.summary import duration

_ROWS = 12
_STYLES = {"running": "cyan", "failed": "red", "pruned": "dim"}


class StudyTable:
    """Draws the latest trials, bars of trials and confirmations, and a status line.

    Args:
        console: where to draw; nothing is drawn if it is no terminal.
        progress: of the study; read four times a second.
    """

    def __init__(self, console: Console, progress: StudyProgress) -> None:
        self._console, self._study = console, progress
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console
        )
        self._trials = self._bars.add_task("trials ", total=progress.total)
        self._confirmations = self._bars.add_task("confirm", total=progress.confirmations)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def start(self) -> None:
        if self._console.is_terminal:
            self._live.start()

    def stop(self) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def _render(self) -> Group:
        study = self._study
        self._bars.update(self._trials, completed=study.finished)
        self._bars.update(self._confirmations, completed=len(study.confirmed))
        if not study.trials:
            return Group(Text("starting the first workers ..."), self._bars, self._status())
        return Group(self._trials_table(), self._bars, self._status())

    def _trials_table(self) -> Table:
        """The running trials and the latest of the ended ones."""
        study = self._study
        table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
        table.add_column("trial", justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("epoch", justify="right", no_wrap=True)
        table.add_column(study.metric, justify="right", no_wrap=True)
        table.add_column("settings", no_wrap=True, overflow="ellipsis", ratio=1)
        running = [n for n, row in study.trials.items() if row["state"] == "running"]
        ended = [n for n in study.trials if n not in running]
        for number in sorted({*ended[-(_ROWS - len(running)) :], *running}):
            row = study.trials[number]
            value = row.get("value")
            best = study.best is not None and number == study.best["number"]
            table.add_row(
                str(number),
                row["state"],
                f"{row['epochs']}/{study.epochs}",
                f"{value:.4f}" if value is not None else "",
                row["settings"],
                style="bold green" if best else _STYLES.get(row["state"], ""),
            )
        return table

    def _status(self) -> Text:
        study = self._study
        text = f"best {study.metric} {study.best_value}"
        if study.best:
            text += f" (trial {study.best['number']})"
        tests = [row["test_map"] for row in study.confirmed if row.get("test_map") is not None]
        if tests:
            text += f"   confirmed test_map {sum(tests) / len(tests):.4f} ({len(tests)} runs)"
        left = "?" if study.seconds_left is None else duration(study.seconds_left)
        text += f"   elapsed {duration(study.elapsed)}   left about {left}"
        if budget := study.budget_left:
            text += f"   budget left {budget}"
        return Text(text)
