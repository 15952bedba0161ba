"""What a trial of a search must reach, and when, to go on; the trial itself decides.

The bar is made before the trial starts, from the trials before it (``scale/search/pruning.py``). A
trial that fails it ends like any other, on all its workers at once, so nothing is left to clean up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """Values of the objective that decide whether a trial goes on.

    Args:
        metric: a column of the history, such as val_map.
        higher_is_better: which way the objective goes.
        cuts: epoch to the worst value with which training goes on after it.
        best_so_far: compare the best value up to the epoch instead of the epoch's own.
    """

    metric: str
    higher_is_better: bool
    cuts: Mapping[int, float]
    best_so_far: bool = False

    def stops(self, epoch: int, values: Mapping[int, float]) -> bool:
        """Whether training ends after an epoch, given the objective of the epochs so far."""
        cut = self.cuts.get(epoch)
        if cut is None or epoch not in values:
            return False
        choose = max if self.higher_is_better else min
        earlier = [value for place, value in values.items() if place <= epoch]
        value = choose(earlier) if self.best_so_far else values[epoch]
        return value < cut if self.higher_is_better else value > cut

    def end(self, values: Mapping[int, float]) -> int | None:
        """The epoch after which a trial with such values would have been stopped; None = never."""
        return next((epoch for epoch in sorted(values) if self.stops(epoch, values)), None)
