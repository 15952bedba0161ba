"""Calibrated probabilities from scores: Platt scaling by label, partially pooled over labels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

_ITERATIONS, _TOLERANCE = 500, 1e-9
_WEAK = 1e-2  # penalty of the shared slope, which keeps it finite if scores say nothing
_OFFSET_LIMIT = 1e-9  # added to the curvature of an offset


class Calibration(NamedTuple):
    """p = sigmoid(slope_k z + offset_k).

    Args:
        slope: (K,) float64, positive, so that the order of scores within a label is preserved.
        offset: (K,) float64.
    """

    slope: Tensor
    offset: Tensor

    def probabilities(self, scores: Tensor) -> Tensor:
        """(N, K) float64 in (0, 1).

        Args:
            scores: (N, K), on the scale that the calibration was fitted on.
        """
        return torch.sigmoid(self.log_odds(scores))

    def log_odds(self, scores: Tensor) -> Tensor:
        """Logarithm of the calibrated odds, (N, K) float64."""
        return self.slope.to(scores.device) * scores.double() + self.offset.to(scores.device)

    def scores_at(self, log_odds: Tensor) -> Tensor:
        """Scores (K,) float64 that have these calibrated log-odds, (K,) or a scalar."""
        return (log_odds.double() - self.offset) / self.slope


def fit_calibration(scores: Tensor, labels: Tensor, *, ridge: float = 4.0) -> Calibration:
    """Fit p = sigmoid(a_k z + b_k) for each label, with slopes pulled towards a shared one.

    Minimises over a_k > 0, b_k and the shared slope a the cross-entropy, summed over all entries, plus
    ridge / 2 sum_k (log a_k - log a)^2. A label with few positives therefore gets about the shared
    slope, and an offset that meets its own frequency. Targets are those of Platt: (n_1 + 1) / (n_1 + 2)
    for the n_1 positives of a label and 1 / (n_0 + 2) for its negatives, so that all parameters stay
    finite when a label is separated perfectly or has no positives. Multiplying all scores by c divides
    the slopes by c and changes nothing else. Solved by Fisher scoring with a line search, in float64.

    Args:
        scores: (N, K) of samples that the scored model was not trained on, finite.
        labels: (N, K) 0/1.
        ridge: strength of the pull, in units of information about log a_k; inf gives one slope for all
            labels.

    Returns:
        Slopes and offsets on the CPU. Without samples: slope 1 and offset 0.

    Raises:
        ValueError: shapes that differ, scores that are not finite, or a negative ridge.

    Source: [Platt, Probabilistic outputs for support vector machines,
    1999](https://www.cs.colorado.edu/~mozer/Teaching/syllabi/6622/papers/Platt1999.pdf).

    Examples:
        >>> scores = torch.tensor([[2.0], [1.0], [-1.0], [-2.0]])
        >>> slope, offset = fit_calibration(scores, torch.tensor([[1], [1], [0], [0]]))
        >>> bool(slope > 0), abs(float(offset)) < 1e-6
        (True, True)
    """
    _check(scores, labels)
    if not ridge >= 0:
        raise ValueError(f"ridge = {ridge}; it must be at least 0")
    num_samples, num_labels = scores.shape
    if num_samples == 0 or num_labels == 0:
        one = torch.ones(num_labels, dtype=torch.float64)
        return Calibration(one, torch.zeros_like(one))
    z, y = scores.double().cpu(), labels.double().cpu()
    if not z.isfinite().all():
        raise ValueError("scores must be finite")
    scale = z.std(correction=0)
    scale = scale if scale > 0 else torch.ones_like(scale)
    positives = y.sum(0)
    high = (positives + 1) / (positives + 2)
    low = 1 / (num_samples - positives + 2)
    targets = torch.where(y == 1, high, low)
    log_slope, offset = _minimise(z / scale, targets, ridge)
    return Calibration(log_slope.exp() / scale, offset)


def _minimise(z: Tensor, targets: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Logarithms of the slopes, and offsets, (K,) each.

    Parameters are the shared log-slope s, deviations d_k of the labels from it and offsets b_k. The
    information matrix is an arrow: labels are coupled by s only, so a step costs O(N K).
    """
    num_labels = z.shape[1]
    free = 0.0 if ridge == float("inf") else 1.0
    penalty = ridge if free else 0.0
    mean = targets.mean(0)
    state = torch.cat([z.new_zeros(1 + num_labels), (mean / (1 - mean)).log()])

    def parts(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shared, deviation, offset = parameters.split([1, num_labels, num_labels])
        return shared, deviation, offset

    def objective(parameters: Tensor) -> Tensor:
        shared, deviation, offset = parts(parameters)
        logits = (shared + deviation).exp() * z + offset
        loss = binary_cross_entropy_with_logits(logits, targets, reduction="sum")
        return loss + penalty / 2 * deviation.square().sum() + _WEAK / 2 * shared.square().sum()

    value = objective(state)
    for _ in range(_ITERATIONS):
        shared, deviation, offset = parts(state)
        along = (shared + deviation).exp() * z  # derivative of the logit by log a_k
        p = torch.sigmoid(along + offset)
        error, weight = p - targets, p * (1 - p)
        slope_gradient, offset_gradient = (error * along).sum(0), error.sum(0)
        gradient = torch.cat(
            [
                slope_gradient.sum().view(1) + _WEAK * shared,
                free * (slope_gradient + penalty * deviation),
                offset_gradient,
            ]
        )
        if gradient.abs().max() <= _TOLERANCE * targets.numel():
            break
        step = _newton_step(gradient, along, weight, penalty, free)
        slope = (gradient * step).sum()
        length = 1.0
        while length > 1e-10:
            trial = state - length * step
            trial_value = objective(trial)
            if trial_value <= value - 1e-4 * length * slope:
                break
            length /= 2
        else:
            break  # no decrease within float64: this is the minimum
        state, value = trial, trial_value
    shared, deviation, offset = parts(state)
    return shared + deviation, offset


def _newton_step(
    gradient: Tensor, along: Tensor, weight: Tensor, penalty: float, free: float
) -> Tensor:
    """Solve the expected information matrix for the gradient, by its arrow structure."""
    num_labels = along.shape[1]
    slopes = (weight * along.square()).sum(0)
    cross = (weight * along).sum(0)
    offsets = weight.sum(0) + _OFFSET_LIMIT
    shared, deviation, offset = gradient.split([1, num_labels, num_labels])
    # Offsets are eliminated first, then deviations, then one number is left.
    reduced = (slopes - cross.square() / offsets).clamp_min(0)
    inner = reduced + penalty + _OFFSET_LIMIT
    slope_right = -cross * offset / offsets
    deviation_right = free * (deviation + slope_right)
    shared_right = shared + slope_right.sum() - (free * reduced * deviation_right / inner).sum()
    top = _WEAK + (reduced - free * reduced.square() / inner).sum()
    shared_step = shared_right / top
    deviation_step = free * (deviation_right - reduced * shared_step) / inner
    offset_step = (offset - cross * (shared_step + deviation_step)) / offsets
    return torch.cat([shared_step, deviation_step, offset_step])


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Mean difference between predicted probability and frequency of positives, over all N K entries.

    Entries are divided by probability into bins of equal width; bin m is ((m - 1) / bins, m / bins], and
    0 belongs to the first. ECE = sum_m n_m / (N K) |mean probability - share of positives|.

    Args:
        probabilities: (N, K) in [0, 1].
        labels: (N, K) 0/1.
        bins: number of bins.

    Returns:
        In [0, 1]; NaN without entries.

    Raises:
        ValueError: shapes that differ, a value outside [0, 1], or no bins.

    Source: [Guo et al., On calibration of modern neural networks, ICML
    2017](https://proceedings.mlr.press/v70/guo17a.html); here of the positive class of every label.

    Examples:
        >>> error = expected_calibration_error(torch.tensor([[0.9, 0.2]]), torch.tensor([[1, 0]]))
        >>> round(error, 6)
        0.15
    """
    _check(probabilities, labels)
    if bins < 1:
        raise ValueError(f"bins = {bins}; at least 1 is needed")
    p, y = probabilities.double().flatten(), labels.double().flatten()
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("probabilities must be in [0, 1]")
    if len(p) == 0:
        return float("nan")
    index = ((p * bins).ceil().long() - 1).clamp(0, bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64, device=p.device).index_add(0, index, p - y)
    return float(gap.abs().sum() / len(p))


def _check(scores: Tensor, labels: Tensor) -> None:
    if scores.shape != labels.shape or scores.ndim != 2:
        raise ValueError(
            f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)} must both be (N, K)"
        )
