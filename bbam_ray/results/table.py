"""One table of a study: its newest rows are in memory until they are written, the others on the disk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bbam_ray.errors import UsageError, brief, similar
from bbam_ray.results import parts
from bbam_ray.results.keyed_rows import conform, latest, sort, without, without_groups
from bbam_ray.results.merging import merge_rows, remove_merged_parts
from bbam_ray.results.parquet_files import read_parquet
from bbam_ray.results.redaction import redacted

Row = dict[str, Any]
Key = tuple[Any, ...]


def _clean(row: Row, schema: pa.Schema) -> Row:
    """A row with exactly the schema's columns; NaN and missing values become null."""

    def value(name: str) -> Any:
        item = row.get(name)
        if name == "error" and isinstance(item, str):
            return redacted(item)
        return None if isinstance(item, float) and math.isnan(item) else item

    return {name: value(name) for name in schema.names}


class Table:
    """One table with a key: a Parquet file, and parts with newer rows (see ``parts``).

    In memory are the rows that the file lacks, so memory and the cost of writing a part do not depend on
    the number of stored rows.

    Args:
        path: the file; it may exist, with parts.
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
        self._new: dict[Any, dict[Key, Row]] = {}  # not written yet, by group
        self._in_parts = schema.empty_table()
        self._in_file: set[Any] = set()  # groups
        self._dropped: set[Any] = set()  # groups that the next file must not have
        self._exists, self._optional = path.exists(), optional
        if self._exists:
            self._in_file = set(read_parquet(path, columns=[key[0]])[key[0]].to_pylist())
        if newer := parts.read_parts(path):
            self._in_parts = conform(parts.joined(newer)[0], schema)
        self._last_part = parts.last_part(path)

    @property
    def changed(self) -> bool:
        """Whether there is something to write."""
        return bool(self._new) or self.needs_file

    @property
    def needs_file(self) -> bool:
        """Whether a change needs a new file, not only a part: no reader looks for parts without one."""
        is_missing = not self._exists and (not self._optional or bool(self._new))
        return bool(self._dropped) or is_missing

    @property
    def has_parts(self) -> bool:
        """Whether parts have rows that the file lacks."""
        return len(self._in_parts) > 0

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
            key = tuple(row.get(name) for name in self._key)
            self._new.setdefault(key[0], {})[key] = _clean(row, self.schema)

    def drop(self, groups: Iterable[Any]) -> None:
        """Remove all rows of some groups."""
        gone = set(groups)
        for group in gone & self._new.keys():
            del self._new[group]
        stored = gone & (self._in_file | self._groups_in_parts)
        self._dropped |= stored
        self._in_file -= stored
        self._in_parts = without_groups(self._in_parts, self._key[0], stored)

    @property
    def _groups_in_parts(self) -> set[Any]:
        return set(self._in_parts[self._key[0]].to_pylist())

    def groups(self) -> set[Any]:
        """Groups that have rows."""
        return self._in_file | self._groups_in_parts | self._new.keys()

    def rows(self) -> list[Row]:
        """All rows, ordered by key; most are read from the disk."""
        return list(self._read().to_pylist())

    def rows_of(self, group: Any) -> list[Row]:
        """The rows of a group, ordered by key."""
        return list(self._read(group).to_pylist())

    def rows_by_group(self) -> Iterator[tuple[Any, list[Row]]]:
        """Each group, a number, with its rows; only one of them is in memory as Python objects."""
        table = self._read()
        groups = table[self._key[0]].to_numpy()
        starts = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1)).tolist()
        for start, end in pairwise([*starts, len(groups)]):
            yield groups[start].item(), table.slice(start, end - start).to_pylist()

    def _read(self, group: Any = None) -> pa.Table:
        """All rows, or those of a group, ordered by key."""
        name = self._key[0]
        newer = self._newer()
        if group is not None:
            newer = newer.filter(pc.equal(newer[name], group))
        newer = latest(newer, self._key)
        if self._in_file if group is None else group in self._in_file:
            where = None if group is None else (name, group)
            table = conform(read_parquet(self.path, where=where), self.schema)
            table = without_groups(table, name, self._dropped)
            newer = pa.concat_tables([without(table, newer, self._key), newer])
        return sort(newer, self._key)

    def _newer(self) -> pa.Table:
        """The rows that the file lacks, in the order in which they came."""
        new = [row for rows in self._new.values() for row in rows.values()]
        return pa.concat_tables([self._in_parts, pa.Table.from_pylist(new, schema=self.schema)])

    def flush(self, *, whole: bool = True) -> None:
        """Write what changed.

        Args:
            whole: into the file, with the rows of all parts; else into a new part.
        """
        if whole:
            if self.changed or self.has_parts:
                merge_rows(self.path, self._newer(), self._key, dropped=self._dropped)
                self._in_file = self.groups()
                self._new, self._in_parts = {}, self.schema.empty_table()
                self._dropped, self._exists = set(), True
        elif self._new:
            newer = self._newer().combine_chunks()
            part = sort(newer.slice(len(self._in_parts)), self._key)
            parts.write_part(self.path, self._last_part + 1, part, self._key)
            self._last_part += 1
            self._new, self._in_parts = {}, newer

    def finish(self) -> None:
        """Write all rows into the file, and remove its parts."""
        self.flush()
        remove_merged_parts(self.path)
