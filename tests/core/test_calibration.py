"""Calibration against a general optimiser on the formula as written, and its properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from bbam_ray.core.calibration import expected_calibration_error, fit_calibration
from bbam_ray.core.metrics import average_precision


def draw(seed: int, n: int = 60, k: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of different slopes by label, and labels from rare to frequent."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, k, generator=g)
    odds = torch.linspace(0.5, 3, k) * scores + torch.linspace(-3, 1, k)
    return scores, (torch.rand(n, k, generator=g) < odds.sigmoid()).int()


def naive_loss(parameters: np.ndarray, z: np.ndarray, y: np.ndarray, ridge: float) -> float:
    """Cross-entropy with Platt's targets plus penalties; one label after the other, in units of std."""
    num_labels = z.shape[1]
    shared, total = parameters[0], 0.5e-2 * parameters[0] ** 2
    for k in range(num_labels):
        log_slope, offset = parameters[1 + k], parameters[1 + num_labels + k]
        positives = int(y[:, k].sum())
        for score, label in zip(z[:, k], y[:, k], strict=True):
            target = (positives + 1) / (positives + 2) if label else 1 / (len(z) - positives + 2)
            logit = np.exp(log_slope) * score + offset
            total += np.logaddexp(0, logit) - target * logit
        total += ridge / 2 * (log_slope - shared) ** 2
    return float(total)


@pytest.mark.parametrize("ridge", [0.5, 4.0, 50.0])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_minimum_of_the_formula(seed: int, ridge: float) -> None:
    scores, labels = draw(seed)
    z, y = scores.double().numpy(), labels.numpy()
    scale = z.std()
    fitted = fit_calibration(scores, labels, ridge=ridge)
    best = minimize(naive_loss, np.zeros(11), (z / scale, y, ridge), method="BFGS", tol=1e-9)
    assert np.allclose(fitted.slope.numpy() * scale, np.exp(best.x[1:6]), rtol=1e-4)
    assert np.allclose(fitted.offset.numpy(), best.x[6:], atol=1e-4)


def test_an_infinite_ridge_gives_one_slope_and_is_the_limit_of_large_ones() -> None:
    scores, labels = draw(3)
    one = fit_calibration(scores, labels, ridge=float("inf"))
    assert one.slope.max() - one.slope.min() <= 1e-12
    large = fit_calibration(scores, labels, ridge=1e7)
    assert torch.allclose(one.slope, large.slope, rtol=1e-4)
    small = fit_calibration(scores, labels, ridge=0.01)
    assert small.slope.log().std() > 10 * large.slope.log().std()


def test_predicted_and_observed_frequencies_agree() -> None:
    """The offset is free, so the mean probability of each label is that of its targets."""
    scores, labels = draw(4)
    labels[:, 0] = 0
    fitted = fit_calibration(scores, labels)
    positives = labels.sum(0).double()
    high, low = (positives + 1) / (positives + 2), 1 / (60 - positives + 2)
    expected = (positives * high + (60 - positives) * low) / 60
    assert torch.allclose(fitted.probabilities(scores).mean(0), expected, atol=1e-6)


def test_a_label_with_few_positives_gets_about_the_shared_slope() -> None:
    scores, labels = draw(5, n=400, k=6)
    labels[:, 5] = 0
    labels[scores[:, 5].argmin(), 5] = 1  # alone it would get a slope near 0
    fitted = fit_calibration(scores, labels, ridge=20)
    others = fitted.slope[:5].log().mean()
    alone = fit_calibration(scores[:, 5:], labels[:, 5:], ridge=0).slope.log()
    assert abs(fitted.slope[5].log() - others) < 0.7 * abs(alone - others)


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_a_scale_of_the_scores_only_divides_the_slopes(factor: float) -> None:
    scores, labels = draw(6)
    one, other = (fit_calibration(c * scores.double(), labels) for c in (1, factor))
    assert torch.allclose(one.slope, factor * other.slope, rtol=1e-5)
    assert torch.allclose(one.offset, other.offset, atol=1e-5)


