"""Weights of pseudo-labels against loops over entries and bins."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bbam_ray.core.pseudo_label_weights import BINS, measured_shares, pseudo_label_weights


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


@pytest.mark.parametrize("rows", [0, 1, 30, 400])
def test_shares_are_those_of_a_loop(rows: int) -> None:
    rng = np.random.default_rng(rows)
    logits = torch.from_numpy((rng.standard_normal((rows, 3)) * 3).astype(np.float32))
    labels = torch.from_numpy((rng.random((rows, 3)) < 0.3).astype(np.int8))
    entries, positives = [0] * 20, [0] * 20
    for z, y in zip(logits.flatten().tolist(), labels.flatten().tolist(), strict=True):
        b = min(int(sigmoid(z) * 20), 19)
        entries[b] += 1
        positives[b] += y
    expected = [(positives[b] + 2 * (b + 0.5) / 20) / (entries[b] + 2) for b in range(20)]
    np.testing.assert_allclose(measured_shares(logits, labels).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("measured", [True, False])
def test_weights_are_those_of_an_interpolation(measured: bool) -> None:
    rng = np.random.default_rng(1)
    shares = torch.from_numpy(rng.random(BINS))
    logits = torch.from_numpy((rng.standard_normal((200, 3)) * 4).astype(np.float32))
    labels = torch.from_numpy((rng.random((200, 3)) < 0.5).astype(np.int8))
    weights = pseudo_label_weights(logits, labels, shares if measured else None)
    assert weights.dtype == torch.float32
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    right = np.interp(p, (np.arange(BINS) + 0.5) / BINS, shares.numpy()) if measured else p
    expected = np.where(labels.numpy() == 1, right, 1 - right)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_extreme_scores_have_finite_weights() -> None:
    logits = torch.tensor([[-1e30], [-100.0], [100.0], [1e30]])
    shares = measured_shares(logits, torch.tensor([[0], [0], [1], [1]]))
    for given in (None, shares):
        for y in (0, 1):
            weights = pseudo_label_weights(logits, torch.full((4, 1), y, dtype=torch.int8), given)
            assert ((weights >= 0) & (weights <= 1)).all()


def test_a_network_that_knows_nothing_has_the_frequency_as_weight() -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy((rng.standard_normal((20_000, 2)) * 2).astype(np.float32))
    labels = torch.from_numpy((rng.random((20_000, 2)) < 0.1).astype(np.int8))
    weights = pseudo_label_weights(logits, torch.ones_like(labels), measured_shares(logits, labels))
    assert float((weights - 0.1).abs().max()) < 0.03
