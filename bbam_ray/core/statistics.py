"""Gaussian statistics of the label angles: mean and variance per polarity and label (paper, 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.core.prototypes import PrototypeCosine
from bbam_ray.core.rows import row_blocks

_MOMENT_NOISE = 64 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class LabelMoments:
    """Count, mean and sum of squared deviations of the angles, each (2, K) float64, over all ranks.

    Angles are in radians; where the count is 0 the mean is 0 and says nothing.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor


@dataclass(frozen=True)
class AngleStatistics:
    """Running Gaussian parameters of the angles between samples and label prototypes.

    Args:
        means: (2, K) float32, radians in [0, pi]; NaN where nothing is known.
        variances: (2, K) float32, radians squared; NaN where nothing is known.
        counts: (2, K) float32, samples behind the last update, or None when they are not recorded.
            A label with fewer than two samples in either polarity is not balanced.
    """

    means: Tensor
    variances: Tensor
    counts: Tensor | None = None

    @classmethod
    def empty(cls, num_labels: int, device: torch.device | str | None = None) -> AngleStatistics:
        """Statistics that know nothing: the balance map is the identity for every label."""
        unknown = torch.full((2, num_labels), math.nan, device=device)
        return cls(unknown, unknown.clone(), torch.zeros(2, num_labels, device=device))

    def update(self, moments: LabelMoments, momentum: float) -> AngleStatistics:
        """Blend in one refresh and return the result; nothing is written in place.

        mean <- (1 - g) current + g mean, then the current variance is taken *about the new mean*,
        (M2 + n (current mean - mean)^2) / max(n - 1, 1), and blended likewise. An entry that was
        unknown takes the current values; one without samples now keeps what it had.

        Args:
            moments: of the current refresh, summed over ranks.
            momentum: g in [0, 1], the weight of the old values (0.01 in the paper's runs).
        """
        count, current = moments.count, moments.mean
        old_mean, old_variance = self.means.double(), self.variances.double()
        known = torch.isfinite(old_mean) & torch.isfinite(old_variance)
        mean = torch.where(known, (1 - momentum) * current + momentum * old_mean, current)
        scatter = moments.m2 + count * (current - mean).square()
        variance_now = scatter / (count - 1).clamp_min(1)
        variance = torch.where(
            known, (1 - momentum) * variance_now + momentum * old_variance, variance_now
        )
        seen = count > 0
        return AngleStatistics(
            torch.where(seen, mean, old_mean).float(),
            torch.where(seen, variance, old_variance).float(),
            count.float(),
        )

    def balanced_labels(self) -> Tensor:
        """(K,) bool: labels whose two variances are positive, finite and rest on >= 2 samples."""
        # A subnormal variance counts as none: the slope of the map would overflow float32.
        positive = self.variances >= torch.finfo(torch.float32).tiny
        usable = torch.isfinite(self.means) & torch.isfinite(self.variances) & positive
        if self.counts is not None:
            usable = usable & (self.counts >= 2)
        return usable.all(dim=0)

    def to(self, device: torch.device | str) -> AngleStatistics:
        counts = None if self.counts is None else self.counts.to(device)
        return AngleStatistics(self.means.to(device), self.variances.to(device), counts)

    def state_dict(self) -> dict[str, Tensor]:
        state = {"means": self.means, "variances": self.variances}
        return state if self.counts is None else state | {"counts": self.counts}

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor]) -> AngleStatistics:
        return cls(state["means"], state["variances"], state.get("counts"))


def angle_moments(
    features: Tensor, labels: Tensor, valid: Tensor, prototypes: Tensor
) -> LabelMoments:
    """Moments of the angles between features and label prototypes (method, section 4.3).

    beta_ik = arccos of the cosine between f_i and P_k, computed in float64 so that any split of the
    rows over ranks gives the same figures to about 1e-12. The sums of all ranks meet in one packed
    all-reduce of 6 K numbers.

    Args:
        features: (N, D), this rank's rows; not normalised.
        labels: (N, K) 0/1.
        valid: (N, K) bool; False takes part in nothing.
        prototypes: (K, D), not normalised; a zero row gives the angle pi/2.
    """
    num_labels = prototypes.shape[0]
    cosine = PrototypeCosine(features, prototypes)
    sums = torch.zeros(3, 2, num_labels, dtype=torch.float64, device=features.device)
    for rows in row_blocks(features.shape[0], max(num_labels, features.shape[1])):
        # Distances from the right angle: smaller numbers, so less cancellation in M2 below.
        offset = cosine.block(rows).clamp_(-1, 1).arccos_().sub_(math.pi / 2)
        for polarity in (0, 1):
            weight = (valid[rows] & (labels[rows] == polarity)).double()
            sums[0, polarity] += weight.sum(0)
            weight *= offset
            sums[1, polarity] += weight.sum(0)
            weight *= offset
            sums[2, polarity] += weight.sum(0)
    (sums,) = distributed.all_reduce_sum(sums)
    count, total, squares = sums
    mean_offset = total / count.clamp_min(1)
    m2 = squares - count * mean_offset.square()
    # What remains of equal angles is rounding, and must not pass for a variance.
    m2 = torch.where(m2 > _MOMENT_NOISE * squares, m2, torch.zeros_like(m2))
    mean = torch.where(count > 0, mean_offset + math.pi / 2, torch.zeros_like(mean_offset))
    return LabelMoments(count, mean, m2)
