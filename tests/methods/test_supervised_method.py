"""The supervised baselines: each loss against its formula, and the views that they do not use."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bbam_ray.methods.method import Minibatch, Snapshot, TaskInfo
from bbam_ray.methods.supervised import Supervised, SupervisedOptions

LABELS = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0]], dtype=torch.int8)


class FixedCosines(nn.Module):
    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, inputs


def method(**options: Any) -> Supervised:
    task = TaskInfo(3, LABELS, LABELS.double().mean(0), 4, 8)
    return Supervised(SupervisedOptions(**options), task)


def step(cosine: Tensor, **options: Any) -> Tensor:
    minibatch = Minibatch(torch.arange(4), 4, {"strong": cosine}.__getitem__)
    return method(**options).labeled_loss(FixedCosines(), minibatch, LABELS).total


def cosines() -> Tensor:
    return torch.rand(4, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1


def binary(c: float, y: int, s: float) -> float:
    p = 1 / (1 + math.exp(-s * c))
    return -math.log(p if y else 1 - p)


def angular(c: float, y: int, s: float, m: float) -> float:
    z = s * (c - y * m)
    return math.log1p(math.exp(-z if y else z))


def asymmetric(c: float, y: int, s: float, gamma: float, clip: float) -> float:
    p = 1 / (1 + math.exp(-s * c))
    shifted = max(p - clip, 0)
    return -math.log(p) if y else -(shifted**gamma) * math.log(1 - shifted)


@pytest.mark.parametrize(
    ("options", "formula"),
    [
        ({"loss": "bce", "scale": 6}, lambda c, y: binary(c, y, 6)),
        ({"loss": "bce", "scale": 6, "margin": 1.5}, lambda c, y: binary(c, y, 6)),
        ({"loss": "angular", "scale": 9, "margin": 0.3}, lambda c, y: angular(c, y, 9, 0.3)),
        ({"loss": "angular", "scale": 9, "margin": 0}, lambda c, y: binary(c, y, 9)),
        ({"loss": "asl", "scale": 5}, lambda c, y: asymmetric(c, y, 5, 4, 0.05)),
        (
            {"loss": "asl", "scale": 5, "gamma_negative": 1, "clip": 0.2},
            lambda c, y: asymmetric(c, y, 5, 1, 0.2),
        ),
        (
            {"loss": "asl", "scale": 5, "gamma_negative": 0, "clip": 0},
            lambda c, y: binary(c, y, 5),
        ),
    ],
    ids=["bce", "bce ignores m", "angular", "no margin", "asl", "asl 1", "no focus"],
)
def test_the_loss_is_its_formula_summed_over_labels_and_divided_by_the_batch(
    options: dict[str, Any], formula: Callable[[float, int], float]
) -> None:
    given = cosines()
    expected = sum(
        formula(float(given[i, k]), int(LABELS[i, k])) for i in range(4) for k in range(3)
    )
    assert float(step(given, **options)) == pytest.approx(expected / 4, rel=1e-4)


def test_the_three_losses_differ() -> None:
    values = {float(step(cosines(), loss=loss)) for loss in ("bce", "asl", "angular")}
    assert len(values) == 3


@pytest.mark.parametrize("loss", ["bce", "asl", "angular"])
def test_extreme_cosines_have_finite_loss_and_gradient(loss: str) -> None:
    cosine = torch.tensor([[1.0, -1, 0]]).repeat(4, 1).requires_grad_()
    value = step(cosine, loss=loss, scale=100)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(cosine.grad).all()


@pytest.mark.parametrize(
    ("options", "threshold"),
    [({"loss": "angular", "margin": 0.4}, 0.2), ({"loss": "bce"}, 0.0), ({"loss": "asl"}, 0.0)],
    ids=str,
)
def test_scores_are_0_half_way_between_the_targets(
    options: dict[str, Any], threshold: float
) -> None:
    logits = method(scale=7, **options).logits(torch.tensor([[threshold, -1.0, 1.0]]))
    expected = 7 * (torch.tensor([[threshold, -1.0, 1.0]]) - threshold)
    torch.testing.assert_close(logits, expected)


def test_only_the_strong_view_is_computed() -> None:
    with pytest.raises(KeyError):
        minibatch = Minibatch(torch.arange(4), 4, {"weak": cosines()}.__getitem__)
        method().labeled_loss(FixedCosines(), minibatch, LABELS)


def test_unlabelled_samples_are_an_error() -> None:
    supervised = method()
    nothing = torch.zeros(0, 3)
    with pytest.raises(TypeError, match="'supervised' has no refresh"):
        supervised.refresh(Snapshot(nothing, nothing))
    minibatch = Minibatch(torch.arange(4), 4, {"strong": cosines()}.__getitem__)
    with pytest.raises(TypeError, match="supervised"):
        supervised.semi_supervised_loss(FixedCosines(), minibatch, LABELS, minibatch)
    assert supervised.pseudo_labels() is None
    with pytest.raises(ValueError, match="pseudo"):
        supervised.load_state_dict({"pseudo": nothing})
    with pytest.raises(ValueError, match="means"):
        supervised.load_scoring_state({"means": nothing})
