"""Labels out of users' tables: one 0/1 column a label, or one column with the labels of a row.

"Not labelled" and "labelled, with no label shown" never mix. A list says both plainly (null or absent, and
[]); a blank of a CSV file does not, so it is an error until the option ``blank`` says what it means.
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
from bbam_ray.data.formats.tables import Table, read_text
from bbam_ray.data.sampling.splits import stratified_subset
from bbam_ray.errors import UsageError, shown, similar

LABELS, SPLIT = "labels", "split"
NAMES_FILE = "labels.txt"  # beside the data: the labels that may occur, one a line
_SEPARATORS = "|;,"
_TRUE, _FALSE = {"1", "1.0", "true"}, {"0", "0.0", "false"}


class LabelOptions(DatasetOptions):
    """Options of data sets whose labels are in users' tables."""

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
    """What tables say about N rows.

    Args:
        labels: (N, K) uint8; zero where nobody has labelled the row.
        is_labeled: (N,) bool, whether somebody has.
        names: K label names.
        test: (N,) bool, whether a row belongs to the test part.
    """

    labels: np.ndarray
    is_labeled: np.ndarray
    names: tuple[str, ...]
    test: np.ndarray


def read_labels(
    tables: Sequence[tuple[Table, str | None]],
    options: LabelOptions,
    *,
    ignored: Sequence[str],
    names_file: Path,
) -> Labels:
    """Labels and parts of the rows of some tables, one after the other.

    Args:
        tables: each with the part of all its rows, or None if a column ``split`` may say it.
        options: how blanks and separators are read.
        ignored: columns that are no labels.
        names_file: label names, one a line; where there is none, the names that occur, sorted.
    """
    rows: list[list[str] | None] = []
    parts: list[str] = []
    numbered = next((table.label_names for table, _ in tables if table.label_names), ())
    names: list[str] = list(numbered)
    for table, part in tables:
        parts += _parts(table, part)
        if part == "unlabeled":
            rows += [None] * len(table)
        elif LABELS in table.columns:
            rows += _from_lists(table, options, numbered)
        else:
            found, columns = _from_columns(table, options, {*ignored, SPLIT})
            rows += found
            names += [name for name in columns if name not in names]
    # What somebody wrote into a row that is given as unlabelled is forgotten here.
    rows = [None if part == "unlabeled" else row for row, part in zip(rows, parts, strict=True)]
    if not names:
        names = sorted({name for row in rows for name in row or ()})
    if names_file.is_file():
        names = _names_of(names_file)
    if not names:
        raise UsageError(f"{tables[0][0].path}: no label at all; label some of the rows")
    places = [(table, row) for table, _ in tables for row in range(len(table))]
    column = {name: place for place, name in enumerate(names)}
    labels: np.ndarray = np.zeros((len(rows), len(names)), dtype=np.uint8)
    for place, row in enumerate(rows):
        table, number = places[place]
        for name in row or ():
            if name not in column:
                raise UsageError(
                    f"{table.where(number)}: unknown label '{shown(name)}'; {similar(name, names)}, or "
                    f"add it to {names_file}"
                )
            labels[place, column[name]] = 1
        if parts[place] == "test" and row is None:
            raise UsageError(
                f"{table.where(number)}: a row of the test part without labels; label it, or move it to "
                "the part 'unlabeled'"
            )
    is_labeled = np.array([row is not None for row in rows])
    test = np.array([part == "test" for part in parts])
    return Labels(labels, is_labeled, tuple(names), test)


def with_test_part(labels: Labels, fraction: float) -> Labels:
    """The same with a stratified share of the labelled rows as test part, where none was given.

    The division belongs to the data: it does not follow a run's seed.
    """
    if labels.test.any():
        return labels
    rows = np.flatnonzero(labels.is_labeled)
    size = round(fraction * len(rows))
    if not 0 < size < len(rows):
        raise UsageError(
            f"{len(rows)} labelled rows are too few for a test part of {fraction:g} of them; label more, "
            "or mark rows with 'test' in a column 'split'"
        )
    chosen = stratified_subset(labels.labels[rows], size, np.random.default_rng([0, 303]))
    test = np.zeros_like(labels.test)
    test[rows[chosen]] = True
    return Labels(labels.labels, labels.is_labeled, labels.names, test)


