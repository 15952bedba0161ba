"""How the angles behind the statistics are spread: for pictures, never for training."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from bbam_ray import distributed
from bbam_ray.core.rows import row_blocks

ANGLE_BINS = 60  # 3 degrees each


def angle_histogram(features: Tensor, labels: Tensor, valid: Tensor, prototypes: Tensor) -> Tensor:
    """Counts of the angles to the label prototypes over all ranks, (2, K, ANGLE_BINS) float64.

    The angles are those of ``angle_moments`` (paper, 3.2), in equal bins over [0, pi]; pi falls into the
    last one. One message of 2 K ANGLE_BINS numbers.

    Args:
        features: (N, D), this rank's rows; not normalised.
        labels: (N, K) 0/1: the first axis of the result.
        valid: (N, K) bool; False takes part in nothing.
        prototypes: (K, D), not normalised.
    """
    num_labels = prototypes.shape[0]
    directions = F.normalize(prototypes.float(), dim=1).T
    first = torch.arange(num_labels, device=features.device, dtype=torch.int32) * ANGLE_BINS
    nowhere = 2 * num_labels * ANGLE_BINS  # where entries that do not count are counted
    counts = torch.zeros(nowhere + 1, dtype=torch.int64, device=features.device)
    for rows in row_blocks(features.shape[0], max(num_labels, features.shape[1])):
        cosine = F.normalize(features[rows].float(), dim=1) @ directions
        angle = cosine.clamp_(-1, 1).arccos_()
        place = angle.mul_(ANGLE_BINS / math.pi).int().clamp_max_(ANGLE_BINS - 1).add_(first)
        place += labels[rows].int() * (num_labels * ANGLE_BINS)
        place = torch.where(valid[rows], place, nowhere)
        counts += torch.bincount(place.view(-1), minlength=nowhere + 1)
    (counts,) = distributed.all_reduce_sum(counts[:nowhere].double())
    return counts.view(2, num_labels, ANGLE_BINS)
