"""Reading and writing a study's folder: every file whole or not at all, readable at any moment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from bbam_ray.documents import WHOLE_MARK, check_regular
from bbam_ray.errors import UsageError, shown
from bbam_ray.results import schemas
from bbam_ray.results.files import write_text, write_whole
from bbam_ray.results.patience import Patience
from bbam_ray.results.redaction import redacted

Row = dict[str, Any]


def _clean(row: Row, schema: pa.Schema) -> Row:
    """A row with exactly the schema's columns; NaN and absent values become null."""

    def value(name: str) -> Any:
        found = row.get(name)
        if name == "error" and isinstance(found, str):
            return redacted(found)
        return None if isinstance(found, float) and math.isnan(found) else found

    return {name: value(name) for name in schema.names}


class Table:
    """One Parquet table, keyed, rewritten as a whole when it is flushed.

    Rows are kept as one Arrow table, and those that came since the last flush as Python rows, so that
    memory and the cost of a flush stay small however many trials have ended.

    Args:
        path: the file; its rows are taken over if it exists.
        schema: explicit columns.
        key: columns that identify a row, the first of which names its group (a trial, say); a new row
            with the same key replaces the old one.
    """

    def __init__(self, path: Path, schema: pa.Schema, key: tuple[str, ...]) -> None:
        self.path, self.schema, self._key = path, schema, key
        self._stored: pa.Table = schema.empty_table()
        self._new: dict[Any, dict[tuple[Any, ...], Row]] = {}  # by group
        self._changed = not path.exists()
        if path.exists():
            self.put(read_table(path).to_pylist())
            self._settle()
            self._changed = False

    def put(self, rows: Iterable[Row]) -> None:
        for row in rows:
            key = tuple(row[name] for name in self._key)
            self._new.setdefault(key[0], {})[key] = _clean(row, self.schema)
            self._changed = True

    def drop(self, groups: Iterable[Any]) -> None:
        """Forget all rows of some groups."""
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
        """Which rows of the Arrow table belong to some groups."""
        column = self._stored[self._key[0]]
        return pc.is_in(column, value_set=pa.array(list(groups), column.type))

    def _settle(self) -> None:
        """Take the new rows into the Arrow table."""
        if not self._new:
            return
        changed = self._among(set(self._new))
        old = self._stored.filter(changed).to_pylist()
        merged = {tuple(row[name] for name in self._key): row for row in old}
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
    """Replace a table's file as a whole; the version before stays beside it."""
    write_whole(
        path,
        lambda new: pq.write_table(table, new, compression="zstd", write_page_checksum=True),
        keep=True,
    )


class StudyStore:
    """The tables of one study.

    Args:
        folder: ``<results>/<dataset>/<study>``, existing.
        parameter_kinds: see ``schemas.trials_schema``.
    """

    def __init__(self, folder: Path, parameter_kinds: Mapping[str, str]) -> None:
        self.folder = folder
        self.patience = Patience(folder)
        self.trials = Table(
            folder / "trials.parquet", schemas.trials_schema(parameter_kinds), ("number",)
        )
        self.history = Table(folder / "history.parquet", schemas.HISTORY, ("number", "epoch"))
        self.labels = Table(folder / "labels.parquet", schemas.LABELS, ("number", "epoch", "label"))
        self.confirm = Table(
            folder / "confirm.parquet", schemas.confirm_schema(parameter_kinds), ("number", "seed")
        )

    def drop_unfinished(self) -> None:
        """Forget the epochs of trials that have not ended: they are trained again from the start."""
        ended = self.trials.groups()
        for table in (self.history, self.labels):
            table.drop(table.groups() - ended)

    def flush(self, *, wait: bool = False) -> bool:
        """Write what changed; trials last, so that a trial in the table has its history.

        Args:
            wait: until it could be written.

        Returns:
            Whether it was written; what was not stays in memory for the next time.

        Raises:
            StorageError: nothing could be written for too long.
        """
        if wait:
            self.patience.insist(self._flush)
            return True
        return self.patience.attempt(self._flush)

    def _flush(self) -> None:
        for table in (self.labels, self.history, self.trials, self.confirm):
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


def read_table(path: Path) -> pa.Table:
    """Read a table of this project, also while a study is writing it.

    Raises:
        UsageError: not readable as Parquet, or written by a newer version.
    """
    check_regular(path)
    try:
        # Opened once: given a path, pyarrow opens it twice, and a study may replace it in between.
        with pa.OSFile(str(path)) as file:
            table = pq.ParquetFile(file, page_checksum_verification=True).read()
    except (OSError, pa.ArrowException) as error:
        reason = shown(error, 200)
        raise UsageError(
            f"{path}: cannot be read as Parquet ({reason}); a study that goes on with --resume mends its "
            "tables"
        ) from None
    try:
        version = int((table.schema.metadata or {}).get(b"schema_version", b"0"))
    except ValueError:
        raise UsageError(f"{path}: no schema version that can be read; copy it again") from None
    if version > schemas.SCHEMA_VERSION:
        raise UsageError(
            f"{path}: schema version {version} is newer than this program's "
            f"{schemas.SCHEMA_VERSION}; update bbam-ray"
        )
    return table
