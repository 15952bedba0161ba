"""Label propagation equals a dense solution, on one process and on gloo groups with uneven shards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bbam_ray.core.graph import neighbor_graph, propagate_labels, standardized

SCRIPT = Path(__file__).with_name("graph_worker.py")


def dense_graph(features: Tensor, neighbors: int) -> Tensor:
    """S (N, N) by loops; the neighbours of a sample by (cosine, lower index)."""
    units = F.normalize(features, dim=1)
    cosine = units @ units.T
    weights = torch.zeros(cosine.shape, dtype=torch.float64)
    for i in range(len(units)):
        others = [j for j in range(len(units)) if j != i]
        others.sort(key=lambda j: (-float(cosine[i, j]), j))
        for j in others[:neighbors]:
            weights[i, j] = max(float(cosine[i, j]), 0.0) ** 3
    weights = (weights + weights.T) / 2
    degree = weights.sum(1)
    scale = torch.where(degree > 0, degree.rsqrt(), 0.0)
    return scale[:, None] * weights * scale


def samples(number: int = 70, labeled: int = 12) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(4)
    features = torch.randn(number, 6, generator=random)
    features[20:25] = features[3]  # ties
    features[30] = 0
    labels = (torch.rand(labeled, 3, generator=random) < 0.3).to(torch.int8)
    return features, labels


@pytest.mark.parametrize("neighbors", [1, 4, 69, 500])
def test_the_graph_is_that_of_loops_with_ties_by_index(neighbors: int) -> None:
    features, _ = samples()
    graph = neighbor_graph(features, neighbors)
    expected = dense_graph(features, neighbors)
    torch.testing.assert_close(graph.weights.to_dense(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(graph.own, torch.arange(70))


def test_blocks_do_not_change_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = samples()
    whole = neighbor_graph(features, 5).weights.to_dense()
    monkeypatch.setattr("bbam_ray.core.graph._BLOCK_ROWS", 7)
    torch.testing.assert_close(neighbor_graph(features, 5).weights.to_dense(), whole)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8])
def test_propagation_is_the_solution_of_the_linear_system(alpha: float) -> None:
    features, labels = samples()
    smooth = propagate_labels(neighbor_graph(features, 5), labels, alpha)
    start = torch.zeros(70, 3, dtype=torch.float64)
    start[:12] = labels.double() - labels.double().mean(0)
    system = torch.eye(70, dtype=torch.float64) - alpha * dense_graph(features, 5)
    expected = (1 - alpha) * torch.linalg.solve(system, start)[12:]
    torch.testing.assert_close(smooth, expected, rtol=1e-4, atol=1e-4)
    assert bool(smooth.any()) == (alpha > 0)


def test_the_nearest_labelled_sample_decides() -> None:
    corners = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.1, 0.9]])
    labels = torch.tensor([[1], [0]], dtype=torch.int8)
    smooth = propagate_labels(neighbor_graph(corners, 1), labels, 0.9)
    assert smooth[0] > 0 > smooth[1]


def test_standardized_scores_have_mean_0_and_deviation_1_unless_constant() -> None:
    scores = torch.randn(40, 3) * torch.tensor([1e-3, 1e3, 0.0]) + 5
    result = standardized(scores)
    torch.testing.assert_close(result.mean(0), torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        result.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]).double(), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_give_the_numbers_of_one_process(
    world_size: int, gloo_group: Callable, tmp_path: Path
) -> None:
    features, labels = samples(600, 40)
    expected = propagate_labels(neighbor_graph(features, 6), labels, 0.9)
    torch.save((features, labels), tmp_path / "samples.pt")
    for result in gloo_group(SCRIPT, world_size, tmp_path):
        # Rounding included: ranks compute the same blocks as one process.
        assert torch.equal(result["propagated"], expected[result["rows"]])
        torch.testing.assert_close(
            result["standardized"], standardized(expected)[result["rows"]], rtol=1e-12, atol=1e-12
        )


def test_ranks_without_samples_take_part(gloo_group: Callable, tmp_path: Path) -> None:
    features, labels = torch.randn(3, 6), torch.tensor([[1, 0], [0, 0]], dtype=torch.int8)
    torch.save((features, labels), tmp_path / "samples.pt")
    results: list[Any] = gloo_group(SCRIPT, 3, tmp_path)
    expected = propagate_labels(neighbor_graph(features, 6), labels, 0.9)
    assert [len(result["rows"]) for result in results] == [1, 0, 0]
    assert torch.equal(results[0]["propagated"], expected)
