"""``train``: train one configuration, in this process or on workers of Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bbam_ray.commands import checks
from bbam_ray.commands.gpus import devices_text, of_resumed, unused_gpu, with_gpus
from bbam_ray.commands.label_reading import report_reading
from bbam_ray.commands.listener import Listener, reports_decoding
from bbam_ray.commands.run_log import CHECKPOINTS, MODEL, RunLog
from bbam_ray.commands.run_notes import run_notes
from bbam_ray.commands.space_files import settings_of_file
from bbam_ray.commands.study_progress import SILENT, StudyListener
from bbam_ray.commands.study_record import open_run
from bbam_ray.config import RunConfig
from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.confirm import measure_test_metrics
from bbam_ray.engine.fitted_trainer import make_trainer
from bbam_ray.engine.model_folder import load_weights, read_thresholds
from bbam_ray.engine.process import use_cpus
from bbam_ray.engine.session import LocalSession, run_epochs
from bbam_ray.engine.split_file import NamedSplit
from bbam_ray.engine.stop_request import StopRequest, made_by_signal
from bbam_ray.engine.task import Task, check_task, prepare_training
from bbam_ray.engine.trainer import EpochRecord
from bbam_ray.errors import NonFiniteError, TrainingStoppedError, UsageError
from bbam_ray.methods import run_config
from bbam_ray.results import study as studies
from bbam_ray.results.repair import repair_study
from bbam_ray.results.store import Row
from bbam_ray.scale.workers.shapes import TrainShape, WorkerRequest


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a single run."""

    settings: Mapping[str, Any]
    """Flat settings; they override those of ``config``."""

    shape: WorkerRequest
    """Workers of the run."""

    config: Path | None = None
    """YAML file of settings, such as a ``best.yaml``, or a search space: its published settings."""

    name: str | None = None
    """Name of the run; None = method and time."""

    results: Path = Path("results")
    """Folder of all results."""

    address: str = "local"
    """Ray: local, auto, or ray://HOST:PORT."""

    start_timeout: float = 600.0
    """Seconds to wait until a cluster has the workers free."""

    checkpoint_every: int = 1
    """Epochs between checkpoints; the best epoch is always kept."""

    keep_checkpoints: int = 2
    """Number of latest checkpoints to keep."""

    resume: bool = False
    """Resume the run ``name``."""

    test: bool = False
    """Measure the model on the test part at the end."""

    def __post_init__(self) -> None:
        checks.check_minimum("checkpoint_every", self.checkpoint_every, 1)
        checks.check_minimum("keep_checkpoints", self.keep_checkpoints, 1)


@dataclass(frozen=True)
class PreparedRun:
    """A checked run; nothing has been started or written."""

    options: TrainOptions
    shape: TrainShape
    config: RunConfig
    folder: Path
    task: Task
    settings: Mapping[str, Any]
    """Settings of the command line and the configuration file, without defaults."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Args:
        folder: of the run.
        best: history row of its best epoch.
        test_metrics: ``test_*`` values; empty unless they were measured.
        error: why the run failed; None if it did not.
        seconds: that it took.
    """

    folder: Path
    best: Row
    test_metrics: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0

    @property
    def model(self) -> Path:
        """Folder of the model of the best epoch."""
        return self.folder / MODEL


def prepare(options: TrainOptions, listener: Listener = SILENT) -> PreparedRun:
    """Check all options and read the training part; starts and writes nothing.

    Raises:
        UsageError: names what is wrong.
    """
    local = options.address == "local"
    if options.resume and options.name is None:
        raise UsageError("--resume needs --name: the run to resume")
    checks.check_address(options.address)
    from_file: dict[str, Any] = {}
    if options.config:
        from_file = settings_of_file(options.config, options.settings, listener)
    from_file["device"] = "auto"  # until the GPUs of the workers are known
    source = str(options.config or "command line")
    common = run_config({**from_file, **options.settings}, source).training
    name = options.name or studies.default_name(common.method)
    folder = studies.check_folder(options.results, common.dataset, name, resume=options.resume)
    request = of_resumed(options.shape, folder) if options.resume else options.shape
    shape = with_gpus(request, options.address)
    from_file["device"] = "cuda" if shape.gpus else "cpu"
    settings = {**from_file, **options.settings}
    config = run_config(settings, source)
    with reports_decoding(listener):
        task = check_task(config)
    report_reading(task.samples, listener)
    checks.check_workers(config, shape, len(task.split.labeled))
    if local:
        checks.check_machine(shape.min_workers, shape.cpus, shape.gpus)
    return PreparedRun(options, shape, config, folder, task, settings)


