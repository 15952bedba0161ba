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
    first = torch.arange(num_labels, device=features.device) * ANGLE_BINS
    counts = torch.zeros(2 * num_labels * ANGLE_BINS, dtype=torch.int64, device=features.device)
    for rows in row_blocks(features.shape[0], max(num_labels, features.shape[1])):
        cosine = F.normalize(features[rows].float(), dim=1) @ directions
        angle = torch.arccos(cosine.clamp(-1, 1))
        bins = (angle * (ANGLE_BINS / math.pi)).long().clamp_max(ANGLE_BINS - 1)
        place = labels[rows].long() * (num_labels * ANGLE_BINS) + first + bins
        counts += torch.bincount(place[valid[rows]], minlength=len(counts))
    (counts,) = distributed.all_reduce_sum(counts.double())
    return counts.view(2, num_labels, ANGLE_BINS)
