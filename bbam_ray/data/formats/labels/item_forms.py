"""Which form the items of lists have: vectors of 0 and 1, numbers of classes, or names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bbam_ray.data.formats.labels.cells import Coded
from bbam_ray.data.formats.labels.names import KnownNames
from bbam_ray.data.formats.labels.zero_one import truth
from bbam_ray.errors import UsageError, brief


@dataclass(frozen=True)
class Lists:
    """U lists of items.

    Args:
        lengths: (U,) number of items of each list.
        items: (M,) of all lists, in order.
        where: file and line of a list.
        column: name of their column.
    """

    lengths: np.ndarray
    items: Coded
    where: Callable[[int], str]
    column: str

    @property
    def owners(self) -> np.ndarray:
        """(M,) the list of each item."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def at(self, code: int) -> str:
        """File and line of the first list with an item."""
        return self.where(int(self.owners[self.items.first(code)]))


def form_of(lists: Lists, words: list[str], known: KnownNames, chosen: str) -> str:
    """Which of "vectors", "numbers" and "names" the items are.

    Args:
        lists: at least one.
        words: the distinct items as texts.
        known: names that are known before.
        chosen: ``label_format``.

    Raises:
        UsageError: none of them, or two.
    """
    if chosen in ("vectors", "numbers", "names"):
        return chosen
    binary = bool(words) and all(truth(value) is not None for value in lists.items.values)
    is_text = lists.items.kinds <= {"text"}
    whole = bool(words) and all(whole_number(value) is not None for value in lists.items.values)
    if not binary:
        _check_no_wrong_vector(lists)
    if not binary and is_text and not (whole and known.numbered):
        return "names"
    if not binary and not whole:
        position = next(n for n, v in enumerate(lists.items.values) if whole_number(v) is None)
        raise UsageError(
            f"{lists.at(position)}: {lists.column} has {brief(lists.items.values[position])}, "
            "which is neither a "
            "name, nor the number of a class, nor 0 or 1; correct it"
        )
    if not binary:
        return "names" if is_text and _are_names(lists, words, known) else "numbers"
    if is_text and set(words) <= set(known.file) | set(known.features) and not whole:
        return "names"
    return _vectors_or_numbers(lists, whole, known)


def _check_no_wrong_vector(lists: Lists) -> None:
    """Raise a UsageError if most lists are vectors of 0 and 1, and some have another value."""
    is_binary = np.array([truth(value) is not None for value in lists.items.values], bool)
    wrong = ~is_binary[lists.items.codes]
    good: np.ndarray = np.ones(len(lists.lengths), bool)
    good[lists.owners[wrong]] = False
    width = int(lists.lengths[good].max(initial=0))
    # A list of three or more zeros and ones repeats one of them, so these are no numbers of classes.
    if width > 2 and 2 * good.sum() >= len(good) and (lists.lengths[good] == width).all():
        code = int(lists.items.codes[np.argmax(wrong)])
        raise UsageError(
            f"{lists.at(code)}: {lists.column} has '{brief(lists.items.values[code])}', but vectors of "
            f"{width} zeros and ones in other rows; correct it, or choose --set label_format=numbers or "
            "--set label_format=names"
        )


def _vectors_or_numbers(lists: Lists, whole: bool, known: KnownNames) -> str:
    """The form of lists in which every item is 0 or 1."""
    width = int(lists.lengths.max())
    equal = bool((lists.lengths == width).all())
    repeats = _repeated(lists) > 0
    if equal and (repeats or not whole):
        return "vectors"
    if whole and not repeats and (not equal or (known.numbered and len(known.numbered) != width)):
        return "numbers"
    if equal:
        raise UsageError(
            f"{lists.where(0)}: {lists.column} is 0 or 1 in all rows, which may be vectors (one "
            "number for "
            "each label) or numbers of classes; choose --set label_format=vectors or --set "
            "label_format=numbers, or name a 0/1 column like its label and use --set "
            "label_format=columns"
        )
    odd = odd_length(lists)
    raise UsageError(
        f"{lists.where(odd)}: a vector of {lists.lengths[odd]} zeros and ones in {lists.column}, "
        "but other "
        "rows have another length; give every row one number for each label"
    )


def odd_length(lists: Lists) -> int:
    """The first list whose length is not the most frequent one."""
    lengths, counts = np.unique(lists.lengths, return_counts=True)
    return int(np.argmax(lists.lengths != lengths[np.argmax(counts)]))


def _are_names(lists: Lists, words: list[str], known: KnownNames) -> bool:
    """Whether texts of digits are names, as they are in the names file; not their numbers."""
    names = known.numbered
    if not set(words) & set(names):
        return False
    fits = all(int(word) < len(names) and names[int(word)] == word for word in words if word)
    if not fits and all(int(word) < len(names) for word in words):
        raise UsageError(
            f"{lists.where(0)}: {lists.column} has numbers, which may be names in {known.source} "
            "or "
            "positions in it; choose --set label_format=names or --set label_format=numbers"
        )
    return True


def whole_number(value: Any) -> int | None:
    """The whole number that a value is; None for any other value."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
    if isinstance(value, float) and not value.is_integer():
        return None
    return int(value) if isinstance(value, (int, float)) else None


def _repeated(lists: Lists) -> int:
    """Number of items that are in a list more than once."""
    pairs = lists.owners * max(1, len(lists.items.values)) + lists.items.codes
    return len(pairs) - len(np.unique(pairs))
