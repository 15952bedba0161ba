"""Parts of a table: small Parquet files next to its file, with the rows that are newer than it.

``history.parquet`` has its parts in ``parts/history/``, numbered from 1. A row of a part replaces the row
with the same key in the file and in earlier parts. The file records the number of the last part that it
contains, so a part is never counted twice, whenever a process is killed. The parts that the previous
version of the file (in ``.previous``) lacks stay, so that a damaged file can be restored without loss.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.errors import UsageError
from bbam_ray.files import PREVIOUS, atomic_file
from bbam_ray.results.keyed_rows import conform, latest, sort, without
from bbam_ray.results.parquet_files import merged_parts, read_parquet

FOLDER = "parts"
_NAME = re.compile(r"\d{8}\.parquet")
_KEY = b"key"
_TRIES = 20


def parts_folder(path: Path) -> Path:
    """Folder of the parts of a table."""
    return path.parent / FOLDER / path.stem


def part_path(path: Path, number: int) -> Path:
    """File of a part."""
    return parts_folder(path) / f"{number:08d}.parquet"


def part_numbers(path: Path) -> list[int]:
    """Numbers of the stored parts of a table, ascending, also of those that its file contains."""
    try:
        names = [entry.name for entry in parts_folder(path).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name.split(".")[0]) for name in names if _NAME.fullmatch(name))


def newer_parts(path: Path) -> list[int]:
    """Numbers of the parts that are newer than the file of a table.

    Raises:
        UsageError: the file is not readable.
    """
    merged = merged_parts(path) if path.exists() else 0
    return [number for number in part_numbers(path) if number > merged]


def last_part(path: Path) -> int:
    """Number of the last part of a table, whether its file contains it or not; 0 if there was none.

    Raises:
        UsageError: the file is not readable.
    """
    return max([merged_parts(path) if path.exists() else 0, *part_numbers(path)])


def write_part(path: Path, number: int, table: pa.Table, key: Sequence[str]) -> None:
    """Write a part of a table.

    Args:
        path: the file of the table.
        number: of the part, one more than that of the last one.
        table: its rows.
        key: columns that identify a row.
    """
    metadata = dict(table.schema.metadata or {}) | {_KEY: ",".join(key).encode()}
    part = part_path(path, number)
    part.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(part) as temporary:
        pq.write_table(
            table.replace_schema_metadata(metadata),
            temporary,
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=False,
            write_statistics=False,
        )


def remove_parts(path: Path, last: int) -> None:
    """Remove the parts of a table up to a number, and its folders if they are empty."""
    for number in part_numbers(path):
        if number <= last:
            part_path(path, number).unlink(missing_ok=True)
    for folder in (parts_folder(path), parts_folder(path).parent):
        with suppress(OSError):  # not empty, or missing
            folder.rmdir()


def remove_old_parts(path: Path) -> None:
    """Remove the parts that neither the file of a table nor its previous version needs."""
    previous = path.parent / PREVIOUS / path.name
    with suppress(UsageError):  # a damaged previous version: keep the parts
        remove_parts(path, merged_parts(previous) if previous.exists() else merged_parts(path))


def read_table(
    path: Path,
    *,
    columns: list[str] | None = None,
    where: tuple[str, Any] | None = None,
) -> pa.Table:
    """Read a table of this project with its parts, also while a study is writing it.

    Args:
        path: the file of the table.
        columns: only these, the key among them; None for all.
        where: only rows with this value in this column of the key.

    Raises:
        UsageError: not readable as Parquet.
        NewerVersionError: written by a newer version of this program.
    """
    for _ in range(_TRIES):
        if not part_numbers(path):
            return read_parquet(path, columns=columns, where=where)
        merged = merged_parts(path)
        table = read_parquet(path, columns=columns, where=where)
        try:
            newer = read_parts(path, columns=columns, where=where)
        except _RemovedError:
            continue
        if (
            merged_parts(path) == merged
        ):  # else a study has merged parts, and removed some, in between
            return _with_newer(table, *joined(newer)) if newer else table
    raise UsageError(f"{path}: changes faster than it can be read; try again")


class _RemovedError(Exception):
    """A part was removed after its folder had been listed."""


def read_parts(
    path: Path, *, columns: list[str] | None = None, where: tuple[str, Any] | None = None
) -> list[pa.Table]:
    """The parts that are newer than the file of a table; raises as ``read_table``."""
    tables = []
    for part in (part_path(path, number) for number in newer_parts(path)):
        try:
            tables.append(read_parquet(part, columns=columns, where=where))
        except UsageError:
            if part.exists():
                raise
            raise _RemovedError from None
    return tables


def joined(parts: Sequence[pa.Table]) -> tuple[pa.Table, list[str]]:
    """All rows of parts, oldest first, in the schema of the last one; and the columns of their key."""
    metadata = dict(parts[-1].schema.metadata or {})
    key = metadata.pop(_KEY, b"").decode().split(",")
    schema = parts[-1].schema.with_metadata(metadata)
    return pa.concat_tables([conform(part, schema) for part in parts]), key


def _with_newer(table: pa.Table, newer: pa.Table, key: Sequence[str]) -> pa.Table:
    """The rows of a file and those that are newer, ordered by key."""
    newer = latest(newer, key)
    unchanged = without(conform(table, newer.schema), newer, key)
    return sort(pa.concat_tables([unchanged, newer]), key)
