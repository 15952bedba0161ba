"""Class-distribution-aware pseudo-labels against sorting and golden values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bbam_ray.core.losses import balanced_cosine
from bbam_ray.core.pseudo_labels import assign_pseudo_labels
from bbam_ray.core.statistics import AngleStatistics

GOLDEN = Path(__file__).parents[1] / "golden" / "pseudo_labels.npz"
FREQUENCY = torch.tensor(
    [0.25, 0.5, 0.03125, 0.0, 1.0]
)  # exact in binary, so that floors are exact


def highest(scores: np.ndarray, count: int, index: np.ndarray, sign: int = 1) -> np.ndarray:
    rows = sorted(range(len(scores)), key=lambda i: (-sign * float(scores[i]), index[i]))
    chosen = np.zeros(len(scores), dtype=bool)
    chosen[rows[:count]] = True
    return chosen


@pytest.mark.parametrize("rows", [1, 7, 64, 101])
@pytest.mark.parametrize("keep", [(1.0, 1.0), (0.75, 0.5), (0.0, 0.0)])
def test_labels_and_confidence_are_those_of_a_sort(rows: int, keep: tuple[float, float]) -> None:
    scores = np.random.default_rng(rows).standard_normal((rows, 5)).astype(np.float32)
    labels, confident = assign_pseudo_labels(
        torch.from_numpy(scores), FREQUENCY, positive_keep=keep[0], negative_keep=keep[1]
    )
    assert labels.dtype == torch.int8 and confident.dtype == torch.bool
    index = np.arange(rows)
    for k, f in enumerate(FREQUENCY.tolist()):
        column = scores[:, k]
        positive = highest(column, math.floor(f * rows), index)
        sure = highest(column, math.floor(keep[0] * f * rows), index)
        low = highest(column, math.floor(keep[1] * (1 - f) * rows), index, -1)
        np.testing.assert_array_equal(labels[:, k].numpy() == 1, positive)
        np.testing.assert_array_equal(confident[:, k].numpy(), sure | low)


def test_tied_scores_become_positive_by_lower_index_and_in_exact_number() -> None:
    scores = np.random.default_rng(0).integers(0, 3, (64, 5)).astype(np.float32)
    index = np.random.default_rng(1).permutation(1000)[:64]
    labels, confident = assign_pseudo_labels(
        torch.from_numpy(scores), FREQUENCY, negative_keep=0.0, index=torch.from_numpy(index)
    )
    for k, f in enumerate(FREQUENCY.tolist()):
        expected = highest(scores[:, k], math.floor(f * 64), index)
        np.testing.assert_array_equal(labels[:, k].numpy() == 1, expected)
        np.testing.assert_array_equal(confident[:, k].numpy(), expected)


@pytest.mark.parametrize("keep", [(1.0, 1.0), (0.5, 0.75)])
def test_ties_across_the_thresholds_leave_the_numbers_exact(keep: tuple[float, float]) -> None:
    """One entry cannot be among the highest and the lowest at once (docs/method.md, section 5)."""
    labels, confident = assign_pseudo_labels(
        torch.zeros(64, 1), torch.tensor([0.5]), positive_keep=keep[0], negative_keep=keep[1]
    )
    assert int(labels.sum()) == 32
    assert int((confident & (labels == 1)).sum()) == 32 * keep[0]
    assert int((confident & (labels == 0)).sum()) == 32 * keep[1]


def test_a_count_of_zero_selects_nothing() -> None:
    scores = torch.randn(20, 1, generator=torch.Generator().manual_seed(0))
    rare, never = torch.tensor([0.04]), torch.tensor([0.0])
    for frequency in (rare, never):
        labels, confident = assign_pseudo_labels(scores, frequency, negative_keep=0.0)
        assert int(labels.sum()) == 0 and not bool(confident.any())
    labels, confident = assign_pseudo_labels(scores, torch.tensor([1.0]), positive_keep=0.04)
    assert int(labels.sum()) == 20 and not bool(confident.any())


def test_no_rows_give_no_labels() -> None:
    labels, confident = assign_pseudo_labels(torch.empty(0, 5), FREQUENCY)
    assert labels.shape == confident.shape == (0, 5)


def test_rows_may_come_in_any_order_when_they_carry_their_index() -> None:
    scores = torch.from_numpy(np.random.default_rng(3).integers(0, 6, (50, 5)).astype(np.float32))
    order = torch.from_numpy(np.random.default_rng(4).permutation(50))
    whole = assign_pseudo_labels(scores, FREQUENCY, positive_keep=0.5)
    moved = assign_pseudo_labels(scores[order], FREQUENCY, positive_keep=0.5, index=order)
    for ours, theirs in zip(whole, moved, strict=True):
        assert torch.equal(ours[order], theirs)


def test_only_the_order_of_the_scores_matters() -> None:
    scores = torch.randn(60, 5, generator=torch.Generator().manual_seed(5))
    first = assign_pseudo_labels(scores, FREQUENCY)
    second = assign_pseudo_labels(scores.double().exp().float(), FREQUENCY)
    for ours, theirs in zip(first, second, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", ["plain", "balanced"])
@pytest.mark.parametrize(("name", "keep"), [("p1_n0.998", (1.0, 0.998)), ("p0.7_n0.9", (0.7, 0.9))])
def test_golden_pseudo_labels(kind: str, name: str, keep: tuple[float, float]) -> None:
    z = np.load(GOLDEN)
    scores: Tensor = torch.from_numpy(z["cosine"])
    if kind == "balanced":
        stats = AngleStatistics(torch.from_numpy(z["means"]), torch.from_numpy(z["variances"]))
        scores = balanced_cosine(scores, 0.5, stats)
    labels, confident = assign_pseudo_labels(
        scores,
        torch.from_numpy(z["positive_frequency"]),
        positive_keep=keep[0],
        negative_keep=keep[1],
    )
    for got, part in ((labels, "labels"), (confident, "mask")):
        wrong = got.numpy().astype(np.int8) != z[f"{name}_{kind}_{part}"]
        assert wrong.sum(0).max() <= 2, wrong.sum(0)
