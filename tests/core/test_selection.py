"""Radix selection against sorting, with ties, signed zeros, infinities and shuffled indices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bbam_ray.core.selection import ordered_keys, select_highest

SPECIAL = [-math.inf, -3.4e38, -1.0, -1e-40, -0.0, 0.0, 1e-40, 1.0, 1 + 2**-23, 3.4e38, math.inf]


def sorted_reference(
    scores: np.ndarray, candidates: np.ndarray, counts: list[int], index: list[int]
) -> np.ndarray:
    chosen = np.zeros(scores.shape, dtype=bool)
    for k in range(scores.shape[1]):
        rows = [i for i in range(len(scores)) if candidates[i, k]]
        rows.sort(key=lambda i: (-float(scores[i, k]), index[i]))
        chosen[rows[: max(counts[k], 0)], k] = True
    return chosen


@st.composite
def selections(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[int], list[int] | None]:
    rows, labels = draw(st.integers(0, 12)), draw(st.integers(1, 3))
    value = st.one_of(
        st.sampled_from(SPECIAL), st.floats(width=32, allow_nan=False), st.sampled_from([0.25, 0.5])
    )
    cells = rows * labels
    scores = draw(st.lists(value, min_size=cells, max_size=cells))
    candidates = draw(st.lists(st.booleans(), min_size=cells, max_size=cells))
    counts = draw(st.lists(st.integers(0, rows + 2), min_size=labels, max_size=labels))
    numbers = st.integers(0, 2**31 - 2)
    index = draw(st.none() | st.lists(numbers, min_size=rows, max_size=rows, unique=True))
    return (
        np.array(scores, dtype=np.float32).reshape(rows, labels),
        np.array(candidates, dtype=bool).reshape(rows, labels),
        counts,
        index,
    )


@settings(max_examples=150, deadline=None)
@given(selections())
def test_selection_is_that_of_a_sort(
    case: tuple[np.ndarray, np.ndarray, list[int], list[int] | None],
) -> None:
    scores, candidates, counts, index = case
    given_index = None if index is None else torch.tensor(index, dtype=torch.int64)
    got = select_highest(
        torch.from_numpy(scores), torch.from_numpy(candidates), torch.tensor(counts), given_index
    )
    expected = sorted_reference(scores, candidates, counts, index or list(range(len(scores))))
    np.testing.assert_array_equal(got.numpy(), expected)


def test_keys_have_the_order_of_the_scores() -> None:
    keys = ordered_keys(torch.tensor(SPECIAL)).tolist()
    assert keys[4] == keys[5]  # -0 and +0
    distinct = keys[:4] + keys[5:]
    assert distinct == sorted(set(distinct))


@settings(max_examples=100, deadline=None)
@given(st.floats(width=32, allow_nan=False), st.floats(width=32, allow_nan=False))
def test_keys_compare_like_scores(a: float, b: float) -> None:
    first, second = ordered_keys(torch.tensor([a, b])).tolist()
    assert (first > second, first == second) == (a > b, a == b)


@pytest.mark.parametrize("score", [0.0, -7.5, math.inf, -math.inf])
@pytest.mark.parametrize("wanted", [0, 1, 5, 9, 10])
def test_constant_scores_select_the_lowest_indices(score: float, wanted: int) -> None:
    everything = torch.ones(10, 1, dtype=torch.bool)
    counts, scores = torch.tensor([wanted]), torch.full((10, 1), score)
    got = select_highest(scores, everything, counts)
    assert got[:, 0].tolist() == [i < wanted for i in range(10)]
    backwards = torch.arange(9, -1, -1)
    got = select_highest(scores, everything, counts, backwards)
    assert got[:, 0].tolist() == [i >= 10 - wanted for i in range(10)]


def test_many_rows_in_small_blocks_are_selected_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bbam_ray.core.rows._BLOCK_ENTRIES", 100)
    rng = np.random.default_rng(0)
    scores = rng.integers(-20, 20, (500, 3)).astype(np.float32) / 8
    candidates, counts = rng.random((500, 3)) < 0.7, [1, 173, 499]
    got = select_highest(
        torch.from_numpy(scores), torch.from_numpy(candidates), torch.tensor(counts)
    )
    expected = sorted_reference(scores, candidates, counts, list(range(500)))
    np.testing.assert_array_equal(got.numpy(), expected)
