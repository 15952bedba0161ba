"""Labels of tables with one column of 0 and 1 for each label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bbam_ray.data.formats.labels.cells import Rows
from bbam_ray.data.formats.labels.choice import clean_names, columns_text
from bbam_ray.data.formats.labels.names import KnownNames
from bbam_ray.data.formats.labels.options import LabelOptions, listed
from bbam_ray.data.formats.labels.zero_one import BLANK, marks_of
from bbam_ray.errors import UsageError, brief, similar


@dataclass(frozen=True)
class RowLabels:
    """Labels of N rows.

    Args:
        labels: (N, K) uint8, zero in rows that are not labelled.
        is_labeled: (N,) bool.
        names: K names.
        form: where they are and how, in words.
        notes: for the user.
    """

    labels: np.ndarray
    is_labeled: np.ndarray
    names: tuple[str, ...]
    form: str
    notes: tuple[str, ...] = ()


def read_columns(
    rows: Rows,
    names: tuple[str, ...],
    expected: np.ndarray,
    options: LabelOptions,
    known: KnownNames,
) -> RowLabels:
    """Labels of rows with one 0/1 column for each label.

    Args:
        rows: of all tables.
        names: of the label columns.
        expected: (N,) bool, whether a row has labels unless they are blank; False in rows of tables
            without the columns and of the unlabelled part.
        options: that say what blanks mean.
        known: the names file, whose order the labels get.

    Raises:
        UsageError: a cell other than 0 and 1, a row in which only some are blank, or ambiguous blanks.
    """
    blank_texts = frozenset(listed(options.blank_texts))
    table = next(table for table in rows.tables if names[0] in table.columns)
    cleaned = clean_names(names, table)
    marks = np.empty((len(rows), len(names)), np.uint8)
    wrong: dict[str, tuple[int, object]] = {}
    unusable: list[str] = []
    for position, name in enumerate(names):
        column = marks_of(rows.column(name), rows, name, blank_texts)
        marks[:, position] = column.values
        if not column.usable:
            unusable.append(name)
        if column.wrong is not None:
            wrong[name] = column.wrong
    if wrong:
        raise UsageError(_wrong_text(rows, names, wrong, unusable))
    if unusable:
        more = f" and {len(unusable) - 1} more" if len(unusable) > 1 else ""
        raise UsageError(
            f"{table.path}: label '{brief(unusable[0])}' is blank in all rows{more}; leave it out with "
            f"--set ignore_columns={brief(','.join(unusable), 300)}, or remove it"
        )
    is_labeled = _labeled(rows, names, marks, expected, options)
    labels = np.where(is_labeled[:, None], marks == 1, False).astype(np.uint8)
    form = (
        f"{len(names)} columns of 0 and 1" if len(names) > 1 else f"column `{names[0]}` of 0 and 1"
    )
    if not known.file:
        return RowLabels(labels, is_labeled, cleaned, form)
    return in_order_of(known, RowLabels(labels, is_labeled, cleaned, form), rows)


def _wrong_text(
    rows: Rows,
    names: tuple[str, ...],
    wrong: dict[str, tuple[int, object]],
    unusable: list[str],
) -> str:
    """What a value is wrong in, and the settings that may fit the table."""
    foreign = [name for name in unusable if name in wrong]
    if not foreign:
        name, (row, value) = min(wrong.items(), key=lambda entry: entry[1][0])
        return (
            f"{rows.where(row)}: label '{brief(name)}' is '{brief(value)}', neither 0 nor 1; "
            "correct it, or "
            f"leave the column out with --set ignore_columns={brief(name)}"
        )
    name = foreign[0]
    row, value = wrong[name]
    start = f"{rows.where(row)}: label '{brief(name)}' is '{brief(value)}', neither 0 nor 1"
    ignore = f"--set ignore_columns={brief(','.join(foreign), 300)}"
    if len(foreign) == len(names) or len(foreign) == 1:
        return (
            f"{start}; use --set label_columns={brief(name)} if this column holds all labels, or "
            f"{ignore} "
            "to leave it out"
        )
    return f"{start}; if {columns_text(foreign)} are not labels, leave them out with {ignore}"


def _labeled(
    rows: Rows,
    names: tuple[str, ...],
    marks: np.ndarray,
    expected: np.ndarray,
    options: LabelOptions,
) -> np.ndarray:
    """(N,) bool, which rows are labelled."""
    blank = marks == BLANK
    none = blank.all(axis=1)
    if options.blank == "negative":
        return expected
    if (some := expected & blank.any(axis=1) & ~none).any():
        row = int(np.argmax(some))
        name = names[int(np.argmax(blank[row]))]
        raise UsageError(
            f"{rows.where(row)}: label '{brief(name)}' is blank; fill all label columns of a row "
            "or none, or "
            "use --set blank=negative if a blank means that the label does not apply"
        )
    if options.blank == "error" and (unclear := expected & none).any():
        raise UsageError(ambiguous(rows.where(int(np.argmax(unclear))), "all labels are blank"))
    labeled: np.ndarray = expected & ~none
    return labeled


def ambiguous(where: str, what: str) -> str:
    """A message about blanks that may mean two things."""
    return (
        f"{where}: {what}, which is ambiguous; choose --set blank=unlabeled (not annotated) or "
        "--set blank=negative (no label applies)"
    )


def in_order_of(known: KnownNames, read: RowLabels, rows: Rows) -> RowLabels:
    """Labels in the order of the names file; a UsageError if it lacks one of them."""
    for name in read.names:
        if name not in known.file:
            raise UsageError(
                f"{rows.tables[0].path}: unknown label '{brief(name)}'; "
                f"{similar(name, known.file)}, or add "
                f"it to {known.path}, or leave the column out with --set "
                f"ignore_columns={brief(name)}"
            )
    labels = np.zeros((len(read.labels), len(known.file)), np.uint8)
    labels[:, [known.file.index(name) for name in read.names]] = read.labels
    absent = [name for name in known.file if name not in read.names]
    notes = read.notes
    if absent:
        verb = "are" if len(absent) > 1 else "is"
        notes += (f"{columns_text(absent)} of {known.path.name} {verb} in no table",)
    return RowLabels(labels, read.is_labeled, known.file, read.form, notes)
