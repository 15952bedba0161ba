"""From the options of a search to a checked plan."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from bbam_ray.commands import checks
from bbam_ray.commands.choices import TrialRunner
from bbam_ray.commands.search_rules import SearchRules, default_folds, limits_of, stopping_of
from bbam_ray.commands.space_files import space_file
from bbam_ray.config import RunConfig
from bbam_ray.data import Samples
from bbam_ray.engine.task import Task, check_task, split_of
from bbam_ray.errors import UsageError
from bbam_ray.methods import BASELINES, known_settings, run_config
from bbam_ray.scale.search.space_file import read_space
from bbam_ray.scale.search.warm_start import prior_outcomes
from bbam_ray.scale.study.final_kinds import Final, Pools
from bbam_ray.scale.study.plan import StudyPlan, default_concurrency, search_lag
from bbam_ray.scale.workers.shapes import GangShape, TrainShape


def choose_runner(runner: TrialRunner, shape: TrainShape) -> TrialRunner:
    """Replace ``auto``: a gang for a fixed number of workers, because it is reused by every trial."""
    if runner is TrialRunner.gang and shape.elastic:
        raise UsageError(
            f"--trial-runner gang has a fixed number of workers, not "
            f"{shape.min_workers}-{shape.max_workers}; use --trial-runner train or one number"
        )
    if runner is not TrialRunner.auto:
        return runner
    return TrialRunner.train if shape.elastic else TrialRunner.gang


def find_space(path: Path | None, dataset: str, method: str) -> Path:
    """The search space file of a data set and a method, or that of the user."""
    known_settings(dataset, method)  # reports an unknown data set rather than a missing file
    return space_file(path, dataset, method)


def make_plan(
    settings: Mapping[str, Any],
    space_path: Path,
    shape: TrainShape,
    rules: SearchRules,
    *,
    runner: TrialRunner,
    local: bool,
    samples: Samples | None = None,
) -> tuple[StudyPlan, Task]:
    """Check everything that could fail and build the plan of a study.

    Args:
        settings: flat settings that all trials share, with data set, method and seed.
        space_path: the search space file.
        shape: workers of a trial.
        rules: of the search.
        runner: gang or train.
        local: whether the trials run on this machine.
        samples: of the training part, if they have been read already.

    Raises:
        UsageError: names what is wrong; nothing was started or written.
    """
    if rules.trackers:
        from bbam_ray.scale.study.trackers import check_trackers  # loads Ray

        check_trackers(rules.trackers)
    if "fold" in settings:
        raise UsageError(f"fold = {settings['fold']}: a search trains all folds; leave it out")
    run_config(settings, "command line")
    space = read_space(space_path, settings["dataset"], settings["method"], settings)
    shared = {"device": "cuda" if shape.gpus else "cpu", **space.fixed, **settings}
    if rules.folds is not None:
        if shared.get("folds", rules.folds) != rules.folds:
            raise UsageError(
                f"--folds {rules.folds} and folds = {shared['folds']}: give one of them"
            )
        shared["folds"] = rules.folds
    config = run_config({**shared, **space.published}, "command line")
    if config.training.validation_fraction == 0 and config.training.folds == 1:
        raise UsageError(
            "validation_fraction = 0: a search needs validation samples to choose by; leave it out, or "
            "use --folds"
        )
    task = check_task(config, samples)
    shared["folds"] = _folds(config, task, "folds" in shared)
    if shared["folds"] != config.training.folds:
        config = run_config({**shared, **space.published}, "command line")
        task = check_task(config, task.samples)
    stopping = stopping_of(rules, space, shared)
    checks.check_workers(config, shape, len(task.split.labeled))
    if local:
        checks.check_machine(shape.min_workers, shape.cpus, shape.gpus)
    gang = GangShape(
        workers=shape.min_workers, cpus=shape.cpus, gpus=shape.gpus, timeout_s=shape.timeout_s
    )
    limits = limits_of(rules, gang.gpus)
    at_once = rules.max_concurrent or default_concurrency(
        replace(gang, workers=shape.max_workers), os.cpu_count() or 1, torch.cuda.device_count()
    )
    reading = task.samples.reading
    prior = prior_outcomes(rules.warm_start, space, shared) if rules.warm_start else ()
    plan = StudyPlan(
        space=space,
        settings=shared,
        label_names=task.label_names,
        num_samples=rules.num_samples,
        concurrency=min(at_once, rules.num_samples),
        shape=gang,
        train_shape=shape if runner is TrialRunner.train else None,
        confirm_top=rules.confirm_top,
        confirm_seeds=0 if reading and reading.unlabeled_test else rules.confirm_seeds,
        max_failures=shape.max_failures,
        lag=search_lag(at_once),
        stopping=stopping,
        sampler=cast(Any, rules.sampler),
        limits=limits,
        reuse=rules.reuse,
        trackers=rules.trackers,
        prior=prior,
        final=_final(rules, shared["folds"], reshuffle=config.training.reshuffle),
        same_pool=rules.confirm_pools == Pools.same,
        baselines=BASELINES if rules.baselines and settings["method"] not in BASELINES else (),
        published=rules.published,
    )
    return plan, task


def _folds(config: RunConfig, task: Task, chosen: bool) -> int:
    """The number of folds: the one that the user has chosen, or what the labelled samples need.

    It is 1 for data with a validation part.
    """
    if chosen or config.training.reshuffle or task.samples.is_validation is not None:
        return config.training.folds
    for folds in range(default_folds(task.samples.labels, task.split), 1, -1):
        try:  # every fold needs a positive label
            for fold in range(folds):
                changed = {**config.flat(), "folds": folds, "fold": fold}
                split_of(task.samples, run_config(changed, "folds"))
            return folds
        except UsageError:
            continue
    return 1


def _final(rules: SearchRules, folds: int, *, reshuffle: bool) -> Final:
    """The kind of the final answer."""
    if rules.final is None:
        return Final.best if folds > 1 and rules.confirm_pools == Pools.same else Final.single
    final = Final(rules.final)
    if final is not Final.single and reshuffle:
        raise UsageError(
            f"--final {final}: with reshuffle = true no two configurations have scores of the same "
            "validation samples; use --final single, or leave reshuffle out"
        )
    if final is not Final.single and rules.confirm_pools == Pools.new:
        raise UsageError(
            f"--final {final}: fold models belong to the labelled samples of the search; use "
            "--confirm-pools same, or --final single"
        )
    return final