def _parts(table: Table, part: str | None) -> list[str]:
    if part is not None or SPLIT not in table.columns:
        return [part or "train"] * len(table)
    known = {"train": "train", "test": "test", "unlabeled": "unlabeled", "unlabelled": "unlabeled"}
    for row, value in enumerate(table.columns[SPLIT]):
        if value not in known:
            raise UsageError(
                f"{table.where(row)}: {SPLIT} = '{shown(value)}'; expected train, test or unlabeled "
                "(validation samples are taken out of train)"
            )
    return [known[value] for value in table.columns[SPLIT]]


def _from_columns(
    table: Table, options: LabelOptions, ignored: set[str]
) -> tuple[list[list[str] | None], list[str]]:
    """Labels of a table with one 0/1 column a label, and the columns."""
    names = [name for name in table.columns if name not in ignored]
    rows: list[list[str] | None] = []
    if not all(map(str.strip, names)):
        raise UsageError(
            f"{table.path}: a column has no name; name each label, or remove the column"
        )
    filled: set[str] = set()
    for row in range(len(table)):
        cells = {name: _plain(table.columns[name][row]) for name in names}
        blank = [name for name, cell in cells.items() if cell == ""]
        filled |= cells.keys() - set(blank)
        if blank and len(blank) == len(names) and options.blank != "negative":
            if options.blank == "error" and table.columns.get(SPLIT, [""] * len(table))[
                row
            ] not in (
                "unlabeled",
                "unlabelled",
            ):
                raise UsageError(_ambiguous(table, row, "all labels are blank"))
            rows.append(None)
            continue
        for name, cell in cells.items():
            if cell in _TRUE or cell in _FALSE or (cell == "" and options.blank == "negative"):
                continue
            what = "blank" if cell == "" else f"'{shown(cell)}', neither 0 nor 1"
            raise UsageError(
                f"{table.where(row)}: label '{shown(name)}' is {what}; a row has every label or none, and "
                "a column that is no label must go (or give one column 'labels')"
            )
        rows.append([name for name, cell in cells.items() if cell in _TRUE])
    if empty := [name for name in names if name not in filled]:
        raise UsageError(f"{table.path}: column '{shown(empty[0])}' is blank everywhere; remove it")
    return rows, names


def _plain(cell: Any) -> str:
    return "" if cell is None or cell != cell else str(cell).strip().lower()


def _from_lists(
    table: Table, options: LabelOptions, numbered: tuple[str, ...]
) -> list[list[str] | None]:
    """Labels of a table with a column of lists, or of texts with separators."""
    cells = table.columns[LABELS]
    separator = _separator(table, options)
    parts = table.columns.get(SPLIT, [None] * len(table))
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


def _name(table: Table, row: int, value: Any, numbered: tuple[str, ...]) -> str:
    if numbered and isinstance(value, int):
        if not 0 <= value < len(numbered):
            raise UsageError(
                f"{table.where(row)}: label {shown(value)} has no name; there are {len(numbered)}"
            )
        return numbered[value]
    text = "" if value is None else str(value).strip()
    if not text:
        raise UsageError(
            f"{table.where(row)}: one of several labels is blank; name it or remove it"
        )
    return text


def _separator(table: Table, options: LabelOptions) -> str:
    """What stands between labels; a mark that only belongs to names must be told apart by the user."""
    if options.label_separator != "auto":
        return options.label_separator
    text = "".join(cell for cell in table.columns[LABELS] if isinstance(cell, str))
    used = [mark for mark in _SEPARATORS if mark in text]
    if len(used) > 1:
        raise UsageError(
            f"{table.path}: labels contain {' and '.join(used)}; say which of them stands between labels "
            "with --set label_separator=..."
        )
    return "".join(used)


def _ambiguous(table: Table, row: int, what: str) -> str:
    return (
        f"{table.where(row)}: {what}, which may mean 'nobody has looked' or 'there is none'; say which "
        "with --set blank=unlabeled or --set blank=negative"
    )


def _names_of(path: Path) -> list[str]:
    lines = read_text(path, "give a label a line").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    double = [name for place, name in enumerate(names) if names.index(name) != place]
    if double:
        raise UsageError(f"{path}: label '{shown(double[0])}' is named twice; name each once")
    return names


def safe_relative(name: Any, where: str) -> str:
    """A path below a folder as a user's table names it; one that leads out of it is refused."""
    text = str(name).replace("\\", "/").strip() if name is not None else ""
    parts = text.split("/")
    if not text or text.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", text):
        raise UsageError(
            f"{where}: file '{shown(name)}' is not a path inside the data set's folder; name files "
            "relative to it"
        )
    return "/".join(part for part in parts if part not in ("", "."))
