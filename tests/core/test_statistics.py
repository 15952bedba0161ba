"""Prototypes, angle moments and their running statistics against naive loops and golden values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bbam_ray.core.prototypes import label_prototypes
from bbam_ray.core.statistics import AngleStatistics, LabelMoments, angle_moments

GOLDEN = Path(__file__).parents[1] / "golden" / "angle_statistics.npz"
N, D, K = 40, 6, 4


def drawn(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features, labels and valid; label 3 has no positive, label 2 a single one."""
    g = torch.Generator().manual_seed(seed)
    labels = (torch.rand(N, K, generator=g) < 0.4).to(torch.int8)
    valid = torch.rand(N, K, generator=g) < 0.8
    labels[:, 2:] = 0
    labels[7, 2], valid[7, 2] = 1, True
    return torch.randn(N, D, generator=g) + 0.5, labels, valid


def naive_prototypes(features: Tensor, labels: Tensor, valid: Tensor) -> np.ndarray:
    out = np.zeros((labels.shape[1], features.shape[1]))
    for k in range(labels.shape[1]):
        positives = [
            f.double().numpy()
            for f, y, v in zip(features, labels[:, k], valid[:, k], strict=True)
            if v and y
        ]
        if positives:
            out[k] = sum(positives) / len(positives)
    return out


def naive_angles(
    features: Tensor, labels: Tensor, valid: Tensor, prototypes: np.ndarray, p: int, k: int
) -> list[float]:
    found = []
    for i in range(len(features)):
        if valid[i, k] and labels[i, k] == p:
            f, c = features[i].double().numpy(), prototypes[k]
            lengths = np.linalg.norm(f) * np.linalg.norm(c)
            found.append(math.acos(float(f @ c) / lengths) if lengths else math.pi / 2)
    return found


def test_prototypes_are_means_of_the_valid_positives() -> None:
    features, labels, valid = drawn()
    got = label_prototypes(features, labels, valid)
    np.testing.assert_allclose(got, naive_prototypes(features, labels, valid), rtol=1e-6, atol=1e-7)
    assert torch.equal(got[3], torch.zeros(D))
    torch.testing.assert_close(got[2], features[7])  # not normalised


def test_moments_are_those_of_the_angles() -> None:
    features, labels, valid = drawn(1)
    prototypes = naive_prototypes(features, labels, valid)
    got = angle_moments(features, labels, valid, torch.from_numpy(prototypes))
    assert got.count.dtype == got.mean.dtype == got.m2.dtype == torch.float64
    for p in (0, 1):
        for k in range(K):
            angles = naive_angles(features, labels, valid, prototypes, p, k)
            mean = sum(angles) / len(angles) if angles else 0.0
            assert int(got.count[p, k]) == len(angles)
            assert float(got.mean[p, k]) == pytest.approx(mean, rel=1e-10)
            spread = sum((a - mean) ** 2 for a in angles)
            assert float(got.m2[p, k]) == pytest.approx(spread, rel=1e-9, abs=1e-12)


def test_masked_rows_equal_absent_rows_and_their_order_does_not_matter() -> None:
    features, labels, _ = drawn(2)
    keep = torch.arange(N) % 3 != 0
    valid = keep.unsqueeze(1).expand(N, K)
    spoiled = torch.where(valid[:, :1], features, torch.full_like(features, 1e20))
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    masked = label_prototypes(spoiled, labels, valid)
    sliced = label_prototypes(features[keep], labels[keep], valid[keep])
    torch.testing.assert_close(masked, sliced)
    moved = label_prototypes(features[order], labels[order], valid[order])
    torch.testing.assert_close(masked, moved)
    full = angle_moments(spoiled, labels, valid, sliced)
    for other in (
        angle_moments(features[keep], labels[keep], valid[keep], sliced),
        angle_moments(features[order], labels[order], valid[order], sliced),
    ):
        for name in ("count", "mean", "m2"):
            ours, theirs = getattr(full, name), getattr(other, name)
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_the_size_of_the_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, valid = drawn(3)
    whole = label_prototypes(features, labels, valid)
    moments = angle_moments(features, labels, valid, whole)
    monkeypatch.setattr("bbam_ray.core.rows._BLOCK_ENTRIES", 7 * D)
    torch.testing.assert_close(label_prototypes(features, labels, valid), whole)
    torch.testing.assert_close(angle_moments(features, labels, valid, whole).m2, moments.m2)


def test_no_rows_give_zero_prototypes_and_counts() -> None:
    nothing = torch.empty(0, D), torch.empty(0, K, dtype=torch.int8), torch.empty(0, K).bool()
    assert torch.equal(label_prototypes(*nothing), torch.zeros(K, D))
    moments = angle_moments(*nothing, torch.zeros(K, D))
    for part in (moments.count, moments.mean, moments.m2):
        assert torch.equal(part, torch.zeros(2, K, dtype=torch.float64))


