"""The balance map on angles: both polarities of a label get the same variance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bbam_ray.core.statistics import AngleStatistics


def arccos(cosine: Tensor) -> Tensor:
    """The angle of a cosine, with a finite gradient on all of [-1, 1].

    theta = atan2(sqrt(1 - c^2), c). Values that rounding pushed past +-1 count as +-1, where the
    gradient is 0 instead of infinite.

    Args:
        cosine: c of any shape, in [-1, 1].

    Returns:
        theta in [0, pi], radians, in the shape of the cosine.

    Examples:
        >>> arccos(torch.tensor([0.5, 0.0, -1.0]))
        tensor([1.0472, 1.5708, 3.1416])
    """
    c = cosine.clamp(-1, 1)
    sine = ((1 - c) * (1 + c)).clamp_min(1e-30).sqrt()
    return torch.atan2(sine, c)


def balance_coefficients(stats: AngleStatistics) -> tuple[Tensor, Tensor]:
    """Slope and offset of the balance map psi_p = a_p theta + b_p, by polarity p and label k.

    With vbar_k = (v_0k + v_1k) / 2: a_pk = sqrt(vbar_k / v_pk) and b_pk = (1 - a_pk) mu_pk, so that psi
    keeps the mean mu_pk and has the variance vbar_k in both polarities. Labels whose statistics cannot be
    used (see ``AngleStatistics.balanced_labels``) get the identity a = 1, b = 0.

    Args:
        stats: mu (radians) and v (radians squared) of the K labels.

    Returns:
        a (2, K) > 0 without unit and b (2, K) in radians.

    Source: [S2ML2-BBAM](https://openreview.net/forum?id=AqcPvWwktK), section 3.2; docs/method.md,
    section 2.

    Examples:
        >>> means, variances = torch.tensor([[1.6], [1.2]]), torch.tensor([[0.02], [0.08]])
        >>> slope, offset = balance_coefficients(AngleStatistics(means, variances))
        >>> slope.flatten(), offset.flatten()
        (tensor([1.5811, 0.7906]), tensor([-0.9298,  0.2513]))
    """
    return stats.slope_and_offset


def balanced_cosine(
    cosine: Tensor, labels: Tensor | float, stats: AngleStatistics, *, clamp: bool = False
) -> Tensor:
    """Cosine after the angle variances of a label's two polarities are made equal.

    phi = cos((1 - y) psi_0 + y psi_1), psi_p = a_p arccos(c) + b_p with a and b of
    ``balance_coefficients``. In training the label y chooses the polarity. A sample whose label must
    stay unknown (pseudo-labelling, validation, test, prediction) is scored with y = 1/2.

    Args:
        cosine: c, (B, K) in [-1, 1]; half precisions are computed in float32.
        labels: y, (B, K) in [0, 1], or one number for all entries.
        stats: angle statistics of the K labels.
        clamp: hold psi in [0, pi]. Without it cos folds outside that range, and the ranking of
            samples by phi can differ from the ranking by cosine.

    Returns:
        phi, (B, K) in [-1, 1], float32 (float64 for float64 input); equal to the cosine for labels that
        are not balanced.

    Source: [S2ML2-BBAM](https://openreview.net/forum?id=AqcPvWwktK), section 3.2; docs/method.md,
    section 2.

    Examples:
        >>> stats = AngleStatistics(torch.tensor([[1.6], [1.2]]), torch.tensor([[0.02], [0.08]]))
        >>> balanced_cosine(torch.tensor([[0.5], [0.5]]), torch.tensor([[0], [1]]), stats)
        tensor([[0.7479],
                [0.4720]])
        >>> balanced_cosine(torch.tensor([[0.5]]), 0.5, AngleStatistics.empty(1))
        tensor([[0.5000]])
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
