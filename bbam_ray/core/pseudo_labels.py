"""Class-distribution-aware pseudo-labels (paper, 3.3; method, section 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.core.selection import select_from_blocks, select_highest


def assign_pseudo_labels(
    scores: Tensor,
    positive_frequency: Tensor,
    *,
    positive_keep: float = 1.0,
    negative_keep: float = 0.998,
    index: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Pseudo-labels with each label's positive frequency among the labelled samples.

    Per label over all N_u unlabelled samples of all ranks: positives are the floor(freq N_u)
    highest scores; confident are the floor(positive_keep freq N_u) highest and the
    floor(negative_keep (1 - freq) N_u) lowest. A count of 0 selects nothing; ties go to the lower
    index, so that exactly that many are selected.

    Args:
        scores: (N, K), this rank's rows; any monotone score, without NaN.
        positive_frequency: (K,) in [0, 1].
        positive_keep, negative_keep: in [0, 1].
        index: (N,) int64 global sample index for ties; default rank-ordered position.

    Returns:
        labels (N, K) int8 in {0, 1} and confident (N, K) bool; an entry that is not confident takes
        part in nothing.
    """
    num_samples = sum(distributed.row_counts(scores.shape[0], scores.device))
    frequency = positive_frequency.to(device=scores.device, dtype=torch.float64)

    def count(keep: float, share: Tensor) -> Tensor:
        return torch.floor(keep * share * num_samples).to(torch.int64)

    everything = torch.ones(1, 1, dtype=torch.bool, device=scores.device).expand(scores.shape)
    positive = select_highest(scores, everything, count(1.0, frequency), index)
    confident = positive
    if positive_keep < 1:
        confident = select_highest(scores, positive, count(positive_keep, frequency), index)
    # Where scores tie across both thresholds, an entry is not taken for both polarities.
    lowest = select_from_blocks(
        lambda rows: (-scores[rows], ~positive[rows]),
        (scores.shape[0], scores.shape[1]),
        count(negative_keep, 1 - frequency),
        index,
    )
    return positive.view(torch.int8), lowest.logical_or_(confident)
