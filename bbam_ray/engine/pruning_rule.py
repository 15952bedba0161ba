"""The rule that prunes a trial: the objective that it must reach after certain epochs.

The thresholds come from earlier trials (``scale/search/pruning.py``) and are fixed before the trial
starts. The trial checks them itself and ends like any other trial, so no worker has to be killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
