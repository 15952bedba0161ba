"""Prototype-based negative sampling against a loop and golden values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bbam_ray.core.negatives import sample_negatives

GOLDEN = Path(__file__).parents[1] / "golden" / "negative_sampling.npz"
N, D, K = 60, 5, 4


def drawn(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Label 2 has a single positive, label 3 none."""
    g = torch.Generator().manual_seed(seed)
    labels = (torch.rand(N, K, generator=g) < 0.2).to(torch.int8)
    valid = torch.rand(N, K, generator=g) < 0.7
    labels[:, 2:] = 0
    labels[11, 2], valid[11, 2] = 1, True
    return torch.randn(N, D, generator=g), torch.randn(K, D, generator=g), labels, valid


def naive(
    features: Tensor, prototypes: Tensor, labels: Tensor, valid: Tensor, ratio: float
) -> np.ndarray:
    chosen = np.zeros(labels.shape, dtype=bool)
    for k in range(labels.shape[1]):
        p = prototypes[k].double().numpy()
        similarity = {}
        for i in range(len(features)):
            if valid[i, k] and labels[i, k] == 0:
                f = features[i].double().numpy()
                similarity[i] = float(f @ p) / (np.linalg.norm(f) * np.linalg.norm(p))
        positives = int((valid[:, k] & (labels[:, k] == 1)).sum())
        hardest = sorted(similarity, key=lambda i: (-similarity[i], i))
        chosen[hardest[: math.floor(ratio * positives)], k] = True
    return chosen


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0, 2.5, 5.0, 1000.0])
def test_the_most_similar_valid_negatives_are_kept(ratio: float) -> None:
    case = drawn()
    got = sample_negatives(*case, ratio)
    assert got.dtype == torch.bool
    np.testing.assert_array_equal(got.numpy(), naive(*case, ratio))


def test_an_infinite_ratio_keeps_every_candidate_even_without_positives() -> None:
    features, prototypes, labels, valid = drawn(1)
    got = sample_negatives(features, prototypes, labels, valid, math.inf)
    assert torch.equal(got, valid & (labels == 0))


def test_a_single_positive_keeps_floor_of_the_ratio_and_an_absent_label_keeps_none() -> None:
    got = sample_negatives(*drawn(2), 3.9)
    assert int(got[:, 2].sum()) == 3
    assert not bool(got[:, 3].any())


def test_ties_go_to_the_lower_index() -> None:
    features, _, labels, valid = drawn(3)
    labels[:] = 0
    labels[-2:], valid[:] = 1, True
    flat = torch.zeros(K, D)  # all similarities are equal
    got = sample_negatives(features, flat, labels, valid, 4.0)
    assert got[:, 0].tolist() == [i < 8 for i in range(N)]
    index = torch.arange(N - 1, -1, -1) + 100
    got = sample_negatives(features, flat, labels, valid, 4.0, index)
    assert got[:, 0].tolist() == [N - 10 <= i < N - 2 for i in range(N)]


def test_lengths_of_features_and_prototypes_do_not_matter() -> None:
    features, prototypes, labels, valid = drawn(4)
    stretch = torch.logspace(-2, 2, N).unsqueeze(1)
    stretched = sample_negatives(features * stretch, prototypes * 50, labels, valid, 2.0)
    assert torch.equal(stretched, sample_negatives(features, prototypes, labels, valid, 2.0))


def test_masked_rows_equal_absent_rows_and_rows_may_come_in_any_order() -> None:
    features, prototypes, labels, _ = drawn(5)
    keep = torch.arange(N) % 4 != 1
    valid = keep.unsqueeze(1).expand(N, K)
    whole = sample_negatives(features, prototypes, labels, valid, 2.0)
    assert not bool(whole[~keep].any())
    sliced = sample_negatives(features[keep], prototypes, labels[keep], valid[keep], 2.0)
    assert torch.equal(whole[keep], sliced)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(6))
    moved = sample_negatives(features[order], prototypes, labels[order], valid[order], 2.0, order)
    assert torch.equal(whole[order], moved)


def test_the_size_of_the_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    case = drawn(7)
    whole = sample_negatives(*case, 3.0)
    monkeypatch.setattr("bbam_ray.core.rows._BLOCK_ENTRIES", 7 * D)
    assert torch.equal(sample_negatives(*case, 3.0), whole)


def test_no_rows_give_no_negatives() -> None:
    nothing = torch.empty(0, D), torch.randn(K, D), torch.empty(0, K), torch.empty(0, K).bool()
    for ratio in (5.0, math.inf):
        assert sample_negatives(*nothing, ratio).shape == (0, K)


@pytest.mark.parametrize("ratio", [5, 2])
def test_golden_negatives(ratio: int) -> None:
    z = np.load(GOLDEN)
    labels = torch.from_numpy(z["targets"])
    got = sample_negatives(
        torch.from_numpy(z["features"]),
        torch.from_numpy(z["prototypes"]),
        labels,
        torch.ones_like(labels, dtype=torch.bool),
        float(ratio),
    )
    both = got | (labels == 1)
    np.testing.assert_array_equal(both.numpy(), z[f"eta{ratio}_mask"] == 1)
