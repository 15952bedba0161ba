"""Weights of pseudo-labels: how likely each is correct, by the network or as measured."""

from __future__ import annotations

import torch
from torch import Tensor

from bbam_ray.core.rows import row_blocks

BINS = 20  # of the probability, as in DiCaP
_PRIOR = 2.0  # samples with the bin's own probability that are added to each bin


def measured_shares(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of positives among held-out entries, by the probability that the network gives them.

    p = sigmoid(z) is divided into 20 bins of equal width. With n_b entries of all labels in bin b, of
    which n_1b are positive, and its centre c_b: share_b = (n_1b + 2 c_b) / (n_b + 2). So a bin with few
    entries keeps about the network's own probability, and an empty one has its centre.

    Args:
        logits: z, (N, K) of samples that the model was not trained on; of all ranks.
        labels: (N, K) 0/1.

    Returns:
        (20,) float64 in (0, 1).

    Source: [DiCaP](https://arxiv.org/abs/2511.20225), AAAI 2026; the added
    samples are ours. docs/method.md, section 5.

    Examples:
        >>> shares = measured_shares(torch.full((8, 1), 9.0), torch.tensor([[1], [0]] * 4))
        >>> round(float(shares[-1]), 3), float(shares[0])
        (0.595, 0.025)
    """
    bins = _positions(logits).add(0.5).floor().long().clamp(0, BINS - 1).flatten()
    entries = torch.bincount(bins, minlength=BINS)
    positives = torch.bincount(bins[labels.flatten() == 1], minlength=BINS)
    centres = (torch.arange(BINS, dtype=torch.float64, device=logits.device) + 0.5) / BINS
    return (positives + _PRIOR * centres) / (entries + _PRIOR)


def pseudo_label_weights(logits: Tensor, labels: Tensor, shares: Tensor | None = None) -> Tensor:
    """The probability that a pseudo-label is correct.

    weight = r for a pseudo-positive and 1 - r for a pseudo-negative. r is p = sigmoid(z), or, with
    ``shares``, interpolated linearly between the bin centres at p, and constant beyond the outermost
    centres.

    Args:
        logits: z, (N, K), of this rank's samples.
        labels: (N, K) 0/1, pseudo-labels.
        shares: (20,) from ``measured_shares``; None = the probability itself.

    Returns:
        (N, K) float32 in [0, 1].

    Source: docs/method.md, section 5.

    Examples:
        >>> pseudo_label_weights(torch.tensor([[0.0, -9.0]]), torch.tensor([[1, 0]])).tolist()
        [[0.5, 0.9998766183853149]]
    """
    weights = torch.empty(logits.shape, device=logits.device)
    for rows in row_blocks(*logits.shape, device=logits.device):
        if shares is None:
            right = torch.sigmoid(logits[rows].double())
        else:
            position = _positions(logits[rows]).clamp(0, BINS - 1)
            below = position.floor().long().clamp(max=BINS - 2)
            right = torch.lerp(shares[below], shares[below + 1], position - below)
        weights[rows] = torch.where(labels[rows] == 1, right, 1 - right).float()
    return weights


def _positions(logits: Tensor) -> Tensor:
    """Probabilities in units of a bin: 0 at the centre of the first, 19 at that of the last."""
    return torch.sigmoid(logits.double()) * BINS - 0.5
