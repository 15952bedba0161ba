"""``softmatch``: alignment, statistics, weights and loss against loops in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bbam_ray.methods.softmatch import (
    Softmatch,
    SoftmatchOptions,
    aligned_probability,
    truncated_gaussian,
)

K = 3
LABELS = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=torch.int8)


@pytest.fixture
def make(task: Callable) -> Callable[..., Softmatch]:
    """Makes the method at the start of an epoch with 20 unlabelled samples; label 2 is absent."""

    def softmatch(**options: Any) -> Softmatch:
        method = Softmatch(SoftmatchOptions(**options), task(LABELS))
        method.start_epoch(20)
        return method

    return softmatch


class Reference:
    """The statistics of section 11, one label and one sample at a time."""

    def __init__(self, momentum: float, n_sigma: float) -> None:
        self.momentum, self.n_sigma, self.steps = momentum, n_sigma, 0
        self.q, self.mu, self.var = ([0.0] * K for _ in range(3))

    def weights(self, logits: list[list[float]]) -> list[list[float]]:
        count, t = len(logits), [0.5, 0.5, 0.0]
        old = min(self.momentum, (1 + self.steps) / (10 + self.steps)) if self.steps else 0.0
        self.steps += 1
        found = [[0.0] * K for _ in logits]
        for k in range(K):
            p = [1 / (1 + math.exp(-row[k])) for row in logits]
            q = self.q[k] = old * self.q[k] + (1 - old) * sum(p) / count
            up = [x * t[k] / q for x in p]
            down = [(1 - x) * (1 - t[k]) / (1 - q) for x in p]
            c = [max(a, b) / (a + b) for a, b in zip(up, down, strict=True)]
            mean = sum(c) / count
            variance = sum((x - mean) ** 2 for x in c) / (count - 1)
            self.mu[k] = old * self.mu[k] + (1 - old) * mean
            self.var[k] = old * self.var[k] + (1 - old) * variance
            for i, x in enumerate(c):
                below = min(x - self.mu[k], 0) ** 2
                spread = 2 * max(self.var[k], 1e-12)
                found[i][k] = math.exp(-below * self.n_sigma**2 / spread)
        return found


@pytest.mark.parametrize(("momentum", "n_sigma"), [(0.999, 2.0), (0.0, 1.0), (0.15, 3.0)])
def test_labels_and_weights_of_three_steps_are_those_of_the_loops(
    momentum: float, n_sigma: float, make: Callable[..., Softmatch], random_cosines: Callable
) -> None:
    softmatch = make(step_momentum=momentum, n_sigma=n_sigma)
    reference = Reference(momentum, n_sigma)
    for seed in (1, 2, 3):
        logits = 4 * random_cosines(seed, 9).detach().double()
        pseudo, weight = softmatch.weigh(logits, 9)
        expected = torch.tensor(reference.weights(logits.tolist()), dtype=torch.float64)
        torch.testing.assert_close(weight, expected, rtol=1e-5, atol=1e-7)
        assert torch.equal(pseudo, logits >= 0)
        assert 0 < float(weight[:, :2].min()) < 0.9


def test_an_absent_label_is_aligned_to_0_and_an_everywhere_present_one_to_1() -> None:
    logits = torch.tensor([[-90.0, 0, 90], [50, -3, 2]])
    for found in (0.0, 0.4, 1.0):
        q = torch.full((3,), found)
        assert torch.equal(aligned_probability(logits, torch.zeros(3), q), torch.zeros(2, 3))
        assert torch.equal(aligned_probability(logits, torch.ones(3), q), torch.ones(2, 3))
    same = torch.tensor([0.1, 0.5, 0.8])
    torch.testing.assert_close(aligned_probability(logits, same, same), torch.sigmoid(logits))


def test_the_weight_is_1_from_the_mean_upwards_and_falls_below() -> None:
    c = torch.tensor([[0.5, 0.6, 0.8, 0.9, 1.0]]).T
    mean, variance = torch.tensor([0.8]), torch.tensor([0.01])
    weight = truncated_gaussian(c, mean, variance, 2.0).flatten()
    torch.testing.assert_close(weight[:2], torch.exp(torch.tensor([-0.09, -0.04]) * 4 / 0.02))
    assert torch.equal(weight[2:], torch.ones(3))
    nothing = truncated_gaussian(c, mean, torch.zeros(1), 2.0).flatten()
    assert torch.equal(nothing, torch.tensor([0.0, 0, 1, 1, 1]))


def test_the_loss_of_a_step_is_weighted_and_the_weak_view_only_gives_labels(
    make: Callable[..., Softmatch],
    fixed_cosines: nn.Module,
    samples: Callable,
    random_cosines: Callable,
) -> None:
    softmatch, twin = (make(scale=5, unlabeled_weight=0.3) for _ in range(2))
    known, weak, strong = (random_cosines(s, n) for s, n in ((1, 4), (2, 6), (3, 6)))
    rows = [19, 3, 0, 8, 7, 5]
    loss = softmatch.semi_supervised_loss(
        fixed_cosines,
        samples(strong=known),
        LABELS,
        samples(weak=weak, strong=strong, rows=rows),
    )
    pseudo, weight = twin.weigh(5 * weak.detach(), 6)

    def entry(cosine: Tensor, y: Tensor) -> float:
        z = 5 * float(cosine.detach())
        return math.log1p(math.exp(-z if y else z))

    each = [(i, k) for i in range(6) for k in range(K)]
    expected = sum(float(weight[i, k]) * entry(strong[i, k], pseudo[i, k]) for i, k in each)
    assert float(loss.unlabeled.detach()) == pytest.approx(0.3 * expected / 6, rel=1e-5)
    expected = sum(entry(known[i, k], LABELS[i, k]) for i in range(4) for k in range(K))
    assert float(loss.labeled.detach()) == pytest.approx(expected / 4, rel=1e-5)
    loss.total.backward()
    assert strong.grad.abs().sum() > 0 and not weak.grad.any()
    labels, confident = softmatch.pseudo_labels()
    assert torch.equal(labels[rows], pseudo.to(torch.int8))
    assert torch.equal(confident[rows], weight >= 0.5)
    assert labels[rows].sum() == labels.sum() > 0  # other samples have no records


def test_empty_shares_of_a_step_leave_statistics_and_gradients_finite(
    make: Callable[..., Softmatch],
    fixed_cosines: nn.Module,
    samples: Callable,
    random_cosines: Callable,
) -> None:
    softmatch, nothing = make(), torch.zeros(0, K)
    known, others = random_cosines(1, 4), random_cosines(2, 6)
    for labeled, unlabeled in ((known, nothing), (nothing, others)):
        loss = softmatch.semi_supervised_loss(
            fixed_cosines,
            samples(weak=labeled, strong=labeled, total=4),
            LABELS[: len(labeled)],
            samples(weak=unlabeled, strong=unlabeled, total=6),
        )
        loss.total.backward()
    assert known.grad.any() and others.grad.any()
    for average in (softmatch.probability, softmatch.confidence):
        assert torch.isfinite(average.value).all() and average.updates == 2


def test_its_statistics_are_saved_in_a_checkpoint(
    make: Callable[..., Softmatch], random_cosines: Callable
) -> None:
    softmatch, other = make(), make()
    softmatch.weigh(random_cosines(1, 9).detach(), 9)
    other.load_state_dict(softmatch.state_dict())
    for method in (softmatch, other):
        method.last = method.weigh(random_cosines(2, 9).detach(), 9)
    assert all(map(torch.equal, softmatch.last, other.last))
