"""What a study is to do, decided before anything starts, and how it ended."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from bbam_ray.results.store import Row
from bbam_ray.scale.space import Space


@dataclass(frozen=True)
class StudyPlan:
    """What a study is to do; everything in it has been checked.

    Args:
        space: what is searched.
        settings: flat settings that all trials share (data set, method, seed, fixed values).
        label_names: K names.
        num_samples: trials in all.
        concurrency: trials at once.
        cpus, gpus: of one trial.
        time_budget: seconds for the search, None = no limit.
        confirm_top: how many of the best configurations are confirmed.
        confirm_seeds: over how many seeds each.
        lag: see ``search.Sequence``; fixed with the study so that going on draws the same.
    """

    space: Space
    settings: dict[str, Any]
    label_names: tuple[str, ...]
    num_samples: int
    concurrency: int
    cpus: int
    gpus: float
    time_budget: float | None
    confirm_top: int
    confirm_seeds: int
    lag: int

    @property
    def resources(self) -> dict[str, float]:
        return {"CPU": self.cpus, "GPU": self.gpus} if self.gpus else {"CPU": self.cpus}


@dataclass(frozen=True)
class StudyResult:
    """How a study ended: its status, its rows, and the configurations that were confirmed."""

    status: str
    trials: list[Row]
    confirm: list[Row]
    best: Row | None


def search_lag(concurrency: int) -> int:
    """Outcomes may be this many trials old: twice the concurrency, so that no slot waits for another."""
    return 1 if concurrency == 1 else 2 * concurrency


def default_concurrency(cpus: int, gpus: float, available_gpus: int) -> int:
    """How many trials fit on this machine at once."""
    by_cpu = max(1, (os.cpu_count() or 1) // cpus)
    return min(by_cpu, max(1, int(available_gpus / gpus))) if gpus else by_cpu
