"""Tuned decision thresholds against a search over every possible threshold; rules for few positives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from bbam_ray.core.calibration import Calibration, fit_calibration
from bbam_ray.core.thresholds import (
    expected_f1_threshold,
    robust_thresholds,
    tune_thresholds,
)


def best_cut(scores: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
    """Highest F1 of any threshold, and the smallest number of samples above a threshold with this F1."""
    results = []
    for cut in np.unique(scores):
        predicted = scores >= cut
        results.append((f1_score(labels, predicted, zero_division=0), -int(predicted.sum())))
    f1, count = max(results)
    return f1, -count


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_no_threshold_is_better_and_equal_ones_are_lower(seed: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random((40, 4)) < [0.05, 0.3, 0.6, 1.0]).astype(np.int64)
    labels[0] = 1
    scores = (rng.standard_normal((40, 4)) + labels).astype(np.float32)
    scores = np.round(scores) if tied else scores
    limits = tune_thresholds(torch.from_numpy(scores), torch.from_numpy(labels)).numpy()
    assert limits.dtype == np.float32 and limits.shape == (4,)
    for k in range(4):
        predicted = scores[:, k] >= limits[k]
        f1, count = best_cut(scores[:, k], labels[:, k])
        assert f1_score(labels[:, k], predicted) == pytest.approx(f1)
        assert predicted.sum() == count
        assert limits[k] not in scores[:, k] or tied  # half-way between two scores


def test_neighbouring_scores_are_still_separated() -> None:
    """Half-way between two neighbouring float32 numbers is one of the two."""
    high = np.float32(0.9)
    for _ in range(4):
        low = np.nextafter(high, np.float32(0))
        scores = torch.tensor([[high], [low]])
        limit = tune_thresholds(scores, torch.tensor([[1], [0]]))
        assert (scores >= limit)[:, 0].tolist() == [True, False]
        high = low


def test_labels_without_positives_or_samples_get_the_fallback() -> None:
    scores, labels = torch.rand(6, 2), torch.tensor([[0, 1]] * 6)
    limits = tune_thresholds(scores, labels, fallback=0.25)
    assert float(limits[0]) == 0.25 and float(limits[1]) <= float(scores[:, 1].min())
    assert tune_thresholds(torch.empty(0, 3), torch.empty(0, 3), fallback=0.5).tolist() == [0.5] * 3


def test_constant_scores_leave_everything_positive() -> None:
    limits = tune_thresholds(torch.full((5, 1), 2.0), torch.tensor([[1], [0], [0], [0], [0]]))
    assert float(limits) < 2.0


def test_the_order_of_samples_does_not_matter() -> None:
    g = torch.Generator().manual_seed(0)
    scores, labels = torch.rand(30, 3, generator=g), torch.randint(0, 2, (30, 3), generator=g)
    order = torch.randperm(30, generator=g)
    assert torch.equal(
        tune_thresholds(scores, labels), tune_thresholds(scores[order], labels[order])
    )


def calibrated(seed: int, n: int = 80, k: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, k, generator=g)
    odds = 2 * scores + torch.linspace(-3, 0, k)
    return scores, (torch.rand(n, k, generator=g) < odds.sigmoid()).int()


@pytest.mark.parametrize("seed", range(4))
def test_the_shared_threshold_has_the_highest_expected_micro_f1(seed: int) -> None:
    log_odds = fit_calibration(*calibrated(seed)).log_odds(calibrated(seed)[0])
    chances = log_odds.sigmoid()

    def expected_f1(limit: float) -> float:
        predicted = log_odds >= limit
        return float(2 * chances[predicted].sum() / (predicted.sum() + chances.sum()))

    limit = float(expected_f1_threshold(log_odds))
    best = max(expected_f1(cut) for cut in log_odds.flatten().tolist())
    assert expected_f1(limit) == pytest.approx(best, abs=1e-12)
    assert limit not in log_odds.flatten().tolist()


def test_the_shared_threshold_is_a_probability_of_half_the_best_f1() -> None:
    """The theorem of Lipton et al., in the limit of many entries."""
    chances = torch.linspace(1e-4, 1 - 1e-4, 20_001).double().pow(2)
    limit = float(expected_f1_threshold(chances.logit()[:, None]).sigmoid())
    predicted = chances >= limit
    f1 = float(2 * chances[predicted].sum() / (predicted.sum() + chances.sum()))
    assert limit == pytest.approx(f1 / 2, abs=1e-3)


def test_equal_scores_are_not_separated() -> None:
    log_odds = torch.tensor([[1.0], [1.0], [-9.0]])
    assert float(expected_f1_threshold(log_odds)) == -4.0
    assert float(expected_f1_threshold(torch.zeros(4, 2))) == -0.5


def test_robust_thresholds_lie_between_the_shared_and_the_own_one() -> None:
    scores, labels = calibrated(1)
    calibration = fit_calibration(scores, labels)
    positives = labels.sum(0).double()
    shared = robust_thresholds(scores, labels, calibration, own=float("inf")).double()
    log_odds = calibration.log_odds(scores)
    limit = expected_f1_threshold(log_odds)
    assert torch.allclose(shared, calibration.scores_at(limit), atol=1e-5)
    single = robust_thresholds(scores, labels, calibration, own=0)
    assert torch.equal(scores >= single, scores >= tune_thresholds(scores, labels))
    mixed = robust_thresholds(scores, labels, calibration, own=20)
    share = positives / (positives + 20)
    assert torch.allclose(mixed.double(), share * single + (1 - share) * shared, atol=1e-5)


def test_a_label_without_positives_gets_the_shared_threshold() -> None:
    scores, labels = calibrated(2)
    labels[:, 1] = 0
    calibration = fit_calibration(scores, labels)
    limits = robust_thresholds(scores, labels, calibration, own=1)
    limit = expected_f1_threshold(calibration.log_odds(scores))
    assert float(limits[1]) == pytest.approx(float(calibration.scores_at(limit)[1]))


def test_thresholds_follow_the_scale_of_the_scores() -> None:
    scores, labels = calibrated(3)
    limits = [
        robust_thresholds(c * scores, labels, fit_calibration(c * scores, labels)) for c in (1, 50)
    ]
    assert torch.allclose(50 * limits[0], limits[1], rtol=1e-4)


def test_without_samples_or_positives_the_threshold_is_a_probability_of_one_half() -> None:
    calibration = Calibration(torch.tensor([2.0, 4.0]).double(), torch.tensor([1.0, -2.0]).double())
    empty = torch.empty(0, 2)
    assert robust_thresholds(empty, empty, calibration).tolist() == [-0.5, 0.5]
    none = robust_thresholds(torch.randn(5, 2), torch.zeros(5, 2, dtype=torch.int8), calibration)
    assert none.tolist() == [-0.5, 0.5]
    with pytest.raises(ValueError, match="own = -1"):
        robust_thresholds(empty, empty, calibration, own=-1)
