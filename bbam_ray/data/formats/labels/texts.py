"""Texts in a column of labels: what separates several labels, or which list they are the text of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from bbam_ray.data.formats.labels.literals import is_bracketed, is_quoted, parse_literal
from bbam_ray.data.formats.labels.options import LabelOptions
from bbam_ray.errors import UsageError, brief

_SEPARATORS = "|;,"
_ENOUGH = 3  # cells with a separator from which its use can be judged
Where = Callable[[int], str]


def parsed_texts(
    cells: Sequence[str], options: LabelOptions, where: Where, column: str
) -> tuple[list[Any], str]:
    """The lists (or objects) that the cells of a column are.

    Args:
        cells: distinct texts, none of them blank.
        options: that decide where two forms are possible.
        where: file and line of a cell.
        column: its name.

    Returns:
        A list or object for each cell, and their form in words.

    Raises:
        UsageError: two forms are possible, or a cell has not the form of the others.
    """
    form = options.label_format
    if options.label_separator != "auto" or form == "separated":
        separator = options.label_separator
        if separator == "auto":
            separator = _separator(cells, options, where, column)
        return _split(cells, separator), _in_words(separator)
    if form == "single":
        return [[cell] for cell in cells], "one label per row"
    written = [is_bracketed(cell) for cell in cells]
    if form == "lists" or all(written) or all(is_quoted(cell) for cell in cells):
        return [_literal(cell, n, where, column) for n, cell in enumerate(cells)], (
            "lists written as text"
        )
    if any(written):
        first, other = written.index(True), written.index(False)
        raise UsageError(
            f"{where(first)}: {column} = '{brief(cells[first])}' is either a list written as "
            "text or a "
            f"name with brackets, unlike '{brief(cells[other])}'; choose --set "
            "label_format=lists or "
            "--set label_format=separated"
        )
    separator = _separator(cells, options, where, column)
    return _split(cells, separator), _in_words(separator)


def _in_words(separator: str) -> str:
    if not separator:
        return "one label per row"
    if separator.isspace():
        return (
            "lists separated by blanks" if separator == " " else f"lists separated by {separator!r}"
        )
    return f"lists separated by '{separator}'"


def _split(cells: Sequence[str], separator: str) -> list[list[str]]:
    if not separator:
        return [[cell] for cell in cells]
    return [cell.split() if separator == " " else cell.split(separator) for cell in cells]


def _literal(cell: str, number: int, where: Where, column: str) -> Any:
    try:
        value = parse_literal(cell)
    except ValueError as error:
        raise UsageError(
            f"{where(number)}: {column} = '{brief(cell)}' begins and ends like a list, but "
            "cannot be read "
            f"as one ({error}); correct it, or take brackets and quotes as parts of names with "
            "--set label_format=separated"
        ) from None
    if isinstance(value, tuple):
        return list(value)
    if not isinstance(value, (list, dict)):
        raise UsageError(
            f"{where(number)}: {column} = '{brief(cell)}' is not a list; correct it, or use "
            "--set label_format=separated"
        )
    return value


def _separator(cells: Sequence[str], options: LabelOptions, where: Where, column: str) -> str:
    """The separator of several labels in one cell, "" if there is none."""
    text = "".join(cells)
    used = [mark for mark in _SEPARATORS if mark in text]
    if len(used) > 1:
        raise UsageError(
            f"{where(_holding(cells, used[0]))}: labels contain {' and '.join(used)}; choose the "
            "one that "
            "separates labels with --set label_separator=..."
        )
    broken = next((mark for mark in ("\n", "\r", "\t") if mark in text), None)
    if broken is not None and not used:
        raise UsageError(
            f"{where(_holding(cells, broken))}: {column} = "
            f"'{brief(cells[_holding(cells, broken)])}' "
            'contains line breaks or tabs; if they separate labels, use --set label_separator="\\n" or '
            '"\\t"'
        )
    if used:
        mark = used[0]
        with_mark = [cell for cell in cells if mark in cell]
        if mark == "," and len(with_mark) >= _ENOUGH and not _recurring(cells, mark):
            raise UsageError(
                f"{where(_holding(cells, mark))}: {column} = '{brief(with_mark[0])}' is either "
                "one label "
                f"with a comma, or several labels, none of which occurs elsewhere; choose --set "
                "label_format=single or --set label_format=separated"
            )
        return mark
    if not any(re.search(r"\s", cell) for cell in cells):
        return ""
    if options.label_format == "separated":
        return " "
    return _blanks(cells, where, column)


def _blanks(cells: Sequence[str], where: Where, column: str) -> str:
    """Whether blanks separate labels: if their parts recur in other cells, each of them or none."""
    several = [cell for cell in cells if len(cell.split()) > 1]
    recurring = _recurring(cells, None)
    parts = {part for cell in several for part in cell.split()}
    if parts <= recurring:
        return " "
    if not parts & recurring:
        return ""
    first = next(cell for cell in several if set(cell.split()) & recurring)
    part = next(part for part in first.split() if part in recurring)
    raise UsageError(
        f"{where(list(cells).index(first))}: {column} = '{brief(first)}' is either one label, or "
        "several "
        f"separated by blanks, since '{brief(part)}' occurs in other rows; choose --set "
        "label_format=single or --set label_format=separated"
    )


def _recurring(cells: Sequence[str], mark: str | None) -> set[str]:
    """Parts that occur in more than one of the cells."""
    split = ({part.strip() for part in cell.split(mark)} for cell in cells)
    counts = Counter(chain.from_iterable(split))
    return {part for part, count in counts.items() if count > 1}


def _holding(cells: Sequence[str], mark: str) -> int:
    return next(number for number, cell in enumerate(cells) if mark in cell)
