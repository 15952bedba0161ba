"""The test whether scores became worse beyond noise, against a naive bootstrap and constructed cases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from bbam_ray.engine.kept_weights import (
    KeptWeights,
    difference_error,
    is_harmful,
    map_standard_error,
    share_of_changed_decisions,
)


def problem(count: int, noise: float, seed: int = 0, width: int = 4) -> tuple[Tensor, Tensor]:
    """Scores of a model with some noise, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(count, width, generator=generator) < 0.3).to(torch.int8)
    return labels + noise * torch.randn(count, width, generator=generator), labels


def mean_ap(scores: Tensor, labels: Tensor) -> float:
    columns = [k for k in range(labels.shape[1]) if labels[:, k].any()]
    return float(np.mean([average_precision_score(labels[:, k], scores[:, k]) for k in columns]))


def test_a_clear_fall_is_harm_and_a_rise_is_not() -> None:
    good, labels = problem(100, 0.3)
    bad, _ = problem(100, 2.0)
    assert is_harmful(good, bad, labels)
    assert not is_harmful(bad, good, labels)
    assert not is_harmful(good, good, labels)


def test_a_fall_within_the_noise_is_no_harm() -> None:
    """Equally good models: one of the two directions is a fall, but rarely beyond two standard errors."""
    verdicts = []
    for seed in range(40):
        labels = problem(40, 1.0, seed)[1]
        generator = torch.Generator().manual_seed(1000 + seed)
        draws = [labels + torch.randn(40, 4, generator=generator) for _ in range(2)]
        verdicts.append(is_harmful(draws[0], draws[1], labels))
    assert sum(verdicts) <= 4


def test_the_same_fall_is_harm_only_with_enough_samples() -> None:
    verdicts = {}
    for count in (12, 600):
        better, labels = problem(count, 0.8, 3)
        verdicts[count] = is_harmful(better, problem(count, 1.0, 3)[0], labels)
    assert verdicts == {12: False, 600: True}


def test_the_error_of_a_difference_is_that_of_a_naive_paired_bootstrap() -> None:
    first, labels = problem(60, 0.6, 1)
    second = problem(60, 1.2, 1)[0]
    rng = np.random.default_rng(0)
    draws = [torch.from_numpy(rng.integers(60, size=60)) for _ in range(400)]
    gaps = [
        mean_ap(first[rows], labels[rows]) - mean_ap(second[rows], labels[rows]) for rows in draws
    ]
    error = difference_error(first, second, labels)
    assert error == pytest.approx(np.std(gaps, ddof=1), rel=0.25)
    assert error == difference_error(first, second, labels)  # the same resamples
    assert error == pytest.approx(difference_error(second, first, labels))
    assert difference_error(first, first, labels) == 0


def test_the_error_of_one_model_is_that_of_a_naive_bootstrap() -> None:
    scores, labels = problem(60, 0.8, 2)
    rng = np.random.default_rng(0)
    draws = [torch.from_numpy(rng.integers(60, size=60)) for _ in range(400)]
    expected = np.std([mean_ap(scores[rows], labels[rows]) for rows in draws], ddof=1)
    assert map_standard_error(scores, labels) == pytest.approx(expected, rel=0.25)


def test_the_error_falls_with_the_root_of_the_number_of_samples_also_beyond_the_largest_draw() -> (
    None
):
    errors = [map_standard_error(*problem(count, 1.0, 5, width=1)) for count in (500, 8000)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.35)


def test_labels_without_positives_have_no_error_and_do_no_harm() -> None:
    scores = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    none = torch.zeros(10, 3, dtype=torch.int8)
    assert np.isnan(map_standard_error(scores, none))
    assert not is_harmful(scores, -scores, none)


def test_the_share_of_changed_decisions_counts_entries() -> None:
    labels = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.int8)
    right = labels.float()
    assert share_of_changed_decisions(right, 10 * right + 3, labels) == 0
    half = right.clone()
    half[:, 1] = -right[:, 1]  # no threshold separates label 1 any more
    share = share_of_changed_decisions(right, half, labels)
    assert 0 < share <= 0.5
    assert share * 8 == pytest.approx(round(share * 8))


def test_kept_weights_are_copies_and_round_trip(identical: Callable) -> None:
    average, scoring = {"w": torch.ones(2)}, {"s": torch.zeros(1)}
    logits = torch.rand(3, 2)
    kept = KeptWeights.of(4, 0.5, logits, average, scoring)
    before = KeptWeights.of(4, 0.5, logits, average, scoring).state_dict()
    for tensor in (average["w"], scoring["s"], logits):
        tensor.add_(1)
    assert identical(kept.state_dict(), before)
    again = KeptWeights.from_state_dict(kept.state_dict(), torch.device("cpu"))
    assert identical(again.state_dict(), kept.state_dict())
