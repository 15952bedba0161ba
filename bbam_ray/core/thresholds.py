"""Per-label decision thresholds, tuned on validation data."""

from __future__ import annotations

import torch
from torch import Tensor


def tune_thresholds(scores: Tensor, labels: Tensor, *, fallback: float = 0.0) -> Tensor:
    """The threshold of each label with the highest F1 on the given samples.

    F1 = 2 TP / (2 TP + FP + FN) of the decision score >= threshold. Candidates are half-way between
    neighbouring distinct scores; the highest threshold wins among equal F1. A label without positives
    or without samples gets ``fallback``.

    Args:
        scores: (N, K) of validation samples, never of the test set.
        labels: (N, K) 0/1.
        fallback: threshold on the scale of the scores (0 for logits).

    Returns:
        (K,) float32 on the CPU, on the scale of the scores.

    Examples:
        >>> tune_thresholds(torch.tensor([[0.9], [0.7], [0.2]]), torch.tensor([[1], [1], [0]]))
        tensor([0.4500])
    """
    num_samples, num_labels = scores.shape
    if num_samples == 0:
        return torch.full((num_labels,), fallback)
    ordered, order = scores.float().sort(dim=0, descending=True)
    hits = labels.gather(0, order).double()
    true_positives, totals = hits.cumsum(0), hits.sum(0)
    predicted = torch.arange(1, num_samples + 1, device=scores.device).unsqueeze(1)
    f1 = 2 * true_positives / (predicted + totals)
    below = torch.cat([ordered[1:], ordered[-1:] - 1])
    f1 = torch.where(ordered != below, f1, -1.0)  # a threshold cannot separate equal scores
    best = f1.argmax(dim=0, keepdim=True)
    middle = (ordered + below) / 2
    # Between neighbouring floating-point numbers there is no middle: take the upper one.
    threshold = torch.where(middle > below, middle, ordered).gather(0, best).squeeze(0)
    return torch.where(totals > 0, threshold, torch.full_like(threshold, fallback)).cpu()
