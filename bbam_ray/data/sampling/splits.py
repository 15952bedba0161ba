"""Division of the training samples into labelled, validation and unlabelled ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bbam_ray.errors import UsageError

DEFAULT_FRACTION = 0.05  # of the labels that are used, if all samples are labelled


@dataclass(frozen=True)
class Split:
    """Disjoint sorted row indices (int64) that cover the training part."""

    labeled: np.ndarray
    validation: np.ndarray
    unlabeled: np.ndarray


def make_split(
    labels: np.ndarray,
    labeled_fraction: float | None,
    validation_fraction: float,
    seed: int,
    *,
    is_labeled: np.ndarray | None = None,
    stratified: bool = False,
) -> Split:
    """Draw the split of one seed.

    The labelled pool is the first fraction of a seeded permutation (the published protocol), or a
    stratified one; validation samples are taken from that pool, since they need labels as well. The pool
    does not depend on labels outside it, unless it is stratified.

    Args:
        labels: (N, K) 0/1.
        labeled_fraction: fraction of the labelled samples whose labels are used, in (0, 1). None: all if
            some samples are not labelled, else 0.05.
        validation_fraction: fraction of the pool held out, in [0, 1); at least one sample unless 0.
        seed: of permutation and stratification.
        is_labeled: (N,) bool, which samples are labelled at all; None = all of them.
        stratified: keep positives of every label in the pool where possible.

    Raises:
        UsageError: the pool is empty or has no positive label to learn from.
    """
    rng = np.random.default_rng([seed, 101])
    order = rng.permutation(len(labels))
    candidates = order if is_labeled is None else order[is_labeled[order]]
    count = len(candidates)
    if labeled_fraction is None:
        labeled_fraction = 1.0 if count < len(order) else DEFAULT_FRACTION
    size = int(np.floor(labeled_fraction * count))
    if stratified and size < count:
        pool = candidates[stratified_subset(labels[candidates], size, rng)]
    else:
        pool = candidates[:size]
    unlabeled = np.setdiff1d(order, pool)
    held_out = 0
    if validation_fraction > 0 and size > 1:
        held_out = min(max(1, round(validation_fraction * size)), size - 1)
    validation = stratified_subset(labels[pool], held_out, rng)
    labeled = pool[~validation]
    if labels[labeled].sum() == 0:
        raise UsageError(
            f"labeled_fraction = {labeled_fraction:g}: the {len(labeled)} labelled of {len(order)} "
            "training samples have no positive label; raise --labeled-fraction"
        )
    if validation_fraction > 0 and labels[pool[validation]].sum() == 0:
        raise UsageError(
            f"labeled_fraction = {labeled_fraction:g}, validation_fraction = {validation_fraction}: the "
            f"{held_out} validation samples have no positive label; raise "
            "--labeled-fraction, or --set validation_fraction=..."
        )
    return Split(np.sort(labeled), np.sort(pool[validation]), unlabeled)


def stratified_subset(labels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Choose ``size`` rows so that every label has positives on both sides where possible.

    Iterative stratification (Sechidis et al., ECML PKDD 2011): the label with the fewest undecided
    positives comes first, and each of its rows goes to the side that still needs more of it. The last
    positive of a label stays outside as long as other rows can be taken instead.

    Args:
        labels: (N, K) 0/1.
        size: number of rows to choose, 0 <= size < N.
        rng: breaks ties.

    Returns:
        (N,) bool, exactly ``size`` of them set.
    """
    present = labels.astype(bool)
    totals = present.sum(axis=0).astype(np.int64)
    inside: np.ndarray = np.zeros(len(labels), dtype=bool)
    undecided: np.ndarray = np.asarray(present.any(axis=1))
    share = np.clip(np.round(totals * size / max(1, len(labels))), 1, np.maximum(totals - 1, 1))
    wanted_in = np.where(totals >= 2, share, 0).astype(np.int64)
    wanted_out = totals - wanted_in
    outside = totals.copy()  # positives that are not chosen

    taken = 0

    def take(row: int) -> None:
        nonlocal taken
        taken += 1
        inside[row] = True
        np.subtract(outside, present[row], out=outside)

    def spares(row: int) -> bool:
        return bool(np.all(outside[present[row]] > 1))

    while taken < size and undecided.any():
        left = present[undecided].sum(axis=0)
        label = int(np.argmin(np.where(left > 0, left, len(labels) + 1)))
        for row in rng.permutation(np.flatnonzero(undecided & present[:, label])):
            undecided[row] = False
            more = wanted_in[label] - wanted_out[label]
            # If both sides need it equally, the emptier one gets the row.
            preferred = more > 0 or (more == 0 and size - taken > len(labels) - taken - size)
            if preferred and taken < size and spares(row):
                take(row)
                wanted_in -= present[row]
            else:
                wanted_out -= present[row]
    # Rows without labels fill the rest; then rows that leave every label a positive outside; then any.
    order = rng.permutation(len(labels))
    order = np.concatenate([order[~present[order].any(axis=1)], order[present[order].any(axis=1)]])
    for careful in (True, False):
        for row in order:
            if taken < size and not inside[row] and (spares(row) or not careful):
                take(row)
    return inside
