"""Items of lists as labels, in the form that ``item_forms`` finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bbam_ray.data.formats.labels.item_forms import Lists, form_of, odd_length, whole_number
from bbam_ray.data.formats.labels.names import KnownNames, clean, ordered
from bbam_ray.data.formats.labels.zero_one import truth
from bbam_ray.errors import UsageError, brief, similar


@dataclass(frozen=True)
class Understood:
    """Labels of U lists.

    Args:
        labels: (U, K) uint8.
        names: K names.
        form: of the items, in words.
        repeated: number of items that a list has more than once.
    """

    labels: np.ndarray
    names: tuple[str, ...]
    form: str
    repeated: int = 0


def read_items(lists: Lists, known: KnownNames, chosen: str) -> Understood:
    """The labels of lists.

    Args:
        lists: at least one.
        known: names that are known before.
        chosen: ``label_format``.

    Raises:
        UsageError: the items have no form or two of them, or one does not have the form of the others.
    """
    values, kinds = lists.items.values, lists.items.kinds
    if (lists.items.codes < 0).any():
        raise UsageError(f"{lists.at(-1)}: one of its labels is blank; fill it in or remove it")
    if len(kinds) > 1:
        text = next((n for n, v in enumerate(values) if isinstance(v, str)), 0)
        raise UsageError(
            f"{lists.at(text)}: {lists.column} has both texts and numbers, for example "
            f"'{brief(values[text])}'; use one kind in all rows"
        )
    words = [clean(value) for value in values]
    if "" in words:
        raise UsageError(
            f"{lists.at(words.index(''))}: one of its labels is blank; fill it in or remove it"
        )
    form = form_of(lists, words, known, chosen)
    if form == "vectors":
        return _vectors(lists, known)
    if form == "numbers":
        return _numbers(lists, known)
    return _names(lists, words, known)


def _marked(lists: Lists, columns: np.ndarray, names: tuple[str, ...], form: str) -> Understood:
    """Labels from the column of each distinct item."""
    labels: np.ndarray = np.zeros((len(lists.lengths), len(names)), np.uint8)
    labels[lists.owners, columns[lists.items.codes]] = 1
    repeated = len(lists.items.codes) - int(labels.sum(dtype=np.int64))
    return Understood(labels, names, form, repeated)


def _vectors(lists: Lists, known: KnownNames) -> Understood:
    marks = [truth(value) for value in lists.items.values]
    if None in marks:
        position = marks.index(None)
        raise UsageError(
            f"{lists.at(position)}: {lists.column} has {brief(lists.items.values[position])} in "
            "a vector of 0 and "
            "1; correct it"
        )
    width = int(lists.lengths.max())
    if not width or not (lists.lengths == width).all():
        odd = odd_length(lists) if width else 0
        raise UsageError(
            f"{lists.where(odd)}: a vector of {lists.lengths[odd]} numbers in {lists.column}, "
            "but other "
            "rows have another length; give every row one number for each label"
        )
    names = known.file or known.features
    if len(names) != width:
        what = f"{known.path.name if known.file else 'ClassLabel'} has {len(names)} names"
        raise UsageError(
            f"{lists.where(0)}: {lists.column} is a vector of {width} zeros and ones, and "
            f"{what if names else 'the names of the labels are unknown'}; write one name per "
            "line, in the "
            f"order of the vector, into {known.path}"
        )
    labels = np.array(marks, np.uint8)[lists.items.codes].reshape(-1, width)
    source = known.path.name if known.file else "the file's ClassLabel names"
    return Understood(labels, names, f"vectors of 0 and 1, {width} names from {source}")


def _numbers(lists: Lists, known: KnownNames) -> Understood:
    numbers = [whole_number(value) for value in lists.items.values]
    if None in numbers:
        position = numbers.index(None)
        raise UsageError(
            f"{lists.at(position)}: {lists.column} has {brief(lists.items.values[position])}, "
            "which is not the "
            "number of a class; correct it"
        )
    values = [number for number in numbers if number is not None]
    names = known.numbered
    if not names:
        names = ordered(map(str, values))
        positions = {name: position for position, name in enumerate(names)}
        columns = np.array([positions[str(number)] for number in values], np.int64)
        return _marked(
            lists, columns, names, f"numbers, which are the names of {len(names)} labels"
        )
    for code, number in enumerate(values):
        if not 0 <= number < len(names):
            raise UsageError(
                f"{lists.at(code)}: label number {brief(number)} is not in 0 to "
                f"{len(names) - 1}; correct "
                f"it, or complete {known.source} (its first name has the number 0)"
            )
    target, columns = names, np.array(values, np.int64)
    if known.file and known.file != names:
        target = known.file
        unknown = next((n for n in names if n not in target), None)
        if unknown is not None:
            raise UsageError(
                f"{known.path}: lacks the label '{brief(unknown)}' of the file's ClassLabel "
                "names; add it"
            )
        columns = np.array([target.index(names[number]) for number in values], np.int64)
    form = f"numbers from 0, {len(names)} names from {known.source}"
    return _marked(lists, columns, target, form)


def _names(lists: Lists, words: list[str], known: KnownNames) -> Understood:
    names = known.file or known.features or ordered(words)
    positions = {name: position for position, name in enumerate(names)}
    for code, word in enumerate(words):
        if word not in positions:
            raise UsageError(
                f"{lists.at(code)}: unknown label '{brief(word)}'; {similar(word, names)}, or "
                "add it to "
                f"{known.path}"
            )
    columns = np.array([positions[word] for word in words], np.int64)
    return _marked(lists, columns, names, f"{len(names)} names")
