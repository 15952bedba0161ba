"""The balance map on angles: both polarities of a label get the same variance (paper, 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bbam_ray.core.statistics import AngleStatistics


def arccos(cosine: Tensor) -> Tensor:
    """Angle in [0, pi] of a cosine, with a finite gradient on all of [-1, 1].

    theta = atan2(sqrt(1 - c^2), c). Values that rounding pushed past +-1 count as +-1, where the
    gradient is 0 instead of infinite.
    """
    c = cosine.clamp(-1, 1)
    sine = ((1 - c) * (1 + c)).clamp_min(1e-30).sqrt()
    return torch.atan2(sine, c)


def balance_coefficients(stats: AngleStatistics) -> tuple[Tensor, Tensor]:
    """Slope a and offset b of psi = a theta + b, each (2, K).

    With vbar_k = (v_0k + v_1k) / 2: a_pk = sqrt(vbar_k / v_pk), b_pk = (1 - a_pk) mu_pk. Labels whose
    statistics cannot be used (see ``AngleStatistics.balanced_labels``) get the identity a = 1, b = 0.
    """
    usable = stats.balanced_labels()
    variances = torch.where(usable, stats.variances, torch.ones_like(stats.variances))
    means = torch.where(usable, stats.means, torch.zeros_like(stats.means))
    slope = (variances.mean(dim=0) / variances).sqrt()
    return slope, (1 - slope) * means


def balanced_cosine(
    cosine: Tensor, labels: Tensor | float, stats: AngleStatistics, *, clamp: bool = False
) -> Tensor:
    """Cosine after the angle variances of a label's two polarities are made equal.

    phi = cos((1 - y) psi_0 + y psi_1), psi_p = a_p arccos(c) + b_p. The training target y chooses the
    polarity; whatever the method may not know the label of is scored with y = 1/2.

    Args:
        cosine: (B, K) in [-1, 1]; half precisions are computed in float32.
        labels: (B, K) in [0, 1], or one number for all entries.
        stats: angle statistics of the K labels.
        clamp: hold psi in [0, pi]. Without it cos folds outside that range and the ranking of
            samples by phi is no longer the ranking by cosine.

    Returns:
        (B, K), float32 (float64 for float64 input); equal to the cosine for labels not balanced.
    """
    if cosine.dtype not in (torch.float32, torch.float64):
        cosine = cosine.float()
    slope, offset = (t.to(cosine.dtype) for t in balance_coefficients(stats))
    y = torch.as_tensor(labels, device=cosine.device).to(cosine.dtype)
    psi = (slope[0] + y * (slope[1] - slope[0])) * arccos(cosine)
    psi = psi + offset[0] + y * (offset[1] - offset[0])
    if clamp:
        psi = psi.clamp(0, math.pi)
    return torch.where(stats.balanced_labels(), torch.cos(psi), cosine)
