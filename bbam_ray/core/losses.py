"""Balanced binary angular margin loss, and the plain losses of the supervised baselines."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bbam_ray.core.angles import balanced_cosine
from bbam_ray.core.statistics import AngleStatistics

__all__ = ["asymmetric_loss", "balanced_cosine", "bbam_logits", "bbam_loss", "binary_loss"]


def binary_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Elementwise binary cross-entropy y softplus(-z) + (1 - y) softplus(z), (B, K), >= 0.

    Softplus keeps value and gradient finite where log(1 - sigmoid(z)) is infinite in float32
    (from z of about 17).
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
    """Logits z = s (phi - y m) of the balanced binary angular margin loss (paper, 3.2).

    Args:
        cosine: (B, K) in [-1, 1].
        labels: (B, K) in [0, 1], or one number; 1/2 scores what the label is unknown of, which puts
            the decision boundary z = 0 half-way between the targets of the two polarities.
        stats: angle statistics of the K labels; empty ones give the unbalanced margin logits.
        scale: s > 0.
        margin: m >= 0, in units of cosine.
        clamp: see ``balanced_cosine``.
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
    """Elementwise balanced binary angular margin loss, (B, K), >= 0 (paper, eq. of section 3.2).

    softplus(-z) for positives and softplus(z) for negatives with z of ``bbam_logits``. Finite, with
    finite gradients, for every cosine in [-1, 1] and scales up to 100.
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
    """Elementwise asymmetric loss (Ridnik et al., ICCV 2021), (B, K), >= 0.

    Positives: -(1 - p)^g+ log p. Negatives: -(p_m)^g- log(1 - p_m) with p_m = max(p - clip, 0). The
    focusing weights carry no gradient.
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
