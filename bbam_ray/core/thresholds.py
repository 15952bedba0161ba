"""Decision thresholds, tuned on validation data or on out-of-fold scores."""

from __future__ import annotations

import torch
from torch import Tensor

from bbam_ray.core.calibration import Calibration


def tune_thresholds(
    scores: Tensor, labels: Tensor, *, fallback: float = 0.0, beta: float = 1.0
) -> Tensor:
    """The threshold of each label with the highest F-beta on these samples; F1 by default.

    F_b = (1 + b^2) TP / ((1 + b^2) TP + FP + b^2 FN) of the decision score >= threshold. Candidates are
    half-way between neighbouring distinct scores; the highest threshold wins among equal F_b. A label
    without positives or without samples gets ``fallback``.

    Args:
        scores: (N, K) of validation samples, never of the test set.
        labels: (N, K) 0/1.
        fallback: threshold on the scale of the scores (0 for logits).
        beta: b > 0; below 1, precision counts more than recall.

    Returns:
        (K,) float32 on the CPU, on the scale of the scores.

    Examples:
        >>> tune_thresholds(torch.tensor([[0.9], [0.7], [0.2]]), torch.tensor([[1], [1], [0]]))
        tensor([0.4500])
    """
    num_samples, num_labels = scores.shape
    if num_samples == 0:
        return torch.full((num_labels,), fallback)
    ordered, order = scores.float().sort(dim=0, descending=True)
    hits = labels.gather(0, order).double()
    true_positives, totals = hits.cumsum(0), hits.sum(0)
    predicted = torch.arange(1, num_samples + 1, device=scores.device).unsqueeze(1)
    f_beta = (1 + beta**2) * true_positives / (predicted + beta**2 * totals)
    below = torch.cat([ordered[1:], ordered[-1:] - 1])
    f_beta = torch.where(ordered != below, f_beta, -1.0)  # equal scores cannot be separated
    best = f_beta.argmax(dim=0, keepdim=True)
    middle = (ordered + below) / 2
    # Between neighbouring floating-point numbers there is no middle: take the upper one.
    threshold = torch.where(middle > below, middle, ordered).gather(0, best).squeeze(0)
    return torch.where(totals > 0, threshold, torch.full_like(threshold, fallback)).cpu()


def expected_f1_threshold(log_odds: Tensor) -> Tensor:
    """The one threshold on calibrated log-odds of all labels with the highest expected micro-F1.

    With the m highest of all N K entries predicted, the ratio of expected counts is
    2 sum of their probabilities / (m + sum of all probabilities). It needs no labels, only
    probabilities that are calibrated, and is much less noisy than the threshold of highest F1 on a few
    positives. The threshold is half-way between neighbouring log-odds.

    Args:
        log_odds: (N, K) calibrated, not empty.

    Returns:
        Scalar float64 on the CPU.

    Source: [Lipton et al., Optimal thresholding of classifiers to maximize F1 measure, ECML PKDD
    2014](https://doi.org/10.1007/978-3-662-44851-9_15).

    Examples:
        >>> float(expected_f1_threshold(torch.tensor([[4.0, 2.0], [-3.0, -5.0]])))
        -0.5
    """
    ordered = log_odds.double().cpu().flatten().sort(descending=True).values
    chances = ordered.sigmoid()
    predicted = torch.arange(1, len(ordered) + 1)
    f1 = 2 * chances.cumsum(0) / (predicted + chances.sum())
    below = torch.cat([ordered[1:], ordered[-1:] - 1])
    f1 = torch.where(ordered != below, f1, -1.0)  # a threshold cannot separate equal scores
    best = f1.argmax()
    return (ordered[best] + below[best]) / 2


def robust_thresholds(
    scores: Tensor, labels: Tensor, calibration: Calibration, *, own: float = 40.0
) -> Tensor:
    """Thresholds for out-of-fold scores, robust where a label has few positives.

    A label's own threshold of highest F1 is shrunk, as log-odds, towards the one that all labels share
    (``expected_f1_threshold``): with n positives its own one has the weight n / (n + own).
    docs/models.md compares this rule with others.

    Args:
        scores: (N, K) of samples that the scored model was not trained on.
        labels: (N, K) 0/1.
        calibration: of these scores, from ``fit_calibration``.
        own: number of positives at which both thresholds count the same; inf = the shared one only.

    Returns:
        (K,) float32 on the CPU, on the scale of ``scores``. Without samples, or without any positive:
        where the calibrated probability is 1/2.

    Raises:
        ValueError: ``own`` is negative.
    """
    if not own >= 0:
        raise ValueError(f"own = {own}; it must be at least 0")
    positives = (labels == 1).sum(0).double().cpu()
    if positives.sum() == 0:
        return calibration.scores_at(torch.zeros(scores.shape[1])).float()
    log_odds = calibration.log_odds(scores)
    shared = expected_f1_threshold(log_odds)
    single = tune_thresholds(log_odds, labels, fallback=float(shared)).double()
    share = torch.where(positives > 0, positives / (positives + own), 0.0)
    return calibration.scores_at(share * single + (1 - share) * shared).float()
