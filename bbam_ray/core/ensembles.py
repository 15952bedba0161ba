"""Weights of an ensemble of scored models, chosen on out-of-fold scores."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bbam_ray.core.metrics import average_precision


class Standardization(NamedTuple):
    """Location and scale of the scores of each label.

    Args:
        mean: (K,) float64.
        std: (K,) float64, positive; 1 for a label whose scores are all equal.
    """

    mean: Tensor
    std: Tensor

    def apply(self, scores: Tensor) -> Tensor:
        """(z - mean_k) / std_k, (N, K) float64."""
        return (scores.double() - self.mean.to(scores.device)) / self.std.to(scores.device)


def standardization(scores: Tensor) -> Standardization:
    """Mean and standard deviation of each label's scores.

    Args:
        scores: (N, K), N > 0.

    Examples:
        >>> standardization(torch.tensor([[1.0], [3.0]]))
        Standardization(mean=tensor([2.], dtype=torch.float64), std=tensor([1.], dtype=torch.float64))
    """
    values = scores.double()
    mean, std = values.mean(0), values.std(0, correction=0)
    smallest = 1e-12 * values.abs().amax(0)
    return Standardization(mean, torch.where(std > smallest, std, torch.ones_like(std)))


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """Mean of the average precision over labels that have positives; NaN if there are none."""
    return float(average_precision(scores, labels).nanmean())


def select_ensemble(
    scores: Tensor, labels: Tensor, *, start: Tensor | None = None, rounds: int = 25
) -> Tensor:
    """Greedy ensemble selection with replacement, by mean average precision.

    Each round adds the model with which the sum of the selected models' scores has the highest mean AP; a
    model may be added again, and then counts more. Equal values go to the lower index. The result is
    the best ensemble of all rounds, ``start`` included, and the earliest among equal ones, so it is
    never worse than ``start`` on these samples.

    Args:
        scores: (M, N, K) of M models on samples that they were not trained on, standardised by label.
        labels: (N, K) 0/1.
        start: (M,) weights >= 0 of the ensemble before the first round, in units of one addition: ones
            start from all models. None = no model.
        rounds: number of additions.

    Returns:
        (M,) float64 weights >= 0 with sum 1, on the CPU.

    Raises:
        ValueError: shapes that do not fit, negative weights, or neither ``start`` nor ``rounds``.

    Source: [Caruana et al., Ensemble selection from libraries of models, ICML
    2004](https://doi.org/10.1145/1015330.1015432).

    Examples:
        >>> good, bad = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]])
        >>> select_ensemble(torch.stack([bad, good]), torch.tensor([[1], [0]]), rounds=3).tolist()
        [0.0, 1.0]
    """
    _check(scores, labels, start)
    values, count = scores.double(), len(scores)
    weights = torch.zeros(count, dtype=torch.float64)
    if start is not None:
        weights = start.double().cpu().clone()
    if rounds < 1 and weights.sum() == 0:
        raise ValueError("an ensemble needs a start or at least one round")
    total = torch.einsum("m,mnk->nk", weights.to(values.device), values)
    best = weights.clone()
    best_value = mean_average_precision(total, labels) if weights.sum() > 0 else -1.0
    for _ in range(rounds):
        results = [mean_average_precision(total + values[m], labels) for m in range(count)]
        chosen = max(range(count), key=lambda m: (results[m], -m))
        weights[chosen] += 1
        total = total + values[chosen]
        if results[chosen] > best_value:
            best, best_value = weights.clone(), results[chosen]
    return best / best.sum()


def ensemble_weights(
    scores: Tensor,
    labels: Tensor,
    *,
    start: Tensor | None = None,
    tolerance: float = 0.15,
    samples: int = 20,
    rounds: int = 8,
    least: float = 0.1,
    seed: int = 0,
) -> Tensor:
    """Ensemble weights for few samples: a mean of competitive models, moved by bagged greedy selection.

    Greedy selection alone overfits a pool of tens or hundreds of samples. So two thirds of the weight
    are divided equally over the models of ``start`` whose mean AP is within ``tolerance`` of the best
    model's, and one third is the mean of ``select_ensemble`` over random draws of N rows with
    replacement, among all models. Weights below ``least`` become 0: a model that hardly counts is not
    worth its cost in prediction. docs/models.md compares this rule with others.

    Args:
        scores: (M, N, K) out-of-fold scores of M models, standardised by label.
        labels: (N, K) 0/1.
        start: (M,) weights >= 0 of the mean; None = ones. A model with 0 can still be selected.
        tolerance: of the mean AP, a fraction. If no model of ``start`` is within it, the best model is
            the start.
        samples: number of draws; 0 leaves the mean of competitive models.
        rounds: additions per draw.
        least: smallest weight that is kept, in [0, 1); the largest weight always is.
        seed: of the draws.

    Returns:
        (M,) float64 weights >= 0 with sum 1, on the CPU.

    Raises:
        ValueError: as in ``select_ensemble``.

    Source: [Caruana et al., Ensemble selection from libraries of models, ICML
    2004](https://doi.org/10.1145/1015330.1015432), section 2.3, for bagged selection.
    """
    _check(scores, labels, start)
    uniform = torch.ones(len(scores)).double() if start is None else start.double().cpu()
    value = torch.tensor([mean_average_precision(z, labels) for z in scores])
    weights = uniform * (value >= value.max() - tolerance)
    if weights.sum() == 0:
        weights[int(value.argmax())] = 1
    weights = weights / weights.sum()
    generator = torch.Generator().manual_seed(seed)
    selected = torch.zeros_like(weights)
    for _ in range(samples):
        rows = torch.randint(0, len(labels), (len(labels),), generator=generator)
        chosen = labels[rows.to(labels.device)]
        if (chosen == 1).any():
            selected += select_ensemble(scores[:, rows.to(scores.device)], chosen, rounds=rounds)
    if selected.sum() > 0:
        weights = (2 * weights + selected / selected.sum()) / 3
    weights = torch.where(weights >= min(least, float(weights.max())), weights, 0.0)
    return weights / weights.sum()


def _check(scores: Tensor, labels: Tensor, start: Tensor | None) -> None:
    if scores.ndim != 3 or scores.shape[1:] != labels.shape or len(scores) == 0:
        raise ValueError(
            f"scores {tuple(scores.shape)} must be (M, N, K), labels {tuple(labels.shape)} (N, K)"
        )
    if labels.shape[0] == 0 or not (labels == 1).any():
        raise ValueError("labels have no positive to choose by")
    if start is not None:
        valid = start.shape == scores.shape[:1] and ((start >= 0) & start.isfinite()).all()
        if not valid:
            raise ValueError(f"start {start.tolist()} must be {len(scores)} finite weights >= 0")
