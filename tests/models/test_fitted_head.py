"""The fitted head against scikit-learn, dense label propagation and loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from bbam_ray.models.fitted_head import FittedHead

COUNT, LABELED, WIDTH, LABELS = 70, 30, 5, 3
NEIGHBORS, ALPHA, C = 6, 0.8, 0.5


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features of all samples, positions of the labelled ones, and their labels."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((COUNT, LABELS)) < 0.4).astype(np.int8)
    features = labels @ rng.normal(size=(LABELS, WIDTH)) + rng.normal(size=(COUNT, WIDTH))
    features = features * 10 ** rng.uniform(-2, 2, WIDTH) + 5
    labeled = np.sort(rng.choice(COUNT, LABELED, replace=False))
    return torch.from_numpy(features), torch.from_numpy(labeled), torch.from_numpy(labels[labeled])


def fitted(data: tuple[Tensor, Tensor, Tensor], **changes: Any) -> FittedHead:
    options = {"regression": True, "propagation": True, "regularization": C}
    neighbors = changes.pop("neighbors", NEIGHBORS)
    head = FittedHead(data[0].shape[1], data[2].shape[1], neighbors)
    head.fit(*data, **{**options, "alpha": ALPHA, **changes})
    return head


def standardized(features: Tensor) -> np.ndarray:
    x = features.numpy()
    return (x - x.mean(0)) / x.std(0)


def regression_reference(data: tuple[Tensor, Tensor, Tensor]) -> np.ndarray:
    """(N, K) log-odds of scikit-learn."""
    features, labeled, labels = data
    x = standardized(features)
    columns = []
    for k in range(LABELS):
        model = LogisticRegression(C=C, tol=1e-10, max_iter=10_000)
        model.fit(x[labeled], labels[:, k].numpy())
        columns.append(model.decision_function(x))
    return np.stack(columns, axis=1)


def propagated_labels(data: tuple[Tensor, Tensor, Tensor]) -> np.ndarray:
    """(N, K) closed form of label propagation with dense matrices: positives / all labels that arrive."""
    features, labeled, labels = data
    x = standardized(features)
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = units @ units.T
    np.fill_diagonal(cosine, -np.inf)
    weights = np.zeros((COUNT, COUNT))
    for i in range(COUNT):
        for j in np.argsort(-cosine[i])[:NEIGHBORS]:
            weights[i, j] = max(cosine[i, j], 0) ** 3
    weights = (weights + weights.T) / 2
    scale = 1 / np.sqrt(weights.sum(1))
    smoothing = scale[:, None] * weights * scale[None, :]
    start, one = np.zeros((COUNT, LABELS)), np.zeros((COUNT, 1))
    start[labeled], one[labeled] = labels.numpy(), 1
    solve = (1 - ALPHA) * np.linalg.inv(np.eye(COUNT) - ALPHA * smoothing)
    positives, everything = solve @ start, solve @ one
    extra = 0.01 * everything.mean()
    return (positives + extra * labels.double().mean(0).numpy()) / (everything + extra)


def graph_score(data: tuple[Tensor, Tensor, Tensor], sample: np.ndarray) -> np.ndarray:
    """(K,) mean of the propagated labels of the nearest training samples, by loops."""
    features = data[0].numpy()
    x, values = standardized(data[0]), propagated_labels(data)
    point = (sample - features.mean(0)) / features.std(0)
    cosines = [float(point @ row / math.hypot(*point) / math.hypot(*row)) for row in x]
    nearest = sorted(range(COUNT), key=lambda i: -cosines[i])[:NEIGHBORS]
    shares = [max(cosines[i], 0) ** 3 for i in nearest]
    total = np.zeros(LABELS)
    for i, share in zip(nearest, shares, strict=True):
        total += share * values[i]
    return total / sum(shares)


def z(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    return (values - of.mean(0)) / of.std(0)


def new_samples() -> np.ndarray:
    rng = np.random.default_rng(7)
    features = problem()[0].numpy()
    return features.mean(0) + features.std(0) * rng.normal(size=(12, WIDTH))


def test_the_regression_is_scikit_learns_on_standardised_features() -> None:
    data = problem()
    head = fitted(data, propagation=False)
    np.testing.assert_allclose(head(data[0]), regression_reference(data), atol=1e-3)


def test_propagation_is_the_closed_form_on_training_and_new_samples() -> None:
    data = problem()
    head = fitted(data, regression=False)
    np.testing.assert_allclose(head.values, propagated_labels(data), atol=1e-4)
    training = np.stack([graph_score(data, row) for row in data[0].numpy()])
    expected = np.stack([graph_score(data, row) for row in new_samples()])
    scores = head(torch.from_numpy(new_samples()))
    np.testing.assert_allclose(scores, z(expected, training), atol=2e-3)


def test_both_are_the_sum_of_their_standardised_scores() -> None:
    data = problem()
    head = fitted(data)
    graph = np.stack([graph_score(data, row) for row in data[0].numpy()])
    regression = regression_reference(data)
    expected = z(graph, graph) + z(regression, regression)
    np.testing.assert_allclose(head(data[0]), expected, atol=5e-3)


@pytest.mark.parametrize(("regression", "propagation"), [(1, 0), (0, 1), (1, 1)])
def test_a_state_dict_gives_an_empty_head_its_sizes(regression: bool, propagation: bool) -> None:
    data = problem()
    head = fitted(data, regression=bool(regression), propagation=bool(propagation))
    fresh = FittedHead(WIDTH, LABELS, NEIGHBORS)
    sizes = {name: tensor.shape for name, tensor in head.state_dict().items()}
    fresh.load_state_dict(head.state_dict())
    assert {name: tensor.shape for name, tensor in fresh.state_dict().items()} == sizes
    assert (len(fresh.rows) == COUNT) == bool(propagation)
    assert (fresh.weight.shape[1] == WIDTH) == bool(regression)
    inputs = torch.from_numpy(new_samples())
    assert torch.equal(fresh(inputs), head(inputs))
    head.weight.add_(1)  # no memory is shared
    assert not regression or not torch.equal(fresh.weight, head.weight)


def test_a_state_dict_of_other_features_or_labels_is_refused() -> None:
    state = fitted(problem()).state_dict()
    for other in (FittedHead(WIDTH + 1, LABELS), FittedHead(WIDTH, LABELS + 1)):
        with pytest.raises(RuntimeError, match="size mismatch"):
            other.load_state_dict(state)
    with pytest.raises(RuntimeError, match="Missing key"):
        FittedHead(WIDTH, LABELS).load_state_dict({k: v for k, v in state.items() if k != "rows"})


def test_only_labels_of_the_labelled_samples_count_and_their_order_does_not() -> None:
    features, labeled, labels = problem()
    order = torch.randperm(LABELED, generator=torch.Generator().manual_seed(0))
    first = fitted((features, labeled, labels))
    again = fitted((features, labeled[order], labels[order]))
    torch.testing.assert_close(first(features), again(features), rtol=1e-3, atol=1e-3)


def test_constant_features_and_labels_with_one_class_give_finite_scores() -> None:
    features, labeled, labels = problem()
    features[:, 2] = 4.0
    labels = labels.clone()
    labels[:, 0], labels[:, 1] = 0, 1
    for regression, propagation in ((True, False), (False, True), (True, True)):
        head = fitted((features, labeled, labels), regression=regression, propagation=propagation)
        scores = head(torch.from_numpy(new_samples()))
        assert torch.isfinite(scores).all()
        assert all(torch.isfinite(tensor).all() for tensor in head.state_dict().values())
    plain = fitted((features, labeled, labels), propagation=False)
    assert (plain.bias[:2].tolist()) == [-30.0, 30.0]


@pytest.mark.parametrize("neighbors", [1, COUNT, 1000])
def test_any_number_of_neighbours_is_possible(neighbors: int) -> None:
    data = problem()
    head = fitted(data, regression=False, neighbors=neighbors)
    assert torch.isfinite(head(torch.from_numpy(new_samples()))).all()


def test_a_sample_at_the_mean_of_all_features_has_a_finite_score() -> None:
    data = problem()
    head = fitted(data)
    assert torch.isfinite(head(head.mean.unsqueeze(0))).all()


def test_scores_of_a_sample_do_not_depend_on_its_batch() -> None:
    data = problem()
    head, inputs = fitted(data), torch.from_numpy(new_samples())
    alone = torch.cat([head(row.unsqueeze(0)) for row in inputs])
    torch.testing.assert_close(head(inputs), alone, rtol=1e-4, atol=1e-5)
