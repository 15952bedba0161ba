"""What a study is to do, decided before anything starts, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bbam_ray.results.store import Row
from bbam_ray.scale.gang import GangShape
from bbam_ray.scale.space import Space
from bbam_ray.scale.train_run import TrainShape


@dataclass(frozen=True)
class StudyPlan:
    """What a study is to do; everything in it has been checked.

    Args:
        space: what is searched.
        settings: flat settings that all trials share (data set, method, seed, fixed values).
        label_names: K names.
        num_samples: trials in all.
        concurrency: trials at once.
        shape: workers of one trial and what each needs.
        train_shape: the same for trials under Ray Train; None for trials of a gang.
        time_budget: seconds for the search, None = no limit.
        confirm_top: how many of the best configurations are confirmed.
        confirm_seeds: over how many seeds each.
        max_failures: how often a trial that lost a worker goes on before it fails; -1 = always.
        lag: see ``search.Sequence``; fixed with the study so that going on draws the same.
    """

    space: Space
    settings: dict[str, Any]
    label_names: tuple[str, ...]
    num_samples: int
    concurrency: int
    shape: GangShape
    train_shape: TrainShape | None
    time_budget: float | None
    confirm_top: int
    confirm_seeds: int
    max_failures: int
    lag: int


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


def default_concurrency(shape: GangShape, cpus: float, gpus: float) -> int:
    """How many trials fit at once on so many CPUs and GPUs; at least one."""
    fits = int(cpus // (shape.cpus * shape.workers))
    if shape.gpus:
        fits = min(fits, int(gpus / (shape.gpus * shape.workers)))
    return max(1, fits)
