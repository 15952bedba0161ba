"""Baselines of a study: fitted where they are missing, out of fold and on all labelled samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bbam_ray.engine.folds import FoldResult, write_folder
from bbam_ray.engine.model_folder import WEIGHTS
from bbam_ray.methods import known_settings
from bbam_ray.results.fold_rows import LAST
from bbam_ray.results.store import StudyStore
from bbam_ray.scale.study.final_answer import Bag
from bbam_ray.scale.study.fold_store import FOLDS, FoldStore
from bbam_ray.scale.study.jobs import Job, JobResult
from bbam_ray.scale.study.plan import StudyPlan

RunJobs = Callable[[Sequence[Job], Callable[[Job, JobResult], None], str], None]


class StudyModels:
    """Models that a study trains after its search.

    Args:
        plan: of the study.
        store: of the study.
        run: runs jobs.
        count: gets the seconds of each job.
    """

    def __init__(
        self, plan: StudyPlan, store: StudyStore, run: RunJobs, count: Callable[[float], None]
    ) -> None:
        self._plan, self._store, self._run_jobs, self._count = plan, store, run, count
        self._fold_store = FoldStore(store)
        self._errors: dict[str, str] = {}


class BaselineModels(StudyModels):
    """The baselines of a study."""

    def settings(self, name: str) -> dict[str, Any]:
        """Settings of a baseline fitted to all labelled samples: those of the study that it has."""
        return self._shared_settings(name) | {"folds": 1, "fold": 0, "validation_fraction": 0.0}

    def model(self, name: str) -> Path:
        """Folder of the model of a baseline."""
        return self._store.folder / FOLDS / name / "model"

    def error(self, name: str) -> str | None:
        """Why a baseline failed; None if it did not."""
        return self._errors.get(name)

    def train(self) -> None:
        """Fit the baselines that are missing."""
        jobs = []
        for name in self._plan.baselines:
            if self._fold_results(name) is None or not (self.model(name) / WEIGHTS).is_file():
                values = self._shared_settings(name) | {"folds": self._plan.folds, "fold": 0}
                jobs.append(Job(f"baseline {name}", "baseline", (values,), gang=False, tag=name))
        self._run_jobs(jobs, self._keep, "fitting baselines")

    def bags(self) -> list[Bag]:
        """The bags of the baselines that could be fitted."""
        results = {name: self._fold_results(name) for name in self._plan.baselines}
        return [
            Bag.of(name, LAST, folds, is_baseline=True)
            for name, folds in results.items()
            if folds is not None and name not in self._errors
        ]

    def _shared_settings(self, name: str) -> dict[str, Any]:
        settings = self._plan.settings
        known = known_settings(settings["dataset"], name)
        shared = {key: value for key, value in settings.items() if key in known}
        return shared | {"method": name}

    def _fold_results(self, name: str) -> list[FoldResult] | None:
        """Results of all folds; None if one is missing or damaged."""
        results = [self._fold_store.read(name, fold) for fold in range(self._plan.folds)]
        complete = [result for result in results if result is not None]
        return complete if len(complete) == len(results) else None

    def _keep(self, job: Job, result: JobResult) -> None:
        self._count(result.seconds)
        name = job.tag
        if result.error is not None:
            self._errors[name] = result.error
            return
        folds, files = result.value
        for fold in folds:
            self._fold_store.write(name, fold)
        self._store.patience.insist(partial(write_folder, files, self.model(name)))
