"""Division of the training samples into labelled, validation and unlabelled ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bbam_ray.errors import UsageError

DEFAULT_FRACTION = 0.05  # of the labels that are used, if all samples are labelled


@dataclass(frozen=True)
class Split:
    """Disjoint sorted row indices (int64) that cover the training part.

    Args:
        labeled, validation, unlabeled: row indices.
        folds: (N_l + N_v,) fold of each labelled or validation row, in the order of their indices; None
            without folds.
    """

    labeled: np.ndarray
    validation: np.ndarray
    unlabeled: np.ndarray
    folds: np.ndarray | None = None

    @property
    def pool(self) -> np.ndarray:
        """Sorted indices of all rows whose labels may be used."""
        return np.sort(np.concatenate([self.labeled, self.validation]))


def make_split(
    labels: np.ndarray,
    labeled_fraction: float | None,
    validation_fraction: float,
    seed: int,
    *,
    is_labeled: np.ndarray | None = None,
    is_validation: np.ndarray | None = None,
    stratified: bool = False,
    folds: int = 1,
    fold: int = 0,
    validation_draw: int | None = None,
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
        is_validation: (N,) bool, labelled samples of a validation part that the data name; they are held
            out instead of ``validation_fraction``, and not drawn into the pool. With
            ``validation_fraction`` 0 nothing is held out, and they are labelled samples.
        stratified: keep positives of every label in the pool where possible.
        folds: stratified folds of the pool; above 1, ``fold`` is held out instead of
            ``validation_fraction``. The pool is the same for any number of folds.
        fold: from 0.
        validation_draw: seed of the choice of validation samples from the pool, which stays the same;
            None = that of ``seed``.

    Raises:
        UsageError: the pool is empty or has no positive label to learn from.
    """
    rng = np.random.default_rng([seed, 101])
    order = rng.permutation(len(labels))
    own = np.empty(0, np.int64)
    if is_validation is not None:
        own = np.flatnonzero(is_validation)
        order = order[~is_validation[order]]
        _check_own_part(folds, reshuffled=validation_draw is not None)
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
    if folds > 1:
        return _fold_split(labels, np.sort(pool), unlabeled, folds, fold, seed)
    if is_validation is not None:
        return _own_split(labels, pool, own, unlabeled, use=validation_fraction > 0)
    held_out = 0
    if validation_fraction > 0 and size > 1:
        held_out = min(max(1, round(validation_fraction * size)), size - 1)
    if validation_draw is not None:
        rng = np.random.default_rng([seed, 103, validation_draw])
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


def _check_own_part(folds: int, *, reshuffled: bool) -> None:
    """Raise a UsageError if the samples that a validation part holds out are to be chosen otherwise."""
    if folds > 1:
        raise UsageError(
            f"folds = {folds}: the data have a validation part, which is held out instead of folds; use "
            "--folds 1, or move its rows into the training part"
        )
    if reshuffled:
        raise UsageError(
            "reshuffle = true: the data have a validation part, which is the same for all configurations; "
            "leave reshuffle out, or move its rows into the training part"
        )


def _own_split(
    labels: np.ndarray, pool: np.ndarray, own: np.ndarray, unlabeled: np.ndarray, *, use: bool
) -> Split:
    """The split of data with a validation part; its samples are labelled ones unless it is used."""
    labeled = pool if use else np.concatenate([pool, own])
    for part, rows in (("labelled", labeled), ("validation", own)):
        if labels[rows].sum() == 0:
            raise UsageError(
                f"the {len(rows)} {part} samples have no positive label; "
                + ("raise --labeled-fraction" if part == "labelled" else "label some of them")
            )
    validation = own if use else own[:0]
    return Split(np.sort(labeled), validation, unlabeled)


def _fold_split(
    labels: np.ndarray,
    pool: np.ndarray,
    unlabeled: np.ndarray,
    folds: int,
    fold: int,
    seed: int,
) -> Split:
    """The split of one fold of a sorted pool."""
    if len(pool) < folds:
        raise UsageError(
            f"folds = {folds}: only {len(pool)} samples are labelled; lower --folds or raise "
            "--labeled-fraction"
        )
    fold_of_row = stratified_folds(labels[pool], folds, np.random.default_rng([seed, 102]))
    held_out = fold_of_row == fold
    for part, rows in (("other folds", pool[~held_out]), (f"fold {fold}", pool[held_out])):
        if labels[rows].sum() == 0:
            raise UsageError(
                f"folds = {folds}: the {len(rows)} labelled samples of the {part} have no positive label; "
                "lower --folds or raise --labeled-fraction"
            )
    return Split(pool[~held_out], pool[held_out], unlabeled, fold_of_row)


def stratified_folds(labels: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Divide rows into folds with nearly equal numbers of rows and of positives of every label.

    Iterative stratification (Sechidis et al., ECML PKDD 2011,
    https://doi.org/10.1007/978-3-642-23808-6_10): the label with the fewest undecided positives comes
    first, and each of its rows goes to the fold that lacks most of it.

    Args:
        labels: (N, K) 0/1.
        folds: number of folds, at most N.
        rng: breaks ties.

    Returns:
        (N,) int64 fold of each row, from 0; sizes of folds differ by at most one.
    """
    present = labels.astype(bool)
    count = len(labels)
    room = np.full(folds, count // folds)
    room[: count % folds] += 1
    missing = np.tile(present.sum(axis=0) / folds, (folds, 1))  # positives that a fold still lacks
    fold_of_row = np.full(count, -1, dtype=np.int64)

    def put(row: int, lacking: np.ndarray) -> None:
        """Put a row into the open fold that lacks most; then the emptiest one; then any."""
        preference = np.lexsort((rng.random(folds), room, lacking))
        fold = next(int(f) for f in preference[::-1] if room[f] > 0)
        fold_of_row[row] = fold
        room[fold] -= 1
        missing[fold] -= present[row]

    undecided: np.ndarray = np.asarray(present.any(axis=1))
    while undecided.any():
        left = present[undecided].sum(axis=0)
        label = int(np.argmin(np.where(left > 0, left, count + 1)))
        for row in rng.permutation(np.flatnonzero(undecided & present[:, label])):
            undecided[row] = False
            put(row, missing[:, label])
    for row in rng.permutation(np.flatnonzero(fold_of_row < 0)):
        put(row, np.zeros(folds))
    return fold_of_row


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
