"""When the tables of a running study and its ``study.db`` are written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

from bbam_ray.results.store import StudyStore
from bbam_ray.scale.search.outcomes import Outcome
from bbam_ray.scale.search.study_db import StudyDatabase

_FLUSH_SECONDS = 2.0
_DATABASE_SECONDS = 30.0  # study.db is for other tools; nothing here reads it


class StudyWriter:
    """Writes what the store holds in memory, at most as often as needed.

    Args:
        store: of the study.
        database: its ``study.db``.
        outcomes: of its trials, for the database; read at each write.
    """

    def __init__(
        self, store: StudyStore, database: StudyDatabase, outcomes: Mapping[int, Outcome]
    ) -> None:
        self._store, self._database, self._outcomes = store, database, outcomes
        self._flushed = time.monotonic()
        self._database_due = self._flushed + _DATABASE_SECONDS

    def flush_if_due(self) -> None:
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def step(self) -> None:
        """Flush again if rows could not be written before, or if parts are to be merged."""
        if self._store.patience.waiting:
            self.flush_if_due()
        elif self._store.merge_is_due:
            self.flush()

    def flush(self) -> None:
        written = self._store.flush()
        self._flushed = time.monotonic()
        if written and self._flushed > self._database_due:
            with suppress(OSError):
                self._database.write(self._outcomes)
            seconds = time.monotonic() - self._flushed
            self._database_due = time.monotonic() + max(_DATABASE_SECONDS, 10 * seconds)
