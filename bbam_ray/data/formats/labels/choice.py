"""Which columns of some tables hold the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bbam_ray.data.formats.labels.cells import Rows, kinds_of
from bbam_ray.data.formats.labels.names import class_names, clean
from bbam_ray.data.formats.labels.options import LabelOptions, listed
from bbam_ray.data.formats.labels.zero_one import marks_of
from bbam_ray.data.formats.tables import UserTable
from bbam_ray.errors import UsageError, brief, similar

LABELS_COLUMN = "labels"
_SHOWN = 5


@dataclass(frozen=True)
class LabelColumns:
    """The columns that hold the labels.

    Args:
        names: of the columns.
        single: whether one column holds all labels of a row; else each column is a label.
        unused: other columns, which nothing else uses.
    """

    names: tuple[str, ...]
    single: bool
    unused: tuple[str, ...] = ()


def choose_columns(rows: Rows, options: LabelOptions, ignored: Sequence[str]) -> LabelColumns:
    """The columns that hold the labels of some tables; none if no table has any.

    Args:
        rows: of all tables.
        options: that name columns, or decide between two forms.
        ignored: columns that are not labels.

    Raises:
        UsageError: an unknown column, or both a column ``labels`` and columns of 0 and 1.
    """
    hidden = {*ignored, options.split_column, *listed(options.ignore_columns)}
    usable = list(
        dict.fromkeys(
            name
            for table in rows.tables
            for name in table.columns
            if name not in hidden and name not in table.index
        )
    )
    if options.label_columns:
        return _chosen(rows, options, usable)
    remaining = [name for name in usable if name != LABELS_COLUMN]
    if options.label_format == "columns":
        return LabelColumns(tuple(remaining or usable), single=False)
    if LABELS_COLUMN not in usable:
        return LabelColumns(tuple(remaining), single=False)
    is_clear = kinds_of(rows.column(LABELS_COLUMN)) & {"list", "object"} or any(
        class_names(table, LABELS_COLUMN) for table in rows.tables
    )
    if not is_clear and options.label_format == options.label_separator == "auto":
        binary = [name for name in remaining if _is_binary(rows, name)]
        if binary:
            table = next(table for table in rows.tables if binary[0] in table.columns)
            raise UsageError(
                f"{table.path}: labels may be in column '{LABELS_COLUMN}' or in the 0/1 "
                f"{columns_text(binary)}; choose --set label_columns={LABELS_COLUMN} or --set "
                "label_format=columns"
            )
    return LabelColumns((LABELS_COLUMN,), single=True, unused=tuple(remaining))


def _chosen(rows: Rows, options: LabelOptions, usable: list[str]) -> LabelColumns:
    """The columns of the option ``label_columns``."""
    known = list(dict.fromkeys(name for table in rows.tables for name in table.columns))
    text = options.label_columns
    first, colon, last = (part.strip() for part in text.partition(":"))
    names = [text] if text in known else listed(text)
    if colon and text not in known and not set(names) <= set(known):
        names = [first, last]
    for name in names:
        if name not in known:
            raise UsageError(
                f"--set label_columns={brief(text)}: {rows.tables[0].path.name} has no column "
                f"'{brief(name)}'; {similar(name, known)}"
            )
    if colon and names == [first, last]:
        start, end = sorted((known.index(first), known.index(last)))
        names = known[start : end + 1]
    unused = tuple(name for name in usable if name not in names)
    single = len(names) == 1 and options.label_format != "columns"
    if single and options.label_format == "auto":
        single = not _is_binary(rows, names[0])
    return LabelColumns(tuple(names), single, unused)


def _is_binary(rows: Rows, name: str) -> bool:
    """Whether a column has nothing but 0, 1 and blanks."""
    column = rows.column(name)
    if not kinds_of(column) <= {"text", "bool", "number"}:
        return False
    marks = marks_of(column, rows, name, frozenset())
    return marks.usable and marks.wrong is None


def columns_text(names: Sequence[str]) -> str:
    """The names of columns for a message."""
    first_names = ", ".join(f"'{brief(name)}'" for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"column{'s' * (len(names) > 1)} {first_names}{more}"


def tables_with(rows: Rows, names: Sequence[str]) -> list[bool]:
    """Whether each table has label columns.

    Raises:
        UsageError: a table has some of the columns and lacks remaining.
    """
    present = [[name for name in names if name in table.columns] for table in rows.tables]
    for table, own in zip(rows.tables, present, strict=True):
        if own and len(own) < len(names):
            lacking = next(name for name in names if name not in table.columns)
            raise UsageError(_lacking(table, lacking, rows))
    return [bool(own) for own in present]


def _lacking(table: UserTable, name: str, rows: Rows) -> str:
    other = next(table for table in rows.tables if name in table.columns)
    return (
        f"{table.path}: no label column '{brief(name)}', which {other.path.name} has; add it or "
        "name it so, "
        f"or leave it out of all files with --set ignore_columns={brief(name)}"
    )


def clean_names(names: Sequence[str], table: UserTable) -> tuple[str, ...]:
    """Names of columns as names of labels; a UsageError if two are the same."""
    cleaned = tuple(map(clean, names))
    if "" in cleaned:
        raise UsageError(
            f"{table.path}: a column has no name; name every label column, or remove it"
        )
    if len(set(cleaned)) < len(cleaned):
        name = next(name for n, name in enumerate(cleaned) if name in cleaned[:n])
        raise UsageError(
            f"{table.path}: two columns have the name '{brief(name)}' in different Unicode forms "
            "or with "
            "blanks; name every column differently"
        )
    return cleaned