@pytest.mark.parametrize("kind", ["separated", "reversed", "constant", "all", "none", "single"])
def test_extreme_scores_give_finite_ordered_probabilities(kind: str) -> None:
    scores, labels = draw(7)
    if kind == "separated":
        scores = labels * 2.0 - 1 + 0.01 * scores
    elif kind == "reversed":
        scores = -(labels * 2.0 - 1) + 0.01 * scores
    elif kind == "constant":
        scores = torch.full_like(scores, 3.0)
    elif kind in ("all", "none"):
        labels = torch.full_like(labels, int(kind == "all"))
    else:
        scores, labels = scores[:1], labels[:1]
    fitted = fit_calibration(scores, labels)
    assert (fitted.slope > 0).all() and fitted.slope.isfinite().all()
    assert fitted.offset.isfinite().all()
    p = fitted.probabilities(scores)
    assert ((p > 0) & (p < 1)).all()
    same = average_precision(fitted.log_odds(scores), labels)
    expected = average_precision(scores, labels)
    assert torch.equal(same.isnan(), expected.isnan())
    assert torch.allclose(same.nan_to_num(), expected.nan_to_num())


def test_rows_may_come_in_any_order_and_no_rows_change_nothing() -> None:
    scores, labels = draw(8)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    one, other = fit_calibration(scores, labels), fit_calibration(scores[order], labels[order])
    assert torch.allclose(one.slope, other.slope) and torch.allclose(one.offset, other.offset)
    slope, offset = fit_calibration(scores[:0], labels[:0])
    assert slope.tolist() == [1.0] * 5 and offset.tolist() == [0.0] * 5


def test_scores_at_inverts_log_odds() -> None:
    fitted = fit_calibration(*draw(9))
    z = torch.linspace(-2, 2, 5)
    assert torch.allclose(fitted.scores_at(fitted.log_odds(z[None])[0]), z.double())


def test_it_halves_the_calibration_error_of_overconfident_scores() -> None:
    scores, labels = draw(10, n=400)
    fresh, fresh_labels = draw(11, n=400)
    before = expected_calibration_error(torch.sigmoid(10 * fresh), fresh_labels)
    fitted = fit_calibration(10 * scores, labels)
    after = expected_calibration_error(fitted.probabilities(10 * fresh), fresh_labels)
    assert after < before / 2


def naive_error(p: np.ndarray, y: np.ndarray, bins: int) -> float:
    total = 0.0
    for m in range(bins):
        inside = (p > m / bins) & (p <= (m + 1) / bins) | ((m == 0) & (p == 0))
        if inside.any():
            total += inside.mean() * abs(p[inside].mean() - y[inside].mean())
    return float(total)


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_the_calibration_error_is_that_of_a_loop_over_bins(bins: int) -> None:
    g = torch.Generator().manual_seed(bins)
    p = torch.rand(50, 3, generator=g, dtype=torch.float64)
    p[0] = torch.tensor([0.0, 1.0, 0.5])
    y = torch.randint(0, 2, (50, 3), generator=g)
    expected = naive_error(p.numpy().ravel(), y.numpy().ravel(), bins)
    assert expected_calibration_error(p, y, bins) == pytest.approx(expected)


def test_wrong_arguments_are_refused() -> None:
    scores, labels = draw(0)
    with pytest.raises(ValueError, match=r"\(60, 5\).*\(60, 4\)"):
        fit_calibration(scores, labels[:, :4])
    with pytest.raises(ValueError, match="finite"):
        fit_calibration(scores / 0, labels)
    with pytest.raises(ValueError, match="ridge = -1"):
        fit_calibration(scores, labels, ridge=-1)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        expected_calibration_error(scores, labels)
    with pytest.raises(ValueError, match="bins = 0"):
        expected_calibration_error(scores.sigmoid(), labels, 0)