def run(prepared: PreparedRun, listener: StudyListener = SILENT) -> TrainResult:
    """Train a prepared run to its end, or resume it.

    Returns:
        The result; one with an ``error`` if a loss was not finite or workers were lost too often.

    Raises:
        UsageError: the run cannot be resumed, or no cluster answers; nothing was started.
        KeyboardInterrupt: passed on after everything up to here was written.
        StorageError: results can no longer be written.
    """
    options, config, task = prepared.options, prepared.config, prepared.task
    folder, shape = prepared.folder, prepared.shape
    split = NamedSplit.of(task)
    with ExitStack() as stack:
        if options.resume:
            stack.enter_context(studies.locked(folder))
            for finding in repair_study(folder):
                listener.warning(f"repaired: {finding}")
            open_run(folder, config, split, resume=True, check_only=True, note=listener.warning)

        def open_log() -> RunLog:
            """Called when nothing can be wrong any more: it creates the folder."""
            if not options.resume:
                stack.enter_context(studies.locked(folder, make=True))
            record = open_run(folder, config, split, resume=options.resume)
            listener.message(_headline(prepared))
            notes = [*run_notes(config, prepared.settings), unused_gpu(shape.gpus, options.address)]
            for note in filter(None, notes):
                listener.warning(note)
            gpus = shape.gpus * shape.max_workers
            return RunLog(record, config, task.label_names, gpus, listener)

        if shape.max_workers > 1 or options.address != "local":
            from bbam_ray.commands.train_on_ray import train_on_ray  # loads Ray

            log = train_on_ray(
                config,
                shape,
                open_log,
                address=options.address,
                start_timeout=options.start_timeout,
                keep_checkpoints=options.keep_checkpoints,
                checkpoint_every=options.checkpoint_every,
            )
        else:
            log = _train_here(prepared, open_log)
        best = log.finish()
        if log.error:
            return TrainResult(folder, best, error=log.error, seconds=log.seconds)
        metrics = _test_metrics(config, task, folder) if options.test else {}
        if metrics:
            log.confirm(metrics, best)
        return TrainResult(folder, best, metrics, seconds=log.seconds)


def _headline(prepared: PreparedRun) -> str:
    common, shape, split = prepared.config.training, prepared.shape, prepared.task.split
    workers = f"{shape.min_workers}-{shape.max_workers}" if shape.elastic else shape.max_workers
    return (
        f"run {prepared.folder}: {common.method} on {common.dataset}, {len(split.labeled)} labelled, "
        f"{len(split.validation)} validation, {len(split.unlabeled)} unlabelled, "
        f"{workers} worker{'s' * (workers != 1)}, "
        f"{devices_text(shape.cpus, shape.gpus, prepared.options.address)}"
    )


def _train_here(prepared: PreparedRun, open_log: Callable[[], RunLog]) -> RunLog:
    """Train in this process."""
    config, task, options = prepared.config, prepared.task, prepared.options
    use_cpus(prepared.shape.cpus)
    data = prepare_training(config, task)
    log = open_log()

    def listen(record: EpochRecord, again: bool) -> None:
        log.epoch(record.scalars, record.labels, again=again)

    def started(checkpoint: Path | None, defects: list[str]) -> None:
        log.started(1, *checkpoint_folder.position(checkpoint), defects)

    request = StopRequest()
    session = LocalSession(
        log.folder / CHECKPOINTS,
        listen,
        started=started,
        keep=options.keep_checkpoints,
        every=options.checkpoint_every,
        requested=request,
    )
    try:
        with made_by_signal(request):
            for _ in run_epochs(make_trainer(config, *data), session):
                pass
    except NonFiniteError as failure:
        log.error = str(failure)
    except TrainingStoppedError as stop:
        log.saved_on_request(str(stop), request.seconds)
        log.stopped(interruption := KeyboardInterrupt())
        raise interruption from None
    except BaseException as reason:
        log.stopped(reason)
        raise
    return log


def _test_metrics(config: RunConfig, task: Task, folder: Path) -> dict[str, Any]:
    """Metrics of the best epoch's model on the test part."""
    trainer = make_trainer(config, *prepare_training(config, task))
    load_weights(folder / MODEL, trainer)
    return measure_test_metrics(trainer, read_thresholds(folder / MODEL))
