"""Metrics of multi-label ranking and classification, vectorised over labels.

Source: docs/method.md, section 9. ``core/metric_names.py`` holds the table of all metrics.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from bbam_ray import distributed
from bbam_ray.core.metric_names import METRIC_NAMES, METRICS
from bbam_ray.core.rows import row_blocks


def average_precision(scores: Tensor, labels: Tensor) -> Tensor:
    """Average precision of each label.

    AP_k = sum over the distinct scores t of (recall_k(t) - recall_k(next higher t)) precision_k(t), where
    recall and precision are those of the decision score >= t. Equal scores share one threshold, so
    the order of tied samples does not matter.

    Args:
        scores: (N, K).
        labels: (N, K) 0/1.

    Returns:
        (K,) float64 in [0, 1]; NaN for a label without positives.

    Examples:
        >>> scores = torch.tensor([[0.9, 0.3], [0.8, 0.2], [0.1, 0.1]])
        >>> average_precision(scores, torch.tensor([[1, 0], [0, 0], [1, 0]]))
        tensor([0.8333,    nan], dtype=torch.float64)
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
    # For each position the end of its group of tied scores, where the group's precision is read.
    group_end = torch.where(is_last, position, num_samples).flip(0).cummin(dim=0).values.flip(0)
    precision = hits.cumsum(0) / (position + 1)
    totals = hits.sum(0)
    summed = (hits * precision.gather(0, group_end)).sum(0)
    return torch.where(totals > 0, summed / totals.clamp_min(1), result)


class DecisionMetrics(NamedTuple):
    """Metrics of 0/1 decisions, each in [0, 1]."""

    micro_f1: float
    macro_f1: float
    hamming_loss: float


class RankingMetrics(NamedTuple):
    """Metrics of the order of labels within samples, each in [0, 1]."""

    one_error: float
    ranking_loss: float
    coverage: float


def _f1_and_hamming(predicted: Tensor, labels: Tensor) -> DecisionMetrics:
    """F1 and Hamming loss of decisions.

    F1 = 2 TP / (predicted + positive), with sums over all entries (micro) or by label and then averaged
    (macro; a label neither present nor predicted counts 0). Hamming loss is the share of wrong entries.

    Args:
        predicted: (N, K) bool.
        labels: (N, K) 0/1.
    """
    positive = labels == 1
    both = (predicted & positive).sum(0).double()
    total = (predicted.sum(0) + positive.sum(0)).double()
    micro = 2 * both.sum() / total.sum().clamp_min(1)
    macro = (2 * both / total.clamp_min(1)).mean()
    wrong = (predicted != positive).double().mean()
    return DecisionMetrics(float(micro), float(macro), float(wrong))


def _ranking_metrics(scores: Tensor, labels: Tensor) -> RankingMetrics:
    """One-error, ranking loss and coverage.

    One-error: share of samples whose highest-scored label is not positive. Ranking loss: mean share of
    (positive, negative) label pairs in the wrong order; ties are wrong. Coverage: mean of
    (position of the lowest-ranked positive - 1) / K. A sample without positives counts as an error in
    one-error, and adds 0 to the other two.

    Args:
        scores: (N, K), N > 0.
        labels: (N, K) 0/1.
    """
    num_samples, num_labels = scores.shape
    wrong_top = ranking = depth = 0.0
    for rows in row_blocks(num_samples, num_labels, device=scores.device):
        block, positive = scores[rows], labels[rows] == 1
        # Ties count as errors: within equal scores the negatives come first.
        by_label = positive.to(torch.int8).sort(dim=1, stable=True).indices
        by_score = block.gather(1, by_label).sort(dim=1, descending=True, stable=True).indices
        hits = positive.gather(1, by_label).gather(1, by_score)
        positives = hits.sum(1)
        wrong_pairs = ((~hits).cumsum(1) * hits).sum(1)
        pairs = positives * (num_labels - positives)
        ranking += float((wrong_pairs.double() / pairs.clamp_min(1)).sum())
        position = torch.arange(1, num_labels + 1, device=scores.device)
        lowest = torch.where(hits, position, 1).amax(dim=1)
        depth += float((lowest - 1).sum())
        wrong_top += float((~positive.gather(1, block.argmax(1, keepdim=True))).sum())
    coverage = depth / num_samples / num_labels
    return RankingMetrics(wrong_top / num_samples, ranking / num_samples, coverage)


