"""Class-distribution-aware pseudo-labels."""

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
    counts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Assign pseudo-labels so that each label is as frequent as among the labelled samples.

    For each label k, over the N_u unlabelled samples of all ranks: positive are the floor(freq_k N_u)
    highest scores; confident are the floor(positive_keep freq_k N_u) highest and the
    floor(negative_keep (1 - freq_k) N_u) lowest. A count of 0 selects nothing. Ties go to the lower
    index, so that exactly this number is selected.

    Args:
        scores: (N, K), this rank's rows; any score that grows with the probability, without NaN.
        positive_frequency: (K,) in [0, 1], freq_k among the labelled samples.
        positive_keep: in [0, 1], the share of the positives that is confident.
        negative_keep: in [0, 1], the share of the negatives that is confident.
        index: (N,) int64 global sample index for ties; default: the rank-ordered position.
        counts: (2, K) float64, numbers of negatives and positives over all ranks that replace
            (1 - freq_k) N_u and freq_k N_u; NaN does not. Together at most N_u for each label.

    Returns:
        Labels (N, K) int8 in {0, 1} and confident (N, K) bool; training ignores an entry that is not
        confident.

    Source: [CAP](https://arxiv.org/abs/2305.02795), NeurIPS 2023;
    [S2ML2-BBAM](https://openreview.net/forum?id=AqcPvWwktK), section 3.3; docs/method.md, section 5.

    Examples:
        >>> scores, frequency = torch.tensor([[0.9], [0.1], [0.6], [0.5]]), torch.tensor([0.5])
        >>> labels, confident = assign_pseudo_labels(scores, frequency, negative_keep=0.5)
        >>> labels.flatten().tolist(), confident.flatten().tolist()
        ([1, 0, 1, 0], [True, True, True, False])
    """
    num_samples = sum(distributed.row_counts(scores.shape[0], scores.device))
    frequency = positive_frequency.to(device=scores.device, dtype=torch.float64)

    def count(keep: float, share: Tensor, polarity: int) -> Tensor:
        expected = keep * share * num_samples
        if counts is not None:
            instead = counts[polarity].to(expected)
            expected = torch.where(instead.isnan(), expected, keep * instead)
        return torch.floor(expected).to(torch.int64)

    everything = torch.ones(1, 1, dtype=torch.bool, device=scores.device).expand(scores.shape)
    positive = select_highest(scores, everything, count(1.0, frequency, 1), index)
    confident = positive
    if positive_keep < 1:
        confident = select_highest(scores, positive, count(positive_keep, frequency, 1), index)
    # If scores tie across both thresholds, an entry still gets one polarity only.
    lowest = select_from_blocks(
        lambda rows: (-scores[rows], ~positive[rows]),
        (scores.shape[0], scores.shape[1]),
        count(negative_keep, 1 - frequency, 0),
        index,
    )
    return positive.view(torch.int8), lowest.logical_or_(confident)
