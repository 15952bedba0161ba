"""``study.db``: the trials of a study for Optuna's own tools (dashboard, importances)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, takewhile
from pathlib import Path
from types import TracebackType

import optuna
from sqlalchemy.pool import StaticPool

from bbam_ray.files import atomic_file
from bbam_ray.scale.search.optuna_study import ended_trial, new_study
from bbam_ray.scale.search.outcomes import Outcome
from bbam_ray.scale.search.space import Space


class StudyDatabase:
    """The Optuna study in ``study.db``, named like the folder; a context manager.

    The file is derived from the store, and nothing in this project reads it. It is a copy of a database in
    memory, which gets each trial once, since adding trials is what takes time.

    Args:
        folder: of the study.
        space: its search space.
    """

    def __init__(self, folder: Path, space: Space) -> None:
        self._folder, self._space = folder, space
        self._storage: optuna.storages.RDBStorage | None = None
        self._next = 0  # all trials below this number are in the database

    def __enter__(self) -> StudyDatabase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self._storage is not None:
            self._storage.engine.dispose()

    def write(self, outcomes: Mapping[int, Outcome], *, complete: bool = False) -> None:
        """Add the trials that have ended, in order of their numbers, and replace the file as a whole.

        Args:
            outcomes: of all trials that have ended, by number.
            complete: add all of them, since no other trial will end; else those up to the first one that
                still runs.

        Raises:
            OSError: the file cannot be written.
        """
        storage = self._storage = self._storage or self._new()
        if complete:
            numbers = sorted(number for number in outcomes if number >= self._next)
        else:
            numbers = list(takewhile(outcomes.__contains__, count(self._next)))
        if numbers:
            study = optuna.load_study(study_name=self._folder.name, storage=storage)
            for number in numbers:
                study.add_trial(ended_trial(self._space, outcomes[number]))
                self._next = number + 1
            storage.remove_session()
        connection = storage.engine.raw_connection()
        try:
            content = connection.driver_connection.serialize()  # type: ignore[union-attr]
        finally:
            connection.close()
        with atomic_file(self._folder / "study.db") as temporary:
            temporary.write_bytes(content)

    def _new(self) -> optuna.storages.RDBStorage:
        """A database in memory with a study that has no trials yet."""
        options = {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
        storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs=options)
        study = new_study(self._space, study_name=self._folder.name, storage=storage)
        metrics = [metric for metric, _ in self._space.objectives]
        study.set_user_attr("metric", metrics if len(metrics) > 1 else metrics[0])
        return storage
