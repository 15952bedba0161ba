"""Early stopping: which trials go on is a function of the trials before them, and of nothing else.

Before trial n starts, its pruning rule is computed from the results of trials up to n - lag, the same
ones that its configuration was drawn from. A study therefore stops the same trials whichever of several
concurrent ones is ahead, and after a kill it goes on with no state but its store. The rules are
asynchronous successive halving (Li et al., MLSys 2020), its Hyperband (Li et al., JMLR 2018) and the
median rule (Golovin et al., KDD 2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal

from bbam_ray.engine.pruning_rule import PruningRule
from bbam_ray.errors import UsageError
from bbam_ray.scale.search.outcomes import Outcome

Scheduler = Literal["none", "asha", "hyperband", "median"]
_LEAST_PEERS = 4  # of the median rule


@dataclass(frozen=True)
class Stopping:
    """How a study stops trials early.

    Args:
        scheduler: the rule.
        grace: the first epoch after which a trial may end; beyond the warm-up, in which most settings
            do nothing yet.
        warmup: epochs of the longest warm-up in the space; a method without one has 0.
        epochs: of the longest trial.
        reduction: eta: one trial in eta passes a rung, and rungs are eta times further apart.
        metric, mode: the objective.
    """

    scheduler: Scheduler
    grace: int
    warmup: int
    epochs: int
    reduction: int
    metric: str
    mode: Literal["max", "min"]

    def __post_init__(self) -> None:
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
                "stopped; use less, raise --epochs, or --scheduler none"
            )

    @property
    def rungs(self) -> list[int]:
        """Epochs after which successive halving decides: main-phase epochs in powers of eta."""
        found, main = [], self.grace - self.warmup
        while self.warmup + main < self.epochs:
            found.append(self.warmup + main)
            main *= self.reduction
        return found

    def pruning_rule(self, number: int, outcomes: Iterable[Outcome]) -> PruningRule | None:
        """What a trial must reach to go on.

        Args:
            number: of the trial.
            outcomes: of the trials that it may know of.

        Returns:
            None where nothing can stop it.
        """
        peers = [o for o in outcomes if o.number != number and o.by_epoch]
        if self.scheduler == "asha":
            thresholds = self._halving(peers, self.rungs)
        elif self.scheduler == "hyperband":
            bracket = self.bracket(number)
            beside = [peer for peer in peers if self.bracket(peer.number) == bracket]
            thresholds = self._halving(beside, self.rungs[bracket:])
        elif self.scheduler == "median":
            thresholds = self._median(peers)
        else:
            return None
        if not thresholds:
            return None
        return PruningRule(
            self.metric, self.mode == "max", thresholds, best_so_far=self.scheduler == "median"
        )

    def _halving(self, peers: list[Outcome], rungs: list[int]) -> dict[int, float]:
        """A trial passes a rung as one of the best floor(n / eta), at least one, of n trials there."""
        thresholds = {}
        for rung in rungs:
            values = sorted(
                (p.by_epoch[rung] for p in peers if rung in p.by_epoch), key=self._worse
            )
            places = max(1, (len(values) + 1) // self.reduction)
            if len(values) >= places:
                thresholds[rung] = values[places - 1]
        return thresholds

    def _median(self, peers: list[Outcome]) -> dict[int, float]:
        """From the grace epoch on, the median of what the others had reached by then."""
        thresholds = {}
        for epoch in range(self.grace, self.epochs):
            best = [self._best(p.by_epoch, epoch) for p in peers if epoch in p.by_epoch]
            if len(best) >= _LEAST_PEERS:
                thresholds[epoch] = median(best)
        return thresholds

    def _worse(self, value: float) -> float:
        return -value if self.mode == "max" else value

    def _best(self, by_epoch: Mapping[int, float], epoch: int) -> float:
        return min((v for e, v in by_epoch.items() if e <= epoch), key=self._worse)

    def bracket(self, number: int) -> int:
        """Hyperband's bracket of a trial: b leaves out the first b rungs; the last stops nothing.

        Of r rungs, bracket b has s = r - b, and ceil((r + 1) eta^s / (s + 1)) trials of every round.
        """
        last = len(self.rungs)
        sizes = [-(-(last + 1) * self.reduction**s // (s + 1)) for s in range(last, -1, -1)]
        total = sum(sizes)
        # A bracket's k-th trial is due at (k + 1/2) / size of the round: they take turns evenly.
        due = sorted(((k + 0.5) / size, b) for b, size in enumerate(sizes) for k in range(size))
        return due[number % total][1]


def pbt_refused() -> UsageError:
    """Population-based training has no configuration that could be repeated or confirmed."""
    return UsageError(
        "--scheduler pbt: population-based training changes settings while it trains, so there is no "
        "configuration to confirm over seeds or to write to best.yaml; use asha, hyperband or median"
    )
