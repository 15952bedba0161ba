"""Thresholds for pseudo-labels, from scores of labelled samples that the model has not trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.core.rows import row_blocks
from bbam_ray.core.thresholds import tune_thresholds


def metric_thresholds(logits: Tensor, labels: Tensor, *, beta: float, at_least: int) -> Tensor:
    """The threshold with the highest F-beta, for each label.

    Args:
        logits: (N, K) of held-out samples.
        labels: (N, K) 0/1.
        beta: below 1, precision counts more than recall.
        at_least: positives that a label must have.

    Returns:
        (2, K) float64 on the CPU, both rows equal: negative is a logit below, positive one at or above the
        threshold. NaN for a label with fewer positives.

    Source: [D2L](https://arxiv.org/abs/2407.18624), ECCV 2024;
    there on the samples that are trained on. docs/method.md, section 5.

    Examples:
        >>> logits, labels = torch.tensor([[2.0], [1.0], [-1.0]]), torch.tensor([[1], [0], [0]])
        >>> metric_thresholds(logits, labels, beta=0.5, at_least=1).flatten().tolist()
        [1.5, 1.5]
    """
    best = tune_thresholds(logits, labels, beta=beta).double()
    enough = (labels == 1).sum(0).cpu() >= at_least
    return torch.where(enough, best, torch.nan).expand(2, -1)


def midrange_thresholds(logits: Tensor, labels: Tensor, *, at_least: int) -> Tensor:
    """Two thresholds for each label: the mid-ranges of the scores of true negatives and positives.

    With p = sigmoid(z): tau_y = (min p + max p) / 2 over the held-out samples with label y. What lies
    between both is ambiguous. If tau_0 > tau_1 there is no between, and both become their mean.

    Args:
        logits: z, (N, K) of held-out samples.
        labels: y, (N, K) 0/1.
        at_least: positives, and negatives, that a label must have.

    Returns:
        (2, K) float64 on the CPU, thresholds of negatives and of positives, as logits; NaN for a label
        with fewer samples of either polarity.

    Source: [DiCaP](https://arxiv.org/abs/2511.20225), AAAI 2026; docs/method.md, section 5.

    Examples:
        >>> logits, labels = torch.tensor([[1.0], [-2.0]]), torch.tensor([[1], [0]])
        >>> [round(x, 6) for x in midrange_thresholds(logits, labels, at_least=1).flatten().tolist()]
        [-2.0, 1.0]
    """
    p = torch.sigmoid(logits.double().cpu())
    of_polarity = []
    for y in (0, 1):
        chosen = labels.cpu() == y
        lowest = torch.where(chosen, p, torch.inf).amin(0) if len(p) else p.new_zeros(p.shape[1])
        highest = torch.where(chosen, p, -torch.inf).amax(0) if len(p) else lowest
        enough = chosen.sum(0) >= max(1, at_least)
        of_polarity.append(torch.where(enough, (lowest + highest) / 2, torch.nan))
    negative, positive = of_polarity
    middle = (negative + positive) / 2  # NaN if either is
    thresholds = torch.stack([torch.minimum(negative, middle), torch.maximum(positive, middle)])
    return torch.logit(torch.where(middle.isnan(), torch.nan, thresholds))


def counts_beyond(logits: Tensor, thresholds: Tensor) -> Tensor:
    """How many samples of all ranks are beyond each threshold, in one message.

    Args:
        logits: (N, K), of this rank's samples.
        thresholds: (2, K), of negatives and of positives, equal on all ranks; NaN = none.

    Returns:
        (2, K) float64: samples that are below the positive threshold and at or below the negative one, and
        samples at or above the positive one; NaN where a threshold is NaN.

    Examples:
        >>> counts_beyond(torch.tensor([[2.0], [0.0], [-2.0]]), torch.tensor([[-1.0], [1.0]])).tolist()
        [[1.0], [1.0]]
    """
    (counts,) = distributed.all_reduce_sum(_counts(logits, thresholds))
    return torch.where(thresholds.to(logits.device).isnan(), torch.nan, counts.double())


def expected_counts(held_out: Tensor, thresholds: Tensor, num_samples: int) -> Tensor:
    """How many of N samples are beyond each threshold, if the share is that of held-out samples.

    For thresholds on the scores of another model, whose scale differs: a share has no scale.

    Args:
        held_out: (N_v, K) logits on the scale of the thresholds, not empty, equal on all ranks.
        thresholds: (2, K), as for ``counts_beyond``.
        num_samples: N, over all ranks.

    Returns:
        (2, K) float64, not rounded; NaN where a threshold is NaN.

    Examples:
        >>> expected_counts(torch.tensor([[2.0], [-2.0]]), torch.tensor([[-1.0], [1.0]]), 5).tolist()
        [[2.5], [2.5]]
    """
    counts = _counts(held_out, thresholds).double() * num_samples / len(held_out)
    return torch.where(thresholds.to(held_out.device).isnan(), torch.nan, counts)


def _counts(logits: Tensor, thresholds: Tensor) -> Tensor:
    negative, positive = thresholds.to(logits.device)
    counts = torch.zeros(2, logits.shape[1], dtype=torch.int64, device=logits.device)
    for rows in row_blocks(*logits.shape, device=logits.device):
        block = logits[rows].double()
        counts[0] += ((block <= negative) & (block < positive)).sum(0)
        counts[1] += (block >= positive).sum(0)
    return counts
