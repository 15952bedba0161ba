"""Stratified folds of the labelled samples: disjoint, complete, equal in size, balanced by label."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbam_ray.data.sampling.splits import make_split, stratified_folds
from bbam_ray.errors import UsageError


def random_labels(count: int, width: int, density: float, seed: int) -> np.ndarray:
    labels = (np.random.default_rng(seed).random((count, width)) < density).astype(np.uint8)
    labels[:, 0] = 1  # there is always something to learn
    return labels


def positives(labels: np.ndarray, fold_of_row: np.ndarray, folds: int) -> np.ndarray:
    """(folds, K) numbers of positives."""
    return np.stack([labels[fold_of_row == fold].sum(0, dtype=int) for fold in range(folds)])


@settings(max_examples=80, deadline=None)
@given(
    folds=st.integers(2, 7),
    count=st.integers(7, 80),
    density=st.floats(0, 1),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_row_has_one_fold_and_sizes_differ_by_at_most_one(
    folds: int, count: int, density: float, seed: int
) -> None:
    labels = (np.random.default_rng(seed).random((count, 4)) < density).astype(np.uint8)
    fold_of_row = stratified_folds(labels, folds, np.random.default_rng(seed))
    assert fold_of_row.shape == (count,) and fold_of_row.dtype == np.int64
    sizes = np.bincount(fold_of_row, minlength=folds)
    assert len(sizes) == folds and sizes.max() - sizes.min() <= 1


@settings(max_examples=60, deadline=None)
@given(
    folds=st.integers(2, 6),
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=5),
    blank=st.integers(0, 20),
    seed=st.integers(0, 2**31 - 1),
)
def test_positives_of_a_label_differ_by_at_most_one_if_rows_have_at_most_one_label(
    folds: int, sizes: list[int], blank: int, seed: int
) -> None:
    label_of_row = np.repeat(np.arange(len(sizes) + 1), [*sizes, blank])
    if len(label_of_row) < folds:
        return
    labels = np.eye(len(sizes) + 1, dtype=np.uint8)[label_of_row][:, :-1]
    rng = np.random.default_rng(seed)
    labels = labels[rng.permutation(len(labels))]
    counts = positives(labels, stratified_folds(labels, folds, rng), folds)
    assert (counts.max(0) - counts.min(0) <= 1).all()


def test_positives_of_labels_that_overlap_are_far_more_even_than_by_chance() -> None:
    spreads = []
    for seed in range(20):
        labels = random_labels(60, 6, 0.15, seed)[:, 1:]
        rng = np.random.default_rng(seed)
        fold_of_row = stratified_folds(labels, 5, rng)
        both = [positives(labels, rows, 5) for rows in (fold_of_row, rng.permutation(fold_of_row))]
        spreads.append([(counts - counts.mean(0)).var() for counts in both])
    stratified, random = np.mean(spreads, axis=0)
    assert stratified < 0.3 * random


def test_every_fold_has_a_positive_of_each_label_that_has_as_many_as_folds() -> None:
    for seed in range(20):
        labels = np.zeros((40, 5), dtype=np.uint8)
        rng = np.random.default_rng(seed)
        for label in range(5):
            labels[rng.choice(40, 5 + label, replace=False), label] = 1
        counts = positives(labels, stratified_folds(labels, 5, rng), 5)
        assert (counts[:, 0] == 1).all()  # the rarest label is decided first
        assert (counts > 0).mean() > 0.9


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_of_a_split_are_disjoint_and_cover_the_pool(folds: int) -> None:
    labels = random_labels(90, 4, 0.3, 0)
    splits = [make_split(labels, 0.4, 0.2, 3, folds=folds, fold=fold) for fold in range(folds)]
    pool = splits[0].pool
    assert len(pool) == 36
    held_out = [split.validation for split in splits]
    assert sorted(np.concatenate(held_out).tolist()) == pool.tolist()
    for fold, split in enumerate(splits):
        assert split.folds is not None and np.array_equal(split.folds, splits[0].folds)
        assert np.array_equal(pool[split.folds == fold], split.validation)
        assert np.array_equal(split.labeled, np.setdiff1d(pool, split.validation))
        assert np.array_equal(split.unlabeled, np.setdiff1d(np.arange(90), pool))
        assert (np.diff(split.labeled) > 0).all() and (np.diff(split.validation) > 0).all()


@pytest.mark.parametrize("stratified", [False, True])
def test_the_pool_is_the_same_for_any_number_of_folds(stratified: bool) -> None:
    labels = random_labels(90, 4, 0.3, 1)
    whole = make_split(labels, 0.4, 0.2, 3, stratified=stratified)
    assert whole.folds is None
    for folds, validation_fraction in itertools.product((2, 4, 7), (0.0, 0.3)):
        split = make_split(
            labels, 0.4, validation_fraction, 3, stratified=stratified, folds=folds, fold=1
        )
        assert np.array_equal(split.pool, whole.pool)
        assert np.array_equal(split.unlabeled, whole.unlabeled)


def test_folds_are_a_function_of_the_seed_and_of_labels_in_the_pool() -> None:
    labels = random_labels(90, 4, 0.3, 1)
    first = make_split(labels, 0.4, 0.2, 3, folds=4)
    again = make_split(labels, 0.4, 0.2, 3, folds=4)
    assert first.folds is not None and again.folds is not None
    assert np.array_equal(first.folds, again.folds)
    hidden = labels.copy()
    hidden[first.unlabeled] = 1 - hidden[first.unlabeled]
    unaware = make_split(hidden, 0.4, 0.2, 3, folds=4)
    assert np.array_equal(unaware.validation, first.validation)
    assert not np.array_equal(make_split(labels, 0.4, 0.2, 4, folds=4).pool, first.pool)
    # The same pool, in which another seed draws other folds.
    everything = [make_split(labels, 1.0, 0.2, seed, folds=4).folds for seed in (3, 4)]
    assert not np.array_equal(*everything)


def test_samples_without_labels_are_in_no_fold() -> None:
    labels = random_labels(60, 3, 0.4, 2)
    is_labeled = np.arange(60) % 3 > 0
    split = make_split(labels, None, 0.2, 0, is_labeled=is_labeled, folds=3, fold=2)
    assert np.array_equal(split.pool, np.flatnonzero(is_labeled))


def test_more_folds_than_labelled_samples_are_wrong_usage() -> None:
    labels = random_labels(40, 3, 0.4, 2)
    assert len(make_split(labels, 0.1, 0.2, 0, folds=4).pool) == 4
    with pytest.raises(
        UsageError, match="folds = 5: only 4 samples are labelled; lower --folds or"
    ):
        make_split(labels, 0.1, 0.2, 0, folds=5)


def test_a_fold_without_a_positive_is_wrong_usage() -> None:
    labels = np.zeros((40, 2), dtype=np.uint8)
    labels[:2, 0] = 1  # two positives for three folds
    errors = []
    for fold in range(3):
        try:
            make_split(labels, 1.0, 0.2, 0, folds=3, fold=fold)
        except UsageError as error:
            errors.append(str(error))
    (message,) = errors
    assert message.startswith("folds = 3: the ") and "of the fold" in message
    assert message.endswith("have no positive label; lower --folds or raise --labeled-fraction")


def test_other_folds_without_a_positive_are_wrong_usage() -> None:
    labels = np.zeros((40, 2), dtype=np.uint8)
    labels[7, 0] = 1
    messages = set()
    for fold in range(2):
        with pytest.raises(UsageError, match="have no positive label") as error:
            make_split(labels, 1.0, 0.2, 0, folds=2, fold=fold)
        messages.add(str(error.value).split(" have ")[0].rsplit("of the ", 1)[1][:4])
    assert messages == {"othe", "fold"}
