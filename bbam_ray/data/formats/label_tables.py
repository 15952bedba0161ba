"""Labels from users' tables: one 0/1 column per label, or one column with the labels of each row.

"Not annotated" and "annotated, and no label applies" are different. Lists express both (null, and []); a
blank cell of a CSV file does not, so it is an error unless the option ``blank`` defines its meaning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from bbam_ray.config import DatasetOptions
from bbam_ray.data.formats.tables import UserTable, read_text
from bbam_ray.data.sampling.splits import stratified_subset
from bbam_ray.errors import UsageError, brief, similar

LABELS_COLUMN, SPLIT_COLUMN = "labels", "split"
NAMES_FILE = "labels.txt"  # next to the data: the names of all labels, one per line
_SEPARATORS = "|;,"
_TRUE, _FALSE = {"1", "1.0", "true"}, {"0", "0.0", "false"}


class LabelOptions(DatasetOptions):
    """Options of data sets whose labels come from users' tables."""

    blank: Literal["error", "unlabeled", "negative"] = Field(
        "error",
        description="Meaning of a blank label cell: an error, not annotated (`unlabeled`), or no label "
        "applies (`negative`).",
    )
    label_separator: str = Field(
        "auto",
        min_length=1,
        description="Separator of several labels in one cell; `auto` finds |, ; or a comma.",
    )
    test_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the labelled rows that becomes the test part if the data name none.",
    )


@dataclass(frozen=True)
class Labels:
    """Labels and parts of N samples.

    Args:
        labels: (N, K) uint8; zero in rows that are not labelled.
        is_labeled: (N,) bool.
        names: K label names.
        test: (N,) bool, whether a row belongs to the test part.
    """

    labels: np.ndarray
    is_labeled: np.ndarray
    names: tuple[str, ...]
    test: np.ndarray


def read_labels(
    tables: Sequence[tuple[UserTable, str | None]],
    options: LabelOptions,
    *,
    ignored: Sequence[str],
    names_file: Path,
) -> Labels:
    """Read labels and parts of all rows of some tables, in order.

    Args:
        tables: each with the part of all its rows; None if a column ``split`` may give it.
        options: how blanks and separators are read.
        ignored: columns that are not labels.
        names_file: label names, one per line; without this file, the names that occur, sorted.

    Raises:
        UsageError: a cell that is not a label, ambiguous blanks, or a test row without labels.
    """
    rows: list[list[str] | None] = []
    parts: list[str] = []
    numbered = next((table.label_names for table, _ in tables if table.label_names), ())
    names: list[str] = list(numbered)
    for table, part in tables:
        parts += _parts(table, part)
        if part == "unlabeled":
            rows += [None] * len(table)
        elif LABELS_COLUMN in table.columns:
            rows += _from_lists(table, options, numbered)
        else:
            labeled_rows, columns = _from_columns(table, options, {*ignored, SPLIT_COLUMN})
            rows += labeled_rows
            names += [name for name in columns if name not in names]
    # Labels in a row of the part 'unlabeled' are discarded here.
    rows = [None if part == "unlabeled" else row for row, part in zip(rows, parts, strict=True)]
    if not names:
        names = sorted({name for row in rows for name in row or ()})
    if names_file.is_file():
        names = _names_of(names_file)
    if not names:
        raise UsageError(f"{tables[0][0].path}: no labels; label some of the rows")
    sources = [(table, row) for table, _ in tables for row in range(len(table))]
    column = {name: index for index, name in enumerate(names)}
    labels: np.ndarray = np.zeros((len(rows), len(names)), dtype=np.uint8)
    for index, row in enumerate(rows):
        table, number = sources[index]
        for name in row or ():
            if name not in column:
                raise UsageError(
                    f"{table.where(number)}: unknown label '{brief(name)}'; {similar(name, names)}, or "
                    f"add it to {names_file}"
                )
            labels[index, column[name]] = 1
        if parts[index] == "test" and row is None:
            raise UsageError(
                f"{table.where(number)}: test row without labels; label it, or move it to the part "
                "'unlabeled'"
            )
    is_labeled = np.array([row is not None for row in rows])
    test = np.array([part == "test" for part in parts])
    return Labels(labels, is_labeled, tuple(names), test)


def with_test_part(labels: Labels, fraction: float) -> Labels:
    """Labels with a test part: a stratified share of the labelled rows, unless there is one already.

    The division is a property of the data and does not depend on the seed of a run.
    """
    if labels.test.any():
        return labels
    rows = np.flatnonzero(labels.is_labeled)
    size = round(fraction * len(rows))
    if not 0 < size < len(rows):
        raise UsageError(
            f"{len(rows)} labelled rows are too few to make {fraction:g} of them the test part; label "
            "more, or write 'test' into a column 'split' of some rows"
        )
    chosen = stratified_subset(labels.labels[rows], size, np.random.default_rng([0, 303]))
    test = np.zeros_like(labels.test)
    test[rows[chosen]] = True
    return Labels(labels.labels, labels.is_labeled, labels.names, test)


def _parts(table: UserTable, part: str | None) -> list[str]:
    if part is not None or SPLIT_COLUMN not in table.columns:
        return [part or "train"] * len(table)
    parts = {"train": "train", "test": "test", "unlabeled": "unlabeled", "unlabelled": "unlabeled"}
    for row, value in enumerate(table.columns[SPLIT_COLUMN]):
        if value not in parts:
            raise UsageError(
                f"{table.where(row)}: {SPLIT_COLUMN} = '{brief(value)}'; expected train, test or "
                "unlabeled (validation samples are taken from train)"
            )
    return [parts[value] for value in table.columns[SPLIT_COLUMN]]


