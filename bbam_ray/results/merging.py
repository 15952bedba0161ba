"""Merge newer rows into the file of a table, by row groups, so that memory does not depend on its size."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bbam_ray.results.keyed_rows import conform, latest, sort, without, without_groups
from bbam_ray.results.parquet_files import (
    GROUP_ROWS,
    parquet_writer,
    read_schema,
    row_groups,
)
from bbam_ray.results.parts import (
    joined,
    last_part,
    part_numbers,
    read_parts,
    remove_old_parts,
    remove_parts,
)


def merge_rows(
    path: Path, newer: pa.Table, key: Sequence[str], *, dropped: Collection[Any] = ()
) -> None:
    """Rewrite the file of a table with the rows that are newer, those of all parts among them.

    Args:
        path: the file; it may not exist yet.
        newer: in the schema of the new file; the last row of each key counts.
        key: columns that identify a row; the first one names its group.
        dropped: groups whose rows in the file are left out.

    Raises:
        UsageError: the file is not readable.
    """
    newer = latest(newer, key)
    with parquet_writer(path, newer.schema, last_part(path)) as writer:
        _write_groups(writer, _merged(path, newer, key, dropped))
    remove_old_parts(path)


def merge_parts(path: Path) -> None:
    """Rewrite the file of a table with the rows of its parts, if there are newer ones.

    Raises:
        UsageError: the file or a part is not readable.
    """
    if newer := read_parts(path):
        merge_rows(path, *joined(newer))


def write_table(path: Path, table: pa.Table) -> None:
    """Replace a table as a whole, atomically; the previous version is kept in ``.previous``."""
    with parquet_writer(path, table.schema, last_part(path)) as writer:
        _write_groups(writer, [table])
    remove_old_parts(path)


def remove_merged_parts(path: Path) -> None:
    """Remove all parts, once the file and its previous version both contain them.

    Raises:
        UsageError: the file is not readable.
    """
    if part_numbers(path):
        with parquet_writer(path, read_schema(path), last_part(path)) as writer:
            _write_groups(writer, row_groups(path))
    remove_parts(path, last_part(path))


def _merged(
    path: Path, newer: pa.Table, key: Sequence[str], dropped: Collection[Any]
) -> Iterator[pa.Table]:
    """All rows, ordered by key: only those from the first changed group on are sorted again."""
    first = pc.min(newer[key[0]])
    tail = [newer]
    for group in row_groups(path) if path.exists() else ():
        table = without_groups(conform(group, newer.schema), key[0], dropped)
        if not len(newer):
            yield table
            continue
        earlier = pc.less(table[key[0]], first)
        yield table.filter(earlier)
        tail.append(without(table.filter(pc.invert(earlier)), newer, key))
    yield sort(pa.concat_tables(tail), key)


def _write_groups(
    writer: pq.ParquetWriter, tables: Iterator[pa.Table] | Sequence[pa.Table]
) -> None:
    """Write tables as row groups of equal size."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        while (count := sum(map(len, waiting))) > GROUP_ROWS:
            rows = pa.concat_tables(waiting)
            writer.write_table(rows.slice(0, GROUP_ROWS))
            waiting = [rows.slice(GROUP_ROWS, count - GROUP_ROWS)]
    writer.write_table(pa.concat_tables(waiting))
