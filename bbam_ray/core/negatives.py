"""Prototype-based negative sampling."""

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
    """Select the hardest negatives of each label: those most similar to its prototype.

    Candidates of label k are its valid negatives on all ranks. Of these the min(floor(eta n_1k), number of
    candidates) with the highest cosine between f_i and P_k are selected, where n_1k is the number of
    valid positives of k; a label without positives gets no negatives. Ties go to the lower index.
    Positives are not part of the result: a training step uses all of them.

    Args:
        features: (N, D), this rank's rows f_i; not normalised.
        prototypes: (K, D), P_k, not normalised; a zero row makes all similarities equal.
        labels: (N, K) 0/1.
        valid: (N, K) bool; an entry that is False is ignored.
        ratio: eta >= 0, negatives per positive; infinity keeps every candidate.
        index: (N,) int64 global sample index for ties; default: the rank-ordered position.

    Returns:
        (N, K) bool, True for the selected negatives.

    Source: [S2ML2-BBAM](https://openreview.net/forum?id=AqcPvWwktK), section 3.4; docs/method.md,
    section 6.

    Examples:
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [2.0, 0.1]])
        >>> labels, valid = torch.tensor([[1], [0], [0], [0]]), torch.ones(4, 1, dtype=torch.bool)
        >>> sample_negatives(features, features[:1], labels, valid, ratio=2).flatten().tolist()
        [False, True, False, True]
    """
    if math.isinf(ratio):
        return valid & (labels == 0)
    num_samples, num_labels = labels.shape
    positives = torch.zeros(num_labels, dtype=torch.int64, device=labels.device)
    for rows in row_blocks(num_samples, num_labels, device=labels.device):
        positives += (valid[rows] & (labels[rows] == 1)).sum(0)
    (positives,) = distributed.all_reduce_sum(positives)
    wanted = torch.floor(ratio * positives.double()).to(torch.int64)
    cosine = PrototypeCosine(features, prototypes)

    def block(rows: slice) -> tuple[Tensor, Tensor]:
        # float64 before rounding: the same similarity however the rows are split over ranks.
        return cosine.block(rows).float(), valid[rows] & (labels[rows] == 0)

    return select_from_blocks(block, (num_samples, num_labels), wanted, index)
