"""Users' tables: CSV, TSV, JSON lines and Parquet, read strictly, each row with its position."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bbam_ray.documents import parse_json
from bbam_ray.errors import UsageError, brief
from bbam_ray.files import check_regular


@dataclass(frozen=True)
class UserTable:
    """The content of a table.

    Args:
        path: of the file.
        columns: name to values, one per row; text in CSV and TSV, where a blank is "", else any value
            or None.
        lines: line number of each row, in Parquet row number; from 1.
        label_names: names of numbered labels, if the file has them.
        skipped: types of the columns that were not read.
    """

    path: Path
    columns: dict[str, list[Any]]
    lines: list[int]
    label_names: tuple[str, ...] = ()
    skipped: Mapping[str, pa.DataType] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """File and line of a row, for messages."""
        return (
            f"{self.path} {'row' if self.path.suffix == '.parquet' else 'line'} {self.lines[row]}"
        )


def check_name(path: Path) -> None:
    """Raise a UsageError if a file name has characters that cannot be printed."""
    if not path.name.isprintable():
        raise UsageError(
            f"{brief(str(path), 300)}: the name has characters that cannot be printed; rename this file"
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


def read_user_table(path: Path, without: tuple[str, ...] = ()) -> UserTable:
    """Read a table.

    Args:
        path: ending in .csv, .tsv, .jsonl or .parquet.
        without: columns of a Parquet file that are not read.

    Raises:
        UsageError: not readable, not a table, a row of another length, or columns without names or
            with the same name.
    """
    check_name(path)
    check_regular(path)
    readers = {".csv": _separated, ".tsv": _separated, ".jsonl": _json_lines}
    try:
        if path.suffix == ".parquet":
            table = _parquet(path, without)
        else:
            with path.open(encoding="utf-8-sig", newline="") as handle:
                table = readers[path.suffix](path, handle)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or brief(error)})") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text; save it in UTF-8") from None
    if not len(table):
        raise UsageError(f"{path}: has no rows; add at least one, or remove the file")
    return table


def _separated(path: Path, handle: Any) -> UserTable:
    reader = csv.reader(handle, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        for number, name in enumerate(header, start=1):
            if not name or header.index(name) + 1 != number:
                problem = f"has the duplicate name '{brief(name)}'" if name else "has no name"
                raise UsageError(
                    f"{path} line 1: column {number} {problem}; name every column differently"
                )
        rows, lines = [], []
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise UsageError(
                    f"{path} line {reader.line_num}: {len(row)} values for {len(header)} columns; "
                    "put quotes around values that contain a separator"
                )
            rows.append([value.strip() for value in row])
            lines.append(reader.line_num)
    except csv.Error as error:
        raise UsageError(
            f"{path} line {reader.line_num}: not valid CSV ({error}); correct the line"
        ) from None
    return UserTable(path, {name: [row[k] for row in rows] for k, name in enumerate(header)}, lines)


def _json_lines(path: Path, handle: Any) -> UserTable:
    entries, lines = [], []
    for number, line in enumerate(handle, start=1):
        if not line.strip():
            continue
        try:
            entry = parse_json(line)
        except ValueError as error:
            raise UsageError(f"{path} line {number}: not JSON ({brief(error)})") from None
        if not isinstance(entry, dict):
            raise UsageError(f"{path} line {number}: expected an object, {{...}}")
        entries.append(entry)
        lines.append(number)
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    return UserTable(path, {name: [entry.get(name) for entry in entries] for name in names}, lines)


def _parquet(path: Path, without: tuple[str, ...]) -> UserTable:
    with readable_parquet(path), pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        duplicates = [name for i, name in enumerate(schema.names) if name in schema.names[:i]]
        if duplicates:
            raise UsageError(
                f"{path}: two columns '{brief(duplicates[0])}'; name every column differently"
            )
        names = [name for name in schema.names if name not in without]
        read = file.read(columns=names)
        try:
            columns = {name: read.column(name).to_pylist() for name in names}
        except (ValueError, OverflowError) as error:  # dates out of Python's range
            raise UsageError(
                f"{path}: contains a value that cannot be read ({brief(error)}); remove its column"
            ) from None
    count = read.num_rows
    skipped = {name: schema.field(name).type for name in schema.names if name in without}
    return UserTable(path, columns, list(range(1, count + 1)), _class_names(schema), skipped)


def _class_names(schema: pa.Schema) -> tuple[str, ...]:
    """Names of numbered labels, which Hugging Face datasets store in the file's metadata."""
    try:
        info = parse_json((schema.metadata or {}).get(b"huggingface", b"{}").decode())
    except ValueError:
        return ()
    for names in _values_of(info, "names"):
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return tuple(names)
    return ()


def _values_of(value: Any, key: str) -> Iterator[Any]:
    """All values of a key, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == key:
                yield inner
            yield from _values_of(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _values_of(inner, key)