def test_a_zero_prototype_is_at_a_right_angle_to_everything() -> None:
    features, labels, valid = drawn(4)
    moments = angle_moments(features, labels, valid, torch.zeros(K, D))
    seen = moments.count > 0
    assert torch.equal(moments.m2, torch.zeros_like(moments.m2))
    np.testing.assert_allclose(moments.mean[seen], math.pi / 2, rtol=1e-15)


def test_equal_angles_have_no_variance_so_the_label_is_not_balanced() -> None:
    base = torch.randn(1, D, generator=torch.Generator().manual_seed(5))
    features = base * torch.linspace(0.1, 30, N).unsqueeze(1)
    labels = (torch.arange(N) % 2).unsqueeze(1)
    valid = torch.ones(N, 1, dtype=torch.bool)
    for prototype in (base, base.flip(1)):
        moments = angle_moments(features, labels, valid, prototype)
        assert torch.equal(moments.m2, torch.zeros(2, 1, dtype=torch.float64))
        updated = AngleStatistics.empty(1).update(moments, 0.01)
        assert updated.balanced_labels().tolist() == [False]


def naive_update(old: tuple[float, float], angles: list[float], g: float) -> tuple[float, float]:
    if not angles:
        return old
    current, known = sum(angles) / len(angles), all(math.isfinite(v) for v in old)
    mean = (1 - g) * current + g * old[0] if known else current
    variance = sum((a - mean) ** 2 for a in angles) / max(len(angles) - 1, 1)
    return mean, (1 - g) * variance + g * old[1] if known else variance


def moments_of(angles: list[list[list[float]]]) -> LabelMoments:
    """Moments of angles[polarity][label]."""
    rows = [[(len(a), np.mean(a or [0]), np.var(a or [0]) * len(a)) for a in row] for row in angles]
    return LabelMoments(*torch.tensor(rows, dtype=torch.float64).unbind(-1))


@pytest.mark.parametrize("momentum", [0.0, 0.01, 0.9, 1.0])
def test_updates_follow_the_recursion_from_empty_statistics(momentum: float) -> None:
    rng = np.random.default_rng(0)
    sizes = [
        [[5, 9, 0, 1], [4, 1, 6, 2]],
        [[3, 0, 7, 1], [1, 2, 0, 8]],
        [[4, 4, 4, 0], [2, 2, 2, 2]],
    ]
    stats = AngleStatistics.empty(K)
    assert not bool(stats.balanced_labels().any())
    expected = [[(math.nan, math.nan)] * K for _ in range(2)]
    for size in sizes:
        angles = [[rng.uniform(0.5, 2.5, n).tolist() for n in row] for row in size]
        before = [t.clone() for t in (stats.means, stats.variances)]
        previous, stats = stats, stats.update(moments_of(angles), momentum)
        for old, now in zip(before, (previous.means, previous.variances), strict=True):
            assert torch.equal(old.nan_to_num(-1), now.nan_to_num(-1))  # nothing in place
        for p in (0, 1):
            for k in range(K):
                expected[p][k] = naive_update(expected[p][k], angles[p][k], momentum)
        np.testing.assert_allclose(
            stats.means, [[e[0] for e in row] for row in expected], rtol=1e-6
        )
        np.testing.assert_allclose(
            stats.variances, [[e[1] for e in row] for row in expected], rtol=1e-5
        )
        assert stats.means.dtype == stats.variances.dtype == torch.float32
        usable = [all(size[p][k] >= 2 and expected[p][k][1] > 0 for p in (0, 1)) for k in range(K)]
        assert stats.balanced_labels().tolist() == usable


def test_three_golden_refreshes_are_reproduced() -> None:
    z = np.load(GOLDEN)
    labels_count = z["targets"].shape[2]
    stats = AngleStatistics(torch.zeros(2, labels_count), torch.zeros(2, labels_count))
    for step in range(3):
        features, targets = (
            torch.from_numpy(z["features"][step]),
            torch.from_numpy(z["targets"][step]),
        )
        labels, valid = (targets == 1).to(torch.int8), targets != -1
        prototypes = label_prototypes(features, labels, valid)
        np.testing.assert_allclose(prototypes, z["prototypes"][step], rtol=1e-4, atol=1e-6)
        stats = stats.update(angle_moments(features, labels, valid, prototypes), float(z["gamma"]))
        np.testing.assert_allclose(stats.means, z["means"][step], rtol=1e-4)
        np.testing.assert_allclose(stats.variances, z["variances"][step], rtol=1e-4)
        np.testing.assert_allclose(stats.variances.mean(0), z["mean_variance"][step], rtol=1e-4)


@pytest.mark.parametrize("counted", [False, True])
def test_state_survives_saving(counted: bool) -> None:
    stats = AngleStatistics(
        torch.rand(2, K), torch.rand(2, K), torch.ones(2, K) if counted else None
    )
    again = AngleStatistics.from_state_dict(stats.state_dict())
    assert torch.equal(again.means, stats.means) and torch.equal(again.variances, stats.variances)
    assert again.balanced_labels().tolist() == [not counted] * K
