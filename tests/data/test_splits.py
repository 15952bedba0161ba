"""The split into labelled, validation and unlabelled samples: disjoint, reproducible, stratified."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bbam_ray.data.sampling.splits import make_split, stratified_subset
from bbam_ray.errors import UsageError


def random_labels(count: int, width: int, density: float, seed: int) -> np.ndarray:
    labels = (np.random.default_rng(seed).random((count, width)) < density).astype(np.uint8)
    labels[:, 0] = 1  # there is always something to learn
    return labels


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(20, 90),
    labeled=st.sampled_from([0.1, 0.25, 0.5, 0.9]),
    validation=st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    density=st.floats(0.02, 0.6),
    seed=st.integers(0, 2**31 - 1),
)
def test_a_split_covers_all_rows_once_with_the_sizes_asked_for(
    count: int, labeled: float, validation: float, density: float, seed: int
) -> None:
    labels = random_labels(count, 4, density, seed)
    split = make_split(labels, labeled, validation, seed)
    parts = (split.labeled, split.validation, split.unlabeled)
    for part in parts:
        assert part.dtype == np.int64 and (np.diff(part) > 0).all()
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    pool = len(split.labeled) + len(split.validation)
    assert pool == int(labeled * count)
    if validation == 0:
        assert len(split.validation) == 0
    else:
        assert 1 <= len(split.validation) < pool
        assert abs(len(split.validation) - validation * pool) <= 1


def test_the_labelled_pool_is_the_beginning_of_one_permutation() -> None:
    labels = random_labels(80, 3, 0.3, 0)
    pools = []
    for fraction in (0.1, 0.25, 0.5, 0.75):
        split = make_split(labels, fraction, 0.25, seed=5)
        pools.append(set(split.labeled) | set(split.validation))
        without = make_split(labels, fraction, 0.0, seed=5)
        assert set(without.labeled) == pools[-1]  # validation comes out of the pool, not beside it
    assert all(small < large for small, large in itertools.pairwise(pools))
    assert pools[2] != set(range(40))


def test_a_split_is_a_function_of_its_seed() -> None:
    labels = random_labels(80, 3, 0.3, 0)
    first, again, other = (make_split(labels, 0.25, 0.4, seed) for seed in (1, 1, 2))
    for name in ("labeled", "validation", "unlabeled"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


def test_labels_outside_the_pool_do_not_influence_the_split() -> None:
    labels = random_labels(80, 3, 0.3, 0)
    first = make_split(labels, 0.25, 0.4, 1)
    hidden = labels.copy()
    hidden[first.unlabeled] = 1 - hidden[first.unlabeled]
    second = make_split(hidden, 0.25, 0.4, 1)
    assert np.array_equal(first.labeled, second.labeled)
    assert np.array_equal(first.validation, second.validation)


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(4, 40),
    width=st.integers(1, 5),
    density=st.floats(0.02, 0.9),
    share=st.floats(0, 1),
    seed=st.integers(0, 10_000),
)
def test_the_training_side_keeps_a_positive_of_every_label(
    count: int, width: int, density: float, share: float, seed: int
) -> None:
    """As many rows as labels stay outside, so one row of each label can always be kept there."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, width)) < density).astype(np.uint8)
    size = int(share * max(count - width, 0))
    inside = stratified_subset(labels, size, rng)
    assert inside.dtype == bool and inside.shape == (count,) and inside.sum() == size
    totals, outside = labels.sum(axis=0), labels[~inside].sum(axis=0)
    assert (outside[totals >= 1] >= 1).all()
    assert (labels[inside].sum(axis=0)[totals == 1] == 0).all()


@pytest.mark.parametrize("density", [0.1, 0.4])
def test_many_nearly_full_subsets_leave_every_label_a_positive(density: float) -> None:
    """With few rows outside, filling up takes a last positive most easily."""
    for seed in range(300):
        rng = np.random.default_rng(seed)
        count, width = int(rng.integers(6, 30)), int(rng.integers(2, 6))
        labels = (rng.random((count, width)) < density).astype(np.uint8)
        inside = stratified_subset(labels, count - width, rng)
        present = labels.any(axis=0)
        assert labels[~inside].any(axis=0).tolist() == present.tolist(), seed


