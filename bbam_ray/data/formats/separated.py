"""CSV and TSV files as columns of text: parsed by Arrow, or by Python's reader if Arrow refuses them.

A CSV field may be quoted and may then span lines; quotes follow RFC 4180. A TSV file has no quoting, as
published data sets have it: a row is a line, and quotation marks are characters like all others.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from bbam_ray.errors import UsageError, brief

_BLOCK = 1 << 26  # bytes; rows that are longer are left to Python's reader
_QUOTE = ord('"')
_BOM = b"\xef\xbb\xbf"
_WIDE = {b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32"}
_WIDE |= {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_UNNAMED = "Unnamed: 0"  # pandas' name for a first column without name
_MARKS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "the character |"}


def read_separated(
    path: Path, names: Sequence[str] = ()
) -> tuple[dict[str, pa.ChunkedArray], frozenset[str]]:
    """Read a CSV or TSV file.

    Args:
        path: of the file.
        names: of the columns of a file without a header line; none if the first line names them.

    Returns:
        Columns of text by name, without blanks around the values; and the columns that are an index.

    Raises:
        UsageError: another encoding or separator, a row of another length, invalid quoting, or columns
            without names or with the same name.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    _check_encoding(path, content)
    try:
        header = next(_records(path, content), ([], 0))[0]
        header = [name.strip() for name in header]
        _check_separator(path, header)
        if names and len(names) != len(header):
            raise UsageError(
                f"{path} line 1: {len(header)} values, but --set column_names names {len(names)} columns; "
                "name every column"
            )
        columns = _parsed(path, content, header)
        if columns is None:
            columns = _slowly(path, content, header)
        if not names:
            columns = [column.slice(1) for column in columns]
        header = list(names) or header
    except UnicodeDecodeError:
        raise UsageError(_not_utf8(path, content)) from None
    columns = [pc.utf8_trim_whitespace(column) for column in columns]
    index = _index_column(header, columns)
    for number, name in enumerate(header, start=1):
        if (not name and index is None) or header.index(name) + 1 != number:
            problem = f"has the duplicate name '{brief(name)}'" if name else "has no name"
            raise UsageError(
                f"{path} line 1: column {number} {problem}; name every column differently"
            )
    return dict(zip(header, columns, strict=True)), frozenset(() if index is None else (index,))


def line_of_row(path: Path, skipped: int, row: int) -> int:
    """Line on which a row ends, from 1; reads the file once more.

    Args:
        path: of the file.
        skipped: rows before the first one: 1 for a header line.
        row: from 0.
    """
    records = islice(_records(path, path.read_bytes()), skipped + row, None)
    return next((line for _, line in records), 0)


def _records(path: Path, content: bytes) -> Iterator[tuple[list[str], int]]:
    """Values and last line of each row, by Python's reader.

    Raises:
        UsageError: invalid quoting.
        UnicodeDecodeError: not UTF-8.
    """
    csv.field_size_limit(2**31 - 1)  # a text may be long
    handle = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    if path.suffix == ".tsv":
        reader = csv.reader(handle, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(handle, strict=True)
    try:
        yield from ((row, reader.line_num) for row in reader if row)
    except csv.Error as error:
        raise UsageError(
            f"{path} line {reader.line_num}: not valid CSV ({error}); correct the line"
        ) from None


def _parsed(path: Path, content: bytes, header: list[str]) -> list[pa.ChunkedArray] | None:
    """The columns by Arrow; None if the file is not as regular as Arrow takes it to be."""
    tabs = path.suffix == ".tsv"
    if not header or not (tabs or _well_quoted(content)):
        return None
    source: Any = pa.py_buffer(content)
    if content.startswith(_BOM):
        source = source.slice(len(_BOM))
    names = [f"f{number}" for number in range(len(header))]
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(source),
            pa_csv.ReadOptions(use_threads=False, block_size=_BLOCK, column_names=names),
            pa_csv.ParseOptions(
                delimiter="\t" if tabs else ",",
                quote_char=False if tabs else '"',
                newlines_in_values=not tabs,
            ),
            pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.large_string())),
        )
    except (pa.ArrowException, UnicodeError):
        return None
    return list(table.columns)


