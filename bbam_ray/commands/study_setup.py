"""The options of a search, and everything that happens before it starts; loads no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bbam_ray.commands import checks
from bbam_ray.commands.choices import TrialRunner
from bbam_ray.commands.disk_estimate import DiskNeed, expected_disk
from bbam_ray.commands.gpus import of_resumed, with_gpus
from bbam_ray.commands.label_reading import report_reading
from bbam_ray.commands.listener import SILENT, Listener, reports_decoding
from bbam_ray.commands.search_rules import SearchRules
from bbam_ray.commands.study_plan import choose_runner, find_space, make_plan
from bbam_ray.commands.time_estimate import TimeEstimate, expected_time
from bbam_ray.engine.split_file import NamedSplit
from bbam_ray.errors import UsageError
from bbam_ray.files import free_bytes
from bbam_ray.results.study import check_folder, default_name, source_folder
from bbam_ray.scale.cluster.scratch import KEPT_SESSIONS, LOG_BYTES, LOG_FILES
from bbam_ray.scale.search.sequence import ConfigSequence
from bbam_ray.scale.study.plan import StudyPlan
from bbam_ray.scale.workers.shapes import WorkerRequest


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """Options of a search."""

    settings: Mapping[str, Any]
    """Flat settings that all trials share: ``dataset``, ``method``, ``seed`` and any others."""

    shape: WorkerRequest
    """Workers of a trial."""

    rules: SearchRules = field(default_factory=SearchRules)
    """Sampler, pruning, budget and confirmation."""

    space: Path | None = None
    """Search space file; None = that of the data set and the method."""

    runner: TrialRunner = TrialRunner.auto
    """How trials are trained."""

    name: str | None = None
    """Name of the study; None = method and time."""

    results: Path = Path("results")
    """Folder of all results."""

    address: str = "local"
    """Ray: local, auto, or ray://HOST:PORT."""

    start_timeout: float = 600.0
    """Seconds to wait until a cluster has the workers of a trial free."""

    dashboard: bool = True
    """Serve Ray's dashboard on this machine's loopback address."""

    resume: bool = False
    """Resume the study ``name``."""


@dataclass(frozen=True)
class PreparedStudy:
    """A checked search; nothing has been started or written.

    Args:
        options: of the search.
        plan: of the study.
        folder: of the study.
        space_path: the search space file.
        split: how the samples are divided.
        disk: the expected disk space.
    """

    options: TuneOptions
    plan: StudyPlan
    folder: Path
    space_path: Path
    split: NamedSplit
    disk: DiskNeed

    @property
    def local(self) -> bool:
        return self.options.address == "local"


@dataclass(frozen=True)
class RayLogs:
    """Log files of Ray on this machine.

    Args:
        bytes: of a file, at most.
        files: older ones of each.
        sessions: of failed studies that are kept.
    """

    bytes: int
    files: int
    sessions: int


@dataclass(frozen=True)
class Preview:
    """What a study would do.

    Args:
        study: that was prepared.
        configurations: of the first trials.
        time: expected; None if no comparable study was measured.
        free_bytes: on the disk of the results.
        ray_logs: that Ray writes on this machine; None on a cluster.
    """

    study: PreparedStudy
    configurations: list[dict[str, Any]]
    time: TimeEstimate | None
    free_bytes: int
    ray_logs: RayLogs | None


def prepare(options: TuneOptions, listener: Listener = SILENT) -> PreparedStudy:
    """Check all options and read the training part; starts and writes nothing.

    Raises:
        UsageError: names what is wrong.
    """
    settings, rules = options.settings, options.rules
    dataset, method = settings["dataset"], settings["method"]
    if options.resume and options.name is None:
        raise UsageError("--resume needs --name STUDY: the study to resume")
    checks.check_address(options.address)
    space_path = find_space(options.space, dataset, method)
    name = options.name or default_name(method)
    folder = check_folder(options.results, dataset, name, resume=options.resume)
    if rules.warm_start is not None:
        # A resumed study uses what it knew at its start, even if the other study has changed since.
        source = None if options.resume else source_folder(str(rules.warm_start), folder)
        rules = replace(rules, warm_start=source)
    request = of_resumed(options.shape, folder) if options.resume else options.shape
    shape = with_gpus(request, options.address)
    runner = choose_runner(options.runner, shape)
    local = options.address == "local"
    with reports_decoding(listener):
        plan, task = make_plan(settings, space_path, shape, rules, runner=runner, local=local)
    report_reading(task.samples, listener)
    disk = expected_disk(plan, task.samples)
    split = NamedSplit.of_study(task, plan.settings)
    return PreparedStudy(options, plan, folder, space_path, split, disk)


def preview(study: PreparedStudy) -> Preview:
    """Draw the first configurations and estimate the time."""
    plan = study.plan
    sequence = ConfigSequence(
        plan.space, plan.settings["seed"], plan.lag, sampler=plan.sampler, prior=plan.prior
    )
    configurations = [sequence.draw() for _ in range(min(3, plan.lag, plan.num_samples))]
    time = expected_time(plan, study.folder)
    logs = RayLogs(LOG_BYTES, LOG_FILES, KEPT_SESSIONS) if study.local else None
    return Preview(study, configurations, time, free_bytes(study.folder), logs)
