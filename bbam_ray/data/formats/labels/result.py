"""What the reading of labels gives: labels, parts, and how the tables were understood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from bbam_ray.data.sampling.splits import stratified_subset
from bbam_ray.errors import UsageError


@dataclass(frozen=True)
class Reading:
    """How label files were understood, for the user.

    Args:
        summary: one line: where the labels are, their form, their number, and how many rows have some.
        notes: what is not used, or may be other than the user thinks.
        rows: the first rows as they were understood.
        unlabeled_test: why nothing can be measured on the test part, and the way out; empty if its rows
            are labelled.
    """

    summary: str
    notes: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    unlabeled_test: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Reading:
        notes, rows = tuple(values["notes"]), tuple(values["rows"])
        return cls(values["summary"], notes, rows, values["unlabeled_test"])


@dataclass(frozen=True)
class Labels:
    """Labels and parts of N samples.

    Args:
        labels: (N, K) uint8; zero in rows that are not labelled.
        is_labeled: (N,) bool.
        names: K label names.
        test: (N,) bool, whether a row belongs to the test part.
        validation: (N,) bool, the rows of a validation part that the user gives; None without one.
        reading: how the files were understood.
    """

    labels: np.ndarray
    is_labeled: np.ndarray
    names: tuple[str, ...]
    test: np.ndarray
    validation: np.ndarray | None = None
    reading: Reading | None = None


def with_notes(labels: Labels, notes: Sequence[str]) -> Labels:
    """Labels with further notes about how they were read."""
    if not notes or labels.reading is None:
        return labels
    reading = replace(labels.reading, notes=(*labels.reading.notes, *notes))
    return replace(labels, reading=reading)


def with_test_part(labels: Labels, fraction: float) -> Labels:
    """Labels with a test part: a stratified share of the labelled rows, unless there is one already.

    The division is a property of the data and does not depend on the seed of a run.
    """
    if labels.test.any():
        return labels
    candidates = labels.is_labeled.copy()
    if labels.validation is not None:
        candidates &= ~labels.validation
    rows = np.flatnonzero(candidates)
    size = round(fraction * len(rows))
    if not 0 < size < len(rows):
        raise UsageError(
            f"{len(rows)} labelled rows are too few to make {fraction:g} of them the test part; "
            "label "
            "more, or write 'test' into a column 'split' of some rows"
        )
    chosen = stratified_subset(labels.labels[rows], size, np.random.default_rng([0, 303]))
    test = np.zeros_like(labels.test)
    test[rows[chosen]] = True
    return replace(labels, test=test)
