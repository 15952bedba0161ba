"""``study.db``: the trials of a study for Optuna's own tools (dashboard, importances)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import optuna

from bbam_ray.files import atomic_file
from bbam_ray.scale.search.optuna_study import ended_trial, new_study
from bbam_ray.scale.search.outcomes import Outcome
from bbam_ray.scale.search.space import Space


def write_study_db(folder: Path, space: Space, outcomes: Iterable[Outcome]) -> None:
    """Write the ended trials to ``study.db``, an Optuna study in SQLite named like the folder.

    The file is derived from the store, in order of trial numbers, and replaced as a whole; nothing in
    this project reads it.
    """
    ordered = sorted(outcomes, key=lambda outcome: outcome.number)
    with atomic_file(folder / "study.db") as temporary:
        _write(temporary, folder.name, space, ordered)


def _write(path: Path, name: str, space: Space, outcomes: list[Outcome]) -> None:
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        try:
            study = new_study(space, study_name=name, storage=storage)
            metrics = [metric for metric, _ in space.objectives]
            study.set_user_attr("metric", metrics if len(metrics) > 1 else metrics[0])
            study.add_trials([ended_trial(space, outcome) for outcome in outcomes])
        finally:
            storage.remove_session()
            storage.engine.dispose()
    except Exception as error:
        cause = getattr(error, "orig", None)  # SQLAlchemy wraps the error of SQLite
        if isinstance(cause, sqlite3.OperationalError):  # such as a full disk
            raise OSError(str(cause)) from error
        raise
