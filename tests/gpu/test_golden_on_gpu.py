"""Golden values of the official implementation with every tensor on the GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bbam_ray.core.losses import balanced_cosine, bbam_logits, bbam_loss
from bbam_ray.core.metrics import measures
from bbam_ray.core.negatives import sample_negatives
from bbam_ray.core.prototypes import label_prototypes
from bbam_ray.core.pseudo_labels import assign_pseudo_labels
from bbam_ray.core.statistics import AngleStatistics, angle_moments

pytestmark = pytest.mark.gpu

GOLDEN = Path(__file__).parents[1] / "golden"
ROUNDING = {"rtol": 1e-4, "atol": 2e-5}


class Golden:
    """The arrays of a file as tensors on a device."""

    def __init__(self, name: str, device: torch.device) -> None:
        self._arrays, self._device = np.load(GOLDEN / f"{name}.npz"), device

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.asarray(self._arrays[key])).to(self._device)

    @property
    def statistics(self) -> AngleStatistics:
        return AngleStatistics(self["means"], self["variances"])


def assert_near(found: Tensor, expected: Tensor, **tolerance: float) -> None:
    assert found.device.type == expected.device.type
    torch.testing.assert_close(found.double(), expected.double(), **(tolerance or ROUNDING))


def test_three_refreshes(device: torch.device) -> None:
    z = Golden("angle_statistics", device)
    nothing = torch.zeros(2, z["targets"].shape[2], device=device)
    stats = AngleStatistics(nothing, nothing.clone())
    for step in range(3):
        features, targets = z["features"][step], z["targets"][step]
        labels, valid = (targets == 1).to(torch.int8), targets != -1
        prototypes = label_prototypes(features, labels, valid)
        assert_near(prototypes, z["prototypes"][step])
        stats = stats.update(angle_moments(features, labels, valid, prototypes), float(z["gamma"]))
        assert_near(stats.means, z["means"][step], rtol=1e-4, atol=0)
        assert_near(stats.variances, z["variances"][step], rtol=1e-4, atol=0)


@pytest.mark.parametrize(("scale", "margin"), [(20, 0.4), (10, 0.2)])
def test_the_loss_and_its_gradient(scale: int, margin: float, device: torch.device) -> None:
    z, name = Golden("loss", device), f"s{scale}_m{margin}_"
    cosine, labels, stats = z["cosine"].requires_grad_(), z["targets"], z.statistics
    phi = balanced_cosine(cosine, labels, stats)
    assert_near(phi.detach(), z[name + "phi"])
    assert_near(bbam_logits(cosine, labels, stats, scale, margin).detach(), z[name + "logits"])
    loss = bbam_loss(cosine, labels, stats, scale, margin)
    golden_z = z[name + "logits"].double()
    stable = torch.nn.functional.softplus(torch.where(labels == 1, -golden_z, golden_z))
    assert_near(loss.detach(), stable, rtol=1e-5, atol=1e-6)
    (loss * z["mask"]).sum().backward()
    precise = z[name + "grad"].isfinite() & (golden_z.abs() < 8)
    assert int(precise.sum()) > 300 and cosine.grad is not None
    assert_near(cosine.grad[precise], z[name + "grad"][precise], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["plain", "balanced"])
@pytest.mark.parametrize(("name", "keep"), [("p1_n0.998", (1.0, 0.998)), ("p0.7_n0.9", (0.7, 0.9))])
def test_pseudo_labels(
    kind: str, name: str, keep: tuple[float, float], device: torch.device
) -> None:
    z = Golden("pseudo_labels", device)
    scores = balanced_cosine(z["cosine"], 0.5, z.statistics) if kind == "balanced" else z["cosine"]
    found = assign_pseudo_labels(
        scores, z["positive_frequency"], positive_keep=keep[0], negative_keep=keep[1]
    )
    for entries, part in zip(found, ("labels", "mask"), strict=True):
        assert entries.device.type == device.type
        wrong = entries.to(torch.int8) != z[f"{name}_{kind}_{part}"]
        assert int(wrong.sum(0).max()) <= 2  # the official float32 sigmoid ties there


@pytest.mark.parametrize("ratio", [5, 2])
def test_negatives(ratio: int, device: torch.device) -> None:
    z = Golden("negative_sampling", device)
    labels = z["targets"]
    everywhere = torch.ones_like(labels, dtype=torch.bool)
    found = sample_negatives(z["features"], z["prototypes"], labels, everywhere, float(ratio))
    assert torch.equal(found | (labels == 1), z[f"eta{ratio}_mask"] == 1)


def test_measures(device: torch.device) -> None:
    z = Golden("metrics", device)
    found: dict[str, Any] = measures(z["scores"], z["targets"].to(torch.int64), 0.5)
    names = {
        "map_absent_zero": "oracle_k_macro_ap",
        "coverage": "oracle_k_coverage",
        "one_error": "oracle_k_one_error",
        "ranking_loss": "oracle_k_ranking_loss",
        "micro_f1_oracle_k": "oracle_k_micro_f1",
        "macro_f1": "threshold_macro_f1",
        "hamming_loss": "threshold_hamming_loss",
    }
    for ours, theirs in names.items():
        assert found[ours] == pytest.approx(float(z[theirs]), rel=1e-6), ours