def _from_columns(
    table: UserTable, options: LabelOptions, ignored: set[str]
) -> tuple[list[list[str] | None], list[str]]:
    """Labels of each row of a table with one 0/1 column per label, and the names of the labels."""
    names = [name for name in table.columns if name not in ignored]
    rows: list[list[str] | None] = []
    if not all(map(str.strip, names)):
        raise UsageError(
            f"{table.path}: a column has no name; name every label column, or remove it"
        )
    parts = table.columns.get(SPLIT_COLUMN, [None] * len(table))
    filled: set[str] = set()
    for row in range(len(table)):
        cells = {name: _plain(table.columns[name][row]) for name in names}
        blank = [name for name, cell in cells.items() if cell == ""]
        filled |= cells.keys() - set(blank)
        if blank and len(blank) == len(names) and options.blank != "negative":
            if options.blank == "error" and parts[row] not in ("unlabeled", "unlabelled"):
                raise UsageError(_ambiguous(table, row, "all labels are blank"))
            rows.append(None)
            continue
        for name, cell in cells.items():
            if cell in _TRUE or cell in _FALSE or (cell == "" and options.blank == "negative"):
                continue
            what = "blank" if cell == "" else f"'{brief(cell)}', neither 0 nor 1"
            raise UsageError(
                f"{table.where(row)}: label '{brief(name)}' is {what}; fill all label columns of a row or "
                "none, and remove columns that are not labels (or use a single column 'labels')"
            )
        rows.append([name for name, cell in cells.items() if cell in _TRUE])
    if empty := [name for name in names if name not in filled]:
        raise UsageError(
            f"{table.path}: column '{brief(empty[0])}' is blank in all rows; remove it"
        )
    return rows, names


def _plain(cell: Any) -> str:
    return "" if cell is None or cell != cell else str(cell).strip().lower()


def _from_lists(
    table: UserTable, options: LabelOptions, numbered: tuple[str, ...]
) -> list[list[str] | None]:
    """Labels of each row of a table whose column ``labels`` has lists, or texts with separators."""
    cells = table.columns[LABELS_COLUMN]
    separator = _separator(table, options)
    parts = table.columns.get(SPLIT_COLUMN, [None] * len(table))
    rows: list[list[str] | None] = []
    for row, cell in enumerate(cells):
        if cell is None:
            rows.append(None)
        elif isinstance(cell, list):
            rows.append([_name(table, row, value, numbered) for value in cell])
        elif str(cell).strip():
            values = str(cell).split(separator) if separator else [str(cell)]
            rows.append([_name(table, row, value, ()) for value in values])
        elif options.blank == "error" and parts[row] not in ("unlabeled", "unlabelled"):
            raise UsageError(_ambiguous(table, row, "labels are blank"))
        else:
            rows.append([] if options.blank == "negative" else None)
    return rows


def _name(table: UserTable, row: int, value: Any, numbered: tuple[str, ...]) -> str:
    if numbered and isinstance(value, int):
        if not 0 <= value < len(numbered):
            raise UsageError(
                f"{table.where(row)}: label number {brief(value)} is not in 0 to "
                f"{len(numbered) - 1}; correct it"
            )
        return numbered[value]
    text = "" if value is None else str(value).strip()
    if not text:
        raise UsageError(f"{table.where(row)}: one of its labels is blank; fill it in or remove it")
    return text


def _separator(table: UserTable, options: LabelOptions) -> str:
    """The separator of several labels in one cell, "" if there is none."""
    if options.label_separator != "auto":
        return options.label_separator
    text = "".join(cell for cell in table.columns[LABELS_COLUMN] if isinstance(cell, str))
    used = [mark for mark in _SEPARATORS if mark in text]
    if len(used) > 1:
        raise UsageError(
            f"{table.path}: labels contain {' and '.join(used)}; choose the one that separates labels "
            "with --set label_separator=..."
        )
    return "".join(used)


def _ambiguous(table: UserTable, row: int, what: str) -> str:
    return (
        f"{table.where(row)}: {what}, which is ambiguous; choose --set blank=unlabeled (not annotated) "
        "or --set blank=negative (no label applies)"
    )


def _names_of(path: Path) -> list[str]:
    lines = read_text(path, "write one label per line").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    duplicates = [name for index, name in enumerate(names) if names.index(name) != index]
    if duplicates:
        raise UsageError(f"{path}: duplicate label '{brief(duplicates[0])}'; list each label once")
    return names


def safe_relative(name: Any, where: str) -> str:
    """Normalize a file name from a user's table, and reject one that points outside the data folder.

    Args:
        name: as in the table; either kind of slash.
        where: position in the table, for the message.

    Returns:
        A relative path with forward slashes.
    """
    text = str(name).replace("\\", "/").strip() if name is not None else ""
    parts = text.split("/")
    if not text or text.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", text):
        raise UsageError(
            f"{where}: file '{brief(name)}' is not a path inside the data set's folder; use a path "
            "relative to it"
        )
    return "/".join(part for part in parts if part not in ("", "."))
