"""How trials ended, as the search sees them. They are read from the store, the only source of results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from bbam_ray.results import schemas
from bbam_ray.results.fold_rows import (
    kept_phase,
    kept_reason,
    kept_rows,
    mean_metrics,
    rows_by_fold,
    stored_phase,
)
from bbam_ray.results.redaction import redacted
from bbam_ray.results.store import Row, StudyStore
from bbam_ray.scale.search.space import Space

_PREFIX = "param_"
_PARTS = ("refresh", "train", "evaluate")


@dataclass
class Outcome:
    """How a trial ended.

    Args:
        number: of the trial.
        parameters: its configuration.
        state: COMPLETE, PRUNED or FAILED.
        values: one per objective of the space; None if the trial has none.
        by_epoch: the first objective by epoch, 1, 2, ...; with folds, of the first fold.
        error: why it failed.
        by_fold: the first objective by fold; empty with a single fold.
        standard_error: of the first objective; None if it is not known.
    """

    number: int
    parameters: dict[str, Any]
    state: str
    values: tuple[float, ...] | None
    by_epoch: dict[int, float] = field(default_factory=dict)
    error: str | None = None
    by_fold: list[float] = field(default_factory=list)
    standard_error: float | None = None


def trial_id(number: int) -> str:
    """The ID of a trial: the same in every run of the study."""
    return f"t{number:05d}"


def parameters_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The searched settings in a row of ``trials.parquet``."""
    return {
        name.removeprefix(_PREFIX): value
        for name, value in row.items()
        if name.startswith(_PREFIX) and value is not None
    }


def objective_by_epoch(rows: Iterable[Row], metric: str) -> dict[int, float]:
    """The objective by epoch, without epochs that have none."""
    return {row["epoch"]: row[metric] for row in rows if row.get(metric) is not None}


def outcome_of(trial: Row, history: Iterable[Row], space: Space) -> Outcome:
    """A stored trial as the search sees it.

    Args:
        trial: its row.
        history: its rows by epoch, or by fold and epoch.
        space: that is searched.
    """
    values = tuple(trial[name] for name, _ in space.objectives if trial.get(name) is not None)
    usable = trial["state"] != schemas.FAILED and len(values) == len(space.objectives)
    by_fold = rows_by_fold(history)
    fold_rows = kept_rows(by_fold, stored_phase(trial)) if len(by_fold) > 1 else []
    return Outcome(
        number=trial["number"],
        parameters=parameters_of(trial),
        state=trial["state"] if usable else schemas.FAILED,
        values=values if usable else None,
        by_epoch=objective_by_epoch(by_fold.get(0, []), space.metric),
        error=trial["error"],
        by_fold=[row[space.metric] for row in fold_rows],
        standard_error=trial.get("standard_error"),
    )


def trial_row(
    identity: Row,
    parameters: Mapping[str, Any],
    state: str,
    history: Iterable[Row],
    space: Space,
    error: str | None,
    *,
    keep: str = "phase",
    bootstrap_error: Mapping[str, float] | None = None,
) -> Row:
    """The row of an ended trial, without times and costs: its state, and the metrics of its kept weights.

    Args:
        identity: study, trial_id and number.
        parameters: its configuration.
        state: how it ended.
        history: its rows by epoch, or by fold and epoch.
        space: that is searched.
        error: why it failed.
        keep: the setting of the trial.
        bootstrap_error: standard error of val_map by phase, for a trial with one fold.
    """
    by_fold = rows_by_fold(history)
    measured = {
        fold: [row for row in rows if row.get(space.metric) is not None]
        for fold, rows in by_fold.items()
    }
    measured = {fold: rows for fold, rows in measured.items() if rows}
    if state != schemas.FAILED and not measured:
        state, error = schemas.FAILED, error or f"no epoch ended with a value of {space.metric}"
    phase = kept_phase(measured, keep)
    fold_rows = kept_rows(measured, phase)
    rows = [row for each in by_fold.values() for row in each]
    seconds = [sum(row[f"seconds_{part}"] or 0.0 for part in _PARTS) for row in rows]
    standard_error = None
    if len(fold_rows) > 1:
        standard_error = stdev(row[space.metric] for row in fold_rows) / len(fold_rows) ** 0.5
    elif bootstrap_error and space.metric == "val_map":
        standard_error = bootstrap_error.get(phase)
    return identity | {
        "state": state,
        **{f"{_PREFIX}{name}": value for name, value in parameters.items()},
        **mean_metrics(fold_rows),
        "best_epoch": fold_rows[0]["epoch"] if fold_rows else None,
        "epochs": max(map(len, by_fold.values()), default=0),
        "seconds_per_epoch": fmean(seconds) if seconds else None,
        "error": error and redacted(error),
        "standard_error": standard_error,
        "folds": len(by_fold) or None,
        "kept": kept_reason(measured, phase) if fold_rows else None,
    }


def stored_outcomes(store: StudyStore, space: Space) -> dict[int, Outcome]:
    """All ended trials of a study by number."""
    trials = {row["number"]: row for row in store.trials.rows()}
    outcomes = {number: outcome_of(row, [], space) for number, row in trials.items()}
    for table in (store.history, store.folds):  # rows by fold count, if there are several
        for number, rows in table.rows_by_group():
            if number in trials:
                outcomes[number] = outcome_of(trials[number], rows, space)
    return outcomes


def ranked(trials: Iterable[Row], space: Space) -> list[Row]:
    """Complete trials from best to worst by the first objective; ties keep the order of numbers.

    With several objectives, the trials of the Pareto set come before all others.
    """
    complete = [
        row
        for row in trials
        if row["state"] == schemas.COMPLETE and row.get(space.metric) is not None
    ]
    sign = -1 if space.mode == "max" else 1

    def sort_key(row: Row) -> tuple[bool, float, int]:
        return row.get("pareto") is False, sign * row[space.metric], row["number"]

    return sorted(complete, key=sort_key)