def oracle_k_predictions(scores: Tensor, labels: Tensor) -> Tensor:
    """Predict the k highest scores of each sample, where k is its true number of positives.

    Args:
        scores: (N, K); ties go to the lower label index.
        labels: (N, K) 0/1.

    Returns:
        (N, K) bool.

    Examples:
        >>> oracle_k_predictions(torch.tensor([[0.2, 0.9, 0.4]]), torch.tensor([[1, 0, 1]])).tolist()
        [[False, True, True]]
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    position = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, position)
    return rank < (labels == 1).sum(1, keepdim=True)


class Scoring:
    """Scores with their true labels, and the intermediate results that metrics share, computed on demand.

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
        """Metrics of the decisions score >= threshold."""
        limits = torch.as_tensor(self.thresholds, device=self.scores.device).to(self.scores.dtype)
        return _f1_and_hamming(self.scores >= limits, self.labels)

    @cached_property
    def oracle(self) -> DecisionMetrics:
        """Metrics of the decisions of ``oracle_k_predictions``."""
        return _f1_and_hamming(oracle_k_predictions(self.scores, self.labels), self.labels)

    @cached_property
    def ranking(self) -> RankingMetrics:
        """Metrics of the order of labels within each sample."""
        return _ranking_metrics(self.scores, self.labels)


def multilabel_metrics(
    scores: Tensor, labels: Tensor, *, thresholds: float | Tensor = 0.5
) -> dict[str, float]:
    """All metrics of ``METRICS``, over the samples of all ranks.

    ``map`` is the mean average precision over the labels that have positives; ``map_absent_zero`` counts
    the others as 0, as the paper's numbers do. The ``*_oracle_k`` metrics predict the true number of
    positives for each sample (the paper's protocol); those without the suffix decide by
    ``thresholds``. ``coverage`` is (coverage error - 1) / K. Without samples, or without any positive,
    ``map`` is NaN.

    Args:
        scores: (N, K), probabilities or logits of this rank's samples.
        labels: (N, K) 0/1 of this rank's samples.
        thresholds: one number or (K,), on the scale of the scores; a score at its threshold is
            positive.

    Returns:
        Each metric by name, in [0, 1].

    Raises:
        ValueError: the shapes differ or are not (N, K).

    Source: [S2ML2-BBAM](https://openreview.net/forum?id=AqcPvWwktK); docs/method.md, section 9.

    Examples:
        >>> scores, labels = torch.tensor([[0.9, 0.2], [0.6, 0.7]]), torch.tensor([[1, 0], [0, 1]])
        >>> metrics = multilabel_metrics(scores, labels)
        >>> metrics["map"], metrics["hamming_loss"], metrics["hamming_loss_oracle_k"]
        (1.0, 0.25, 0.0)
    """
    if scores.shape != labels.shape or scores.ndim != 2:
        raise ValueError(
            f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)} must both be (N, K)"
        )
    scores, labels = distributed.gather_rows(scores, labels)
    return measures(scores, labels, thresholds)


def measures(scores: Tensor, labels: Tensor, thresholds: float | Tensor) -> dict[str, float]:
    """``multilabel_metrics`` of these samples alone: nothing is gathered from other ranks."""
    if scores.shape[0] == 0 or scores.shape[1] == 0:
        return dict.fromkeys(METRIC_NAMES, float("nan"))
    scoring = Scoring(scores, labels, thresholds)
    return {name: metric.value(scoring) for name, metric in METRICS.items()}
