"""The part that each row of some tables belongs to."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from bbam_ray.data.formats.labels.cells import Coded, Rows, coded, kinds_of
from bbam_ray.data.formats.labels.options import LabelOptions, listed
from bbam_ray.errors import UsageError, brief

TRAIN, VALIDATION, TEST, UNLABELED = range(4)
PARTS = ("train", "validation", "test", "unlabeled")
_VALUES = {"train": TRAIN, "training": TRAIN, "test": TEST, "testing": TEST}
_VALUES |= dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION)
_VALUES |= {"unlabeled": UNLABELED, "unlabelled": UNLABELED}
_PART = r"(train(ing)?|test(ing)?|val|valid(ation)?|dev|eval|holdout)"
#: names of columns that tell parts or folds of rows, rather than a label
_SPLIT_LIKE = re.compile(
    rf"(is[_ ]?)?{_PART}([_ ]?(set|split|part))?|k?[_ ]?folds?([_ ]?(id|no|number))?|"
    r"(data[_ ]?)?(split|subset|partition|set)",
    re.IGNORECASE,
)
_WORDS = {*_VALUES, "eval", "holdout", "private", "public", "true", "false"}


def parts_of(rows: Rows, of_files: list[str | None], options: LabelOptions) -> np.ndarray:
    """The part of each row.

    Args:
        rows: of all tables.
        of_files: the part that the name of each table says; None = its rows may belong to several.
        options: with the column of parts.

    Returns:
        (N,) int8: TRAIN, VALIDATION, TEST or UNLABELED.

    Raises:
        UsageError: a value of the column that is no part, or contradicts the name of the file.
    """
    name = options.split_column
    parts: np.ndarray = np.zeros(len(rows), np.int8)
    for number, (table, part) in enumerate(zip(rows.tables, of_files, strict=True)):
        position = rows.of_table(number)
        if part is not None:
            parts[position] = PARTS.index(part)
        if part == "unlabeled" or name not in table.columns:
            continue
        cells = _cells(Rows([table]), name)
        meanings = [_meaning(value, name) for value in cells.values]
        codes = np.array([*(-1 if m is None else m for m in meanings), -1], np.int8)[cells.codes]
        if (codes < 0).any():
            row = int(np.argmax(codes < 0))
            value = None if cells.codes[row] < 0 else cells.values[cells.codes[row]]
            raise UsageError(
                f"{table.where(row)}: {name} = '{brief(value)}'; expected train, validation, "
                "test or "
                f"unlabeled, or name another column with --set split_column=..."
            )
        allowed = (
            (TRAIN, VALIDATION, UNLABELED) if part == "train" else (PARTS.index(part or "test"),)
        )
        if part is not None and (bad := ~np.isin(codes, allowed)).any():
            row = int(np.argmax(bad))
            raise UsageError(
                f"{table.where(row)}: {name} = '{brief(cells.values[cells.codes[row]])}' in a "
                "file of the "
                f"{part} part; correct one of the two, or use --set split_column=none"
            )
        parts[position] = codes
    if not np.isin(parts, (TRAIN, UNLABELED)).any() and (parts == VALIDATION).any():
        row = int(np.argmax(parts == VALIDATION))
        raise UsageError(
            f"{rows.where(row)}: {name} = 'val' or similar, but no row belongs to the training "
            "part; "
            "write 'train' into some rows"
        )
    return parts


def _cells(rows: Rows, name: str) -> Coded:
    column = rows.column(name)
    if kinds_of(column) & {"list", "object"}:
        raise UsageError(
            f"{rows.tables[0].path}: column '{brief(name)}' has lists; expected the part of each "
            "row"
        )
    return coded(column, rows, name)


def _meaning(value: Any, name: str) -> int | None:
    """The part that a value of the column means; None for a value that means none."""
    text = str(value).strip().lower()
    if text in _VALUES:
        return _VALUES[text]
    part = re.search(_PART, name.lower())
    if part is None or text not in ("1", "1.0", "true", "0", "0.0", "false"):
        return None
    named = _VALUES.get(part[0], VALIDATION if part[0] == "eval" else TEST)
    if text in ("1", "1.0", "true"):
        return named
    return TEST if named == TRAIN else TRAIN


def check_no_other_split(rows: Rows, options: LabelOptions) -> None:
    """Raise a UsageError if a column looks like the parts or folds of rows, and no setting "
    "decides."""
    decided = {
        options.split_column,
        *listed(options.ignore_columns),
        *listed(options.label_columns),
    }
    for table in rows.tables:
        for name in table.columns:
            if name in decided or name in table.index or not _SPLIT_LIKE.fullmatch(name.strip()):
                continue
            column = table.columns[name]
            if kinds_of(column) <= {"text", "bool", "number"} and _tells_parts(
                coded(column, Rows([table]), name)
            ):
                raise UsageError(
                    f"{table.path}: column '{brief(name)}' looks like the parts or folds of "
                    "rows, not like "
                    f"a label; choose --set split_column={brief(name)} or --set ignore_columns="
                    f"{brief(name)}, or name the labels with --set label_columns=..."
                )


def _tells_parts(cells: Coded) -> bool:
    """Whether all values are words for parts, truth values or small whole numbers."""
    texts = {str(value).strip().lower().removesuffix(".0") for value in cells.values} - {""}
    return all(text in _WORDS or re.fullmatch(r"(fold[_ ]?)?\d{1,2}", text) for text in texts)
