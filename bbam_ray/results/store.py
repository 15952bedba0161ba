"""The tables of a study: kept in memory, written to Parquet as whole files, readable at any moment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from bbam_ray.documents import WHOLE_MARK
from bbam_ray.errors import NewerVersionError, UsageError, brief, similar
from bbam_ray.files import atomic_file, check_regular, write_text
from bbam_ray.results import schemas
from bbam_ray.results.patience import Patience
from bbam_ray.results.redaction import redacted

Row = dict[str, Any]
Key = tuple[Any, ...]


def was_not_started(trial: Mapping[str, Any]) -> bool:
    """Whether a trial failed since a worker could not start; its row has no start then."""
    return trial["state"] == schemas.FAILED and trial.get("started_at", "known") is None


def _clean(row: Row, schema: pa.Schema) -> Row:
    """A row with exactly the schema's columns; NaN and missing values become null."""

    def value(name: str) -> Any:
        item = row.get(name)
        if name == "error" and isinstance(item, str):
            return redacted(item)
        return None if isinstance(item, float) and math.isnan(item) else item

    return {name: value(name) for name in schema.names}


class Table:
    """One Parquet table with a key, rewritten as a whole when it is flushed.

    Stored rows are one Arrow table; rows added since the last flush are Python dictionaries. So memory
    and the cost of a flush stay small, however many trials have ended.

    Args:
        path: the file; its rows are read if it exists.
        schema: all columns.
        key: columns that identify a row; the first one names its group (the trial, for example). A new
            row with the same key replaces the old one.
        optional: write no file as long as there are no rows.
    """

    def __init__(
        self, path: Path, schema: pa.Schema, key: tuple[str, ...], *, optional: bool = False
    ) -> None:
        self.path, self.schema, self._key = path, schema, key
        self._columns = frozenset(schema.names)
        self._stored: pa.Table = schema.empty_table()
        self._new: dict[Any, dict[Key, Row]] = {}  # by group
        self._changed = not path.exists() and not optional
        if path.exists():
            for row in read_table(path).to_pylist():  # without columns of another version
                self._add(row)
            self._settle()
            self._changed = False

    def put(self, rows: Iterable[Row]) -> None:
        """Add rows; a missing column is null.

        Raises:
            UsageError: a row has a column that the schema does not have.
        """
        for row in rows:
            for name in row.keys() - self._columns:
                hint = similar(name, self._columns)
                raise UsageError(
                    f"{self.path.name} has no column '{brief(name)}' ({hint}); add it to the schema of "
                    "the table in bbam_ray/results/schemas.py"
                )
            self._add(row)

    def _add(self, row: Row) -> None:
        self._new.setdefault(row[self._key[0]], {})[self._key_of(row)] = _clean(row, self.schema)
        self._changed = True

    def _key_of(self, row: Row) -> Key:
        return tuple(row.get(name) for name in self._key)

    def clear(self, group: Any, columns: Sequence[str]) -> None:
        """Set columns to null in all rows of a group."""
        stored = self._stored.filter(pc.equal(self._stored[self._key[0]], group))
        filled = stored.filter(reduce(pc.or_, (pc.is_valid(stored[name]) for name in columns)))
        rows = {self._key_of(row): row for row in filled.to_pylist()} | self._new.get(group, {})
        if rows:
            for row in rows.values():
                row.update(dict.fromkeys(columns))
            self._new[group] = rows
            self._changed = True

    def drop(self, groups: Iterable[Any]) -> None:
        """Remove all rows of some groups."""
        gone = set(groups) & self.groups()
        if gone:
            self._settle()
            self._stored = self._stored.filter(pc.invert(self._among(gone)))
            self._changed = True

    def groups(self) -> set[Any]:
        """Groups that have rows."""
        return {*pc.unique(self._stored[self._key[0]]).to_pylist(), *self._new}

    def rows(self) -> list[Row]:
        """All rows, ordered by key."""
        self._settle()
        return list(self._stored.to_pylist())

    def rows_of(self, group: Any) -> list[Row]:
        """The rows of a group, ordered by key."""
        self._settle()
        return list(self._stored.filter(pc.equal(self._stored[self._key[0]], group)).to_pylist())

    def _among(self, groups: set[Any]) -> pa.ChunkedArray:
        """Mask of the stored rows that belong to some groups."""
        column = self._stored[self._key[0]]
        return pc.is_in(column, value_set=pa.array(list(groups), column.type))

    def _settle(self) -> None:
        """Merge the new rows into the Arrow table."""
        if not self._new:
            return
        changed = self._among(set(self._new))
        merged = {self._key_of(row): row for row in self._stored.filter(changed).to_pylist()}
        for rows in self._new.values():
            merged |= rows
        added = pa.Table.from_pylist(list(merged.values()), schema=self.schema)
        whole = pa.concat_tables([self._stored.filter(pc.invert(changed)), added])
        self._stored = whole.sort_by([(name, "ascending") for name in self._key]).combine_chunks()
        self._new = {}

    def flush(self) -> None:
        """Write the file if anything changed."""
        if not self._changed:
            return
        self._settle()
        write_table(self.path, self._stored)
        self._changed = False


