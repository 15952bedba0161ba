"""Fold models of trials: trained where they are missing, and their scores joined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bbam_ray.engine.confirm import confirmation_config, pool_seed
from bbam_ray.engine.folds import write_folder
from bbam_ray.engine.model_folder import WEIGHTS
from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config
from bbam_ray.results.fold_rows import BEST, LAST, WARMUP, stored_phase
from bbam_ray.results.store import Row, StudyStore
from bbam_ray.scale.search.outcomes import parameters_of
from bbam_ray.scale.study.baseline_models import BaselineModels, RunJobs, StudyModels
from bbam_ray.scale.study.final_answer import Bag, FinalAnswer
from bbam_ray.scale.study.final_kinds import FULL_MODELS, Final
from bbam_ray.scale.study.fold_store import FOLDS
from bbam_ray.scale.study.jobs import Job, JobResult
from bbam_ray.scale.study.plan import StudyPlan

_SEED_STEP = 1009  # between the training seeds of full models


def stop_epoch(settings: dict[str, Any], trial: Row) -> int | None:
    """The last epoch to train if the kept weights are not those of the end of the schedule."""
    training = run_config({**settings, **parameters_of(trial)}, "trial").training
    phase = stored_phase(trial)
    if phase == WARMUP:
        return training.warmup_epochs
    if phase == BEST and trial["epochs"] < training.epochs:  # patience ended it
        best: int = trial["best_epoch"]
        return best
    return None


class Bags(StudyModels):
    """Fold models of the trials of a study; its baselines are in ``baselines``."""

    def __init__(
        self, plan: StudyPlan, store: StudyStore, run: RunJobs, count: Callable[[float], None]
    ) -> None:
        super().__init__(plan, store, run, count)
        self.baselines = BaselineModels(plan, store, run, count)
        self._trials: dict[str, Row] = {}

    def _name(self, trial_id: str, seed: int) -> str:
        """Name of the fold results of a trial with a seed."""
        is_own = seed == self._plan.settings["seed"]
        return trial_id if is_own else f"{trial_id}-seed{seed}"

    def model(self, bag: Bag, seed: int, fold: int) -> Path:
        """Folder of the model of a fold."""
        name = self._name(bag.name, seed)
        folder = self._fold_store.model(name, fold, bag.phase)
        return folder if folder.is_dir() else self._fold_store.model(name, fold, LAST)

    def members_of(self, bag: Bag, seed: int) -> dict[Path, float]:
        """Folders of the models of a bag in an ensemble, and their shares of its weight.

        Of K folds, fold models have (K - 1) / (2 K) of it, models of all labelled samples the rest. Fold
        models differ more, so their mean gains more; but each sees only (K - 1) / K of the labels, which
        decides where labels are few for the network.
        """
        if bag.is_baseline:
            return {self.baselines.model(bag.name): 1.0}
        folds = [self.model(bag, seed, fold) for fold in range(self._plan.folds)]
        if not self._has_full_models:
            return dict.fromkeys(folds, 1 / len(folds))
        full = self._full_models(self._name(bag.name, seed))
        of_folds = (len(folds) - 1) / (2 * len(folds))
        return dict.fromkeys(folds, of_folds / len(folds)) | dict.fromkeys(
            full, (1 - of_folds) / len(full)
        )

    @property
    def _has_full_models(self) -> bool:
        """Whether an ensemble also has models of all labelled samples: with folds they differ."""
        return self._plan.final in (Final.best, Final.ensemble) and self._plan.folds > 1

    def _full_models(self, name: str) -> list[Path]:
        parent = self._store.folder / FOLDS / name
        return [parent / f"full-{index}" for index in range(FULL_MODELS)]

    # ------------------------------------------------------------------ trials

    def train_full_models(self, trials: Sequence[Row], seeds: Iterable[int]) -> None:
        """Train the members of an ensemble that see all labelled samples, where they are missing.

        Args:
            trials: their rows.
            seeds: of the training.
        """
        if not self._has_full_models:
            return
        jobs: list[Job] = []
        for seed in seeds:
            for trial in trials:
                name = self._name(trial["trial_id"], seed)
                jobs += [
                    self._full_job(trial, name, folder, (seed + index * _SEED_STEP) % 2**31)
                    for index, folder in enumerate(self._full_models(name))
                    if not (folder / WEIGHTS).is_file()
                ]
        self._run_jobs(jobs, self._keep_full_model, "training models of all labelled samples")

    def _full_job(self, trial: Row, name: str, folder: Path, seed: int) -> Job:
        settings = self._plan.settings
        end = stop_epoch(settings, trial)
        config = confirmation_config(settings, parameters_of(trial), seed, end, same_pool=True)
        folds = [self._fold_store.read(name, fold) for fold in range(self._plan.folds)]
        stored = [result for result in folds if result is not None]
        bag = Bag.of(name, stored_phase(trial), stored) if stored else None
        title, scores = f"{folder.name} of {name}", bag and (bag.scores, bag.labels)
        return Job(title, "train_full", (config.flat(), scores), tag=(name, folder))

    def _keep_full_model(self, job: Job, result: JobResult) -> None:
        self._count(result.seconds)
        name, folder = job.tag
        if result.error is None:
            self._store.patience.insist(partial(write_folder, result.value, folder))
        else:
            self._errors[name] = f"full model: {result.error}"

    def train_folds(self, trials: Sequence[Row], seeds: Iterable[int]) -> None:
        """Train the folds of trials that are missing or damaged.

        Args:
            trials: their rows.
            seeds: of the training; the labelled samples are those of the search.
        """
        jobs: list[Job] = []
        names = set[str]()
        for seed in seeds:
            for trial in trials:
                name = self._name(trial["trial_id"], seed)
                if name in names:
                    continue
                names.add(name)
                jobs += [
                    self._fold_job(trial, name, seed, fold)
                    for fold in range(self._plan.folds)
                    if not self._has(trial, name, fold)
                ]
        self._run_jobs(jobs, self._keep_fold, "training fold models")

    def _has(self, trial: Row, name: str, fold: int) -> bool:
        if self._fold_store.read(name, fold) is None:
            return False
        if not self._plan.with_models:
            return True
        phases = (stored_phase(trial), LAST)
        models = (self._fold_store.model(name, fold, phase) / WEIGHTS for phase in phases)
        return any(model.is_file() for model in models)

    def _fold_job(self, trial: Row, name: str, seed: int, fold: int) -> Job:
        settings = self._plan.settings
        values = {
            **settings,
            **parameters_of(trial),
            "seed": seed,
            "split_seed": pool_seed(settings),
            "fold": fold,
        }
        title = f"fold {fold} of {trial['trial_id']}, seed {seed}"
        return Job(title, "train_fold", (values,), tag=(name, fold))

    def _keep_fold(self, job: Job, result: JobResult) -> None:
        self._count(result.seconds)
        name, fold = job.tag
        if result.error is None:
            self._fold_store.write(name, result.value)
        else:
            self._errors[name] = f"fold {fold}: {result.error}"

    def of_trials(self, trials: Sequence[Row], seed: int) -> list[Bag]:
        """The bags of trials whose folds are trained.

        Raises:
            UsageError: a fold could not be trained.
        """
        bags = []
        for trial in trials:
            name = self._name(trial["trial_id"], seed)
            self._trials[trial["trial_id"]] = trial
            results = [self._fold_store.read(name, fold) for fold in range(self._plan.folds)]
            usable = [result for result in results if result is not None]
            if len(usable) < len(results) or name in self._errors:
                raise UsageError(self._errors.get(name, f"a fold of {name} is missing"))
            bags.append(Bag.of(trial["trial_id"], stored_phase(trial), usable))
        return bags

    def members(self, final: FinalAnswer) -> list[Row]:
        """Rows of the trials in a final answer, the chosen one first."""
        names = sorted(final.weights, key=lambda name: (name != final.trial, name))
        return [self._trials[name] for name in names if name in self._trials]
