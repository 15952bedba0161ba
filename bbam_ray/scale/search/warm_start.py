"""Going on with a changed space: trials of another study that this one would have run the same way."""

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
    """Ended trials of a study as the search of another one may know them; code and data are not compared.

    A trial counts if each setting that the new study does not search has the new study's value in it,
    and each searched one lies in the new range; what the old study did not search has its fixed value.

    Args:
        folder: of the old study.
        space: of the new study.
        settings: that the new study's trials share.

    Returns:
        The outcomes, numbered -1, -2, ... from the newest trial to the oldest.

    Raises:
        UsageError: no study there, or none of its trials fits.
    """
    if not (folder / "study.json").is_file():
        raise UsageError(f"--warm-start {folder}: there is no study; give its name or its folder")
    old = StudyRecord.open(folder).content["settings"]
    old = {name: _number(value) for name, value in old.items()}
    trials = read_table(folder / "trials.parquet").to_pylist()
    history = read_table(folder / "history.parquet").to_pylist()
    found: list[Outcome] = []
    ended = [row for row in trials if row["state"] != schemas.FAILED]
    for row in sorted(ended, key=lambda row: row["number"]):
        parameters = _fitting({**old, **parameters_of(row)}, space, settings)
        if parameters is None:
            continue
        mine = [epoch for epoch in history if epoch["number"] == row["number"]]
        outcome = outcome_of(row, mine, space)
        if outcome.values is not None:
            outcome.parameters = parameters
            found.append(outcome)
    if not found:
        raise UsageError(
            f"--warm-start {folder}: none of its {len(trials)} trials is one that this study could have; "
            "data set, method, seed and all settings that are not searched must be the same"
        )
    for place, outcome in enumerate(found):
        outcome.number = place - len(found)
    return tuple(found)


def restored_outcomes(content: list[dict[str, Any]]) -> tuple[Outcome, ...]:
    """Prior outcomes as ``study.json`` has kept them."""
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


def _fitting(
    values: dict[str, Any], space: Space, settings: dict[str, Any]
) -> dict[str, Any] | None:
    """The parameters of the new space in a complete configuration of the old study."""
    try:
        flat = run_config(values, "old study").flat()
        mine = run_config({**settings, **space.published}, "new study").flat()
    except UsageError:
        return None
    searched = set(space.parameters)
    for name in flat.keys() | mine.keys():
        if name not in searched and flat.get(name) != mine.get(name):
            return None
    parameters: dict[str, Any] = {}
    for name, parameter in space.parameters.items():
        if space.active(name, parameters):
            value = values.get(name, flat.get(name))  # as it was given: .inf, say, and not null
            if not parameter.holds(value):
                return None
            parameters[name] = value
    return parameters


def _number(value: Any) -> Any:
    """JSON has no infinity: the store writes it as text."""
    return float(value) if value in ("inf", "-inf") else value
