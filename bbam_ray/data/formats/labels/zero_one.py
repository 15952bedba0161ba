"""Tables with one column of 0 and 1 for each label; objects that map names to 0 and 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bbam_ray.data.formats.labels.cells import Rows, coded, kinds_of
from bbam_ray.data.formats.tables import Column
from bbam_ray.errors import UsageError, brief

BLANK = 2
_WRONG = 3
_WORDS = {"true": 1, "false": 0, "yes": 1, "no": 0}


def truth(value: Any) -> int | None:
    """0 or 1 if a value means it, as a number, a truth value or a text; else None."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _WORDS:
            return _WORDS[word]
        if not word.isascii() or "_" in word:
            return None
        try:
            value = float(word)
        except ValueError:
            return None
    return int(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


@dataclass(frozen=True)
class Marks:
    """A column as 0, 1 and blank.

    Args:
        values: (N,) uint8: 0, 1, ``BLANK``, or another number for a wrong value.
        wrong: position of the first wrong value, and the value; None if there is none.
    """

    values: np.ndarray
    wrong: tuple[int, Any] | None

    @property
    def usable(self) -> bool:
        """Whether the column has a 0 or a 1."""
        return bool((self.values < BLANK).any())


def marks_of(column: Column, rows: Rows, name: str, blank_texts: frozenset[str]) -> Marks:
    """A column as 0, 1 and blank.

    Args:
        column: of all rows.
        rows, name: for messages.
        blank_texts: texts that mean a blank cell.
    """
    if not kinds_of(column) <= {"text", "bool", "number", "other"}:
        values = rows.values(name, column)
        position = next(n for n, v in enumerate(values) if isinstance(v, (list, tuple, dict)))
        return Marks(np.full(len(values), _WRONG, np.uint8), (position, values[position]))
    cells = coded(column, rows, name)
    meanings = [_mark(value, blank_texts) for value in cells.values]
    marks = np.array([*meanings, BLANK], np.uint8)[cells.codes]
    if _WRONG not in meanings:
        return Marks(marks, None)
    position = int(np.argmax(marks == _WRONG))
    return Marks(marks, (position, cells.values[cells.codes[position]]))


def _mark(value: Any, blank_texts: frozenset[str]) -> int:
    if isinstance(value, str) and (not value.strip() or value.strip() in blank_texts):
        return BLANK
    meaning = truth(value)
    return _WRONG if meaning is None else meaning


def read_objects(
    objects: list[dict[Any, Any]], where: Callable[[int], str], column: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of objects that map every name to 0 or 1.

    Args:
        objects: U objects.
        where: file and line of an object.
        column: their column.

    Returns:
        (U, K) uint8, and K names in the order of the first object.

    Raises:
        UsageError: a name is missing from an object, or its value is neither 0 nor 1.
    """
    names = list(dict.fromkeys(name for entry in objects for name in entry))
    labels: np.ndarray = np.zeros((len(objects), len(names)), np.uint8)
    for row, entry in enumerate(objects):
        for position, name in enumerate(names):
            mark = truth(entry.get(name))
            if mark is None:
                what = brief(entry[name]) if name in entry else "missing"
                raise UsageError(
                    f"{where(row)}: '{brief(str(name))}' is {what} in the object in {column}; "
                    "give every "
                    "name of every row 0 or 1, or write a list of names"
                )
            labels[row, position] = mark
    return labels, tuple(map(str, names))
