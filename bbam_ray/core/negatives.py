"""Prototype-based negative sampling (paper, 3.4; method, section 6)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.core.prototypes import PrototypeCosine
from bbam_ray.core.rows import row_blocks
from bbam_ray.core.selection import select_from_blocks


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
    if math.isinf(ratio):
        return valid & (labels == 0)
    num_samples, num_labels = labels.shape
    found = torch.zeros(num_labels, dtype=torch.int64, device=labels.device)
    for rows in row_blocks(num_samples, num_labels):
        found += (valid[rows] & (labels[rows] == 1)).sum(0)
    (positives,) = distributed.all_reduce_sum(found)
    wanted = torch.floor(ratio * positives.double()).to(torch.int64)
    cosine = PrototypeCosine(features, prototypes)

    def block(rows: slice) -> tuple[Tensor, Tensor]:
        # float64 before rounding: the same similarity however the rows are split over ranks.
        return cosine.block(rows).float(), valid[rows] & (labels[rows] == 0)

    return select_from_blocks(block, (num_samples, num_labels), wanted, index)
