"""Labels of the distinct cells of a column: texts, lists, numbers or objects."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np

from bbam_ray.data.formats.labels.cells import Coded, Rows, coded, kinds_of, lists_of
from bbam_ray.data.formats.labels.item_forms import Lists
from bbam_ray.data.formats.labels.items import Understood, read_items
from bbam_ray.data.formats.labels.names import KnownNames, clean
from bbam_ray.data.formats.labels.options import LabelOptions, listed
from bbam_ray.data.formats.labels.texts import parsed_texts
from bbam_ray.data.formats.labels.wide import ambiguous
from bbam_ray.data.formats.labels.zero_one import read_objects
from bbam_ray.data.formats.tables import Column
from bbam_ray.errors import UsageError, quoted

Cells = tuple[np.ndarray, Understood, str]  # distinct cell of each row, their labels, their form


def no_labels(count: int) -> Cells:
    """The labels of a column without values."""
    return np.full(count, -1), Understood(np.zeros((0, 0), np.uint8), (), "no labels"), ""


def _distinct(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Used codes, the first row of each, and the codes renumbered; -1 stays -1."""
    used, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    if len(used) and used[0] < 0:
        return used[1:], first[1:], inverse - 1
    return used, first, inverse


def without_blanks(
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


def labels_of_texts(
    cells: Coded,
    rows: Rows,
    name: str,
    expected: np.ndarray,
    options: LabelOptions,
    known: KnownNames,
) -> Cells:
    """The labels of texts, none of which is blank."""
    used, first, cell_of_row = _distinct(np.where(expected, cells.codes, -1))
    if not len(used):
        return no_labels(len(rows))

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


def labels_of_lists(
    column: Column,
    rows: Rows,
    name: str,
    expected: np.ndarray,
    options: LabelOptions,
    known: KnownNames,
) -> Cells:
    """The labels of lists."""
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
        return no_labels(len(rows))

    def where(cell: int) -> str:
        return rows.where(int(positions[cell]))

    understood = _items(lengths[positions], items, rows, where, name, options, known)
    return cell_of_row, understood, "lists"


def labels_of_numbers(
    cells: Coded,
    rows: Rows,
    name: str,
    expected: np.ndarray,
    options: LabelOptions,
    known: KnownNames,
) -> Cells:
    """The labels of single numbers."""
    used, first, cell_of_row = _distinct(np.where(expected, cells.codes, -1))
    if not len(used):
        return no_labels(len(rows))

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


def labels_of_objects(column: Column, rows: Rows, name: str, expected: np.ndarray) -> Cells:
    """The labels of objects that map names to 0 and 1."""
    values = rows.values(name, column)
    positions = [n for n, value in enumerate(values) if value is not None and expected[n]]
    if not positions:
        return no_labels(len(rows))
    objects: list[dict[Any, Any]] = [
        {clean(key): mark for key, mark in dict(values[position]).items()} for position in positions
    ]
    labels, names = read_objects(objects, lambda n: rows.where(positions[n]), name)
    cell_of_row = np.full(len(rows), -1)
    cell_of_row[positions] = np.arange(len(positions))
    return cell_of_row, Understood(labels, names, _objects_form(names)), ""


def _objects_form(names: tuple[str, ...]) -> str:
    return f"objects of names with 0 or 1, {len(names)} names"
