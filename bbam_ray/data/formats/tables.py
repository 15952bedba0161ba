"""Users' tables: CSV, TSV, JSON lines and Parquet, read strictly, each row with its position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.data.formats.separated import line_of_row, read_separated
from bbam_ray.documents import parse_json
from bbam_ray.errors import UsageError, brief
from bbam_ray.files import check_regular

Column: TypeAlias = "pa.ChunkedArray | list[Any]"


@dataclass(frozen=True)
class UserTable:
    """The content of a table.

    Args:
        path: of the file.
        columns: name to values, one per row: Arrow's for CSV and TSV (texts, where a blank is "") and for
            Parquet, a list of any values or None for JSON lines.
        rows: number of rows.
        line_of: line of a row that is counted from 0, in Parquet its number; both from 1.
        index: columns that hold nothing but the row index of pandas.
        metadata: of the schema of a Parquet file.
        skipped: types of the columns that were not read.
    """

    path: Path
    columns: dict[str, Column]
    rows: int
    line_of: Callable[[int], int] = lambda row: row + 1
    index: frozenset[str] = frozenset()
    metadata: Mapping[bytes, bytes] = field(default_factory=dict)
    skipped: Mapping[str, pa.DataType] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.rows

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        kind = "row" if self.path.suffix == ".parquet" else "line"
        return f"{self.path} {kind} {self.line_of(row)}"

    def values(self, name: str) -> list[Any]:
        """The values of a column in Python; a UsageError if one has no counterpart there."""
        column = self.columns[name]
        return column if isinstance(column, list) else python_values(column, self.path, name)


def python_values(column: pa.Array | pa.ChunkedArray, path: Path, name: str) -> list[Any]:
    """Arrow's values in Python.

    Args:
        path, name: file and column, for a message.

    Raises:
        UsageError: a value that Python cannot represent, for example a date out of its range.
    """
    try:
        values: list[Any] = column.to_pylist()
        return values
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise UsageError(
            f"{path}: column '{brief(name)}' contains a value that cannot be read "
            f"({brief(error)}); "
            "remove this column"
        ) from None


def check_name(path: Path) -> None:
    """Raise a UsageError if a file name has characters that cannot be printed."""
    if not path.name.isprintable():
        raise UsageError(
            f"{brief(str(path), 300)}: the name has characters that cannot be printed; rename "
            "this file"
        )


def read_text(path: Path, way_out: str) -> str:
    """Read a UTF-8 text file of a data set.

    Args:
        way_out: what the user can do if it cannot be read.
    """
    check_regular(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error}); {way_out}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text; {way_out}") from None


@contextmanager
def readable_parquet(path: Path) -> Iterator[None]:
    """Turn errors of a damaged Parquet file into a UsageError within the block."""
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError, KeyError) as error:
        known = isinstance(error, OSError) and error.strerror
        what = f"cannot be read ({known})" if known else "not a Parquet file that can be read"
        reason = "" if known else f" ({brief(error, 200)})"
        raise UsageError(f"{path}: {what}{reason}") from None


def read_user_table(
    path: Path, without: tuple[str, ...] = (), names: Sequence[str] = ()
) -> UserTable:
    """Read a table.

    Args:
        path: ending in .csv, .tsv, .jsonl or .parquet.
        without: columns of a Parquet file that are not read.
        names: of the columns of CSV and TSV files without a header line.

    Raises:
        UsageError: not readable, not a table, a row of another length, or columns without names or
            with the same name.
    """
    check_name(path)
    check_regular(path)
    try:
        if path.suffix == ".parquet":
            table = _parquet(path, without)
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8-sig", newline="") as handle:
                table = _json_lines(path, handle)
        else:
            columns, index = read_separated(path, names)
            rows = len(next(iter(columns.values()), ()))
            line_of = partial(line_of_row, path, 0 if names else 1)
            table = UserTable(path, dict(columns), rows, line_of, index)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or brief(error)})") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text; save it in UTF-8") from None
    if not len(table):
        raise UsageError(f"{path}: has no rows; add at least one, or remove the file")
    return table


def _json_lines(path: Path, handle: Any) -> UserTable:
    entries, lines = [], []
    for number, line in enumerate(handle, start=1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line, unique=True)
        except ValueError as error:
            raise UsageError(f"{path} line {number}: not JSON ({brief(error)})") from None
        if not isinstance(entry, dict):
            raise UsageError(f"{path} line {number}: expected an object, {{...}}")
        entries.append(entry)
        lines.append(number)
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    columns: dict[str, Column] = {name: [entry.get(name) for entry in entries] for name in names}
    return UserTable(path, columns, len(lines), lines.__getitem__)


def _parquet(path: Path, without: tuple[str, ...]) -> UserTable:
    with readable_parquet(path), pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        duplicates = [name for i, name in enumerate(schema.names) if name in schema.names[:i]]
        if duplicates:
            raise UsageError(
                f"{path}: two columns '{brief(duplicates[0])}'; name every column differently"
            )
        names = [name for name in schema.names if name not in without]
        read = file.read(columns=names, use_threads=False)
    metadata = schema.metadata or {}
    return UserTable(
        path,
        {name: read.column(name) for name in names},
        read.num_rows,
        index=_index_columns(metadata) & set(names),
        metadata=metadata,
        skipped={name: schema.field(name).type for name in schema.names if name in without},
    )


def _index_columns(metadata: Mapping[bytes, bytes]) -> frozenset[str]:
    """Columns that pandas describes as the index of the table."""
    try:
        described = parse_json(metadata.get(b"pandas", b"{}").decode()).get("index_columns", [])
        return frozenset(name for name in described if isinstance(name, str))
    except (ValueError, AttributeError, TypeError):
        return frozenset()
