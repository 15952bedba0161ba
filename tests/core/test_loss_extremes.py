"""Losses stay finite, with finite gradients, at every extreme; the asymmetric loss is its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bbam_ray.core.losses import asymmetric_loss, balanced_cosine, bbam_loss, binary_loss
from bbam_ray.core.statistics import AngleStatistics

EPS = torch.finfo(torch.float32).eps
EDGES = [-1.0, -1 + EPS / 2, -1 + 1e-3, -1e-30, 0.0, 0.5, 1 - 1e-3, 1 - EPS / 2, 1.0]
STATISTICS = {
    "none": AngleStatistics.empty(len(EDGES)),
    "unequal": AngleStatistics(
        torch.tensor([[1.6], [0.9]]).expand(2, len(EDGES)),
        torch.tensor([[1e-3], [0.3]]).expand(2, len(EDGES)),
    ),
    "hardly any variance": AngleStatistics(
        torch.ones(2, len(EDGES)), torch.tensor([[0.1], [1e-12]]).expand(2, len(EDGES))
    ),
    "subnormal variance": AngleStatistics(
        torch.ones(2, len(EDGES)), torch.tensor([[0.1], [1e-42]]).expand(2, len(EDGES))
    ),
}


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stats", STATISTICS.values(), ids=list(STATISTICS))
def test_loss_and_gradient_are_finite_on_the_whole_range(
    stats: AngleStatistics, dtype: torch.dtype, clamp: bool
) -> None:
    cosine = torch.tensor([EDGES, EDGES]).to(dtype).requires_grad_()
    labels = torch.tensor([[0], [1]]).expand(2, len(EDGES))
    loss = bbam_loss(cosine, labels, stats, 100.0, 0.4, clamp=clamp)
    loss.sum().backward()
    assert cosine.grad is not None
    assert cosine.grad.dtype == dtype
    assert loss.dtype == torch.float32  # angles are not computed in half precision
    assert bool(torch.isfinite(loss).all()) and bool((loss >= 0).all())
    assert bool(torch.isfinite(cosine.grad).all())


def test_rounding_beyond_one_counts_as_one() -> None:
    beyond = torch.tensor([[1 + 4 * EPS, -1 - 4 * EPS]]).requires_grad_()
    stats = AngleStatistics(torch.ones(2, 2), torch.tensor([[0.1, 0.1], [0.3, 0.3]]))
    phi = balanced_cosine(beyond, 0.5, stats)
    phi.sum().backward()
    torch.testing.assert_close(phi, balanced_cosine(torch.tensor([[1.0, -1.0]]), 0.5, stats))
    assert beyond.grad is not None and bool(torch.isfinite(beyond.grad).all())


def test_half_precision_input_costs_only_its_own_rounding() -> None:
    cosine = torch.linspace(-1, 1, 27).view(3, 9).to(torch.bfloat16)
    stats = STATISTICS["unequal"]
    assert torch.equal(
        balanced_cosine(cosine, 0.5, stats), balanced_cosine(cosine.float(), 0.5, stats)
    )


def test_no_rows_give_no_losses() -> None:
    nothing = torch.empty(0, len(EDGES))
    for loss in (
        bbam_loss(nothing, nothing, STATISTICS["unequal"], 20.0, 0.4),
        binary_loss(nothing, nothing),
        asymmetric_loss(nothing, nothing),
    ):
        assert loss.shape == (0, len(EDGES))
        assert float(loss.sum()) == 0


def test_binary_loss_is_cross_entropy_and_never_overflows() -> None:
    logits = torch.tensor([[-3.0, -0.5, 0.0, 2.0]], dtype=torch.float64)
    for label in (0, 1):
        got = binary_loss(logits, torch.full_like(logits, label))
        for value, z in zip(got[0].tolist(), logits[0].tolist(), strict=True):
            p = 1 / (1 + math.exp(-z))
            assert value == pytest.approx(-math.log(p if label else 1 - p), rel=1e-12)
    far = torch.tensor([[-1e4, -17.0, 17.0, 1e4]]).repeat(2, 1).requires_grad_()
    loss = binary_loss(far, torch.tensor([[0], [1]]))
    loss.sum().backward()
    assert far.grad is not None and bool(torch.isfinite(far.grad).all())
    torch.testing.assert_close(loss[0, 2:].detach(), torch.tensor([17.0, 1e4]))
    torch.testing.assert_close(loss[1, :2].detach(), torch.tensor([1e4, 17.0]))


def naive_asymmetric(
    z: float, y: int, gamma_positive: float, gamma_negative: float, clip: float
) -> tuple[float, float]:
    """Value, and derivative with the focusing weight held constant."""
    p = 1 / (1 + math.exp(-z))
    if y:
        weight = (1 - p) ** gamma_positive
        return -weight * math.log(p), -weight * (1 - p)
    shifted = max(p - clip, 0.0)
    weight = shifted**gamma_negative
    slope = p * (1 - p) / (1 - shifted) if p > clip else 0.0
    return -weight * math.log(1 - shifted), weight * slope


@pytest.mark.parametrize("setting", [(0.0, 4.0, 0.05), (1.0, 2.0, 0.0), (2.0, 3.0, 0.2)])
def test_asymmetric_loss_is_its_formula(setting: tuple[float, float, float]) -> None:
    values = [-6.0, -2.5, -1.0, -0.1, 0.0, 0.7, 3.0, 6.0]
    logits = torch.tensor([values, values], dtype=torch.float64).requires_grad_()
    labels = torch.tensor([[0], [1]]).expand(2, len(values))
    gamma_positive, gamma_negative, clip = setting
    loss = asymmetric_loss(
        logits, labels, gamma_positive=gamma_positive, gamma_negative=gamma_negative, clip=clip
    )
    loss.sum().backward()
    expected = [[naive_asymmetric(z, y, *setting) for z in values] for y in (0, 1)]
    reference = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(loss.detach(), reference[..., 0], rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(logits.grad, reference[..., 1], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("gamma_positive", [0.0, 1.0])
def test_asymmetric_loss_is_finite_far_out(gamma_positive: float, clip: float) -> None:
    far = torch.tensor([[-100.0, -20.0, 20.0, 100.0]]).repeat(2, 1).requires_grad_()
    labels: Tensor = torch.tensor([[0], [1]]).expand(2, 4)
    loss = asymmetric_loss(far, labels, gamma_positive=gamma_positive, clip=clip)
    loss.sum().backward()
    assert far.grad is not None
    assert bool(torch.isfinite(loss).all()) and bool((loss >= 0).all())
    assert bool(torch.isfinite(far.grad).all())
    assert float(loss[1, 0].detach()) == pytest.approx(100.0)  # hard positives keep their loss
