"""The progress of a study, computed from its events; callers draw or print it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bbam_ray.commands.listener import Listener
from bbam_ray.commands.progress_lines import confirmation_line, epoch_line, short, trial_line
from bbam_ray.results.summary import duration
from bbam_ray.scale.study.events import (
    ConfirmEnded,
    EpochDone,
    Event,
    SearchStarted,
    TrialEnded,
    TrialStarted,
)

if TYPE_CHECKING:
    from bbam_ray.scale.study.plan import StudyPlan


class StudyProgress:
    """Trials, best value and remaining time of a running study.

    Args:
        plan: of the study.
        done: trials that an earlier run has finished.

    Attributes:
        trials: number to state, epochs, settings and value of every trial of this run.
        confirmed: rows of the confirmed runs.
        best: row of the best complete trial of this run; None before the first one.
        finished, total, confirmations: numbers of trials and of confirming runs.
        epochs: of a full trial, over all of its folds.
        metric: the objective.
    """

    def __init__(self, plan: StudyPlan, done: int) -> None:
        self.metric, self._higher_is_better = plan.space.metric, plan.space.mode == "max"
        self._run_epochs, self._folds = plan.published_config.training.epochs, plan.folds
        self.epochs = self._run_epochs * plan.folds
        self.total, self.finished, self.confirmations = plan.num_samples, done, plan.confirmations
        self.trials: dict[int, dict[str, Any]] = {}
        self.confirmed: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self._work_left = (self.total - done) * self.epochs
        self._work_left += plan.runs_after_search * self._run_epochs
        self._work_done = 0
        self._epochs_seen: dict[int, int] = {}
        self._budget_left: Callable[[], str] = lambda: ""
        self._started = time.monotonic()

    def update(self, event: Event) -> str | None:
        """Process an event; returns a line of text if it ends a run, else None."""
        match event:
            case SearchStarted():
                self._budget_left = event.budget_left
            case TrialStarted(number, parameters):
                self._trial_started(number, parameters)
            case EpochDone(number, row, again):
                self._epoch_done(number, row, again=again)
            case TrialEnded(number, row):
                return self._trial_ended(number, row)
            case ConfirmEnded(_, row):
                return self._confirm_ended(row)
        return None

    @property
    def best_value(self) -> str:
        """The best value of the objective, or "-"."""
        return f"{self.best[self.metric]:.4f}" if self.best else "-"

    @property
    def budget_left(self) -> str:
        """What is left of the budget; empty without one."""
        return self._budget_left()

    @property
    def elapsed(self) -> float:
        """Seconds since the start of this run."""
        return time.monotonic() - self._started

    @property
    def seconds_left(self) -> float | None:
        """Expected seconds until the end; None before the first epoch."""
        if not self._work_done:
            return None
        return self.elapsed / self._work_done * max(0, self._work_left - self._work_done)

    def _trial_started(self, number: int, values: dict[str, Any]) -> None:
        settings = " ".join(f"{name}={short(value)}" for name, value in values.items())
        self.trials[number] = {"state": "running", "epochs": 0, "settings": settings}

    def _epoch_done(self, number: int, values: dict[str, Any], *, again: bool) -> None:
        epoch = values["fold"] * self._run_epochs + values["epoch"]
        if epoch > self._epochs_seen.get(number, 0):
            self._epochs_seen[number] = epoch
            if again:
                self._work_left -= 1
            else:
                self._work_done += 1
        self.trials[number] |= {"epochs": epoch, "value": values.get(self.metric)}

    def _trial_ended(self, number: int, values: dict[str, Any]) -> str:
        value = values.get(self.metric)
        # Epochs that are not trained: the trial was pruned, or its results were reused.
        self._work_left -= self.epochs - self._epochs_seen.get(number, 0)
        if number not in self.trials:  # its worker could not start
            names = [name for name in values if name.startswith("param_")]
            self._trial_started(
                number, {name.removeprefix("param_"): values[name] for name in names}
            )
        self.trials[number] |= {
            "state": values["state"].lower(),
            "epochs": values["epochs"] * (values.get("folds") or 1),
            "value": value,
        }
        self.finished += 1
        if values["state"] == "COMPLETE" and value is not None:
            best = self.best and self.best[self.metric]
            if best is None or (value > best if self._higher_is_better else value < best):
                self.best = values
        left = f"about {duration(self.seconds_left or 0.0)} left"
        if budget := self.budget_left:
            left += f", budget {budget}"
        line = trial_line(values, self.metric, self._folds)
        return f"{line}  [best {self.best_value}, {left}]"

    def _confirm_ended(self, values: dict[str, Any]) -> str:
        self._work_done += self._run_epochs
        self.confirmed.append(values)
        return confirmation_line(values)


class StudyListener(Listener):
    """Receives the progress of a search, a run or a comparison; this base class ignores it."""

    def study_started(self, progress: StudyProgress) -> None:
        """A search starts; ``progress`` changes with every event."""

    def study_event(self, event: Event, line: str | None) -> None:
        """Something happened in the search; ``line`` describes the end of a run."""

    def study_ended(self) -> None:
        """The search has ended, also after an error."""

    def epoch(self, row: dict[str, Any], epochs: int) -> None:
        """An epoch of a single run, out of ``epochs``, has been stored as a row of its history."""


class LineListener(StudyListener):
    """Turns everything that it receives into lines of text.

    Args:
        write: takes a line.
        quiet: write warnings only.
    """

    def __init__(self, write: Callable[[str], None], *, quiet: bool = False) -> None:
        self._write, self._quiet = write, quiet

    def message(self, text: str) -> None:
        if not self._quiet:
            self._write(text)

    def warning(self, text: str) -> None:
        self._write(text)

    def error(self, text: str) -> None:
        self._write(f"error: {text}")

    def study_event(self, event: Event, line: str | None) -> None:
        if line is not None:
            self.message(line)

    def epoch(self, row: dict[str, Any], epochs: int) -> None:
        self.message(epoch_line(row, epochs))


SILENT = StudyListener()
