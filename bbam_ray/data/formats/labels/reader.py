"""Labels and parts of users' tables, and how they were understood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bbam_ray.data.formats.labels.cells import Rows
from bbam_ray.data.formats.labels.choice import (
    LabelColumns,
    choose_columns,
    columns_text,
    tables_with,
)
from bbam_ray.data.formats.labels.names import known_names, name_notes
from bbam_ray.data.formats.labels.options import LabelOptions
from bbam_ray.data.formats.labels.parts import (
    PARTS,
    TEST,
    UNLABELED,
    VALIDATION,
    check_no_other_split,
    parts_of,
)
from bbam_ray.data.formats.labels.result import Labels, Reading
from bbam_ray.data.formats.labels.single import read_single
from bbam_ray.data.formats.labels.wide import RowLabels, read_columns
from bbam_ray.data.formats.tables import UserTable
from bbam_ray.errors import UsageError, brief

_FIRST_ROWS, _FIRST_NAMES = 3, 8


def read_labels(
    tables: Sequence[tuple[UserTable, str | None]],
    options: LabelOptions,
    *,
    ignored: Sequence[str],
    names_file: Path,
) -> Labels:
    """Read labels and parts of all rows of some tables, in order.

    Args:
        tables: each with the part of all its rows; None if a column may give it.
        options: which columns hold labels, and what decides where two forms are possible.
        ignored: columns that are not labels.
        names_file: label names, one per line; without this file, the names that occur.

    Raises:
        UsageError: no labels, two possible forms, a cell that is not a label, ambiguous blanks, or a test
            row without labels.
    """
    parts = parts_of(Rows([table for table, _ in tables]), [part for _, part in tables], options)
    # Labels in files of the unlabelled part are not read.
    rows = Rows([replace(t, columns={}) if part == "unlabeled" else t for t, part in tables])
    check_no_other_split(rows, options)
    columns = choose_columns(rows, options, ignored)
    if not columns.names:
        raise UsageError(f"{tables[0][0].path}: no labels; label some of the rows")
    has = tables_with(rows, columns.names)
    unlabeled_test = _without_labels(tables, has, columns, "test")
    if problem := _without_labels(tables, has, columns, "validation"):
        raise UsageError(problem)
    expected = rows.mask(has) & (parts != UNLABELED)
    with_labels = [table for table, own in zip(rows.tables, has, strict=True) if own]
    known = known_names(with_labels, names_file, columns.names[0] if columns.single else "")
    if columns.single:
        read = read_single(rows, columns.names[0], expected, options, known)
    else:
        read = read_columns(rows, columns.names, expected, options, known)
    if not read.names or not read.is_labeled.any():
        raise UsageError(f"{tables[0][0].path}: no labels; label some of the rows")
    if unlabeled_test and read.is_labeled[parts == TEST].any():  # another file of it has labels
        raise UsageError(unlabeled_test)
    for number in (VALIDATION,) if unlabeled_test else (TEST, VALIDATION):
        if (missing := (parts == number) & ~read.is_labeled).any():
            raise UsageError(
                f"{rows.where(int(np.argmax(missing)))}: {PARTS[number]} row without labels; label "
                "it, or move "
                "it to the part 'unlabeled'"
            )
    is_validation = parts == VALIDATION
    return Labels(
        read.labels,
        read.is_labeled,
        read.names,
        parts == TEST,
        is_validation if is_validation.any() else None,
        replace(_reading(tables, rows, has, columns, read, parts), unlabeled_test=unlabeled_test),
    )


def _without_labels(
    tables: Sequence[tuple[UserTable, str | None]],
    has: list[bool],
    columns: LabelColumns,
    part: str,
) -> str:
    """Why nothing can be measured on a part, if a file of it has no label column; else empty."""
    for (table, of_file), has_labels in zip(tables, has, strict=True):
        if of_file == part and not has_labels:
            return (
                f"{table.path}: no label column, so nothing can be measured on the {part} part; add the "
                f"{columns_text(columns.names)}, or name the file unlabeled{table.path.suffix} to train "
                "on it"
            )
    return ""


def _reading(
    tables: Sequence[tuple[UserTable, str | None]],
    rows: Rows,
    has: list[bool],
    columns: LabelColumns,
    read: RowLabels,
    parts: np.ndarray,
) -> Reading:
    """How the tables were understood."""
    notes = []
    for (table, part), own in zip(tables, has, strict=True):
        if own:
            continue
        if part == "test":
            notes.append(
                f"{table.path.name} has no label column: only validation figures are reported, as with "
                "--confirm-seeds 0"
            )
        elif part != "unlabeled":
            notes.append(
                f"{table.path.name} has no label column: its {len(table):,} rows are not labelled"
            )
        elif unused := [name for name in columns.names if name in table.columns]:
            notes.append(
                f"{table.path.name} is of the unlabelled part: {columns_text(unused)} is not used"
            )
    if columns.unused:
        notes.append(f"not used: {columns_text(columns.unused)}")
    if index := sorted({name for table, _ in tables for name in table.index}):
        notes.append(f"not used, the row index of pandas: {columns_text(index)}")
    if count := int((parts == VALIDATION).sum()):
        notes.append(
            f"{count:,} rows are the validation part of these data; validation_fraction and folds do "
            "not apply"
        )
    notes += [*read.notes, *name_notes(read.names)]
    labelled = f"{int(read.is_labeled.sum()):,} of {len(rows):,} rows labelled"
    summary = f"labels: {read.form}; {labelled}"
    return Reading(summary, tuple(notes), tuple(_first_rows(rows, read)))


def _first_rows(rows: Rows, read: RowLabels) -> list[str]:
    """The first rows as they were understood, each with its position."""
    lines = []
    for row in range(min(_FIRST_ROWS, len(rows))):
        names = [read.names[column] for column in np.flatnonzero(read.labels[row])]
        more = f" and {len(names) - _FIRST_NAMES} more" if len(names) > _FIRST_NAMES else ""
        first_names = ", ".join(brief(name) for name in names[:_FIRST_NAMES])
        text = f"{first_names}{more}" if names else "no label applies"
        position = rows.where(row).rpartition("/")[2]
        lines.append(f"{position}: {text if read.is_labeled[row] else 'not labelled'}")
    return lines
