"""Balanced cosine and binary angular margin loss against naive loops, golden values and limits."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bbam_ray.core.losses import balanced_cosine, bbam_logits, bbam_loss, binary_loss
from bbam_ray.core.statistics import AngleStatistics

GOLDEN = Path(__file__).parents[1] / "golden" / "loss.npz"
K = 5


def drawn(rows: int, seed: int = 0) -> tuple[Tensor, Tensor, AngleStatistics]:
    g = torch.Generator().manual_seed(seed)
    cosine = torch.rand(rows, K, generator=g, dtype=torch.float64) * 1.9 - 0.95
    labels = torch.randint(0, 2, (rows, K), generator=g)
    means = torch.rand(2, K, generator=g) + 1
    return cosine, labels, AngleStatistics(means, torch.rand(2, K, generator=g) * 0.2 + 0.02)


def naive_phi(cosine: Tensor, y: Tensor, stats: AngleStatistics, clamp: bool = False) -> Tensor:
    out = torch.empty(cosine.shape, dtype=torch.float64)
    for i in range(cosine.shape[0]):
        for k in range(cosine.shape[1]):
            means = [float(stats.means[p, k]) for p in (0, 1)]
            variances = [float(stats.variances[p, k]) for p in (0, 1)]
            theta, target = math.acos(float(cosine[i, k])), float(y[i, k])
            middle = sum(variances) / 2
            psi = 0.0
            for p, share in ((0, 1 - target), (1, target)):
                a = math.sqrt(middle / variances[p])
                psi += share * (a * theta + (1 - a) * means[p])
            out[i, k] = math.cos(min(max(psi, 0.0), math.pi) if clamp else psi)
    return out


def naive_loss(phi: Tensor, labels: Tensor, scale: float, margin: float) -> Tensor:
    out = torch.empty_like(phi)
    for i in range(phi.shape[0]):
        for k in range(phi.shape[1]):
            z = scale * (float(phi[i, k]) - float(labels[i, k]) * margin)
            signed = -z if labels[i, k] == 1 else z
            out[i, k] = max(signed, 0) + math.log1p(math.exp(-abs(signed)))
    return out


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("target", ["labels", "half", "soft"])
def test_balanced_cosine_is_the_formula(target: str, clamp: bool) -> None:
    cosine, labels, stats = drawn(30)
    y = {"labels": labels.double(), "half": torch.full_like(cosine, 0.5), "soft": cosine.abs()}
    expected = naive_phi(cosine, y[target], stats, clamp)
    given = 0.5 if target == "half" else labels if target == "labels" else y[target]
    torch.testing.assert_close(
        balanced_cosine(cosine, given, stats, clamp=clamp), expected, rtol=1e-5, atol=1e-6
    )
    if target == "labels":  # the example must reach the fold, or the switch is not tested
        assert bool((naive_phi(cosine, y[target], stats, not clamp) - expected).abs().max() > 1e-3)


@pytest.mark.parametrize(("scale", "margin"), [(20.0, 0.4), (1.0, 0.0), (100.0, 0.1)])
def test_loss_is_the_formula(scale: float, margin: float) -> None:
    cosine, labels, stats = drawn(30, seed=1)
    phi = balanced_cosine(cosine, labels, stats)
    expected = naive_loss(naive_phi(cosine, labels, stats), labels, scale, margin)
    torch.testing.assert_close(
        bbam_loss(cosine, labels, stats, scale, margin), expected, rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        bbam_logits(cosine, labels, stats, scale, margin), scale * (phi - labels.double() * margin)
    )
    halfway = bbam_logits(cosine, 0.5, stats, scale, margin)
    even = naive_phi(cosine, torch.full_like(cosine, 0.5), stats)
    torch.testing.assert_close(halfway, scale * (even - margin / 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("scale", "margin"), [(20, 0.4), (10, 0.2)])
def test_golden_loss(scale: int, margin: float) -> None:
    z = np.load(GOLDEN)
    name = f"s{scale}_m{margin}_"
    stats = AngleStatistics(torch.from_numpy(z["means"]), torch.from_numpy(z["variances"]))
    cosine, labels = torch.from_numpy(z["cosine"]).requires_grad_(), torch.from_numpy(z["targets"])
    mask = torch.from_numpy(z["mask"])

    phi = balanced_cosine(cosine, labels, stats)
    np.testing.assert_allclose(phi.detach(), z[name + "phi"], rtol=1e-4, atol=1e-6)
    logits = bbam_logits(cosine, labels, stats, scale, margin)
    np.testing.assert_allclose(logits.detach(), z[name + "logits"], rtol=1e-4, atol=2e-5)
    plain = bbam_logits(cosine, labels, AngleStatistics.empty(12), scale, margin)
    np.testing.assert_allclose(plain.detach(), z[name + "unbalanced_logits"], rtol=1e-4, atol=2e-5)

    loss = bbam_loss(cosine, labels, stats, scale, margin)
    finite = np.isfinite(z[name + "loss"])
    golden_z = z[name + "logits"].astype(np.float64)
    stable = np.logaddexp(0, np.where(z["targets"] == 1, -golden_z, golden_z))
    np.testing.assert_allclose(
        loss.detach().numpy()[finite], z[name + "loss"][finite], rtol=5e-2, atol=1e-6
    )
    np.testing.assert_allclose(loss.detach(), stable, rtol=1e-5, atol=1e-6)

    total = (loss * mask).sum()
    expected = float(z[name + "masked_sum"])
    expected = expected if math.isfinite(expected) else float((stable * z["mask"]).sum())
    assert float(total.detach()) == pytest.approx(expected, rel=1e-4)
    total.backward()
    assert cosine.grad is not None
    finite = np.isfinite(z[name + "grad"])
    precise = finite & (np.abs(golden_z) < 8)
    assert precise.sum() > 300
    for chosen, rtol in ((finite, 5e-2), (precise, 1e-4)):
        np.testing.assert_allclose(
            cosine.grad.numpy()[chosen], z[name + "grad"][chosen], rtol=rtol, atol=1e-4
        )


def test_golden_balanced_cosine_of_unknown_labels() -> None:
    z = np.load(GOLDEN)
    stats = AngleStatistics(torch.from_numpy(z["means"]), torch.from_numpy(z["variances"]))
    phi = balanced_cosine(torch.from_numpy(z["cosine"]), 0.5, stats)
    np.testing.assert_allclose(phi, z["eval_phi"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("balanced", [False, True])
def test_gradients_agree_with_finite_differences(balanced: bool) -> None:
    cosine, labels, stats = drawn(4, seed=2)
    stats = stats if balanced else AngleStatistics.empty(K)
    cosine.requires_grad_()
    gradcheck = torch.autograd.gradcheck
    assert gradcheck(lambda c: balanced_cosine(c, labels, stats), (cosine,))
    assert gradcheck(lambda c: balanced_cosine(c, 0.5, stats), (cosine,))
    assert gradcheck(lambda c: bbam_loss(c, labels, stats, 5.0, 0.3), (cosine,))
    assert gradcheck(lambda z: binary_loss(3 * z, labels), (cosine,))


def test_equal_variances_give_the_plain_margin_loss() -> None:
    cosine, labels, stats = drawn(20, seed=3)
    equal = AngleStatistics(stats.means, stats.variances[:1].expand(2, K))
    plain = F.binary_cross_entropy_with_logits(
        20 * (cosine - labels * 0.4), labels.double(), reduction="none"
    )
    torch.testing.assert_close(bbam_loss(cosine, labels, equal, 20.0, 0.4), plain)


def test_no_margin_and_no_statistics_give_cross_entropy_on_the_cosine() -> None:
    cosine, labels, _ = drawn(20, seed=4)
    plain = F.binary_cross_entropy_with_logits(cosine, labels.double(), reduction="none")
    loss = bbam_loss(cosine, labels, AngleStatistics.empty(K), 1.0, 0.0)
    torch.testing.assert_close(loss, plain)


@pytest.mark.parametrize("polarity", [0, 1])
@pytest.mark.parametrize("variance", [0.0, -0.1, math.inf, math.nan, "count 1", "count 0"])
def test_an_unusable_label_stays_unbalanced_and_the_others_are_balanced(
    polarity: int, variance: float | str
) -> None:
    cosine, labels, stats = drawn(20, seed=5)
    variances, counts = stats.variances.clone(), torch.full((2, K), 2.0)
    if isinstance(variance, str):
        counts[polarity, 2] = float(variance[-1])
    else:
        variances[polarity, 2] = variance
    cosine.requires_grad_()
    phi = balanced_cosine(cosine, labels, AngleStatistics(stats.means, variances, counts))
    phi.sum().backward()
    assert torch.equal(phi[:, 2], cosine[:, 2])
    assert cosine.grad is not None
    assert torch.equal(cosine.grad[:, 2], torch.ones(20, dtype=torch.float64))
    others = [0, 1, 3, 4]
    expected = naive_phi(cosine.detach(), labels, stats)[:, others]
    torch.testing.assert_close(phi.detach()[:, others], expected, rtol=1e-5, atol=1e-6)
