"""The final answer of a study: which models it is made of, chosen on out-of-fold scores alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbam_ray.core.ensembles import (
    Standardization,
    ensemble_weights,
    mean_average_precision,
    standardization,
)
from bbam_ray.engine.confirm import Decisions
from bbam_ray.engine.folds import FoldResult
from bbam_ray.scale.study.final_kinds import Final


@dataclass(frozen=True)
class Bag:
    """Models of one configuration or baseline, one per fold, with their out-of-fold scores.

    Args:
        name: ID of the trial, or name of the baseline.
        phase: of the weights.
        rows: (N,) row indices of the labelled samples, ascending.
        labels: (N, K) 0/1.
        scores: (N, K) out-of-fold scores.
        is_baseline: it then has one model, of all labelled samples.
    """

    name: str
    phase: str
    rows: np.ndarray
    labels: Tensor
    scores: Tensor
    is_baseline: bool = False

    @classmethod
    def of(
        cls, name: str, phase: str, results: Sequence[FoldResult], *, is_baseline: bool = False
    ) -> Bag:
        """Join the out-of-fold scores of all folds."""
        rows = np.concatenate([result.rows for result in results])
        order = np.argsort(rows)
        # A fold whose warm-up had no main phase after it has the weights of its last epoch only.
        weights = [result.weights.get(phase, result.weights["last"]) for result in results]
        labels = np.concatenate([result.labels for result in results])[order]
        scores = np.concatenate([each.logits for each in weights])[order]
        tensors = torch.from_numpy(labels), torch.from_numpy(scores)
        return cls(name, phase, rows[order], *tensors, is_baseline)

    @property
    def standardization(self) -> Standardization:
        return standardization(self.scores)

    @property
    def map(self) -> float:
        """Mean average precision of the out-of-fold scores."""
        return mean_average_precision(self.scores, self.labels)


@dataclass(frozen=True)
class FinalAnswer:
    """What the final answer is made of.

    Args:
        kind: of answer.
        trial: ID of the chosen trial.
        weights: share of each bag by name; they add up to 1.
        map: mean average precision of its out-of-fold scores.
    """

    kind: Final
    trial: str
    weights: dict[str, float]
    map: float

    def content(self) -> dict[str, Any]:
        """For ``study.json``."""
        return {
            "kind": str(self.kind),
            "trial": self.trial,
            "members": self.weights,
            "val_map_out_of_fold": self.map,
        }


def choose_answer(kind: Final, bags: Sequence[Bag]) -> FinalAnswer:
    """Choose the weights of bags.

    Args:
        kind: of answer.
        bags: that of the chosen trial first.
    """
    first = bags[0]
    if kind is not Final.best or len(bags) == 1:
        return FinalAnswer(kind, first.name, {first.name: 1.0}, first.map)
    scores = torch.stack([bag.standardization.apply(bag.scores) for bag in bags])
    # The mean of the trials and of label propagation, which differs most from them; selection may add
    # the other baselines.
    in_start = [not bag.is_baseline or bag.name == "propagation" for bag in bags]
    chosen = ensemble_weights(scores, first.labels, start=torch.tensor(in_start).double())
    combined = torch.einsum("m,mnk->nk", chosen, scores)
    weights = {
        bag.name: weight for bag, weight in zip(bags, chosen.tolist(), strict=True) if weight > 0
    }
    return FinalAnswer(kind, first.name, weights, mean_average_precision(combined, first.labels))


def ensemble_scores(final: FinalAnswer, bags: Sequence[Bag]) -> Tensor:
    """Out-of-fold scores (N, K) of an answer: weighted sum of standardised scores.

    Args:
        final: chosen before, perhaps with models of another seed.
        bags: of one seed, all that the answer names.
    """
    return sum(
        (
            final.weights[bag.name] * bag.standardization.apply(bag.scores)
            for bag in bags
            if bag.name in final.weights
        ),
        torch.zeros(1, dtype=torch.float64),
    )


def decisions_of(final: FinalAnswer, bags: Sequence[Bag]) -> Decisions:
    """Thresholds and calibration of an answer, from its out-of-fold scores."""
    if final.kind in (Final.single, Final.soup):
        return Decisions.of(bags[0].scores, bags[0].labels)
    return Decisions.of(ensemble_scores(final, bags), bags[0].labels)