def _well_quoted(content: bytes) -> bool:
    """Whether every quotation mark begins or ends a field, or is one of a pair inside such a "
    "field."""
    if b'"' not in content:
        return True
    first = len(_BOM) if content.startswith(_BOM) else 0
    values = np.frombuffer(content, np.uint8)[first:]
    marks = np.flatnonzero(values == _QUOTE)
    if len(marks) % 2:
        return False
    around = np.zeros(256, dtype=bool)
    around[[_QUOTE, *b",\r\n"]] = True
    opening, closing = marks[::2], marks[1::2]
    before = around[values[np.maximum(opening - 1, 0)]] | (opening == 0)
    last = len(values) - 1
    after = around[values[np.minimum(closing + 1, last)]] | (closing == last)
    return bool(before.all() and after.all())


def _slowly(path: Path, content: bytes, header: list[str]) -> list[pa.ChunkedArray]:
    """The columns by Python's reader, which knows the line of an error."""
    rows = []
    for row, line in _records(path, content):
        if len(row) != len(header):
            hint = (
                "a TSV file has no quoting, so remove line breaks and tabs from its values"
                if path.suffix == ".tsv"
                else "put quotes around values that contain a separator"
            )
            raise UsageError(
                f"{path} line {line}: {len(row)} values for {len(header)} columns; {hint}"
            )
        rows.append(row)
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    return [pa.chunked_array([pa.array(column, pa.large_string())]) for column in columns]


def _check_encoding(path: Path, content: bytes) -> None:
    name = next((name for mark, name in _WIDE.items() if content.startswith(mark)), None)
    start = content[:400]
    if name is None and len(start) > 3 and start.count(0) * 3 > len(start):
        name = "UTF-16"
    if name is not None:
        raise UsageError(
            f"{path}: not UTF-8 text but {name}, as Excel's 'Unicode text'; save it in UTF-8, "
            "for example "
            f"with iconv -f {name} -t UTF-8"
        )


def _not_utf8(path: Path, content: bytes) -> str:
    """Line and byte that are not UTF-8, for a message."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return (
            f"{path} line {line}: not UTF-8 text (byte 0x{content[error.start]:02x}, probably "
            "Windows-1252 or Latin-1); save it in UTF-8, for example with iconv -f WINDOWS-1252 "
            "-t UTF-8"
        )
    return f"{path}: not UTF-8 text; save it in UTF-8"


def _check_separator(path: Path, header: list[str]) -> None:
    """Raise a UsageError if the first line has another separator than the name of the file says."""
    expected = "\t" if path.suffix == ".tsv" else ","
    if len(header) != 1:
        return
    line = header[0]
    mark = max(_MARKS, key=line.count)
    if mark != expected and mark in line:
        way_out = {
            ("\t", ","): "rename it to .tsv",
            (",", "\t"): "rename it to .csv",
        }.get((mark, expected), "save it with commas")
        raise UsageError(
            f"{path} line 1: columns are separated by {_MARKS[mark]} ('{brief(line, 60)}') "
            "instead of "
            f"{_MARKS[expected]}; {way_out}"
        )


def _index_column(header: list[str], columns: list[pa.ChunkedArray]) -> str | None:
    """The first column if pandas has written the row index there: no name, and numbers that "
    "all differ."""
    if not header or header[0] not in ("", _UNNAMED) or not len(columns[0]):
        return None
    numbers = pc.match_substring_regex(columns[0], r"^\d+$")
    distinct = pc.count_distinct(columns[0]).as_py() == len(columns[0])
    return header[0] if distinct and pc.all(numbers).as_py() else None
