"""Logistic regression agrees with scikit-learn, label by label, and its strength is chosen sensibly."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from bbam_ray.core import logistic
from bbam_ray.core.logistic import REGULARIZATIONS, choose_regularization, logistic_weights


def problem(samples: int, width: int, seed: int = 0, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    """Samples (N, F) float64 and labels (N, 4), the last of which are rare."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(samples, width, generator=random, dtype=torch.float64)
    truth = torch.randn(4, width, generator=random, dtype=torch.float64)
    scores = features @ truth.T / width**0.5
    scores += noise * torch.randn(samples, 4, generator=random, dtype=torch.float64)
    return features, (scores > torch.tensor([0.0, 0.5, 1.0, 1.5])).to(torch.int8)


@pytest.mark.parametrize(("samples", "width"), [(80, 12), (30, 100)])
@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
def test_weights_are_those_of_scikit_learn(samples: int, width: int, strength: float) -> None:
    features, labels = problem(samples, width)
    weights, biases = logistic_weights(features.float(), labels, strength)
    assert weights.dtype == biases.dtype == torch.float64
    features = features.float().double()  # as they were passed
    for k in range(labels.shape[1]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000, solver="newton-cg")
            model.fit(features.numpy(), labels[:, k].numpy())
        expected = torch.from_numpy(model.coef_[0])
        assert float((weights[k] - expected).norm()) < 1e-5 * float(expected.norm()) + 1e-9
        assert float(biases[k]) == pytest.approx(model.intercept_[0], rel=1e-5, abs=1e-6)


def test_the_gradient_vanishes_for_features_of_any_scale() -> None:
    features, labels = problem(60, 9)
    for scale in (1e-3, 1e3):
        strength = 0.1 / scale**2
        weights, biases = logistic_weights(features * scale, labels, strength)
        residual = torch.sigmoid(features * scale @ weights.T + biases) - labels
        gradient = strength * residual.T @ (features * scale) + weights
        assert float(gradient.norm() / weights.norm()) < 1e-5
        assert float(residual.sum(0).abs().max()) < 1e-5


def test_a_label_with_one_class_has_no_weights_and_says_its_class() -> None:
    features, labels = problem(20, 3)
    labels[:, 0], labels[:, 2] = 1, 0
    weights, biases = logistic_weights(features, labels, 1.0)
    assert not weights[[0, 2]].any() and biases[[0, 2]].tolist() == [math.inf, -math.inf]
    rest, rest_biases = logistic_weights(features, labels[:, [1, 3]], 1.0)
    torch.testing.assert_close(weights[[1, 3]], rest, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(biases[[1, 3]], rest_biases, rtol=1e-6, atol=1e-8)


def test_impossible_problems_are_refused() -> None:
    features, labels = problem(20, 3)
    with pytest.raises(ValueError, match="0 samples"):
        logistic_weights(features[:0], labels[:0], 1.0)
    with pytest.raises(ValueError, match="C = 0"):
        logistic_weights(features, labels, 0.0)


def test_noise_is_regularised_more_than_separable_labels() -> None:
    features, labels = problem(100, 10, noise=0.0)
    random = torch.Generator().manual_seed(1)
    coins = (torch.rand(100, 4, generator=random) < 0.5).to(torch.int8)
    assert choose_regularization(features, coins) == REGULARIZATIONS[0]
    assert choose_regularization(features, labels) == REGULARIZATIONS[-1]


def test_the_choice_is_within_one_standard_error_of_the_best_held_out_loss() -> None:
    features, labels = problem(60, 20)
    chosen = choose_regularization(features, labels, folds=3)
    losses = {}
    for strength in REGULARIZATIONS:
        held_out = torch.empty(60, 4, dtype=torch.float64)
        for start in range(3):
            rest = torch.ones(60, dtype=torch.bool)
            rest[start::3] = False
            weights, biases = logistic_weights(features[rest], labels[rest], strength)
            held_out[~rest] = features[~rest] @ weights.T + biases.clamp(-5, 5)
        each = F.binary_cross_entropy_with_logits(held_out, labels.double(), reduction="none")
        losses[strength] = each.mean(1)
    best = min(losses.values(), key=lambda loss: float(loss.mean()))
    limit = float(best.mean() + best.std() / math.sqrt(60))
    assert chosen == next(s for s in REGULARIZATIONS if float(losses[s].mean()) <= limit)


@pytest.mark.parametrize("seed", range(3))
def test_more_features_than_samples_choose_as_without_the_rotation(
    seed: int,
) -> None:
    """Features without information make the problem wider than it has samples; nothing else changes."""
    features, labels = problem(40, 10, seed)
    padded = torch.cat([features, torch.zeros(40, 50)], dim=1)
    random = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(60, 60, generator=random, dtype=torch.float64))
    assert choose_regularization(padded @ rotation.Q, labels) == choose_regularization(
        features, labels
    )


def test_the_search_takes_far_fewer_evaluations_than_solutions_that_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, labels = problem(60, 20)
    evaluations = []
    loss = F.binary_cross_entropy_with_logits

    def counted(*arguments: Any, **options: Any) -> Tensor:
        evaluations.append(1)
        return loss(*arguments, **options)

    monkeypatch.setattr(F, "binary_cross_entropy_with_logits", counted)
    chosen = choose_regularization(features, labels)
    fast = len(evaluations)
    monkeypatch.setattr(logistic, "_SEARCH_TOLERANCE", 1e-9)
    assert choose_regularization(features, labels) == chosen
    assert fast < (len(evaluations) - fast) / 2


def test_too_few_samples_or_classes_choose_the_strongest() -> None:
    features, labels = problem(20, 3)
    assert choose_regularization(features[:1], labels[:1]) == REGULARIZATIONS[0]
    assert choose_regularization(features, torch.ones_like(labels)) == REGULARIZATIONS[0]
