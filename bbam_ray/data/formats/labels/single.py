"""Labels of tables with a single column that holds all labels of a row."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np

from bbam_ray.data.formats.labels.cells import Coded, Rows, coded, kinds_of, lists_of
from bbam_ray.data.formats.labels.items import Lists, Understood, read_items
from bbam_ray.data.formats.labels.names import KnownNames, clean, ordered
from bbam_ray.data.formats.labels.options import LabelOptions, listed
from bbam_ray.data.formats.labels.texts import parsed_texts
from bbam_ray.data.formats.labels.wide import RowLabels, ambiguous
from bbam_ray.data.formats.labels.zero_one import read_objects
from bbam_ray.data.formats.tables import Column, UserTable
from bbam_ray.errors import UsageError, brief, quoted

Cells = tuple[np.ndarray, Understood, str]  # distinct cell of each row, their labels, their form


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
        cells: Cells = _no_cells(len(rows))
    elif kind == "text":
        codes = coded(column, rows, name)
        codes, negative = _without_blanks(codes, rows, expected, options)
        cells = _of_texts(codes, rows, name, expected, options, known)
    elif kind == "list":
        cells = _of_lists(column, rows, name, expected, options, known)
    elif kind == "object":
        cells = _of_objects(column, rows, name, expected)
    elif kind == "number":
        cells = _of_numbers(coded(column, rows, name), rows, name, expected, options, known)
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
    return RowLabels(labels, labeled | (negative & expected), names, form, notes)


def _no_cells(count: int) -> Cells:
    return np.full(count, -1), Understood(np.zeros((0, 0), np.uint8), (), "no labels"), ""


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


def _distinct(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Used codes, the first row of each, and the codes renumbered; -1 stays -1."""
    used, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    if len(used) and used[0] < 0:
        return used[1:], first[1:], inverse - 1
    return used, first, inverse


def _without_blanks(
    cells: Coded, rows: Rows, expected: np.ndarray, options: LabelOptions
) -> tuple[Coded, np.ndarray]:
    """Texts without those that are blank, and the rows in which a blank means that no label "
    "applies."""
    texts = [clean(value) for value in cells.values]
    blank_texts = {"", *listed(options.blank_texts)}
    is_blank = np.array([*(text in blank_texts for text in texts), False])[cells.codes]
    if options.blank == "error" and (unclear := is_blank & expected).any():
        row = int(np.argmax(unclear))
        raise UsageError(ambiguous(rows.where(row), "labels are blank"))
    codes = np.where(is_blank, -1, cells.codes)
    negative = is_blank if options.blank == "negative" else np.zeros(len(codes), bool)
    return Coded(codes, texts, cells.kinds), negative


def _of_texts(
    cells: Coded,
    rows: Rows,
    name: str,
    expected: np.ndarray,
    options: LabelOptions,
    known: KnownNames,
) -> Cells:
    used, first, cell_of_row = _distinct(np.where(expected, cells.codes, -1))
    if not len(used):
        return _no_cells(len(rows))

    def where(cell: int) -> str:
        return rows.where(int(first[cell]))

    parsed, form = parsed_texts([cells.values[code] for code in used], options, where, name)
    if all(isinstance(value, dict) for value in parsed):
        labels, names = read_objects(parsed, where, name)
        return cell_of_row, Understood(labels, names, _objects_form(names)), ""
    flat = [list(value) if isinstance(value, (list, tuple)) else value for value in parsed]
    flat = [[] if value == {} else value for value in flat]
    if (
        odd := next((n for n, value in enumerate(flat) if isinstance(value, dict)), None)
    ) is not None:
        raise UsageError(
            f"{where(odd)}: {name} is an object, and a list in other rows; write all rows in one "
            "form"
        )
    lengths = np.array([len(value) for value in flat], np.int64)
    items: Column = list(chain.from_iterable(flat))
    understood = _items(lengths, items, rows, where, name, options, known)
    return cell_of_row, understood, form


def _of_lists(
    column: Column,
    rows: Rows,
    name: str,
    expected: np.ndarray,
    options: LabelOptions,
    known: KnownNames,
) -> Cells:
    lengths, items = lists_of(column)
    valid = lengths >= 0
    used = valid & expected
    if not used.all():
        of_used = np.repeat(used[valid], lengths[valid])
        if isinstance(items, list):
            items = [item for item, is_used in zip(items, of_used, strict=True) if is_used]
        else:
            items = items.filter(of_used)
    positions = np.flatnonzero(used)
    cell_of_row = np.full(len(rows), -1)
    cell_of_row[positions] = np.arange(len(positions))
    if not len(positions):
        return _no_cells(len(rows))

    def where(cell: int) -> str:
        return rows.where(int(positions[cell]))

    understood = _items(lengths[positions], items, rows, where, name, options, known)
    return cell_of_row, understood, "lists"


def _of_numbers(
    cells: Coded,
    rows: Rows,
    name: str,
    expected: np.ndarray,
    options: LabelOptions,
    known: KnownNames,
) -> Cells:
    used, first, cell_of_row = _distinct(np.where(expected, cells.codes, -1))
    if not len(used):
        return _no_cells(len(rows))

    def where(cell: int) -> str:
        return rows.where(int(first[cell]))

    values: Column = [cells.values[code] for code in used]
    lengths = np.ones(len(used), np.int64)
    understood = _items(lengths, values, rows, where, name, options, known)
    return cell_of_row, understood, "one label per row"


def _items(
    lengths: np.ndarray,
    items: Column,
    rows: Rows,
    where: Callable[[int], str],
    name: str,
    options: LabelOptions,
    known: KnownNames,
) -> Understood:
    """The labels of lists; a UsageError if they contain lists or objects."""
    if deeper := kinds_of(items) & {"list", "object", "other"}:
        values = rows.values(name, items)
        position = next(n for n, value in enumerate(values) if kinds_of([value]) & deeper)
        owner = int(np.repeat(np.arange(len(lengths)), lengths)[position])
        what = {"list": "a list", "object": "an object"}.get(next(iter(deeper)), "no name")
        raise UsageError(
            f"{where(owner)}: {name} has {quoted(values[position])}, which is {what}, inside a "
            "list; write a "
            "list of names"
        )
    lists = Lists(lengths, coded(items, rows, name), where, name)
    return read_items(lists, known, options.label_format)


def _of_objects(column: Column, rows: Rows, name: str, expected: np.ndarray) -> Cells:
    values = rows.values(name, column)
    positions = [n for n, value in enumerate(values) if value is not None and expected[n]]
    if not positions:
        return _no_cells(len(rows))
    objects: list[dict[Any, Any]] = [
        {clean(key): mark for key, mark in dict(values[position]).items()} for position in positions
    ]
    labels, names = read_objects(objects, lambda n: rows.where(positions[n]), name)
    cell_of_row = np.full(len(rows), -1)
    cell_of_row[positions] = np.arange(len(positions))
    return cell_of_row, Understood(labels, names, _objects_form(names)), ""


def _objects_form(names: tuple[str, ...]) -> str:
    return f"objects of names with 0 or 1, {len(names)} names"
