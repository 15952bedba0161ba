"""Validation metrics: ours compared with loops over labels and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from bbam_ray.core.metrics import measures
from benchmarks.measure import Measured, alternate


def draw(samples: int, num_labels: int) -> tuple[Tensor, Tensor]:
    """Random scores and labels (N, K), with about three positives per sample and every label present."""
    g = torch.Generator().manual_seed(0)
    labels = (torch.rand(samples, num_labels, generator=g) < 3 / num_labels).to(torch.int8)
    labels[0] = 1
    scores = torch.randn(samples, num_labels, generator=g) + 2 * labels
    return scores, labels


def plain_metrics(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """The same metrics from scikit-learn, average precision label by label."""
    from sklearn import metrics as sk

    s, y = scores.numpy(), labels.numpy().astype(int)
    decided = (s >= 0).astype(int)
    depth = y.sum(1)
    order = np.argsort(-s, axis=1, kind="stable")
    oracle = np.zeros_like(y)
    for row in range(len(y)):
        oracle[row, order[row, : depth[row]]] = 1
    precisions = [sk.average_precision_score(y[:, k], s[:, k]) for k in range(y.shape[1])]
    return {
        "map": float(np.mean(precisions)),
        "micro_f1": sk.f1_score(y, decided, average="micro", zero_division=0),
        "macro_f1": sk.f1_score(y, decided, average="macro", zero_division=0),
        "hamming_loss": sk.hamming_loss(y, decided),
        "micro_f1_oracle_k": sk.f1_score(y, oracle, average="micro", zero_division=0),
        "macro_f1_oracle_k": sk.f1_score(y, oracle, average="macro", zero_division=0),
        "hamming_loss_oracle_k": sk.hamming_loss(y, oracle),
        "one_error": float(1 - y[np.arange(len(y)), s.argmax(1)].mean()),
        "ranking_loss": sk.label_ranking_loss(y, s),
        "coverage": (sk.coverage_error(y, s) - y.any(axis=1).mean()) / y.shape[1],
    }


def run(full: bool) -> list[Measured]:
    """At the size of COCO's validation part (40,137 x 80) if ``full``, else at a tenth of it."""
    samples = 40_137 if full else 4_013
    scores, labels = draw(samples, 80)
    timed = alternate(
        lambda: plain_metrics(scores, labels), lambda: measures(scores, labels, 0.0), 5
    )
    ours, plain = measures(scores, labels, 0.0), plain_metrics(scores, labels)
    largest = max(abs(ours[name] - value) for name, value in plain.items())
    assert not math.isnan(largest)
    return [
        Measured(
            "validation", f"measures, {samples:,} x 80", **timed, details={"difference": largest}
        )
    ]
