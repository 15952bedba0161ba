"""The rules that prune a trial: the objective that it must reach after certain epochs or folds.

The thresholds come from earlier trials (``scale/search/pruning.py``) and are fixed before the trial
starts. The trial checks them itself and ends like any other trial, so no worker has to be killed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class PruningRule:
    """Thresholds of the objective that decide whether a trial continues.

    Args:
        metric: a column of the history, such as val_map.
        higher_is_better: direction of the objective.
        thresholds: epoch to the worst value with which training continues after that epoch.
        best_so_far: compare the best value up to the epoch instead of the value of the epoch.
    """

    metric: str
    higher_is_better: bool
    thresholds: Mapping[int, float]
    best_so_far: bool = False

    def stops(self, epoch: int, values: Mapping[int, float]) -> bool:
        """Whether a trial is pruned after an epoch.

        Args:
            epoch: from 1; an epoch without a threshold or without a value never prunes.
            values: epoch to objective, of the epochs so far.
        """
        threshold = self.thresholds.get(epoch)
        if threshold is None or epoch not in values:
            return False
        best = max if self.higher_is_better else min
        value = values[epoch]
        if self.best_so_far:
            value = best(earlier for e, earlier in values.items() if e <= epoch)
        return value < threshold if self.higher_is_better else value > threshold

    def end(self, values: Mapping[int, float]) -> int | None:
        """The epoch after which a trial with these values would have been pruned; None = never."""
        return next((epoch for epoch in sorted(values) if self.stops(epoch, values)), None)


@dataclass(frozen=True)
class FoldRule:
    """When a trial is pruned between two folds: it is compared with the best trial so far, fold by fold.

    A trial ends if its mean over the folds so far is worse than the mean of the best trial over the same
    folds by more than ``margin``, the standard error of the best trial over all of its folds. So a
    configuration is forgiven a difference that other folds could make up for. The forgiving rule of
    Bergman et al. (AutoML 2024, https://arxiv.org/abs/2405.03389) compares with the worst fold of the best
    trial instead; here folds differ from each other far more than configurations do, so the comparison is
    paired.

    Args:
        metric: a column of the history.
        higher_is_better: direction of the objective.
        best: the objective of the best trial by fold.
        margin: at least 0.
    """

    metric: str
    higher_is_better: bool
    best: Sequence[float]
    margin: float

    def stops(self, values: Sequence[float]) -> bool:
        """Whether a trial with these values of its first folds is pruned."""
        if not values or len(values) >= len(self.best):
            return False
        gap = fmean(values) - fmean(self.best[: len(values)])
        return (gap if self.higher_is_better else -gap) < -self.margin

    def end(self, values: Sequence[float]) -> int | None:
        """After how many folds a trial with these values would have been pruned; None = never."""
        counts = range(1, len(values))
        return next((count for count in counts if self.stops(values[:count])), None)


@dataclass(frozen=True)
class TrialRules:
    """What a trial follows besides its configuration.

    Args:
        pruning: thresholds by epoch of its first fold; None = never prune by epoch.
        folds: when it is pruned between two folds; None = never.
        with_models: whether the result of a fold has the files of its models.
    """

    pruning: PruningRule | None = None
    folds: FoldRule | None = None
    with_models: bool = False
