"""From the options of ``bbam-ray tune`` to a checked plan and a study's record."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbam_ray.cli.search_rules import SearchRules, limits_of, stopping_of, throughput_settings
from bbam_ray.commands import checks
from bbam_ray.documents import standard_values
from bbam_ray.errors import UsageError
from bbam_ray.results.study import RUNNING, StudyRecord, describe_environment

if TYPE_CHECKING:
    from bbam_ray.scale.study.plan import StudyPlan


class TrialRunner(StrEnum):
    """Who trains the trials of a search."""

    auto = "auto"
    gang = "gang"
    train = "train"


def choose_runner(asked: TrialRunner, fewest: int, most: int) -> TrialRunner:
    """The gang wherever the number of workers is fixed: its workers stay from trial to trial."""
    if asked is TrialRunner.gang and fewest != most:
        raise UsageError(
            f"--trial-runner gang has a fixed number of workers, not {fewest}-{most}; use "
            "--trial-runner train or one number"
        )
    if asked is not TrialRunner.auto:
        return asked
    return TrialRunner.gang if fewest == most else TrialRunner.train


def make_plan(
    base: dict[str, Any],
    space_path: Path,
    shape: dict[str, Any],
    rules: SearchRules,
    *,
    runner: TrialRunner,
    local: bool,
) -> StudyPlan:
    """Check everything that can be wrong and put the plan together."""
    import torch

    from bbam_ray.engine.task import check_task, load_part
    from bbam_ray.methods import run_config
    from bbam_ray.scale.search.space_file import read_space
    from bbam_ray.scale.study.plan import StudyPlan, default_concurrency, search_lag
    from bbam_ray.scale.workers.shapes import GangShape, TrainShape

    if rules.trackers:
        from bbam_ray.scale.study.trackers import check_trackers

        check_trackers(rules.trackers)
    run_config(base, "command line")
    space = read_space(space_path, base["dataset"], base["method"], base)
    settings = {"device": "cuda" if shape["gpus"] else "cpu", **space.fixed, **base}
    config = run_config({**settings, **space.published}, "command line")
    if config.training.validation_fraction == 0:
        raise UsageError("validation_fraction = 0: a search needs validation samples to choose by")
    stopping = stopping_of(rules, space, settings)
    split = check_task(config)
    train_shape = TrainShape(**shape)
    fewest, most = train_shape.min_workers, train_shape.max_workers
    checks.check_workers(config, fewest, most, len(split.labeled))
    if local:
        checks.check_machine(fewest, train_shape.cpus, train_shape.gpus)
    gang = GangShape(
        workers=fewest,
        cpus=train_shape.cpus,
        gpus=train_shape.gpus,
        timeout_s=shape["timeout_s"],
    )
    limits = limits_of(rules, gang.gpus)
    at_once = rules.concurrency or default_concurrency(
        replace(gang, workers=most), os.cpu_count() or 1, torch.cuda.device_count()
    )
    plan = StudyPlan(
        space=space,
        settings=settings,
        label_names=load_part(config, "train").label_names,
        num_samples=rules.num_samples,
        concurrency=min(at_once, rules.num_samples),
        shape=gang,
        train_shape=train_shape if runner is TrialRunner.train else None,
        confirm_top=rules.confirm_top,
        confirm_seeds=rules.confirm_seeds,
        max_failures=shape["max_failures"],
        lag=search_lag(at_once),
        stopping=stopping,
        sampler=rules.sampler.value,
        limits=limits,
        reuse=rules.reuse,
        trackers=rules.trackers,
    )
    if rules.warm_start is None:
        return plan
    from bbam_ray.scale.search.warm_start import prior_outcomes

    return replace(plan, prior=prior_outcomes(rules.warm_start, space, settings))


def open_record(
    folder: Path, plan: StudyPlan, space_path: Path, *, resume: bool, check_only: bool = False
) -> tuple[StudyRecord, StudyPlan]:
    """Create ``study.json``, or open that of the study that goes on (or only see whether it may)."""
    import torch

    from bbam_ray.engine.split_file import keep_split
    from bbam_ray.methods import run_config
    from bbam_ray.scale.search.warm_start import restored_outcomes

    config = run_config({**plan.settings, **plan.space.published}, "command line")
    content: dict[str, Any] = {
        "dataset": plan.settings["dataset"],
        "method": plan.settings["method"],
        "seed": plan.settings["seed"],
        "settings": plan.settings,
        "space_file": str(space_path),
        "space": plan.space.model_dump(mode="json"),
        "rules": plan.rules(),
        "num_samples": plan.num_samples,
        "lag": plan.lag,
        "confirm": {"top": plan.confirm_top, "seeds": plan.confirm_seeds},
        "limits": asdict(plan.limits),
        "pace": throughput_settings(plan),
        "environment": describe_environment(
            torch.cuda.get_device_name() if torch.cuda.is_available() else None
        ),
    }
    if not resume:
        record = StudyRecord.create(folder, content)
        keep_split(folder, config)
        return record, plan
    record = StudyRecord.open(folder)
    kept = record.content.get("rules", {})
    plan = replace(plan, prior=restored_outcomes(kept.get("prior", [])))
    content["rules"] = plan.rules()
    for key, way_out in (
        ("settings", "give the same flags as before, or use another --name"),
        (
            "space",
            "give the same space file as before, or another --name with "
            f"--warm-start {folder.name} to go on in the changed space",
        ),
        (
            "rules",
            "give the same --sampler, --scheduler, --grace-epochs and --reduction-factor as before",
        ),
    ):
        if standard_values(content[key]) != record.content.get(key):
            raise UsageError(
                f"--resume: the {key} of study '{folder.name}' were different; {way_out}"
            )
    keep_split(folder, config)
    lag = int(record.content["lag"])
    if not check_only:
        changed = {name: content[name] for name in ("num_samples", "confirm", "limits")}
        record.update(status=RUNNING, ended_at=None, **changed)
    return record, replace(plan, lag=lag, concurrency=min(plan.concurrency, lag))


def space_path_of(given: Path | None, dataset: str, method: str) -> Path:
    from bbam_ray.methods import known_settings

    known_settings(dataset, method)  # names an unknown data set before an absent file
    return checks.space_file(given, dataset, method)
