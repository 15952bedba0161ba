"""Prototype-based negative sampling (paper, 3.4; method, section 6)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from bbam_ray import distributed
from bbam_ray.core.rows import row_blocks
from bbam_ray.core.selection import select_highest


def sample_negatives(
    features: Tensor,
    prototypes: Tensor,
    labels: Tensor,
    valid: Tensor,
    ratio: float,
    index: Tensor | None = None,
) -> Tensor:
    """The hardest negatives of each label: those most similar to its prototype, (N, K) bool.

    Candidates are the valid negatives of all ranks; of label k the min(floor(ratio n_1k), number of
    candidates) with the highest cosine to P_k are selected, n_1k being its valid positives. Ties go
    to the lower index. Positives are not part of the result: a training step uses all of them.

    Args:
        features: (N, D), this rank's rows.
        prototypes: (K, D); a zero row makes all similarities equal.
        labels: (N, K) 0/1.
        valid: (N, K) bool.
        ratio: eta >= 0, negatives per positive; infinity keeps every candidate.
        index: (N,) int64 global sample index for ties; default rank-ordered position.
    """
    candidates = valid & (labels == 0)
    if math.isinf(ratio):
        return candidates
    (positives,) = distributed.all_reduce_sum((valid & (labels == 1)).sum(0))
    wanted = torch.floor(ratio * positives.double()).to(torch.int64)
    # float64 before rounding: the same similarity however the rows are split over ranks.
    directions = F.normalize(prototypes.double(), dim=1).T
    similarity = torch.empty(labels.shape, device=features.device)
    for rows in row_blocks(features.shape[0], max(features.shape[1], labels.shape[1])):
        similarity[rows] = (F.normalize(features[rows].double(), dim=1) @ directions).float()
    return select_highest(similarity, candidates, wanted, index)