def write_table(path: Path, table: pa.Table) -> None:
    """Replace the file of a table atomically; the previous version is kept in ``.previous``."""
    with atomic_file(path, keep_previous=True) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_table(path: Path) -> pa.Table:
    """Read a table of this project, also while a study is writing it.

    Raises:
        UsageError: not readable as Parquet.
        NewerVersionError: written by a newer version of this program.
    """
    check_regular(path)
    try:
        # Opened once: given a path, pyarrow opens it twice, and a study may replace it in between.
        with pa.OSFile(str(path)) as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read()
    except (OSError, pa.ArrowException) as error:
        reason = brief(error, 200)
        raise UsageError(
            f"{path}: cannot be read as Parquet ({reason}); resume the study with --resume to repair its "
            "tables"
        ) from None
    try:
        version = int((table.schema.metadata or {}).get(b"schema_version", b"0"))
    except ValueError:
        raise UsageError(f"{path}: its schema version is not readable; copy it again") from None
    if version > schemas.SCHEMA_VERSION:
        raise NewerVersionError(
            f"{path}: schema version {version} is newer than this program's "
            f"{schemas.SCHEMA_VERSION}; update bbam-ray"
        )
    return table


class StudyStore:
    """The tables of one study. One process writes them; others may read the files at any moment.

    Args:
        folder: ``<results>/<dataset>/<study>``, existing.
        parameter_kinds: see ``schemas.trials_schema``.
    """

    def __init__(self, folder: Path, parameter_kinds: Mapping[str, str]) -> None:
        self.folder = folder
        self.patience = Patience(folder)
        #: By trial number: the epoch that has angle histograms.
        self.histogram_epochs: dict[int, int] = {}
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

    def drop_not_started(self) -> None:
        """Remove trials whose workers could not start: they are run again."""
        self.trials.drop({row["number"] for row in self.trials.rows() if was_not_started(row)})

    def drop_unfinished(self) -> None:
        """Remove the epochs of trials that have not ended: they are trained again from the start."""
        ended = self.trials.groups()
        for table in (self.history, self.labels, self.folds):
            table.drop(table.groups() - ended)

    def flush(self, *, wait: bool = False) -> bool:
        """Write what changed; trials last, so that a trial in the table has its history.

        Args:
            wait: retry until the files could be written.

        Returns:
            Whether the files were written; otherwise the rows stay in memory for the next flush.

        Raises:
            StorageError: nothing could be written for too long.
        """
        if wait:
            self.patience.insist(self._flush)
            return True
        return self.patience.attempt(self._flush)

    def _flush(self) -> None:
        for table in (self.labels, self.folds, self.history, self.trials, self.confirm):
            table.flush()
        # Each flush made copies of whole tables; Arrow would keep their memory, more with every trial.
        pa.default_memory_pool().release_unused()

    def write_best(self, configuration: Mapping[str, Any], comment: str) -> Path:
        """Write ``best.yaml`` for ``train --config``."""
        text = "".join(f"# {line}\n" for line in [*comment.splitlines(), WHOLE_MARK])
        path = self.folder / "best.yaml"
        text += yaml.safe_dump(dict(configuration), sort_keys=False, explicit_end=True)
        self.patience.insist(lambda: write_text(path, text))
        return path
