"""What a running study reports to its listeners: progress, metrics, the command line. Loads no Ray."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bbam_ray.errors import StartError

Row = dict[str, Any]


@dataclass(frozen=True)
class SearchStarted:
    """The search begins or resumes.

    Args:
        trials: that are left to run.
        budget_left: returns what is left of the budget, for people; empty without limits.
    """

    trials: int
    budget_left: Callable[[], str]


@dataclass(frozen=True)
class NothingReused:
    """Another study has trials with the settings of this one, but trained under other conditions.

    Args:
        study: its name.
    """

    study: str


@dataclass(frozen=True)
class TrialStarted:
    """A trial starts, or starts again after the loss of a worker.

    Args:
        number: of the trial.
        parameters: its configuration.
    """

    number: int
    parameters: Row


@dataclass(frozen=True)
class EpochDone:
    """A trial has ended an epoch.

    Args:
        number: of the trial.
        row: of the epoch in ``history.parquet``.
        again: whether an earlier run of the study has trained it.
    """

    number: int
    row: Row
    again: bool = False


@dataclass(frozen=True)
class TrialEnded:
    """A trial has ended, or its rows were copied from an identical earlier trial.

    Args:
        number: of the trial.
        row: of the trial in ``trials.parquet``.
    """

    number: int
    row: Row


@dataclass(frozen=True)
class NotStarted:
    """A worker of a trial or of a training after the search cannot start; sent once for each cause.

    Args:
        what: the trial or the training.
        error: names the node and the cause.
    """

    what: str
    error: StartError


@dataclass(frozen=True)
class Notice:
    """News without a row: fold models or baselines are trained, or a model is left out.

    Args:
        text: for people.
    """

    text: str


@dataclass(frozen=True)
class ConfirmStarted:
    """A run of the confirmation starts.

    Args:
        index: of the run among those of this confirmation.
        row: what is known of its row in ``confirm.parquet``.
    """

    index: int
    row: Row


@dataclass(frozen=True)
class ConfirmEnded:
    """A run of the confirmation has ended.

    Args:
        index: of the run among those of this confirmation.
        row: of the run in ``confirm.parquet``.
    """

    index: int
    row: Row


Event = (
    SearchStarted
    | NothingReused
    | TrialStarted
    | EpochDone
    | TrialEnded
    | NotStarted
    | Notice
    | ConfirmStarted
    | ConfirmEnded
)
Listener = Callable[[Event], None]
