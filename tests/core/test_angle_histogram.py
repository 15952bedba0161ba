"""Histograms of the angles behind the statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from bbam_ray.core.angle_histogram import ANGLE_BINS, angle_histogram, moments_and_histogram
from bbam_ray.core.statistics import angle_moments


def draw() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features (400, 5), labels and valid (400, 3), prototypes (3, 5)."""
    g = torch.Generator().manual_seed(0)
    features = torch.randn(400, 5, generator=g)
    prototypes = torch.randn(3, 5, generator=g)
    labels = (torch.rand(400, 3, generator=g) < 0.3).to(torch.int8)
    return features, labels, torch.rand(400, 3, generator=g) < 0.8, prototypes


def test_it_equals_numpys_label_by_label() -> None:
    features, labels, valid, prototypes = draw()
    counts = angle_histogram(features, labels, valid, prototypes)
    assert counts.shape == (2, 3, ANGLE_BINS)
    for label in range(3):
        direction = prototypes[label].double().numpy()
        cosine = features.double().numpy() @ direction / np.linalg.norm(direction)
        angle = np.arccos(cosine / np.linalg.norm(features.double().numpy(), axis=1))
        for polarity in (0, 1):
            chosen = (valid[:, label] & (labels[:, label] == polarity)).numpy()
            expected, _ = np.histogram(angle[chosen], bins=ANGLE_BINS, range=(0, math.pi))
            assert counts[polarity, label].tolist() == expected.tolist()


def test_one_pass_gives_the_moments_and_the_histogram_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bbam_ray.core.rows._BLOCK_ENTRIES", 7 * 5)  # many small blocks
    samples = draw()
    moments, counts = moments_and_histogram(*samples)
    separate = angle_moments(*samples)
    for name in ("count", "mean", "m2"):
        assert torch.equal(getattr(moments, name), getattr(separate, name))
    assert torch.equal(counts, angle_histogram(*samples))
    assert torch.equal(counts.sum(2), moments.count)


@pytest.mark.parametrize(
    ("sign", "bin_"), [(1, 0), (-1, ANGLE_BINS - 1)], ids=["same direction", "opposite"]
)
def test_the_ends_of_the_range_are_counted(sign: int, bin_: int) -> None:
    prototype = torch.tensor([[0.3, -1.7, 0.2]])
    counts = angle_histogram(
        sign * 3 * prototype, torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool), prototype
    )
    assert counts[1, 0, bin_] == 1 and counts.sum() == 1


def test_no_samples_and_no_direction_are_no_error() -> None:
    nothing = torch.empty(0, 4), torch.empty(0, 2), torch.empty(0, 2, dtype=torch.bool)
    assert angle_histogram(*nothing, torch.zeros(2, 4)).sum() == 0
    one = torch.ones(1, 4), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
    counts = angle_histogram(*one, torch.zeros(2, 4))
    assert counts[0, :, ANGLE_BINS // 2].tolist() == [1, 1]  # a zero prototype is at a right angle
