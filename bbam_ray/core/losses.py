"""Balanced binary angular margin loss, and the plain losses of the supervised baselines."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bbam_ray.core.angles import balanced_cosine
from bbam_ray.core.statistics import AngleStatistics

__all__ = ["asymmetric_loss", "balanced_cosine", "bbam_logits", "bbam_loss", "binary_loss"]


def binary_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Elementwise binary cross-entropy of logits.

    y softplus(-z) + (1 - y) softplus(z). Softplus keeps value and gradient finite where
    log(1 - sigmoid(z)) is infinite in float32 (from z of about 17).

    Args:
        logits: z, (B, K).
        labels: y, (B, K) in [0, 1].

    Returns:
        (B, K), >= 0, in the dtype of the logits.

    Examples:
        >>> binary_loss(torch.tensor([0.0, 100.0]), torch.tensor([1, 0]))
        tensor([  0.6931, 100.0000])
    """
    y = labels.to(logits.dtype)
    return y * F.softplus(-logits) + (1 - y) * F.softplus(logits)


def bbam_logits(
    cosine: Tensor,
    labels: Tensor | float,
    stats: AngleStatistics,
    scale: float,
    margin: float,
    *,
    clamp: bool = False,
) -> Tensor:
    """Logits of the balanced binary angular margin loss.

    z = s (phi - y m), phi of ``balanced_cosine``. A sample whose label is unknown is scored with y = 1/2,
    which puts the decision boundary z = 0 half-way between the targets of the two polarities.

    Args:
        cosine: c, (B, K) in [-1, 1].
        labels: y, (B, K) in [0, 1], or one number for all entries.
        stats: angle statistics of the K labels; empty ones give the unbalanced margin logits.
        scale: s > 0, the steepness.
        margin: m >= 0, in units of cosine.
        clamp: see ``balanced_cosine``.

    Returns:
        z, (B, K), float32 (float64 for float64 input).

    Source: [S2ML2-BBAM](https://openreview.net/forum?id=AqcPvWwktK), section 3.2; docs/method.md,
    section 3.

    Examples:
        >>> cosine, unbalanced = torch.tensor([[0.5]]), AngleStatistics.empty(1)
        >>> bbam_logits(cosine, torch.tensor([[1]]), unbalanced, scale=20.0, margin=0.4)
        tensor([[2.0000]])
        >>> bbam_logits(cosine, 0.5, unbalanced, scale=20.0, margin=0.4)
        tensor([[6.]])
    """
    phi = balanced_cosine(cosine, labels, stats, clamp=clamp)
    y = torch.as_tensor(labels, device=phi.device).to(phi.dtype)
    return scale * (phi - y * margin)


def bbam_loss(
    cosine: Tensor,
    labels: Tensor,
    stats: AngleStatistics,
    scale: float,
    margin: float,
    *,
    clamp: bool = False,
) -> Tensor:
    """Elementwise balanced binary angular margin loss.

    softplus(-z) where y = 1 and softplus(z) where y = 0, with z of ``bbam_logits``. Finite, with finite
    gradients, for every cosine in [-1, 1] and scales up to 100.

    Args:
        cosine: c, (B, K) in [-1, 1].
        labels: y, (B, K) in [0, 1].
        stats: angle statistics of the K labels; empty ones give the unbalanced margin loss.
        scale: s > 0, the steepness.
        margin: m >= 0, in units of cosine.
        clamp: see ``balanced_cosine``.

    Returns:
        (B, K), >= 0, float32 (float64 for float64 input).

    Source: [S2ML2-BBAM](https://openreview.net/forum?id=AqcPvWwktK), the loss of section 3.2;
    docs/method.md, section 3.

    Examples:
        >>> cosine, unbalanced = torch.tensor([[0.5, 0.5]]), AngleStatistics.empty(2)
        >>> bbam_loss(cosine, torch.tensor([[1, 0]]), unbalanced, scale=20.0, margin=0.4)
        tensor([[ 0.1269, 10.0000]])
    """
    return binary_loss(bbam_logits(cosine, labels, stats, scale, margin, clamp=clamp), labels)


def asymmetric_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    clip: float = 0.05,
) -> Tensor:
    """Elementwise asymmetric loss, which weighs easy negatives down and drops the easiest ones.

    With p = sigmoid(z): -(1 - p)^g+ log p for positives, and -(p_m)^g- log(1 - p_m) with
    p_m = max(p - clip, 0) for negatives. The focusing weights (1 - p)^g+ and (p_m)^g- carry no gradient.
    A negative with p <= clip has loss 0.

    Args:
        logits: z, (B, K).
        labels: y, (B, K) 0/1.
        gamma_positive: g+ >= 0.
        gamma_negative: g- >= 0.
        clip: in [0, 1), a probability.

    Returns:
        (B, K), >= 0, in the dtype of the logits.

    Source: [Asymmetric Loss For Multi-Label Classification](https://arxiv.org/abs/2009.14119), ICCV 2021;
    docs/method.md, section 11.

    Examples:
        >>> asymmetric_loss(torch.tensor([2.0, 2.0, -4.0]), torch.tensor([1, 0, 0]))
        tensor([0.1269, 0.8464, 0.0000])
    """
    y = labels.to(logits.dtype)
    probability = torch.sigmoid(logits)
    shifted = (probability - clip).clamp_min(0)
    with torch.no_grad():
        positive_weight = (1 - probability).pow(gamma_positive)
        negative_weight = shifted.pow(gamma_negative)
    # 1 - p_m = min(sigmoid(-z) + clip, 1) stays away from 0, so its logarithm is finite.
    negative = -(torch.sigmoid(-logits) + clip).clamp(max=1).log() if clip else F.softplus(logits)
    return y * positive_weight * F.softplus(-logits) + (1 - y) * negative_weight * negative
