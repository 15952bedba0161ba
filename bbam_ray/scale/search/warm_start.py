"""Warm start: trials of another study that this study would have run in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config
from bbam_ray.results import schemas
from bbam_ray.results.store import read_table
from bbam_ray.results.study import StudyRecord
from bbam_ray.scale.search.outcomes import Outcome, outcome_of, parameters_of
from bbam_ray.scale.search.space import Space


def prior_outcomes(folder: Path, space: Space, settings: dict[str, Any]) -> tuple[Outcome, ...]:
    """Ended trials of an old study as outcomes for a new one; code and data are not compared.

    A trial counts if it has the new study's value of each setting that the new study does not search,
    and a value in the new range of each setting that it does.

    Args:
        folder: of the old study.
        space: of the new study.
        settings: that the trials of the new study share.

    Returns:
        The outcomes, numbered -1, -2, ... from the newest trial to the oldest.

    Raises:
        UsageError: the folder has no study, or none of its trials fits.
    """
    if not (folder / "study.json").is_file():
        raise UsageError(f"--warm-start {folder}: not a study; give its name or its folder")
    old = study_settings(folder)
    trials = read_table(folder / "trials.parquet").to_pylist()
    history = read_table(folder / "history.parquet").to_pylist()
    outcomes: list[Outcome] = []
    ended = [row for row in trials if row["state"] != schemas.FAILED]
    for row in sorted(ended, key=lambda row: row["number"]):
        parameters = parameters_in(space, settings, {**old, **parameters_of(row)})
        if parameters is None:
            continue
        epochs = [epoch for epoch in history if epoch["number"] == row["number"]]
        outcome = outcome_of(row, epochs, space)
        if outcome.values is not None:
            outcome.parameters = parameters
            outcomes.append(outcome)
    if not outcomes:
        raise UsageError(
            f"--warm-start {folder}: none of its {len(trials)} trials is one that this study could have; "
            "data set, method, seed and all settings that are not searched must be the same"
        )
    for index, outcome in enumerate(outcomes):
        outcome.number = index - len(outcomes)
    return tuple(outcomes)


def study_settings(folder: Path) -> dict[str, Any]:
    """The settings that the trials of a stored study share."""
    settings = StudyRecord.open(folder).content["settings"]
    return {name: _number(value) for name, value in settings.items()}


def restored_outcomes(content: list[dict[str, Any]]) -> tuple[Outcome, ...]:
    """Prior outcomes as they are stored in ``study.json``."""
    restored = []
    for item in content:
        values = item["values"]
        restored.append(
            Outcome(
                number=item["number"],
                parameters={name: _number(value) for name, value in item["parameters"].items()},
                state=item["state"],
                values=None if values is None else tuple(values),
                by_epoch={int(epoch): value for epoch, value in item["by_epoch"].items()},
                error=item["error"],
            )
        )
    return tuple(restored)


def parameters_in(
    space: Space, settings: dict[str, Any], values: dict[str, Any]
) -> dict[str, Any] | None:
    """The part of a complete configuration that a study searches.

    Args:
        space, settings: of the study.
        values: the configuration.

    Returns:
        None if the study could not have a trial with this configuration.
    """
    try:
        flat = run_config(values, "old study").flat()
        fixed = run_config({**settings, **space.published}, "new study").flat()
    except UsageError:
        return None
    searched = set(space.parameters)
    for name in flat.keys() | fixed.keys():
        if name not in searched and flat.get(name) != fixed.get(name):
            return None
    parameters: dict[str, Any] = {}
    for name, parameter in space.parameters.items():
        if space.active(name, parameters):
            value = values.get(name, flat.get(name))  # ``flat`` has null for .inf
            if not parameter.holds(value):
                return None
            parameters[name] = value
    return parameters


def _number(value: Any) -> Any:
    """A value as it was before the store wrote it: JSON has no infinity, so that is text."""
    return float(value) if value in ("inf", "-inf") else value
