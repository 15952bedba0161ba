"""What a study is to do, decided before anything starts, and how it ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bbam_ray.results.store import Row
from bbam_ray.scale.search.outcomes import Outcome
from bbam_ray.scale.search.pruning import Stopping
from bbam_ray.scale.search.space import Space
from bbam_ray.scale.workers.shapes import GangShape, TrainShape


@dataclass(frozen=True)
class Limits:
    """The budget of a study; None = no limit.

    Args:
        seconds: of this run of the search.
        gpu_hours: of the whole study, earlier runs and the confirmation included.
        cost: the same in money, which needs ``price``.
        price: of a GPU-hour.
    """

    seconds: float | None = None
    gpu_hours: float | None = None
    cost: float | None = None
    price: float | None = None

    @property
    def total_gpu_hours(self) -> float | None:
        """The tighter one of the limits on GPU-hours and on money, in GPU-hours."""
        found = [] if self.gpu_hours is None else [self.gpu_hours]
        if self.cost is not None and self.price is not None:
            found.append(self.cost / self.price)
        return min(found, default=None)

    def cost_of(self, gpu_hours: float) -> float | None:
        return None if self.price is None else gpu_hours * self.price


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
        confirm_top: how many of the best configurations are confirmed.
        confirm_seeds: over how many seeds each.
        max_failures: how often a trial that lost a worker goes on before it fails; -1 = always.
        lag: see ``search.ConfigSequence``; fixed with the study so that going on draws the same.
        stopping: which trials end early.
        sampler: draws configurations.
        limits: the budget.
        reuse: whether what was trained before is answered from the store.
        trackers: experiment trackers that are told of every epoch.
        prior: outcomes of another study that the search knows from the beginning.
    """

    space: Space
    settings: dict[str, Any]
    label_names: tuple[str, ...]
    num_samples: int
    concurrency: int
    shape: GangShape
    train_shape: TrainShape | None
    confirm_top: int
    confirm_seeds: int
    max_failures: int
    lag: int
    stopping: Stopping
    sampler: str = "tpe"
    limits: Limits = Limits()
    reuse: bool = True
    trackers: tuple[str, ...] = ()
    prior: tuple[Outcome, ...] = ()

    @property
    def confirmations(self) -> int:
        """Runs that confirm the best."""
        return min(self.confirm_top, self.num_samples) * self.confirm_seeds

    @property
    def gpus(self) -> float:
        """GPUs that a trial holds, at most."""
        workers = self.train_shape.max_workers if self.train_shape else self.shape.workers
        return self.shape.gpus * workers

    def rules(self) -> dict[str, Any]:
        """What decides which trials a study has, beside space and settings: for ``study.json``."""
        return {
            "sampler": self.sampler,
            "stopping": asdict(self.stopping),
            "prior": [asdict(outcome) for outcome in self.prior],
        }


@dataclass(frozen=True)
class StudyResult:
    """How a study ended: its status, its rows, and the configurations that were confirmed.

    ``out_of_budget`` says that the search ended before its last trial because its budget did.
    """

    status: str
    trials: list[Row]
    confirm: list[Row]
    best: Row | None
    out_of_budget: bool = False


def search_lag(concurrency: int) -> int:
    """Outcomes may be this many trials old: twice the concurrency, so that no slot waits for another."""
    return 1 if concurrency == 1 else 2 * concurrency


def default_concurrency(shape: GangShape, cpus: float, gpus: float) -> int:
    """How many trials fit at once on so many CPUs and GPUs; at least one."""
    fits = int(cpus // (shape.cpus * shape.workers))
    if shape.gpus:
        fits = min(fits, int(gpus / (shape.gpus * shape.workers)))
    return max(1, fits)
