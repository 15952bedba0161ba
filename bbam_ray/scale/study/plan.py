"""The plan of a study, complete before anything starts, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from bbam_ray.config import RunConfig
from bbam_ray.methods import run_config
from bbam_ray.results.schemas import FAILED, PRUNED
from bbam_ray.results.store import Row, was_not_started
from bbam_ray.results.study import INTERRUPTED
from bbam_ray.scale.search.outcomes import Outcome, ranked
from bbam_ray.scale.search.pruning import Stopping
from bbam_ray.scale.search.space import Space
from bbam_ray.scale.study.final_kinds import FULL_MODELS, Final
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
        """The lower one of the limits on GPU-hours and on money, in GPU-hours."""
        limits = [] if self.gpu_hours is None else [self.gpu_hours]
        if self.cost is not None and self.price is not None:
            limits.append(self.cost / self.price)
        return min(limits, default=None)

    def cost_of(self, gpu_hours: float) -> float | None:
        return None if self.price is None else gpu_hours * self.price


@dataclass(frozen=True)
class StudyPlan:
    """Everything that a study needs to run; all of it has been checked.

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
        max_failures: how often a trial that lost a worker resumes before it fails; -1 = always.
        lag: see ``ConfigSequence``; stored with the study so that a resumed one draws the same trials.
        stopping: which trials are pruned.
        sampler: draws configurations.
        limits: the budget.
        reuse: take results of identical trials from the store instead of training them again.
        trackers: experiment trackers that receive every epoch.
        prior: outcomes of another study that the sampler knows from the start.
        final: the kind of the final answer.
        same_pool: confirming runs use the labelled samples of the search, else each seed draws its own.
        baselines: methods that the final answer is compared with.
        published: also confirm the published settings.
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
    final: Final = Final.single
    same_pool: bool = False
    baselines: tuple[str, ...] = ()
    published: bool = False

    @property
    def folds(self) -> int:
        """Folds of each trial."""
        return self.published_config.training.folds

    @property
    def with_models(self) -> bool:
        """Whether the final answer needs the models of folds."""
        return self.final is not Final.single and self.confirm_seeds > 0

    def config_of(self, parameters: Mapping[str, Any]) -> RunConfig:
        """The complete configuration of a trial with these values of the searched parameters."""
        return run_config({**self.settings, **parameters}, "trial")

    @cached_property
    def published_config(self) -> RunConfig:
        """The configuration of trial 0."""
        return self.config_of(self.space.published)

    @property
    def confirmations(self) -> int:
        """Number of answers and seeds that are measured on the test part, without baselines."""
        answers = min(self.confirm_top, self.num_samples) + (
            self.published and self.confirm_top > 0
        )
        return answers * self.confirm_seeds

    @property
    def runs_after_search(self) -> int:
        """Trainings of the confirmation, if the final answer has the folds of one trial."""
        runs = self.confirmations
        if (
            self.with_models and self.confirm_top
        ):  # the first seed has the fold models of the search
            runs += (self.confirm_seeds - 1) * self.folds
            full = FULL_MODELS if self.folds > 1 and self.final is not Final.soup else 0
            runs += (full - 1) * self.confirm_seeds
        return runs

    @property
    def runs(self) -> int:
        """Trainings of the whole study, if no trial is pruned."""
        return self.num_samples * self.folds + self.runs_after_search

    @property
    def gpus(self) -> float:
        """Most GPUs that a trial uses."""
        workers = self.train_shape.max_workers if self.train_shape else self.shape.workers
        return self.shape.gpus * workers

    def rules(self) -> dict[str, Any]:
        """Besides space and settings, what determines the trials of a study; stored in ``study.json``."""
        return {
            "sampler": self.sampler,
            "stopping": asdict(self.stopping),
            "prior": [asdict(outcome) for outcome in self.prior],
        }


@dataclass(frozen=True)
class StudyResult:
    """How a study ended.

    Args:
        status: of ``study.json``.
        trials, confirm: rows of the tables.
        best: row of the best trial; None if no trial was completed.
        out_of_budget: whether the budget was used up before the last trial.
        cannot_start: whether the search ended since no worker could start.
    """

    status: str
    trials: list[Row]
    confirm: list[Row]
    best: Row | None
    out_of_budget: bool = False
    cannot_start: bool = False

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.status == INTERRUPTED

    @property
    def failed(self) -> list[Row]:
        """Trials that ended with an error."""
        return [row for row in self.trials if row["state"] == FAILED]

    @property
    def not_started(self) -> list[Row]:
        """Trials that failed since a worker could not start."""
        return [row for row in self.trials if was_not_started(row)]

    @property
    def pruned(self) -> list[Row]:
        """Trials that were ended early."""
        return [row for row in self.trials if row["state"] == PRUNED]

    def pareto_set(self, space: Space) -> list[Row]:
        """Trials that no other trial beats in every objective, ranked by the first objective."""
        return [row for row in ranked(self.trials, space) if row["pareto"]]


def search_lag(concurrency: int) -> int:
    """How many trials behind the sampler may be: twice the concurrency, so that no slot waits."""
    return 1 if concurrency == 1 else 2 * concurrency


def default_concurrency(shape: GangShape, cpus: float, gpus: float) -> int:
    """How many trials fit at the same time on these CPUs and GPUs; at least one."""
    fits = int(cpus // (shape.cpus * shape.workers))
    if shape.gpus:
        fits = min(fits, int(gpus / (shape.gpus * shape.workers)))
    return max(1, fits)
