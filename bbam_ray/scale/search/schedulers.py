"""The schedulers of a search: which trials are pruned. To add one, write its function here and name it
in ``SCHEDULERS``.

Each is a function of the results of earlier trials and of nothing else; see ``pruning.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from bbam_ray.errors import UsageError, nearest

if TYPE_CHECKING:
    from bbam_ray.scale.search.outcomes import Outcome
    from bbam_ray.scale.search.pruning import Stopping

Thresholds = dict[
    int, float
]  # epoch -> the worst value of the objective with which training continues
_MIN_PEERS = 4  # of the median rule


@dataclass(frozen=True)
class Scheduler:
    """One way to prune trials.

    Args:
        summary: a few words for help texts.
        thresholds: takes the rule of the study, a trial number and the outcomes of the trials that it is
            compared with (each has a value in at least one epoch).
        by_rung: whether it decides at the rungs of successive halving only, else after every epoch.
        best_so_far: compare a trial's best value up to an epoch, not the value of the epoch.
        refused: why the scheduler is not available; None if it is.
    """

    summary: str
    thresholds: Callable[[Stopping, int, list[Outcome]], Thresholds]
    by_rung: bool = False
    best_so_far: bool = False
    refused: str | None = None


def find_scheduler(name: str) -> Scheduler:
    """The scheduler of a name.

    Raises:
        UsageError: there is no such scheduler, or it is refused.
    """
    if name not in SCHEDULERS:
        raise UsageError(f"scheduler '{name}' is unknown; {nearest(name, SCHEDULERS)}")
    scheduler = SCHEDULERS[name]
    if scheduler.refused:
        raise UsageError(f"--scheduler {name}: {scheduler.refused}")
    return scheduler


def _no_thresholds(rule: Stopping, number: int, peers: list[Outcome]) -> Thresholds:
    return {}


def _asha(rule: Stopping, number: int, peers: list[Outcome]) -> Thresholds:
    """Asynchronous successive halving (Li et al., MLSys 2020, https://arxiv.org/abs/1810.05934)."""
    return _halving(rule, rule.rungs, peers)


def _hyperband(rule: Stopping, number: int, peers: list[Outcome]) -> Thresholds:
    """Hyperband (Li et al., JMLR 2018, https://jmlr.org/papers/v18/16-558.html), asynchronous."""
    brackets = len(rule.rungs)
    bracket = hyperband_bracket(number, brackets, rule.reduction)
    in_bracket = [
        peer
        for peer in peers
        if hyperband_bracket(peer.number, brackets, rule.reduction) == bracket
    ]
    return _halving(rule, rule.rungs[bracket:], in_bracket)


def hyperband_bracket(number: int, rungs: int, reduction: int) -> int:
    """Hyperband's bracket of a trial: bracket b skips the first b rungs; the last one prunes nothing.

    Of r rungs, bracket b has s = r - b, and ceil((r + 1) eta^s / (s + 1)) trials of every round.

    Args:
        number: of the trial.
        rungs: how many rungs there are.
        reduction: eta.
    """
    sizes = [-(-(rungs + 1) * reduction**s // (s + 1)) for s in range(rungs, -1, -1)]
    # The k-th trial of a bracket is due at (k + 1/2) / size of the round, so brackets alternate evenly.
    due = sorted(((k + 0.5) / size, b) for b, size in enumerate(sizes) for k in range(size))
    return due[number % sum(sizes)][1]


def _halving(rule: Stopping, rungs: list[int], peers: list[Outcome]) -> Thresholds:
    """A trial passes a rung as one of the best floor(n / eta), at least one, of n trials there."""
    thresholds = {}
    for rung in rungs:
        values = [peer.by_epoch[rung] for peer in peers if rung in peer.by_epoch]
        passing = max(1, (len(values) + 1) // rule.reduction)
        if len(values) >= passing:
            thresholds[rung] = _best_first(rule, values)[passing - 1]
    return thresholds


def _median(rule: Stopping, number: int, peers: list[Outcome]) -> Thresholds:
    """From the grace epoch on, the median of the best values of the other trials up to that epoch.

    Golovin et al., KDD 2017, https://doi.org/10.1145/3097983.3098043.
    """
    thresholds = {}
    for epoch in range(rule.grace, rule.epochs):
        best = [_best_until(rule, p.by_epoch, epoch) for p in peers if epoch in p.by_epoch]
        if len(best) >= _MIN_PEERS:
            thresholds[epoch] = median(best)
    return thresholds


def _best_until(rule: Stopping, by_epoch: Mapping[int, float], epoch: int) -> float:
    return _best_first(rule, [value for e, value in by_epoch.items() if e <= epoch])[0]


def _best_first(rule: Stopping, values: list[float]) -> list[float]:
    return sorted(values, reverse=rule.mode == "max")


SCHEDULERS = {
    "none": Scheduler("every trial trains to its end", _no_thresholds),
    "asha": Scheduler("asynchronous successive halving", _asha, by_rung=True),
    "hyperband": Scheduler("asynchronous Hyperband", _hyperband, by_rung=True),
    "median": Scheduler("median rule", _median, best_so_far=True),
    "pbt": Scheduler(
        "refused: population-based training",
        _no_thresholds,
        refused="population-based training changes settings during training, so there is no "
        "configuration to confirm over seeds or to write to best.yaml; use asha, hyperband or median",
    ),
}
