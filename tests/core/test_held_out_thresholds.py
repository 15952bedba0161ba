"""Thresholds for pseudo-labels against loops over candidates and samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import fbeta_score

from bbam_ray.core.held_out_thresholds import counts_beyond, metric_thresholds, midrange_thresholds
from bbam_ray.core.pseudo_labels import assign_pseudo_labels

Draw = Callable[[int], tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def draw() -> Draw:
    """Logits and labels of 50 samples; label 2 has one positive, label 3 none, label 4 no negative."""

    def make(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(seed)
        labels = (rng.random((50, 5)) < 0.3).astype(np.int8)
        labels[:, 2:] = [0, 0, 1]
        labels[7, 2] = 1
        logits = (rng.standard_normal((50, 5)) * 2 + labels).astype(np.float32)
        return torch.from_numpy(logits), torch.from_numpy(labels)

    return make


@pytest.mark.parametrize("beta", [0.25, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_no_cut_has_a_higher_f_beta(seed: int, beta: float, draw: Draw) -> None:
    logits, labels = draw(seed)
    thresholds = metric_thresholds(logits, labels, beta=beta, at_least=1)
    assert torch.equal(thresholds[0].isnan(), torch.tensor([False, False, False, True, False]))
    assert torch.equal(thresholds[0][~thresholds[0].isnan()], thresholds[1][~thresholds[1].isnan()])
    for k in (0, 1, 2, 4):
        column, y = logits[:, k].numpy(), labels[:, k].numpy()
        reached = fbeta_score(y, column >= float(thresholds[1, k]), beta=beta)
        best = max(fbeta_score(y, column >= cut, beta=beta) for cut in column)
        assert reached == pytest.approx(best)


def test_a_label_with_too_few_positives_has_no_threshold(draw: Draw) -> None:
    logits, labels = draw(0)
    counts = labels.sum(0)
    for at_least in (1, 2, int(counts[0]), int(counts[0]) + 1):
        thresholds = metric_thresholds(logits, labels, beta=0.5, at_least=at_least)
        assert torch.equal(thresholds[1].isnan(), counts < at_least)
        both = midrange_thresholds(logits, labels, at_least=at_least)
        assert torch.equal(both[1].isnan(), (counts < at_least) | (50 - counts < at_least))
        assert torch.equal(both[0].isnan(), both[1].isnan())
    nothing = logits[:0], labels[:0]
    assert metric_thresholds(*nothing, beta=0.5, at_least=1).isnan().all()
    assert midrange_thresholds(*nothing, at_least=1).isnan().all()


@pytest.mark.parametrize("seed", range(4))
def test_mid_ranges_are_those_of_a_loop(seed: int, draw: Draw) -> None:
    logits, labels = draw(seed)
    found = midrange_thresholds(logits, labels, at_least=1)
    for k in range(3):
        p: dict[int, list[float]] = {0: [], 1: []}
        for z, y in zip(logits[:, k].tolist(), labels[:, k].tolist(), strict=True):
            p[y].append(1 / (1 + math.exp(-z)))
        low, high = ((min(p[y]) + max(p[y])) / 2 for y in (0, 1))
        if low > high:
            low = high = (low + high) / 2
        assert found[0, k] == pytest.approx(math.log(low / (1 - low)), rel=1e-6)
        assert found[1, k] == pytest.approx(math.log(high / (1 - high)), rel=1e-6)
        assert found[0, k] <= found[1, k]


def test_counts_are_those_of_comparisons_and_no_entry_counts_twice() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0], [1.0, 1.0, 5.0], [-1.0, 1.0, 5.0], [-3.0, 0.0, 0.0]])
    thresholds = torch.tensor([[-1.0, 1.0, math.nan], [2.0, 1.0, math.nan]], dtype=torch.float64)
    counts = counts_beyond(logits, thresholds)
    assert counts[:, :2].tolist() == [[2.0, 1.0], [1.0, 3.0]]
    assert counts[:, 2].isnan().all()


@pytest.mark.parametrize("seed", range(3))
def test_labels_by_counts_are_those_of_the_thresholds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = torch.from_numpy(np.round(rng.standard_normal((80, 4)) * 2, 1).astype(np.float32))
    thresholds = torch.tensor(
        [[-1.0, 0.5, math.nan, -9.0], [1.0, 0.5, math.nan, 9.0]], dtype=torch.float64
    )
    labels, confident = assign_pseudo_labels(
        scores,
        torch.full((4,), 0.25),
        negative_keep=1.0,
        counts=counts_beyond(scores, thresholds),
    )
    for k in (0, 1, 3):
        low, high = thresholds[:, k].tolist()
        positive = scores[:, k] >= high
        negative = (scores[:, k] <= low) & ~positive
        assert torch.equal(labels[:, k].bool(), positive)
        assert torch.equal(confident[:, k], positive | negative)
    plain = assign_pseudo_labels(scores, torch.full((4,), 0.25), negative_keep=1.0)
    assert torch.equal(labels[:, 2], plain[0][:, 2])  # without a threshold: by frequency
    assert torch.equal(confident[:, 2], plain[1][:, 2])


def test_shares_of_confident_entries_apply_to_counts() -> None:
    scores = torch.arange(40.0).view(40, 1)
    labels, confident = assign_pseudo_labels(
        scores,
        torch.tensor([0.9]),
        positive_keep=0.5,
        negative_keep=0.25,
        counts=torch.tensor([[21.0], [11.0]]),
    )
    assert labels.flatten().nonzero().flatten().tolist() == list(range(29, 40))
    assert confident.flatten().nonzero().flatten().tolist() == [*range(5), *range(35, 40)]
