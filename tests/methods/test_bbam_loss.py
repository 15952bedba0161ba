"""The loss of a step of ``bbam``, against a loop over the selected entries."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bbam_ray.core.statistics import AngleStatistics
from bbam_ray.methods.bbam import Bbam, BbamOptions
from bbam_ray.methods.method import Minibatch, TaskInfo

N_L, N_U, K = 6, 12, 3


class FixedCosines(nn.Module):
    """A network whose inputs are the cosines that it returns."""

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, inputs


class Step:
    """A method in the middle of training, and one step's samples."""

    def __init__(self, **options: Any) -> None:
        rng = torch.Generator().manual_seed(3)
        labels = torch.randint(0, 2, (N_L, K), generator=rng, dtype=torch.int8)
        task = TaskInfo(K, labels, labels.double().mean(0), 4, 12)
        self.bbam = Bbam(BbamOptions(**options), task)
        self.bbam.statistics = AngleStatistics(
            torch.tensor([[1.4, 1.6, 1.5], [0.8, 0.9, 1.1]]),
            torch.tensor([[0.02, 0.05, 0.03], [0.08, 0.01, float("nan")]]),
            torch.full((2, K), 9.0),
        )
        pseudo = torch.randint(0, 2, (N_U, K), generator=rng, dtype=torch.int8)
        self.bbam.assigned = replace(self.bbam.assigned, labels=pseudo)
        self.bbam.labeled_selected = torch.rand(N_L, K, generator=rng) < 0.6
        self.bbam.unlabeled_selected = torch.rand(N_U, K, generator=rng) < 0.5
        self.cosine = {
            "labeled": (torch.rand(4, K, generator=rng) * 1.9 - 0.95).requires_grad_(),
            "unlabeled": (torch.rand(5, K, generator=rng) * 1.9 - 0.95).requires_grad_(),
        }
        self.labeled = Minibatch(torch.tensor([5, 0, 2, 3]), 4, self._view("labeled"))
        self.unlabeled = Minibatch(torch.tensor([11, 3, 4, 0, 7]), 5, self._view("unlabeled"))

    def _view(self, name: str) -> Any:
        def view(kind: str) -> Tensor:
            assert kind == "strong"
            return self.cosine[name]

        return view

    def loss(self) -> Any:
        labels = self.bbam.task.labels[self.labeled.rows]
        return self.bbam.semi_supervised_loss(FixedCosines(), self.labeled, labels, self.unlabeled)


def entry(cosine: float, y: int, step: Step, label: int, balanced: bool = True) -> float:
    """softplus of -z or z, z = s (cos psi - y m)."""
    o, stats = step.bbam.options, step.bbam.statistics
    phi = cosine
    mu = [float(stats.means[p, label]) for p in (0, 1)]
    v = [float(stats.variances[p, label]) for p in (0, 1)]
    if balanced and o.balance and all(map(math.isfinite, v)):
        a = math.sqrt(sum(v) / 2 / v[y])
        phi = math.cos(a * math.acos(cosine) + (1 - a) * mu[y])
    z = o.scale * (phi - y * o.margin)
    return math.log1p(math.exp(-z if y else z))


def summed(
    cosine: Tensor, labels: Tensor, selected: Tensor | None, step: Step, **kwargs: Any
) -> float:
    total = 0.0
    for i in range(cosine.shape[0]):
        for k in range(K):
            if selected is None or selected[i, k]:
                total += entry(float(cosine[i, k].detach()), int(labels[i, k]), step, k, **kwargs)
    return total


@pytest.mark.parametrize(
    "options",
    [{}, {"balance": False}, {"scale": 8, "margin": 0.1, "unlabeled_weight": 0.7}],
    ids=str,
)
def test_the_loss_of_a_step_is_the_sum_over_selected_entries(options: dict[str, Any]) -> None:
    step = Step(**options)
    bbam, rows_l, rows_u = step.bbam, step.labeled.rows, step.unlabeled.rows
    loss = step.loss()
    on_labeled = summed(
        step.cosine["labeled"], bbam.task.labels[rows_l], bbam.labeled_selected[rows_l], step
    )
    on_unlabeled = summed(
        step.cosine["unlabeled"],
        bbam.assigned.labels[rows_u],
        bbam.unlabeled_selected[rows_u],
        step,
    )
    weight = options.get("unlabeled_weight", 12 / 4)
    assert float(loss.labeled.detach()) == pytest.approx(on_labeled / 4, rel=1e-4)
    assert float(loss.unlabeled.detach()) == pytest.approx(weight * on_unlabeled / 5, rel=1e-4)
    assert torch.equal(loss.total, loss.labeled + loss.unlabeled)


def test_entries_that_are_not_selected_get_no_gradient_and_selected_ones_do() -> None:
    step = Step(scale=3)
    step.loss().total.backward()
    for name, selected, batch in (
        ("labeled", step.bbam.labeled_selected, step.labeled),
        ("unlabeled", step.bbam.unlabeled_selected, step.unlabeled),
    ):
        assert torch.equal(step.cosine[name].grad != 0, selected[batch.rows])


def test_a_broken_entry_that_is_not_selected_does_not_reach_the_loss() -> None:
    step = Step()
    expected = float(step.loss().total.detach())
    row = int((~step.bbam.unlabeled_selected[step.unlabeled.rows]).any(1).nonzero()[0])
    label = int((~step.bbam.unlabeled_selected[step.unlabeled.rows[row]]).nonzero()[0])
    with torch.no_grad():
        step.cosine["unlabeled"][row, label] = float("nan")
    assert float(step.loss().total.detach()) == expected


def test_the_warm_up_uses_every_entry_and_the_identity_map() -> None:
    step = Step()
    labels = step.bbam.task.labels[step.labeled.rows]
    loss = step.bbam.labeled_loss(FixedCosines(), step.labeled, labels)
    expected = summed(step.cosine["labeled"], labels, None, step, balanced=False) / 4
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-5)
    assert loss.unlabeled is None


@pytest.mark.parametrize(("given", "expected"), [(None, 12 / 4), (0.0, 0.0), (1.5, 1.5)])
def test_the_default_weight_of_unlabelled_samples_is_that_of_the_published_sum(
    given: float | None, expected: float
) -> None:
    assert Step(unlabeled_weight=given).bbam.unlabeled_weight == expected


def test_a_weight_of_0_learns_nothing_from_unlabelled_samples() -> None:
    step = Step(unlabeled_weight=0)
    step.loss().total.backward()
    assert torch.equal(step.cosine["unlabeled"].grad, torch.zeros(5, K))
    assert step.cosine["labeled"].grad.abs().sum() > 0
