"""``mime``: the latent variable in closed form, the loss against loops, and permanent positives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bbam_ray.methods.method import Snapshot
from bbam_ray.methods.mime import (
    LatentVariance,
    Mime,
    MimeOptions,
    divergence_from_prior,
    moderated_logits,
)

N_L, N_U, K = 4, 6, 3
LABELS = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=torch.int8)


@pytest.fixture
def make(task: Callable) -> Callable[..., Mime]:
    return lambda **options: Mime(MimeOptions(**options), task(LABELS))


@pytest.fixture
def model(fixed_cosines: nn.Module) -> nn.Module:
    """Cosines as features, with a variance that differs from entry to entry."""
    fixed_cosines.auxiliary = LatentVariance(K, K)
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        fixed_cosines.auxiliary.weight.copy_(torch.randn(K, K, generator=rng))
        fixed_cosines.auxiliary.bias.copy_(torch.tensor([-1.0, 0.0, 2.0]))
    return fixed_cosines


def snapshot(cosine: Tensor, rows: list[int] | None = None) -> Snapshot:
    """Of some of the unlabelled samples; all four labelled ones are there."""
    index = None
    if rows is not None:
        index = torch.cat([torch.arange(N_L), torch.tensor(rows, dtype=torch.int64) + N_L])
    return Snapshot(torch.zeros(N_L + len(cosine), 2), cosine, index)


def test_the_moderated_logit_is_near_the_expectation_over_the_latent() -> None:
    places, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    for mean in (-6.0, -1.0, 0.0, 0.5, 4.0):
        for variance in (1e-4, 0.5, 4.0):
            z = mean + math.sqrt(variance) * places
            expected = float(weights @ (1 / (1 + np.exp(-z))))
            pair = torch.tensor(mean), torch.tensor(variance).log()
            assert float(torch.sigmoid(moderated_logits(*pair))) == pytest.approx(
                expected, abs=0.02
            )


def test_the_divergence_is_that_of_two_gaussians() -> None:
    mean, variance = torch.tensor([0.0, 3.0, -8.0]), torch.tensor([1.0, 0.2, 5.0])
    latent = torch.distributions.Normal(mean, variance.sqrt())
    prior = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
    expected = torch.distributions.kl_divergence(latent, prior)
    torch.testing.assert_close(divergence_from_prior(mean, variance.log()), expected)
    assert float(divergence_from_prior(torch.zeros(()), torch.zeros(()))) == 0


def entry(cosine: float, log_variance: float, y: int, options: MimeOptions) -> float:
    mu, variance = options.scale * cosine, math.exp(log_variance)
    z = mu / math.sqrt(1 + math.pi * variance / 8)
    divergence = (mu**2 + variance - 1 - log_variance) / 2
    return math.log1p(math.exp(-z if y else z)) + options.bottleneck_weight * divergence


def summed(cosine: Tensor, labels: Tensor, model: nn.Module, options: MimeOptions) -> float:
    features = cosine.detach().double()
    total = 0.0
    for i in range(len(features)):
        direction = features[i] / features[i].norm()
        for k in range(K):
            head = model.auxiliary
            log_variance = float(head.weight[k].detach().double() @ direction + head.bias[k].item())
            total += entry(float(features[i, k]), log_variance, int(labels[i, k]), options)
    return total


@pytest.mark.parametrize("options", [{}, {"scale": 7, "bottleneck_weight": 0.3}], ids=str)
def test_the_loss_of_a_step_is_the_sum_over_all_entries(
    options: dict[str, Any],
    make: Callable[..., Mime],
    model: nn.Module,
    samples: Callable,
    random_cosines: Callable,
) -> None:
    mime = make(unlabeled_weight=0.6, **options)
    mime.refresh(snapshot(random_cosines(1, N_U).detach()))
    assert 0 < mime.pseudo.sum() < mime.pseudo.numel()
    known, others, rows = random_cosines(2, 4), random_cosines(3, 5), [5, 0, 3, 1, 2]
    loss = mime.semi_supervised_loss(
        model, samples(strong=known), LABELS, samples(strong=others, rows=rows)
    )
    expected = summed(known, LABELS, model, mime.options) / 4
    assert float(loss.labeled.detach()) == pytest.approx(expected, rel=1e-4)
    warm_up = mime.labeled_loss(model, samples(strong=known), LABELS)
    assert torch.equal(warm_up.total, loss.labeled)
    expected = 0.6 * summed(others, mime.pseudo[rows], model, mime.options) / 5
    assert float(loss.unlabeled.detach()) == pytest.approx(expected, rel=1e-4)
    loss.total.backward()
    for leaf in (known, others, model.auxiliary.weight, model.auxiliary.bias):
        assert torch.isfinite(leaf.grad).all() and leaf.grad.any()


def test_a_rank_without_unlabelled_samples_in_a_step_adds_nothing(
    make: Callable[..., Mime], model: nn.Module, samples: Callable, random_cosines: Callable
) -> None:
    mime, nothing = make(), torch.zeros(0, K)
    mime.refresh(snapshot(nothing, []))
    known = samples(strong=random_cosines(2, 4))
    loss = mime.semi_supervised_loss(model, known, LABELS, samples(strong=nothing, total=12))
    assert loss.unlabeled == 0
    loss.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.auxiliary.parameters())


def test_an_entry_is_negative_until_it_passes_the_threshold_and_then_stays_positive(
    make: Callable[..., Mime],
) -> None:
    mime = make(positive_threshold=0.9)
    edge = math.log(9) / 20  # where p is 0.9
    first = torch.full((N_U, K), edge - 1e-3)
    first[1, 0] = first[4, 2] = edge + 1e-3
    mime.refresh(snapshot(first))
    assert mime.pseudo.nonzero().tolist() == [[1, 0], [4, 2]]
    second = torch.full((N_U, K), -0.5)
    second[0, 1] = 0.9
    mime.refresh(snapshot(second))
    assert mime.pseudo.nonzero().tolist() == [[0, 1], [1, 0], [4, 2]]
    labels, taken = mime.pseudo_labels()
    assert torch.equal(labels, mime.pseudo) and taken.all()
    assert not mime.positive[:N_L].any()  # rows of labelled samples


def test_positives_follow_the_samples_and_are_restored_from_a_checkpoint(
    make: Callable[..., Mime],
) -> None:
    mime, other = make(), make()
    assert mime.pseudo_labels() is None
    scores = torch.full((N_U, K), -1.0)
    scores[2, 0] = scores[5, 1] = 1.0
    mime.refresh(snapshot(scores, list(range(N_U))))
    other.load_state_dict(mime.state_dict())
    # In the next epoch this rank has another number of other samples.
    other.refresh(snapshot(torch.full((2, K), -1.0), [5, 2]))
    assert other.pseudo.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert torch.equal(other.positive, mime.positive)


def test_the_variance_starts_as_that_of_the_prior_and_stays_finite() -> None:
    head = LatentVariance(4, K)
    features = 1e6 * torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(head(features), torch.zeros(5, K))
    with torch.no_grad():
        head.bias.fill_(1e9)
    assert torch.equal(head(features), torch.full((5, K), 10.0))
    assert torch.isfinite(head(torch.zeros(1, 4))).all()
