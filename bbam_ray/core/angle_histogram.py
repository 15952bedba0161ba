"""Histograms of the angles behind the statistics: for the report, never for training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.core.prototypes import prototype_angles
from bbam_ray.core.statistics import LabelMoments, MomentSums

ANGLE_BINS = 60  # of 3 degrees each


class _Counts:
    """Counts of angles by polarity, label and bin, added up block by block."""

    def __init__(self, num_labels: int, device: torch.device) -> None:
        self._num_labels = num_labels
        self._first_bin = torch.arange(num_labels, device=device, dtype=torch.int32) * ANGLE_BINS
        self._ignored = (
            2 * num_labels * ANGLE_BINS
        )  # the last bin takes the entries that are masked
        self._counts = torch.zeros(self._ignored + 1, dtype=torch.int64, device=device)

    def add(self, offset: Tensor, labels: Tensor, valid: Tensor) -> None:
        """Count a block of angles, given as differences from pi/2, (rows, K)."""
        bins = offset.mul(ANGLE_BINS / math.pi).add_(ANGLE_BINS / 2).int()
        bins.clamp_(0, ANGLE_BINS - 1).add_(self._first_bin)
        bins += labels.int() * (self._num_labels * ANGLE_BINS)
        bins = torch.where(valid, bins, self._ignored)
        self._counts += torch.bincount(bins.view(-1), minlength=self._ignored + 1)

    def reduced(self) -> Tensor:
        """Counts over all ranks, (2, K, ANGLE_BINS) float64; every rank calls this."""
        (counts,) = distributed.all_reduce_sum(self._counts[: self._ignored].double())
        return counts.view(2, self._num_labels, ANGLE_BINS)


def angle_histogram(features: Tensor, labels: Tensor, valid: Tensor, prototypes: Tensor) -> Tensor:
    """Counts of the angles to the label prototypes over all ranks.

    The angles are those of ``angle_moments``, in equal bins over [0, pi]; the angle pi falls into the last
    bin. One message of 2 K ANGLE_BINS numbers.

    Args:
        features: (N, D), this rank's rows; not normalised.
        labels: (N, K) 0/1: the first axis of the result.
        valid: (N, K) bool; an entry that is False is ignored.
        prototypes: (K, D), not normalised; a zero row gives the angle pi/2.

    Returns:
        (2, K, ANGLE_BINS) float64.
    """
    counts = _Counts(prototypes.shape[0], features.device)
    for rows, offset in prototype_angles(features, prototypes):
        counts.add(offset, labels[rows], valid[rows])
    return counts.reduced()


def moments_and_histogram(
    features: Tensor, labels: Tensor, valid: Tensor, prototypes: Tensor
) -> tuple[LabelMoments, Tensor]:
    """``angle_moments`` and ``angle_histogram`` from one pass, which computes each angle once.

    Arguments are those of the two functions, and so are the two results and messages.
    """
    num_labels, device = prototypes.shape[0], features.device
    sums, counts = MomentSums(num_labels, device), _Counts(num_labels, device)
    for rows, offset in prototype_angles(features, prototypes):
        sums.add(offset, labels[rows], valid[rows])
        counts.add(offset, labels[rows], valid[rows])
    return sums.reduced(), counts.reduced()
