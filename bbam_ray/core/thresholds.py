"""Per-label decision thresholds, tuned on validation data."""

from __future__ import annotations

import torch
from torch import Tensor


def tune_thresholds(scores: Tensor, labels: Tensor, *, fallback: float = 0.0) -> Tensor:
    """Threshold of each label with the highest F1 on the given samples, (K,) float32.

    Candidates lie half-way between neighbouring distinct scores; among equal F1 the highest
    threshold wins. A label without positives or without samples gets ``fallback``.

    Args:
        scores: (N, K) of validation samples, never of the test set.
        labels: (N, K) 0/1.
        fallback: on the scale of the scores (0 for logits).
    """
    num_samples, num_labels = scores.shape
    if num_samples == 0:
        return torch.full((num_labels,), fallback)
    ordered, order = scores.float().sort(dim=0, descending=True)
    hits = labels.gather(0, order).double()
    found, totals = hits.cumsum(0), hits.sum(0)
    predicted = torch.arange(1, num_samples + 1, device=scores.device).unsqueeze(1)
    f1 = 2 * found / (predicted + totals)
    below = torch.cat([ordered[1:], ordered[-1:] - 1])
    f1 = torch.where(ordered != below, f1, -1.0)  # a cut cannot divide equal scores
    best = f1.argmax(dim=0, keepdim=True)
    middle = (ordered + below) / 2
    # Between neighbouring floating-point numbers there is no middle: cut at the upper one.
    cut = torch.where(middle > below, middle, ordered).gather(0, best).squeeze(0)
    return torch.where(totals > 0, cut, torch.full_like(cut, fallback)).cpu()
