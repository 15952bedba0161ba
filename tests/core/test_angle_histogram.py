"""Histograms of the angles behind the statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bbam_ray.core.angle_histogram import ANGLE_BINS, angle_histogram


def test_it_is_that_of_numpy_one_label_after_the_other() -> None:
    g = torch.Generator().manual_seed(0)
    features = torch.randn(400, 5, generator=g)
    prototypes = torch.randn(3, 5, generator=g)
    labels = (torch.rand(400, 3, generator=g) < 0.3).to(torch.int8)
    valid = torch.rand(400, 3, generator=g) < 0.8
    found = angle_histogram(features, labels, valid, prototypes)
    assert found.shape == (2, 3, ANGLE_BINS)
    for label in range(3):
        direction = prototypes[label].double().numpy()
        cosine = features.double().numpy() @ direction / np.linalg.norm(direction)
        angle = np.arccos(cosine / np.linalg.norm(features.double().numpy(), axis=1))
        for polarity in (0, 1):
            chosen = (valid[:, label] & (labels[:, label] == polarity)).numpy()
            expected, _ = np.histogram(angle[chosen], bins=ANGLE_BINS, range=(0, math.pi))
            assert found[polarity, label].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("sign", "place"), [(1, 0), (-1, ANGLE_BINS - 1)], ids=["same direction", "opposite"]
)
def test_the_ends_of_the_range_are_counted(sign: int, place: int) -> None:
    prototype = torch.tensor([[0.3, -1.7, 0.2]])
    found = angle_histogram(
        sign * 3 * prototype, torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool), prototype
    )
    assert found[1, 0, place] == 1 and found.sum() == 1


def test_no_samples_and_no_direction_are_no_error() -> None:
    nothing = torch.empty(0, 4), torch.empty(0, 2), torch.empty(0, 2, dtype=torch.bool)
    assert angle_histogram(*nothing, torch.zeros(2, 4)).sum() == 0
    one = torch.ones(1, 4), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool)
    found = angle_histogram(*one, torch.zeros(2, 4))
    assert found[0, :, ANGLE_BINS // 2].tolist() == [1, 1]  # a zero prototype is at a right angle
