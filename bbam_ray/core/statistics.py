"""Gaussian statistics of the label angles: mean and variance by polarity and label."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.core.prototypes import prototype_angles

_MOMENT_NOISE = 64 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class LabelMoments:
    """Moments of the angles by polarity and label, over all ranks.

    Args:
        count: (2, K) float64, number of angles n.
        mean: (2, K) float64, radians in [0, pi]; 0 without meaning where the count is 0.
        m2: (2, K) float64, radians squared, >= 0: sum of squared deviations from the mean.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor


@dataclass(frozen=True)
class AngleStatistics:
    """Running Gaussian parameters of the angles between samples and label prototypes.

    Args:
        means: (2, K) float32, mu, radians in [0, pi]; NaN where nothing is known.
        variances: (2, K) float32, v, radians squared, >= 0; NaN where nothing is known.
        counts: (2, K) float32, number of samples behind the last update; None if it is not recorded.
            A label with fewer than two samples in either polarity is not balanced.

    Source: [S2ML2-BBAM](https://openreview.net/forum?id=AqcPvWwktK), section 3.2; docs/method.md,
    sections 2 and 4.3.

    Examples:
        >>> count, mean, m2 = torch.tensor([[[9.0], [3.0]], [[1.6], [1.2]], [[0.8], [0.1]]])
        >>> moments = LabelMoments(count, mean, m2)
        >>> stats = AngleStatistics.empty(1).update(moments, momentum=0.01)
        >>> stats.variances.flatten(), stats.balanced_labels()
        (tensor([0.1000, 0.0500]), tensor([True]))
    """

    means: Tensor
    variances: Tensor
    counts: Tensor | None = None

    @classmethod
    def empty(cls, num_labels: int, device: torch.device | str | None = None) -> AngleStatistics:
        """Statistics without any data: the balance map is the identity for every label."""
        unknown = torch.full((2, num_labels), math.nan, device=device)
        return cls(unknown, unknown.clone(), torch.zeros(2, num_labels, device=device))

    def update(self, moments: LabelMoments, momentum: float) -> AngleStatistics:
        """Blend in the moments of one refresh; returns new statistics, writes nothing in place.

        mu <- (1 - g) mean + g mu, then the current variance is taken *about the new mean*,
        (M2 + n (mean - mu)^2) / max(n - 1, 1), and v <- (1 - g) current + g v. An entry that was unknown
        takes the current values; an entry without samples in this refresh keeps its old ones.

        Args:
            moments: n, mean and M2 of the current refresh, over all ranks.
            momentum: g in [0, 1], the weight of the old values (0.01 in the published runs).

        Source: docs/method.md, section 4.3.
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
        """(K,) bool: labels whose two variances are positive, finite and from at least 2 samples."""
        return self._balanced_labels

    # Every step of an epoch has the same statistics, so what follows from them is computed once.
    @cached_property
    @torch.inference_mode(mode=False)
    def _balanced_labels(self) -> Tensor:
        # A subnormal variance counts as none: the slope of the map would overflow float32.
        positive = self.variances >= torch.finfo(torch.float32).tiny
        usable = torch.isfinite(self.means) & torch.isfinite(self.variances) & positive
        if self.counts is not None:
            usable = usable & (self.counts >= 2)
        return usable.all(dim=0)

    @cached_property
    @torch.inference_mode(mode=False)
    def slope_and_offset(self) -> tuple[Tensor, Tensor]:
        """See ``core.angles.balance_coefficients``."""
        usable = self.balanced_labels()
        variances = torch.where(usable, self.variances, torch.ones_like(self.variances))
        means = torch.where(usable, self.means, torch.zeros_like(self.means))
        slope = (variances.mean(dim=0) / variances).sqrt()
        return slope, (1 - slope) * means

    def to(self, device: torch.device | str) -> AngleStatistics:
        counts = None if self.counts is None else self.counts.to(device)
        return AngleStatistics(self.means.to(device), self.variances.to(device), counts)

    def state_dict(self) -> dict[str, Tensor]:
        state = {"means": self.means, "variances": self.variances}
        return state if self.counts is None else state | {"counts": self.counts}

    @classmethod
    def from_state_dict(cls, state: dict[str, Tensor]) -> AngleStatistics:
        return cls(state["means"], state["variances"], state.get("counts"))


class MomentSums:
    """Sums behind the moments of the angles by polarity and label, added up block by block.

    Args:
        num_labels: K.
        device: of the angles.
    """

    def __init__(self, num_labels: int, device: torch.device) -> None:
        self._sums = torch.zeros(3, 2, num_labels, dtype=torch.float64, device=device)

    def add(self, offset: Tensor, labels: Tensor, valid: Tensor) -> None:
        """Add a block of angles, given as differences from pi/2, (rows, K) float64."""
        for polarity in (0, 1):
            weight = (valid & (labels == polarity)).double()
            self._sums[0, polarity] += weight.sum(0)
            weight *= offset
            self._sums[1, polarity] += weight.sum(0)
            weight *= offset
            self._sums[2, polarity] += weight.sum(0)

    def reduced(self) -> LabelMoments:
        """Moments over all ranks; every rank calls this."""
        (sums,) = distributed.all_reduce_sum(self._sums)
        count, total, squares = sums
        mean_offset = total / count.clamp_min(1)
        m2 = squares - count * mean_offset.square()
        # What remains of equal angles is rounding, and must not pass for a variance.
        m2 = torch.where(m2 > _MOMENT_NOISE * squares, m2, torch.zeros_like(m2))
        mean = torch.where(count > 0, mean_offset + math.pi / 2, torch.zeros_like(mean_offset))
        return LabelMoments(count, mean, m2)


def angle_moments(
    features: Tensor, labels: Tensor, valid: Tensor, prototypes: Tensor
) -> LabelMoments:
    """Count, mean and scatter of the angles between features and label prototypes.

    beta_ik = arccos(<f_i, P_k> / (|f_i| |P_k|)), in float64, so that any division of the rows over ranks
    gives the same numbers to about 1e-12. For polarity p of label k, over its valid entries i of all
    ranks: n_pk, mean_pk = sum beta_ik / n_pk, M2_pk = sum (beta_ik - mean_pk)^2. The sums of all ranks are
    reduced in one packed all-reduce of 6 K numbers.

    Args:
        features: (N, D), this rank's rows f_i; not normalised.
        labels: (N, K) 0/1, the polarity of each entry.
        valid: (N, K) bool; an entry that is False is ignored.
        prototypes: (K, D), P_k, not normalised; a zero row gives the angle pi/2.

    Source: [S2ML2-BBAM](https://openreview.net/forum?id=AqcPvWwktK), section 3.2; docs/method.md,
    section 4.3.

    Examples:
        >>> features = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> labels, valid = torch.tensor([[1], [0]]), torch.ones(2, 1, dtype=torch.bool)
        >>> angle_moments(features, labels, valid, torch.tensor([[5.0, 0.0]])).mean.flatten()
        tensor([1.5708, 0.0000], dtype=torch.float64)
    """
    sums = MomentSums(prototypes.shape[0], features.device)
    for rows, offset in prototype_angles(features, prototypes):
        sums.add(offset, labels[rows], valid[rows])
    return sums.reduced()
