"""Pruning: which trials end early is a function of the trials before them, and of nothing else.

Before trial n starts, its pruning rule is computed from the results of the trials up to n - lag, the
same ones that its configuration was drawn from. A study therefore prunes the same trials whichever of
several concurrent ones is ahead, and a resumed study needs no state but its store.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from bbam_ray.engine.pruning_rule import FoldRule, PruningRule, TrialRules
from bbam_ray.errors import UsageError
from bbam_ray.results import schemas
from bbam_ray.scale.search.outcomes import Outcome
from bbam_ray.scale.search.schedulers import find_scheduler


@dataclass(frozen=True)
class Stopping:
    """How a study prunes trials.

    Args:
        scheduler: a name in ``SCHEDULERS``.
        grace: the first epoch after which a trial may end; after the warm-up, in which most settings
            have no effect yet.
        warmup: epochs of the longest warm-up in the space; 0 for a method without one.
        epochs: of the longest trial.
        reduction: eta: one trial in eta passes a rung, and rungs are eta times further apart.
        metric, mode: the objective.
        folds: of each trial.
        between_folds: whether a trial may be pruned between two folds.

    Raises:
        UsageError: unknown or refused scheduler, or values that prune no trial or too early.
    """

    scheduler: str
    grace: int
    warmup: int
    epochs: int
    reduction: int
    metric: str
    mode: Literal["max", "min"]
    folds: int = 1
    between_folds: bool = True

    def __post_init__(self) -> None:
        find_scheduler(self.scheduler)
        if self.scheduler == "none":
            return
        if self.reduction < 2:
            raise UsageError(f"--reduction-factor {self.reduction}: use at least 2")
        least = min(self.warmup + 1, self.epochs)
        if not least <= self.grace:
            raise UsageError(
                f"--grace-epochs {self.grace}: trials cannot be compared before the warm-up has ended; "
                f"use at least {least}"
            )
        if self.grace >= self.epochs:
            raise UsageError(
                f"--grace-epochs {self.grace}: a trial has {self.epochs} epochs, so none would be "
                "pruned; use less, raise --epochs, or use --scheduler none"
            )

    @property
    def rungs(self) -> list[int]:
        """Epochs after which successive halving decides: main-phase epochs in powers of eta."""
        rungs, main = [], self.grace - self.warmup
        while self.warmup + main < self.epochs:
            rungs.append(self.warmup + main)
            main *= self.reduction
        return rungs

    @property
    def when(self) -> str:
        """When trials are pruned, for people; empty if they never are."""
        if self.scheduler == "none":
            return ""
        if find_scheduler(self.scheduler).by_rung:
            rungs = ", ".join(map(str, self.rungs))
            return f"decides after epochs {rungs}; one trial in {self.reduction} continues"
        return f"from epoch {self.grace} on"

    def rules(
        self, number: int, outcomes: Iterable[Outcome], *, with_models: bool = False
    ) -> TrialRules:
        """What a trial follows; arguments are those of ``pruning_rule``."""
        outcomes = list(outcomes)
        return TrialRules(
            self.pruning_rule(number, outcomes), self.fold_rule(outcomes), with_models
        )

    def fold_rule(self, outcomes: Iterable[Outcome]) -> FoldRule | None:
        """When a trial is pruned between two folds; without an earlier complete trial it never is.

        Args:
            outcomes: of the trials that it may be compared with.

        Returns:
            None for trials with a single fold, or with several objectives.
        """
        if self.folds == 1 or not self.between_folds:
            return None
        complete = [
            o for o in outcomes if o.state == schemas.COMPLETE and len(o.by_fold) == self.folds
        ]
        higher = self.mode == "max"
        if not complete:
            return FoldRule(self.metric, higher, (), 0.0)
        choose = max if higher else min
        best = choose(complete, key=lambda o: (fmean(o.by_fold), -o.number if higher else o.number))
        return FoldRule(self.metric, higher, tuple(best.by_fold), best.standard_error or 0.0)

    def pruning_rule(self, number: int, outcomes: Iterable[Outcome]) -> PruningRule | None:
        """The values that a trial must reach to continue.

        Args:
            number: of the trial.
            outcomes: of the trials that it may be compared with.

        Returns:
            None if nothing can prune it.
        """
        scheduler = find_scheduler(self.scheduler)
        peers = [o for o in outcomes if o.number != number and o.by_epoch]
        thresholds = scheduler.thresholds(self, number, peers)
        if not thresholds:
            return None
        return PruningRule(
            self.metric, self.mode == "max", thresholds, best_so_far=scheduler.best_so_far
        )
