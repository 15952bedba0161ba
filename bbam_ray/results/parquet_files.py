"""One Parquet file of this project: written atomically with checksums, read with clear errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bbam_ray.errors import NewerVersionError, UsageError, brief
from bbam_ray.files import atomic_file, check_regular
from bbam_ray.results import schemas

_VERSION, _PARTS = b"schema_version", b"parts"
#: Rows of a row group. Memory for rewriting a file is that of a few groups.
GROUP_ROWS = 16_384


@contextmanager
def parquet_writer(path: Path, schema: pa.Schema, parts: int = 0) -> Iterator[pq.ParquetWriter]:
    """Replace a file atomically; the previous version is kept in ``.previous``.

    Args:
        path: the file.
        schema: of its rows.
        parts: number of the last part whose rows it contains; 0 = none.
    """
    metadata = dict(schema.metadata or {}) | ({_PARTS: str(parts)} if parts else {})
    options: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
    with (
        atomic_file(path, keep_previous=True) as temporary,
        pq.ParquetWriter(temporary, schema.with_metadata(metadata), **options) as writer,
    ):
        yield writer


def read_parquet(
    path: Path, *, columns: list[str] | None = None, where: tuple[str, Any] | None = None
) -> pa.Table:
    """Read one file, also while a study is replacing it.

    Args:
        path: the file.
        columns: only these; None for all.
        where: only rows with this value in this column.

    Raises:
        UsageError: not readable as Parquet.
        NewerVersionError: written by a newer version of this program.
    """
    with _opened(path) as file:
        if where is None:
            table = file.read(columns)
        else:
            groups = [i for i in range(file.num_row_groups) if _may_hold(file, i, *where)]
            table = file.read_row_groups(groups, columns, use_threads=False)
            table = table.filter(pc.equal(table[where[0]], where[1]))
    return table.replace_schema_metadata(_plain(table.schema).metadata)


def row_groups(path: Path) -> Iterator[pa.Table]:
    """The row groups of a file, one after the other; raises as ``read_parquet``.

    This thread reads them: memory that other threads have freed is not returned before they end.
    """
    with _opened(path) as file:
        for index in range(file.num_row_groups):
            yield file.read_row_group(index, use_threads=False)


def read_schema(path: Path) -> pa.Schema:
    """The schema of a file; raises as ``read_parquet``."""
    with _opened(path) as file:
        return _plain(file.schema_arrow)


def merged_parts(path: Path) -> int:
    """Number of the last part that the file contains, 0 without parts; raises as ``read_parquet``."""
    with _opened(path) as file:
        return _number(file.schema_arrow.metadata, _PARTS, path)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    check_regular(path)
    try:
        # Opened once: given a path, pyarrow opens it twice, and a study may replace it in between.
        with pa.OSFile(str(path)) as source:
            file = pq.ParquetFile(source, page_checksum_verification=True)
            version = _number(file.schema_arrow.metadata, _VERSION, path)
            if version > schemas.SCHEMA_VERSION:
                raise NewerVersionError(
                    f"{path}: schema version {version} is newer than this program's "
                    f"{schemas.SCHEMA_VERSION}; update bbam-ray"
                )
            yield file
    except (OSError, KeyError, pa.ArrowException) as error:
        reason = brief(error, 200)
        raise UsageError(
            f"{path}: cannot be read as Parquet ({reason}); resume the study with --resume to repair its "
            "tables"
        ) from None


def _plain(schema: pa.Schema) -> pa.Schema:
    """A schema without the number of parts."""
    return schema.with_metadata({n: v for n, v in (schema.metadata or {}).items() if n != _PARTS})


def _number(metadata: dict[bytes, bytes] | None, name: bytes, path: Path) -> int:
    try:
        return int((metadata or {}).get(name, b"0"))
    except ValueError:
        what = "schema version" if name == _VERSION else "number of parts"
        raise UsageError(f"{path}: its {what} is not readable; copy it again") from None


def _may_hold(file: pq.ParquetFile, index: int, column: str, value: Any) -> bool:
    """Whether a row group may have a value in a column, by its statistics."""
    group = file.metadata.row_group(index)
    for chunk in map(group.column, range(group.num_columns)):
        statistics = chunk.statistics
        if chunk.path_in_schema == column and statistics is not None and statistics.has_min_max:
            return bool(statistics.min <= value <= statistics.max)
    return True
