"""A plain refresh: sorted columns, and a gathered matrix of features for every label."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Refreshed:
    """Pseudo-labels, confident entries (N_u, K); means, variances (2, K); selected entries (N, K)."""

    pseudo: Tensor
    confident: Tensor
    means: Tensor
    variances: Tensor
    selected: Tensor


def plain_refresh(
    scores: Tensor,
    features: Tensor,
    known: Tensor,
    *,
    positive_keep: float = 1.0,
    negative_keep: float = 0.998,
    ratio: float = 5.0,
) -> Refreshed:
    """The first refresh (docs/method.md, sections 4 to 6), label by label.

    Args:
        scores: (N_u, K) of the unlabelled samples.
        features: (N_l + N_u, D), labelled samples first.
        known: (N_l, K) 0/1.
    """
    count, num_labels = scores.shape
    frequency = known.double().mean(0)
    pseudo = torch.zeros(count, num_labels, dtype=torch.int8)
    confident = torch.zeros(count, num_labels, dtype=torch.bool)
    ordered = scores.sort(dim=0, descending=True).values
    for k in range(num_labels):
        share = float(frequency[k])
        positive = math.floor(share * count)
        sure = math.floor(positive_keep * share * count)
        low = math.floor(negative_keep * (1 - share) * count)
        if positive:
            pseudo[:, k] = (scores[:, k] >= ordered[positive - 1, k]).to(torch.int8)
        if sure:
            confident[:, k] |= scores[:, k] >= ordered[sure - 1, k]
        if low:
            confident[:, k] |= scores[:, k] <= ordered[count - low, k]
    labels = torch.cat([known, pseudo])
    valid = torch.cat([torch.ones_like(known, dtype=torch.bool), confident])
    means = torch.zeros(2, num_labels, dtype=features.dtype)
    variances = torch.zeros(2, num_labels, dtype=features.dtype)
    selected = valid & (labels == 1)
    for k in range(num_labels):
        positives = features[valid[:, k] & (labels[:, k] == 1)]
        prototype = positives.mean(0)
        for polarity in (0, 1):
            of = features[valid[:, k] & (labels[:, k] == polarity)]
            angle = torch.arccos(F.cosine_similarity(of, prototype[None]).clamp(-1, 1))
            means[polarity, k] = angle.mean()
            variances[polarity, k] = angle.var() if len(angle) > 1 else 0
        candidates = (valid[:, k] & (labels[:, k] == 0)).nonzero().squeeze(1)
        similarity = F.cosine_similarity(features[candidates], prototype[None])
        hardest = similarity.argsort(descending=True)[: math.floor(ratio * len(positives))]
        selected[candidates[hardest], k] = True
    return Refreshed(pseudo, confident, means, variances, selected)
