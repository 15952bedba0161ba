"""The refresh of ``bbam`` against loops over samples and labels, written from docs/method.md."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bbam_ray.methods.bbam import Bbam, BbamOptions
from bbam_ray.methods.method import Snapshot, TaskInfo

N_L, N_U, K, D = 14, 40, 3, 5


def method(**options: Any) -> Bbam:
    labels = torch.from_numpy((np.random.default_rng(0).random((N_L, K)) < 0.4).astype(np.int8))
    task = TaskInfo(K, labels, labels.double().mean(0), 4, 12)
    return Bbam(BbamOptions(**options), task)


def snapshot(seed: int) -> Snapshot:
    rng = torch.Generator().manual_seed(seed)
    cosine = torch.rand(N_U, K, generator=rng) * 1.8 - 0.9
    features = torch.randn(N_L + N_U, D, generator=rng) * 3 + 1
    return Snapshot(features, cosine)


def angle(a: np.ndarray, b: np.ndarray) -> float:
    return math.acos(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))


class Reference:
    """Sections 4 to 6, one entry at a time, in float64."""

    def __init__(self, options: BbamOptions, labels: np.ndarray) -> None:
        self.o, self.known = options, labels.astype(int)
        self.mean: np.ndarray | None = None
        self.variance: np.ndarray | None = None

    def score(self, cosine: float, label: int) -> float:
        """z at y = 1/2 with the statistics before this refresh."""
        if self.mean is None or not self.o.balance:
            phi = cosine
        else:
            mu, v = self.mean[:, label], self.variance[:, label]
            a = [math.sqrt(v.mean() / v[p]) for p in (0, 1)]
            psi = [a[p] * math.acos(cosine) + (1 - a[p]) * mu[p] for p in (0, 1)]
            phi = math.cos((psi[0] + psi[1]) / 2)
        return self.o.scale * (phi - self.o.margin / 2)

    def pseudo_labels(self, cosine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels, confident = np.zeros((N_U, K), int), np.zeros((N_U, K), bool)
        for k in range(K):
            frequency = self.known[:, k].mean()
            order = sorted(range(N_U), key=lambda i, k=k: -self.score(cosine[i, k], k))
            labels[order[: math.floor(frequency * N_U)], k] = 1
            confident[order[: math.floor(self.o.positive_keep * frequency * N_U)], k] = True
            lowest = math.floor(self.o.negative_keep * (1 - frequency) * N_U)
            confident[order[N_U - lowest :], k] = True
        return labels, confident

    def refresh(self, shot: Snapshot) -> dict[str, np.ndarray]:
        pseudo, confident = self.pseudo_labels(shot.unlabeled_cosine.double().numpy())
        features = shot.features.double().numpy()
        labels = np.concatenate([self.known, pseudo])
        valid = np.concatenate([np.ones((N_L, K), bool), confident])
        selected = np.zeros((N_L + N_U, K), bool)
        mean, variance = np.zeros((2, K)), np.zeros((2, K))
        g = self.o.statistics_momentum
        for k in range(K):
            rows = [
                [i for i in range(len(labels)) if valid[i, k] and labels[i, k] == p] for p in (0, 1)
            ]
            prototype = features[rows[1]].mean(0)
            beta = [[angle(features[i], prototype) for i in rows[p]] for p in (0, 1)]
            for p in (0, 1):
                now = float(np.mean(beta[p]))
                mu = now if self.mean is None else (1 - g) * now + g * self.mean[p, k]
                v = sum((b - mu) ** 2 for b in beta[p]) / max(len(beta[p]) - 1, 1)
                old = self.variance
                mean[p, k], variance[p, k] = mu, v if old is None else (1 - g) * v + g * old[p, k]
            hardest = sorted(rows[0], key=lambda i, f=features, q=prototype: angle(f[i], q))
            ratio = math.inf if self.o.negative_ratio is None else self.o.negative_ratio
            keep = len(hardest) if math.isinf(ratio) else math.floor(ratio * len(rows[1]))
            selected[rows[1] + hardest[:keep], k] = True
        self.mean, self.variance = mean, variance
        return {"pseudo": pseudo, "confident": confident, "selected": selected}


OPTIONS = [
    {},
    {"positive_keep": 0.6, "negative_keep": 0.5, "negative_ratio": 1.5},
    {"negative_ratio": None, "statistics_momentum": 0.5},
    {"balance": False, "scale": 5, "margin": 0.1},
    {"negative_ratio": 0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_three_refreshes_agree_with_the_loops(options: dict[str, Any]) -> None:
    bbam = method(**options)
    reference = Reference(bbam.options, bbam.task.labels.numpy())
    for seed in (1, 2, 3):
        bbam.refresh(snapshot(seed))
        expected = reference.refresh(snapshot(seed))
        assert np.array_equal(bbam.assigned.confident.numpy(), expected["confident"])
        assert np.array_equal(bbam.assigned.labels.numpy(), expected["pseudo"])
        got = torch.cat([bbam.labeled_selected, bbam.unlabeled_selected]).numpy()
        assert np.array_equal(got, expected["selected"])
        np.testing.assert_allclose(bbam.statistics.means.numpy(), reference.mean, rtol=1e-5)
        np.testing.assert_allclose(bbam.statistics.variances.numpy(), reference.variance, rtol=1e-4)


def test_the_labelled_mask_is_that_of_every_refresh_of_the_first_one_or_all() -> None:
    masks: dict[str, list[Tensor]] = {}
    unlabeled: dict[str, list[Tensor]] = {}
    for choice in ("refresh", "first", "all"):
        bbam = method(labeled_negatives=choice, negative_ratio=0.5)
        masks[choice], unlabeled[choice] = [bbam.labeled_selected], []
        for seed in (1, 2):
            bbam.refresh(snapshot(seed))
            masks[choice].append(bbam.labeled_selected)
            unlabeled[choice].append(bbam.unlabeled_selected)
    every, first = masks["refresh"], masks["first"]
    assert torch.equal(first[1], every[1]) and torch.equal(first[2], first[1])
    assert not torch.equal(every[2], every[1]) and not every[1].all()
    assert all(mask.all() for mask in masks["all"])
    for seed in (0, 1):  # that of unlabelled samples is of every refresh
        assert torch.equal(unlabeled["first"][seed], unlabeled["refresh"][seed])
        assert torch.equal(unlabeled["all"][seed], unlabeled["refresh"][seed])


def test_the_first_labelled_mask_is_kept_by_a_run_that_resumes() -> None:
    bbam, resumed = (method(labeled_negatives="first", negative_ratio=0.5) for _ in range(2))
    bbam.refresh(snapshot(1))
    resumed.load_state_dict(bbam.state_dict())
    resumed.load_sample_state(*bbam.sample_state())
    resumed.refresh(snapshot(2))
    assert torch.equal(resumed.labeled_selected, bbam.labeled_selected)


def test_pseudo_labels_use_the_statistics_before_this_refresh() -> None:
    """Scored with the new ones instead, the folded map below would order the samples differently."""
    bbam, first, second = method(), snapshot(1), snapshot(2)
    bbam.refresh(first)
    cosine = second.unlabeled_cosine.clone()
    before = bbam.logits(cosine)
    bbam.refresh(second)
    after = bbam.logits(cosine)
    assert not torch.allclose(before, after)
    positives = bbam.assigned.labels.bool()
    for k in range(K):
        assert before[positives[:, k], k].min() > before[~positives[:, k], k].max()


def test_the_map_is_the_identity_before_the_first_refresh_and_where_balance_is_off() -> None:
    cosine = snapshot(4).unlabeled_cosine
    plain = 20 * (cosine - 0.2)
    torch.testing.assert_close(method().logits(cosine), plain)
    off, on = method(balance=False), method()
    for bbam in (off, on):
        bbam.refresh(snapshot(1))
    torch.testing.assert_close(off.logits(cosine), plain)
    assert not torch.allclose(on.logits(cosine), plain)
    # The statistics are the same; only the balance map is off.
    assert torch.equal(off.statistics.variances, on.statistics.variances)


@pytest.mark.parametrize("nothing", [None, float("inf")])
def test_an_infinite_ratio_and_null_both_keep_every_candidate(nothing: float | None) -> None:
    bbam = method(negative_ratio=nothing, negative_keep=0.7)
    assert bbam.options == BbamOptions(negative_ratio=None, negative_keep=0.7)
    bbam.refresh(snapshot(1))
    assert bbam.labeled_selected.all()
    assert torch.equal(bbam.unlabeled_selected, bbam.assigned.confident)


def test_label_records_show_the_statistics_behind_the_next_epoch() -> None:
    bbam = method(negative_ratio=0.5)
    bbam.refresh(snapshot(1))
    records: dict[str, Tensor] = bbam.label_records()
    variances = bbam.statistics.variances
    assert torch.equal(records["vdfd"], (variances[0] - variances[1]).abs())
    assert torch.equal(records["variance_positive"], variances[1])
    labels = torch.cat([bbam.task.labels, bbam.assigned.labels])
    valid = torch.cat([torch.ones(N_L, K, dtype=torch.bool), bbam.assigned.confident])
    assert torch.equal(records["n_positive"].long(), (valid & (labels == 1)).sum(0))
    assert torch.equal(records["n_negative"].long(), (valid & (labels == 0)).sum(0))
    assert torch.equal(records["angles_positive"].sum(1), records["n_positive"].double())
    assert torch.equal(records["angles_negative"].sum(1), records["n_negative"].double())
    selected = torch.cat([bbam.labeled_selected, bbam.unlabeled_selected]) & (labels == 0)
    assert torch.equal(records["n_negative_kept"], selected.sum(0))
    assert (records["n_negative_kept"] < records["n_negative"]).any()


def test_there_are_no_records_of_angles_before_there_are_angles() -> None:
    assert "angles_positive" not in method().label_records()
