"""Measures of multi-label ranking and classification (method, section 9), vectorised over labels."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.core.metric_names import METRIC_NAMES, METRICS
from bbam_ray.core.rows import row_blocks


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Average precision of each label, (K,) float64; NaN for a label without positives.

    AP = sum over thresholds of (recall step x precision); equal scores share one threshold, so the
    order of tied samples does not matter.

    Args:
        scores: (N, K).
        labels: (N, K) 0/1.
    """
    num_samples, num_labels = scores.shape
    result = torch.full((num_labels,), float("nan"), dtype=torch.float64, device=scores.device)
    if num_samples == 0:
        return result
    ordered, order = scores.sort(dim=0, descending=True)
    hits = labels.gather(0, order).double()
    position = torch.arange(num_samples, device=scores.device).unsqueeze(1)
    is_last = torch.ones_like(ordered, dtype=torch.bool)
    is_last[:-1] = ordered[:-1] != ordered[1:]
    # For each place the end of its group of tied scores, where the group's precision is read.
    group_end = torch.where(is_last, position, num_samples).flip(0).cummin(dim=0).values.flip(0)
    precision = hits.cumsum(0) / (position + 1)
    totals = hits.sum(0)
    found = (hits * precision.gather(0, group_end)).sum(0)
    return torch.where(totals > 0, found / totals.clamp_min(1), result)


class DecisionMetrics(NamedTuple):
    """Metrics of 0/1 decisions, as fractions."""

    micro_f1: float
    macro_f1: float
    hamming_loss: float


class RankingMetrics(NamedTuple):
    """Metrics of the order of labels within samples, as fractions."""

    one_error: float
    ranking_loss: float
    coverage: float


def _f1_and_hamming(predicted: Tensor, labels: Tensor) -> DecisionMetrics:
    """Micro-F1, macro-F1 (a label neither present nor predicted counts 0) and Hamming loss."""
    truth = labels == 1
    both = (predicted & truth).sum(0).double()
    total = (predicted.sum(0) + truth.sum(0)).double()
    micro = 2 * both.sum() / total.sum().clamp_min(1)
    macro = (2 * both / total.clamp_min(1)).mean()
    return DecisionMetrics(float(micro), float(macro), float((predicted != truth).double().mean()))


def _ranking_metrics(scores: Tensor, labels: Tensor) -> RankingMetrics:
    """One-error, ranking loss and coverage, summed in row blocks.

    A sample without positives has an error in one-error, and adds 0 to the other two.
    """
    num_samples, num_labels = scores.shape
    wrong_top = ranking = depth = 0.0
    for rows in row_blocks(num_samples, num_labels):
        block, truth = scores[rows], labels[rows] == 1
        # Ties count against the scorer: within equal scores the negatives come first.
        by_label = truth.to(torch.int8).sort(dim=1, stable=True).indices
        by_score = block.gather(1, by_label).sort(dim=1, descending=True, stable=True).indices
        hits = truth.gather(1, by_label).gather(1, by_score)
        positives = hits.sum(1)
        wrong_pairs = ((~hits).cumsum(1) * hits).sum(1)
        pairs = positives * (num_labels - positives)
        ranking += float((wrong_pairs.double() / pairs.clamp_min(1)).sum())
        position = torch.arange(1, num_labels + 1, device=scores.device)
        lowest = torch.where(hits, position, 0).amax(dim=1)
        depth += float(lowest.sum())
        wrong_top += float((~truth.gather(1, block.argmax(1, keepdim=True))).sum())
    coverage = (depth / num_samples - 1) / num_labels
    return RankingMetrics(wrong_top / num_samples, ranking / num_samples, coverage)


def oracle_k_predictions(scores: Tensor, labels: Tensor) -> Tensor:
    """The k highest scores of each sample, k being its true number of positives; (N, K) bool."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    place = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, place)
    return rank < (labels == 1).sum(1, keepdim=True)


class Scoring:
    """Scores beside the true labels, and what the metrics share, each computed once and on demand.

    Args:
        scores: (N, K), probabilities or logits.
        labels: (N, K) 0/1.
        thresholds: one number or (K,), on the scale of the scores; a score at its threshold is positive.
    """

    def __init__(self, scores: Tensor, labels: Tensor, thresholds: float | Tensor) -> None:
        self.scores, self.labels, self.thresholds = scores, labels, thresholds

    @cached_property
    def precision(self) -> Tensor:
        """Average precision by label, (K,) float64; NaN for a label without positives."""
        return average_precision(self.scores, self.labels)

    @cached_property
    def decisions(self) -> DecisionMetrics:
        """Of the labels whose score reaches its threshold."""
        limits = torch.as_tensor(self.thresholds, device=self.scores.device).to(self.scores.dtype)
        return _f1_and_hamming(self.scores >= limits, self.labels)

    @cached_property
    def oracle(self) -> DecisionMetrics:
        """Of the k highest scores of each sample, k being its true number of positives."""
        return _f1_and_hamming(oracle_k_predictions(self.scores, self.labels), self.labels)

    @cached_property
    def ranking(self) -> RankingMetrics:
        """Of the order of labels within each sample."""
        return _ranking_metrics(self.scores, self.labels)


def multilabel_metrics(
    scores: Tensor, labels: Tensor, *, thresholds: float | Tensor = 0.5
) -> dict[str, float]:
    """All metrics of one scoring, as fractions under the names of ``METRICS``.

    ``map`` leaves out labels without positives, ``map_absent_zero`` counts them as 0 (the paper's
    figures). The ``*_oracle_k`` measures give each sample its true number of positives (the
    paper's protocol); the plain ones decide by ``thresholds``. ``coverage`` is (coverage error - 1)
    / K. Without samples, or without any positive, ``map`` is NaN.

    Args:
        scores: (N, K), probabilities or logits; this rank's samples, while the measures are those of
            the samples of all ranks.
        labels: (N, K) 0/1.
        thresholds: one number or (K,), on the scale of the scores; a score at its threshold is
            positive.
    """
    if scores.shape != labels.shape or scores.ndim != 2:
        raise ValueError(
            f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)} must both be (N, K)"
        )
    scores, labels = distributed.gather_rows(scores, labels)
    return measures(scores, labels, thresholds)


def measures(scores: Tensor, labels: Tensor, thresholds: float | Tensor) -> dict[str, float]:
    """``multilabel_metrics`` of exactly these samples, whatever other ranks have."""
    if scores.shape[0] == 0 or scores.shape[1] == 0:
        return dict.fromkeys(METRIC_NAMES, float("nan"))
    scoring = Scoring(scores, labels, thresholds)
    return {name: metric.value(scoring) for name, metric in METRICS.items()}
