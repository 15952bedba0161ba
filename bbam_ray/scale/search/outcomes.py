"""How trials ended, as the search sees them. They are read from the store, the only source of results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from bbam_ray.results import schemas
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
        by_epoch: the first objective by epoch, 1, 2, ...
        error: why it failed.
    """

    number: int
    parameters: dict[str, Any]
    state: str
    values: tuple[float, ...] | None
    by_epoch: dict[int, float] = field(default_factory=dict)
    error: str | None = None


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
    """A stored trial as the search sees it."""
    values = tuple(trial[name] for name, _ in space.objectives if trial.get(name) is not None)
    usable = trial["state"] != schemas.FAILED and len(values) == len(space.objectives)
    return Outcome(
        number=trial["number"],
        parameters=parameters_of(trial),
        state=trial["state"] if usable else schemas.FAILED,
        values=values if usable else None,
        by_epoch=objective_by_epoch(history, space.metric),
        error=trial["error"],
    )


def trial_row(
    identity: Row,
    parameters: Mapping[str, Any],
    state: str,
    history: list[Row],
    space: Space,
    error: str | None,
) -> Row:
    """The row of an ended trial, without times and costs: its state and the metrics of its best epoch."""
    by_epoch = objective_by_epoch(history, space.metric)
    if state != schemas.FAILED and not by_epoch:
        state, error = schemas.FAILED, error or f"no epoch ended with a value of {space.metric}"
    choose = max if space.mode == "max" else min
    best = choose(by_epoch, key=by_epoch.__getitem__) if by_epoch else None
    best_row = next((row for row in history if row["epoch"] == best), {})
    seconds = [sum(row[f"seconds_{part}"] or 0.0 for part in _PARTS) for row in history]
    return identity | {
        "state": state,
        **{f"{_PREFIX}{name}": value for name, value in parameters.items()},
        **{name: value for name, value in best_row.items() if name.startswith("val_")},
        "best_epoch": best,
        "epochs": len(history),
        "seconds_per_epoch": fmean(seconds) if seconds else None,
        "error": error and redacted(error),
    }


def stored_outcomes(store: StudyStore, space: Space) -> dict[int, Outcome]:
    """All ended trials of a study by number."""
    return {
        row["number"]: outcome_of(row, store.history.rows_of(row["number"]), space)
        for row in store.trials.rows()
    }


def mark_pareto(store: StudyStore, space: Space) -> None:
    """Set the column ``pareto`` of all trials; does nothing for a single objective."""
    if len(space.objectives) == 1:
        return
    rows = store.trials.rows()
    best = pareto(rows, space)
    changed = [row for row in rows if row["pareto"] != (row["number"] in best)]
    store.trials.put(row | {"pareto": row["number"] in best} for row in changed)


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


def pareto(trials: Iterable[Row], space: Space) -> set[int]:
    """Numbers of the complete trials that no other complete trial dominates."""

    def losses(row: Row) -> tuple[float, ...]:
        return tuple(-row[n] if mode == "max" else row[n] for n, mode in space.objectives)

    complete = [
        (row["number"], losses(row))
        for row in trials
        if row["state"] == schemas.COMPLETE
        and all(row.get(name) is not None for name, _ in space.objectives)
    ]

    def dominated(values: tuple[float, ...]) -> bool:
        return any(
            other != values and all(o <= v for o, v in zip(other, values, strict=True))
            for _, other in complete
        )

    return {number for number, values in complete if not dominated(values)}
