"""The tables of one study: when their rows are written, and in which order."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from bbam_ray.documents import WHOLE_MARK
from bbam_ray.errors import StorageError, UsageError
from bbam_ray.files import write_text
from bbam_ray.results import schemas
from bbam_ray.results.merging import write_table
from bbam_ray.results.parts import read_table
from bbam_ray.results.patience import Patience
from bbam_ray.results.table import Row, Table

__all__ = ["Row", "StudyStore", "Table", "read_table", "write_table"]

#: Tables that together are smaller than this are always rewritten as a whole: a part would not be smaller.
_SMALL_BYTES = 128 << 10
#: Larger ones get parts, which are merged into the files so often that it takes this share of the time.
_MERGE_SHARE = 0.02
_MOST_PARTS = 500  # of a table, for the sake of its readers


def was_not_started(trial: Mapping[str, Any]) -> bool:
    """Whether a trial failed since a worker could not start; its row has no start then."""
    return trial["state"] == schemas.FAILED and trial.get("started_at", "known") is None


class StudyStore:
    """The tables of one study. One process writes them; others may read the files at any moment.

    Args:
        folder: ``<results>/<dataset>/<study>``, existing.
        parameter_kinds: see ``schemas.trials_schema``.
    """

    def __init__(self, folder: Path, parameter_kinds: Mapping[str, str]) -> None:
        self.folder = folder
        self.patience = Patience(folder)
        #: By number of a running trial: the epoch that has angle histograms, and its rows.
        self.histograms: dict[int, tuple[int, list[Row]]] = {}
        self.trials = Table(
            folder / "trials.parquet", schemas.trials_schema(parameter_kinds), ("number",)
        )
        self.history = Table(folder / "history.parquet", schemas.HISTORY, ("number", "epoch"))
        self.folds = Table(
            folder / "folds.parquet", schemas.FOLDS, ("number", "fold", "epoch"), optional=True
        )
        self.labels = Table(folder / "labels.parquet", schemas.LABELS, ("number", "epoch", "label"))
        self.confirm = Table(
            folder / "confirm.parquet",
            schemas.confirm_schema(parameter_kinds),
            ("number", "answer", "seed"),
        )
        # Trials last, so that a trial in the table has its history.
        self._tables = (self.labels, self.folds, self.history, self.trials, self.confirm)
        self._merge_due, self._parts = time.monotonic(), 0

    def end_trial(self, row: Row) -> None:
        """Add the row of a trial that has ended."""
        self.trials.put([row])
        self.histograms.pop(row["number"], None)

    def drop_not_started(self) -> None:
        """Remove trials whose workers could not start: they are run again."""
        self.trials.drop({row["number"] for row in self.trials.rows() if was_not_started(row)})

    def drop_unfinished(self) -> None:
        """Remove the epochs of trials that have not ended; their checkpoints have them as well."""
        ended = self.trials.groups()
        for table in (self.history, self.labels, self.folds):
            table.drop(table.groups() - ended)

    @property
    def merge_is_due(self) -> bool:
        """Whether parts have waited long enough to be merged into the files."""
        return any(table.has_parts for table in self._tables) and self._may_merge

    @property
    def _may_merge(self) -> bool:
        return self._parts >= _MOST_PARTS or time.monotonic() >= self._merge_due

    def flush(self, *, wait: bool = False, whole: bool = False) -> bool:
        """Write what changed, into the files of the tables or into parts.

        Args:
            wait: retry until it could be written.
            whole: write into the files, with all parts.

        Returns:
            Whether it was written; otherwise the rows stay in memory for the next flush.

        Raises:
            StorageError: nothing could be written for too long, or a file was damaged meanwhile.
        """

        def write() -> None:
            self._write(whole)

        if wait:
            self.patience.insist(write)
            return True
        return self.patience.attempt(write)

    def finish(self) -> None:
        """Write all rows into the files of the tables and remove the parts; retries as ``flush`` does."""
        self.flush(wait=True, whole=True)

        def remove() -> None:
            for table in self._tables:
                table.finish()

        self.patience.insist(remove)

    def _write(self, whole: bool) -> None:
        if not any(table.changed or table.has_parts for table in self._tables):
            return
        try:
            if not (is_small := self._is_small or any(t.needs_file for t in self._tables)):
                self._parts += 1
                for table in self._tables:
                    table.flush(whole=False)
            if whole or is_small or self._may_merge:
                self._merge()
        except UsageError as error:
            raise StorageError(str(error)) from None
        # Arrow would keep the memory of the rows that were merged, more with every trial.
        pa.default_memory_pool().release_unused()

    def _merge(self) -> None:
        started = time.monotonic()
        for table in self._tables:
            table.flush()
        ended, self._parts = time.monotonic(), 0
        self._merge_due = ended + (ended - started) * (1 / _MERGE_SHARE - 1)

    @property
    def _is_small(self) -> bool:
        sizes = (t.path.stat().st_size for t in self._tables if t.path.exists())
        return sum(sizes) < _SMALL_BYTES

    def write_best(self, configuration: Mapping[str, Any], comment: str) -> Path:
        """Write ``best.yaml`` for ``train --config``."""
        text = "".join(f"# {line}\n" for line in [*comment.splitlines(), WHOLE_MARK])
        path = self.folder / "best.yaml"
        text += yaml.safe_dump(dict(configuration), sort_keys=False, explicit_end=True)
        self.patience.insist(lambda: write_text(path, text))
        return path
