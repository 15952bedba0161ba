"""What a person sees while a study runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from bbam_ray.results.schemas import TrialState
from bbam_ray.results.summary import duration

_ROWS = 12


class StudyEvent(Protocol):
    """See ``scale.recorder.Event``; this module does not load Ray."""

    @property
    def kind(self) -> Any: ...
    @property
    def number(self) -> int: ...
    @property
    def values(self) -> dict[str, Any]: ...


def short(value: Any) -> str:
    """A setting as people write it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


class StudyProgress:
    """Listens to a study's events and shows them; use as a context manager.

    Args:
        console: where to show; a live table if it is a terminal.
        total: trials of the study; ``done`` of them were finished before.
        epochs: of a full trial, for the remaining time.
        metric: the objective; ``higher_is_better`` says which way.
        confirmations: how many runs confirm the best.
        concurrency: runs at once.
    """

    def __init__(
        self,
        console: Console,
        *,
        total: int,
        done: int,
        epochs: int,
        metric: str,
        higher_is_better: bool,
        confirmations: int,
        concurrency: int,
    ) -> None:
        self._console, self._metric, self._up = console, metric, higher_is_better
        self._epochs, self._concurrency = epochs, concurrency
        self._work_left = (total - done + confirmations) * epochs
        self._total, self._confirmations = total, confirmations
        self._started = time.monotonic()
        self._epochs_seen: dict[int, int] = {}
        self._rows: dict[int, dict[str, Any]] = {}
        self._best: dict[str, Any] | None = None
        self._confirmed: list[dict[str, Any]] = []
        self._budget_left: Callable[[], str] = lambda: ""
        self._work_done = 0
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console
        )
        self._trials_bar = self._bar.add_task("trials ", total=total, completed=done)
        self._confirm_bar = self._bar.add_task("confirm", total=confirmations)
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def __enter__(self) -> StudyProgress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def __call__(self, event: StudyEvent) -> None:
        {
            "search_started": self._search_started,
            "trial_started": self._trial_started,
            "epoch_done": self._epoch_done,
            "trial_ended": self._trial_ended,
            "confirm_started": lambda number, values: None,
            "confirm_ended": self._confirm_ended,
        }[event.kind](event.number, event.values)

    def _search_started(self, number: int, values: dict[str, Any]) -> None:
        self._budget_left = values["budget"]

    def _trial_started(self, number: int, values: dict[str, Any]) -> None:
        settings = " ".join(f"{name}={short(value)}" for name, value in values.items())
        self._rows[number] = {"state": "running", "epochs": 0, "settings": settings}

    def _epoch_done(self, number: int, values: dict[str, Any]) -> None:
        if values["epoch"] > self._epochs_seen.get(number, 0):
            self._epochs_seen[number] = values["epoch"]
            self._work_done += 1
        self._rows[number] |= {"epochs": values["epoch"], "value": values.get(self._metric)}

    def _trial_ended(self, number: int, values: dict[str, Any]) -> None:
        value = values.get(self._metric)
        # What was not trained, because the trial was stopped or answered from the store.
        self._work_left -= self._epochs - self._epochs_seen.get(number, 0)
        self._rows[number] |= {
            "state": values["state"].lower(),
            "epochs": values["epochs"],
            "value": value,
            "seconds": values["duration_s"],
        }
        if values["state"] == TrialState.COMPLETE and value is not None:
            best = self._best and self._best[self._metric]
            if best is None or (value > best if self._up else value < best):
                self._best = values
        self._bar.advance(self._trials_bar)
        if not self._console.is_terminal:
            figure = f"{self._metric} {value:.4f}" if value is not None else values["error"]
            source = values.get("answered_by")
            took = f"from {source}" if source else duration(values["duration_s"])
            left = f", budget {budget}" if (budget := self._budget_left()) else ""
            self._line(
                f"trial {number:>3}  {values['state'].lower():<8}  {figure}  "
                f"{values['epochs']} epochs  {took}"
                f"  [best {self._best_value()}, about {duration(self._seconds_left())} left{left}]"
            )

    def _confirm_ended(self, number: int, values: dict[str, Any]) -> None:
        self._work_done += self._epochs
        self._confirmed.append(values)
        self._bar.advance(self._confirm_bar)
        if not self._console.is_terminal:
            figure = values.get("error") or f"test_map {values['test_map']:.4f}"
            self._line(
                f"confirm  rank {values['rank']}  seed {values['seed']}  {figure}  "
                f"{duration(values['duration_s'])}"
            )

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _best_value(self) -> str:
        return f"{self._best[self._metric]:.4f}" if self._best else "-"

    def _seconds_left(self) -> float:
        elapsed = time.monotonic() - self._started
        return elapsed / max(1, self._work_done) * max(0, self._work_left - self._work_done)

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
        for name, justify in (("trial", "right"), ("state", "left"), ("epoch", "right")):
            table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
        table.add_column(self._metric, justify="right", no_wrap=True)
        table.add_column("settings", no_wrap=True, overflow="ellipsis", ratio=1)
        running = [n for n, row in self._rows.items() if row["state"] == "running"]
        ended = [n for n in self._rows if n not in running]
        for number in sorted({*ended[-(_ROWS - len(running)) :], *running}):
            row = self._rows[number]
            value = row.get("value")
            best = self._best is not None and number == self._best["number"]
            style = {"running": "cyan", "failed": "red", "pruned": "dim"}.get(row["state"], "")
            table.add_row(
                str(number),
                row["state"],
                f"{row['epochs']}/{self._epochs}",
                f"{value:.4f}" if value is not None else "",
                row["settings"],
                style="bold green" if best else style,
            )
        elapsed = duration(time.monotonic() - self._started)
        left = duration(self._seconds_left()) if self._work_done else "?"
        best_text = f"best {self._metric} {self._best_value()}"
        if self._best:
            best_text += f" (trial {self._best['number']})"
        tests = [r["test_map"] for r in self._confirmed if r.get("test_map") is not None]
        if tests:
            best_text += f"   confirmed test_map {sum(tests) / len(tests):.4f} ({len(tests)} runs)"
        status = Text(f"{best_text}   elapsed {elapsed}   left about {left}")
        if budget := self._budget_left():
            status.append(f"   budget left {budget}")
        if not self._rows:
            return Group(Text("starting the first workers ..."), self._bar, status)
        return Group(table, self._bar, status)
