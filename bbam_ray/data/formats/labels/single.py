"""Labels of tables with a single column that holds all labels of a row."""

from __future__ import annotations

import numpy as np

from bbam_ray.data.formats.labels.cells import Rows, coded, kinds_of
from bbam_ray.data.formats.labels.names import KnownNames, ordered
from bbam_ray.data.formats.labels.options import LabelOptions
from bbam_ray.data.formats.labels.single_cells import (
    Cells,
    labels_of_lists,
    labels_of_numbers,
    labels_of_objects,
    labels_of_texts,
    no_labels,
    without_blanks,
)
from bbam_ray.data.formats.labels.wide import RowLabels, in_order_of
from bbam_ray.data.formats.tables import Column, UserTable
from bbam_ray.errors import UsageError, brief, quoted


def read_single(
    rows: Rows, name: str, expected: np.ndarray, options: LabelOptions, known: KnownNames
) -> RowLabels:
    """Labels of rows with a single column of labels.

    Files of different kinds (lists in one, texts in another) are read each in its own form.

    Args:
        rows: of all tables.
        name: of the column.
        expected: (N,) bool, False in rows whose labels are not used.
        options: that decide where two forms are possible.
        known: names that are known before.

    Raises:
        UsageError: two forms are possible, or a cell does not have the form of the others.
    """
    kinds = [kinds_of(_column(table, name)) for table in rows.tables]
    distinct = list(dict.fromkeys(kind for kind in kinds if kind)) or [frozenset()]
    reads = []
    for kind in distinct:
        has = [own == kind for own in kinds]
        column = rows.column(name, has)
        reads.append(
            _read_kind(column, kind, rows, name, expected & rows.mask(has), options, known)
        )
    if len(reads) == 1:
        return reads[0]
    names = known.file or known.features
    names = names or ordered(name for read in reads for name in read.names)
    labels: np.ndarray = np.zeros((len(rows), len(names)), np.uint8)
    for read in reads:
        labels[:, [names.index(name) for name in read.names]] |= read.labels
    return RowLabels(
        labels,
        np.logical_or.reduce([read.is_labeled for read in reads]),
        names,
        "; in other files ".join(read.form for read in reads),
        tuple(note for read in reads for note in read.notes),
    )


def _column(table: UserTable, name: str) -> Column:
    """A column of a table, without NaN in Python's values; null if the table lacks it."""
    column = table.columns.get(name, [])
    if isinstance(column, list) and float in set(map(type, column)):
        return [None if cell != cell else cell for cell in column]
    return column


def _read_kind(
    column: Column,
    kinds: frozenset[str],
    rows: Rows,
    name: str,
    expected: np.ndarray,
    options: LabelOptions,
    known: KnownNames,
) -> RowLabels:
    """Labels of the rows whose tables have cells of the same kind."""
    if len(kinds) > 1:
        raise UsageError(_mixed(column, rows, name))
    kind = next(iter(kinds), "")
    negative: np.ndarray = np.zeros(len(rows), bool)
    if not kind:
        cells: Cells = no_labels(len(rows))
    elif kind == "text":
        codes = coded(column, rows, name)
        codes, negative = without_blanks(codes, rows, expected, options)
        cells = labels_of_texts(codes, rows, name, expected, options, known)
    elif kind == "list":
        cells = labels_of_lists(column, rows, name, expected, options, known)
    elif kind == "object":
        cells = labels_of_objects(column, rows, name, expected)
    elif kind == "number":
        cells = labels_of_numbers(coded(column, rows, name), rows, name, expected, options, known)
    else:
        raise UsageError(
            f"{rows.where(0)}: {name} is {_first(column)}; name the column like its label if it "
            "is one "
            "label, or write lists of names"
        )
    cell_of_row, understood, form = cells
    labeled = cell_of_row >= 0
    labels: np.ndarray = np.zeros((len(rows), len(understood.names)), np.uint8)
    labels[labeled] = understood.labels[cell_of_row[labeled]]
    notes: tuple[str, ...] = ()
    if understood.repeated:
        notes = (
            f"{name} names a label more than once in a row, {understood.repeated} times in all",
        )
    form = f"column `{name}`, {form}{', ' * bool(form)}{understood.form}"
    names = understood.names or known.file
    if not understood.names:
        labels = np.zeros((len(rows), len(names)), np.uint8)
    read = RowLabels(labels, labeled | (negative & expected), names, form, notes)
    is_object = bool(known.file) and names != known.file
    return in_order_of(known, read, rows) if is_object else read


def _first(column: Column) -> str:
    if isinstance(column, list):
        return quoted(next(cell for cell in column if cell is not None))
    return brief(str(column.type))


def _mixed(column: Column, rows: Rows, name: str) -> str:
    """Two rows whose cells are of different kinds."""
    cells = rows.values(name, column)
    first = next(n for n, cell in enumerate(cells) if cell is not None)
    kind = kinds_of([cells[first]])
    other = next(n for n, cell in enumerate(cells) if cell is not None and kinds_of([cell]) != kind)
    return (
        f"{rows.where(other)}: {name} = {quoted(cells[other])} is of another kind than "
        f"{quoted(cells[first])} in {rows.where(first)}; write the labels of all rows in one form"
    )
