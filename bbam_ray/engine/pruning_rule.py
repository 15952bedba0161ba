"""When a trial is pruned: the objective that it must reach after certain epochs.

The thresholds come from earlier trials (``scale/search/pruning.py``) and are fixed before the trial
starts. The trial checks them itself and ends like any other, so no worker has to be cleaned up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PruningRule:
    """Values of the objective that decide whether a trial goes on.

    Args:
        metric: a column of the history, such as val_map.
        higher_is_better: which way the objective goes.
        thresholds: epoch to the worst value with which training goes on after it.
        best_so_far: compare the best value up to the epoch instead of the epoch's own.
    """

    metric: str
    higher_is_better: bool
    thresholds: Mapping[int, float]
    best_so_far: bool = False

    def stops(self, epoch: int, values: Mapping[int, float]) -> bool:
        """Whether training ends after an epoch, given the objective of the epochs so far."""
        cut = self.thresholds.get(epoch)
        if cut is None or epoch not in values:
            return False
        choose = max if self.higher_is_better else min
        earlier = [value for place, value in values.items() if place <= epoch]
        value = choose(earlier) if self.best_so_far else values[epoch]
        return value < cut if self.higher_is_better else value > cut

    def end(self, values: Mapping[int, float]) -> int | None:
        """The epoch after which a trial with such values would have been stopped; None = never."""
        return next((epoch for epoch in sorted(values) if self.stops(epoch, values)), None)