def test_filling_up_does_not_take_the_last_positive() -> None:
    labels = np.zeros((20, 1), dtype=np.uint8)
    labels[[3, 7]] = 1
    for seed in range(20):
        inside = stratified_subset(labels, 10, np.random.default_rng(seed))
        assert inside.sum() == 10
        assert labels[inside].sum() == labels[~inside].sum() == 1


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    share=st.floats(0, 1),
    seed=st.integers(0, 10_000),
)
def test_validation_has_a_positive_of_every_label_with_two_where_there_is_room(
    sizes: list[int], share: float, seed: int
) -> None:
    """One label a row: with room for every label on both sides, both sides can have all of them."""
    width = len(sizes)
    labels = np.zeros((sum(sizes) + 2 * width, width), dtype=np.uint8)
    for row, label in enumerate(np.repeat(np.arange(width), sizes)):
        labels[row, label] = 1
    size = width + int(share * sum(sizes))
    inside = stratified_subset(labels, size, np.random.default_rng(seed))
    totals = labels.sum(axis=0)
    assert (labels[inside].sum(axis=0)[totals >= 2] >= 1).all()
    assert (labels[~inside].sum(axis=0)[totals >= 1] >= 1).all()


def test_stratification_is_closer_to_the_shares_than_chance() -> None:
    labels = (np.random.default_rng(0).random((200, 6)) < 0.06).astype(np.uint8)
    rng = np.random.default_rng(1)
    wanted = labels.sum(axis=0) * 0.4

    def distance(inside: np.ndarray) -> float:
        return float(np.abs(labels[inside].sum(axis=0) - wanted).sum())

    drawn = [distance(rng.permutation(200)[:80]) for _ in range(20)]
    made = [distance(stratified_subset(labels, 80, rng)) for _ in range(20)]
    assert np.mean(made) < 0.7 * np.mean(drawn)


@pytest.mark.parametrize("fraction", [0.01, 0.25])
def test_nothing_to_learn_from_is_wrong_usage(fraction: float) -> None:
    """An empty pool, and a pool without a single positive label."""
    with pytest.raises(UsageError, match="--labeled-fraction"):
        make_split(np.zeros((40, 3), dtype=np.uint8), fraction, 0.2, 0)


def test_validation_without_positives_is_wrong_usage() -> None:
    labels = np.zeros((40, 2), dtype=np.uint8)
    pool = make_split(np.ones((40, 2), dtype=np.uint8), 0.25, 0.0, 0).labeled
    labels[pool[0]] = 1  # a single positive sample, which training keeps
    with pytest.raises(UsageError, match=r"labeled_fraction.*validation_fraction"):
        make_split(labels, 0.25, 0.2, 0)
    assert pool[0] in make_split(labels, 0.25, 0.0, 0).labeled


def test_a_validation_part_is_held_out_and_never_drawn_into_the_pool() -> None:
    labels = random_labels(100, 4, 0.3, 0)
    own = np.arange(100) % 5 == 0
    split = make_split(labels, 0.25, 0.3, 0, is_validation=own)
    np.testing.assert_array_equal(split.validation, np.flatnonzero(own))
    assert (
        len(split.labeled) == 20 and not own[split.labeled].any() and not own[split.unlabeled].any()
    )
    together = np.concatenate([split.labeled, split.validation, split.unlabeled])
    assert sorted(together) == list(range(100))
    without = make_split(labels, 0.25, 0.0, 0, is_validation=own)
    assert set(without.labeled) == set(split.pool) and not len(without.validation)
    np.testing.assert_array_equal(without.unlabeled, split.unlabeled)
    known = np.arange(100) < 60
    every = make_split(labels, None, 0.3, 0, is_validation=own & known, is_labeled=known)
    assert len(every.labeled) == 48 and len(every.validation) == 12


def test_a_validation_part_excludes_folds_and_other_draws() -> None:
    labels, own = random_labels(100, 4, 0.3, 0), np.arange(100) < 20
    for arguments in ({"folds": 2}, {"validation_draw": 3}):
        with pytest.raises(UsageError, match="the data have a validation part"):
            make_split(labels, 0.5, 0.2, 0, is_validation=own, **arguments)
    labels[own] = 0
    with pytest.raises(UsageError, match="20 validation samples have no positive label"):
        make_split(labels, 0.5, 0.2, 0, is_validation=own)
