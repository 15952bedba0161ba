"""The arithmetic of a refresh, without the network: thresholds, prototypes, moments, negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from bbam_ray.methods.bbam import Bbam, BbamOptions
from bbam_ray.methods.method import Snapshot, TaskInfo
from benchmarks.measure import Measured, alternate, extra_memory
from benchmarks.plain_refresh import Refreshed, plain_refresh


def draw(
    labeled: int, unlabeled: int, num_labels: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Random cosines (N_u, K), features (N, D) and labels (N_l, K), with rare and frequent labels."""
    g = torch.Generator().manual_seed(0)
    frequency = torch.linspace(0.003, 0.3, num_labels)
    known = (torch.rand(labeled, num_labels, generator=g) < frequency).to(torch.int8)
    known[0] = 1
    cosine = (torch.randn(unlabeled, num_labels, generator=g) * 0.2).clamp(-1, 1)
    features = torch.randn(labeled + unlabeled, width, generator=g)
    directions = torch.randn(num_labels, width, generator=g)
    features[:labeled] += known.float() @ directions / 4
    features[labeled:] += (cosine > 0.4).float() @ directions / 4
    return cosine, features, known


def refreshed(cosine: Tensor, features: Tensor, known: Tensor) -> Bbam:
    """The method after its first refresh."""
    task = TaskInfo(known.shape[1], known, known.double().mean(0), 32, 96)
    method = Bbam(BbamOptions.build({}, "benchmark"), task)
    method.refresh(Snapshot(features, cosine))
    return method


def agree(ours: Bbam, plain: Refreshed) -> bool:
    """Whether all pseudo-labels, confident entries and selected negatives are equal."""
    selected = torch.cat([ours.labeled_selected, ours.unlabeled_selected])
    return (
        torch.equal(ours.assigned.labels, plain.pseudo)
        and torch.equal(ours.assigned.confident, plain.confident)
        and torch.equal(selected, plain.selected)
    )


def run(full: bool) -> list[Measured]:
    """At the size of COCO (82,081 x 80, D = 256) if ``full``, else at a tenth of it."""
    labeled, unlabeled = (4_104, 77_977) if full else (410, 7_798)
    cosine, features, known = draw(labeled, unlabeled, 80, 256)
    options = BbamOptions.build({}, "benchmark")

    def plain() -> Refreshed:
        logits = options.scale * (cosine - options.margin / 2)
        return plain_refresh(logits, features, known)

    # The logits of a refresh replace its cosines.
    copies = iter([cosine.clone() for _ in range(9)])

    def ours() -> Bbam:
        return refreshed(next(copies), features, known)

    timed = alternate(plain, ours, 5)
    logits = options.scale * (cosine - options.margin / 2)
    exact = plain_refresh(
        logits, features.double(), known
    )  # float64: no rounding at the thresholds
    same = agree(ours(), exact)
    used = extra_memory(ours)
    matrix = 4 * (labeled + unlabeled) * 80
    return [
        Measured(
            "refresh",
            f"arithmetic, {labeled + unlabeled:,} x 80, D = 256",
            **timed,
            details={
                "identical": same,
                "memory_mb": used / 1e6,
                "matrix_mb": matrix / 1e6,
                "plain_memory_mb": extra_memory(plain) / 1e6,
            },
        )
    ]
