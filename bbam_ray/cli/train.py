"""``bbam-ray train``: train one configuration, in this process or on many workers."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from bbam_ray.cli import options as shared
from bbam_ray.cli.bars import decoding_shown
from bbam_ray.cli.mending import print_repairs
from bbam_ray.cli.run_book import CHECKPOINTS, RunLog
from bbam_ray.cli.storage import with_storage
from bbam_ray.commands import checks
from bbam_ray.documents import read_yaml_mapping
from bbam_ray.errors import NonFiniteError, UsageError
from bbam_ray.results import study as studies
from bbam_ray.results.repair import repair_study

if TYPE_CHECKING:
    from bbam_ray.config import RunConfig
    from bbam_ray.engine.trainer import EpochRecord


@with_storage
def train(
    dataset: Annotated[str | None, typer.Option(help="Data set; default digits.")] = None,
    data_dir: shared.DataDir = None,
    method: Annotated[str | None, typer.Option(help="Learning method; default bbam.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings (YAML), e.g. a best.yaml.")] = None,
    name: shared.StudyName = None,
    results: shared.Results = Path("results"),
    seed: Annotated[int | None, typer.Option(help="Of split, weights, order and views.")] = None,
    labeled_fraction: shared.Fraction = None,
    epochs: shared.Epochs = None,
    warmup_epochs: shared.WarmupEpochs = None,
    workers: shared.Workers = "1",
    gpus_per_worker: shared.Gpus = 0,
    cpus_per_worker: shared.Cpus = 1,
    address: shared.Address = "local",
    worker_timeout: shared.WorkerTimeout = "2m",
    start_timeout: shared.StartTimeout = "10m",
    max_failures: shared.MaxFailures = 8,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, help="Epochs between checkpoints; the best is always kept.")
    ] = 1,
    keep_checkpoints: Annotated[
        int, typer.Option(min=1, help="How many of the last checkpoints to keep.")
    ] = 2,
    set_: shared.Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run --name.")] = False,
    test: Annotated[
        bool, typer.Option("--test", help="At the end, measure once on the test part.")
    ] = False,
    json_: shared.Json = False,
    quiet: shared.Quiet = False,
) -> int:
    """Train one configuration and keep its model, history and checkpoints."""
    from bbam_ray.engine.task import check_task, load_part
    from bbam_ray.methods import run_config

    named = {
        "dataset": dataset,
        "method": method,
        "seed": seed,
        "data_dir": str(data_dir.absolute()) if data_dir else None,
        "labeled_fraction": labeled_fraction,
        "epochs": epochs,
        "warmup_epochs": warmup_epochs,
    }
    if resume and name is None:
        raise UsageError("--resume needs --name: which run shall go on?")
    checks.check_address(address)
    fewest, most = checks.parse_workers(workers)
    lost_after = checks.parse_worker_timeout(worker_timeout)
    wait = checks.parse_duration("--start-timeout", start_timeout)
    from_file = read_yaml_mapping(config) if config else {}
    from_file["device"] = "cuda" if gpus_per_worker else "cpu"
    settings = run_config(
        checks.given_settings(set_, named, from_file), str(config or "command line")
    )
    common = settings.training
    study = name or studies.default_name(common.method)
    folder = studies.check_folder(results, common.dataset, study, resume=resume)
    with decoding_shown(Console(stderr=True, quiet=quiet)):
        split = check_task(settings)
    checks.check_workers(settings, fewest, most, len(split.labeled))
    with_ray = most > 1 or address != "local"
    if address == "local":
        checks.check_machine(fewest, cpus_per_worker, gpus_per_worker)
    console = Console(stderr=json_, soft_wrap=True, highlight=False)
    with ExitStack() as held:
        if resume:
            held.enter_context(studies.locked(folder))
            print_repairs(console, repair_study(folder))
            _record(folder, settings, resume=True, check_only=True)
        shown = Console(quiet=True) if quiet or json_ else console
        label_names = load_part(settings, "train").label_names

        def book() -> RunLog:
            """Made when nothing can be wrong any more: from here on there is a folder."""
            if not resume:
                held.enter_context(studies.locked(folder, make=True))
            record = _record(folder, settings, resume=resume)
            made = RunLog(shown, record, settings, label_names, gpus_per_worker * most)
            shown.print(
                f"run {folder}: {common.method} on {common.dataset}, {len(split.labeled)} labelled, "
                f"{len(split.validation)} validation, {len(split.unlabeled)} unlabelled, "
                f"{workers} worker{'s' * (workers != '1')}"
            )
            return made

        if with_ray:
            made = _with_ray(
                book,
                settings,
                address=address,
                shape={
                    "min_workers": fewest,
                    "max_workers": most,
                    "cpus": cpus_per_worker,
                    "gpus": gpus_per_worker,
                    "timeout_s": lost_after,
                    "max_failures": max_failures,
                },
                wait=wait,
                every=checkpoint_every,
                keep=keep_checkpoints,
            )
        else:
            made = _here(
                book, settings, cpus=cpus_per_worker, every=checkpoint_every, keep=keep_checkpoints
            )
        return made.finish(test=test, as_json=json_)


def _here(book: Any, settings: RunConfig, *, cpus: int, every: int, keep: int) -> RunLog:
    """Train in this process."""
    from bbam_ray.engine.process import use_cpus
    from bbam_ray.engine.session import LocalSession, run_epochs
    from bbam_ray.engine.task import prepare_training
    from bbam_ray.engine.trainer import Trainer

    use_cpus(cpus)
    data = prepare_training(settings)
    made: RunLog = book()

    def listen(record: EpochRecord, again: bool) -> None:
        made.epoch(record.scalars, record.labels, again=again)

    def started(epoch: int, defects: list[str]) -> None:
        made.started(1, epoch, defects)

    session = LocalSession(
        made.folder / CHECKPOINTS, listen, started=started, keep=keep, every=every
    )
    try:
        for _ in run_epochs(Trainer(settings, *data), session):
            pass
    except NonFiniteError as failure:
        made.error = str(failure)
    except BaseException as stop:
        made.stopped(stop)
        raise
    return made


def _with_ray(
    book: Any,
    settings: RunConfig,
    *,
    address: str,
    shape: dict[str, Any],
    wait: float,
    every: int,
    keep: int,
) -> RunLog:
    """Train on the workers of Ray Train."""
    from bbam_ray.scale.cluster.capacity import wait_for_workers
    from bbam_ray.scale.cluster.connection import connected
    from bbam_ray.scale.workers.shapes import TrainShape
    from bbam_ray.scale.workers.train_run import TrainingFailed, train_with_ray
    from bbam_ray.scale.workers.train_worker import TrainJob

    form = TrainShape(**shape)
    with connected(address, dashboard=True, environment=form.environment()):
        if address != "local":
            wait_for_workers(form.min_workers, form.bundle, wait)
        made: RunLog = book()
        job = TrainJob(
            values=settings.flat(),
            checkpoints=str((made.folder / CHECKPOINTS).absolute()),
            keep=keep,
            every=every,
            cpus=form.cpus,
        )

        def listen(entry: dict[str, Any]) -> None:
            if entry["kind"] == "epoch":
                record = entry["record"]
                made.epoch(record["scalars"], record["labels"], again=entry["again"])
            elif entry["kind"] == "started":
                made.started(entry["workers"], entry["epoch"], entry["defects"])
            else:
                made.error = entry["error"]

        try:
            train_with_ray(job, form, listen)
        except TrainingFailed as failure:
            made.error = (
                f"{failure}; what is done is kept, go on with --name {made.folder.name} --resume"
            )
        except BaseException as stop:
            made.stopped(stop)
            raise
    return made


def _record(
    folder: Path, settings: RunConfig, *, resume: bool, check_only: bool = False
) -> studies.StudyRecord:
    """Create ``study.json``, or open that of the run that goes on (or only see whether it may)."""
    import torch

    content = {
        "dataset": settings.training.dataset,
        "method": settings.training.method,
        "seed": settings.training.seed,
        "settings": settings.flat(),
        "space": {
            "metric": "val_map",
            "mode": "max",
            "parameters": {},
            "published": {},
            "fixed": {},
        },
        "num_samples": 1,
        "environment": studies.describe_environment(
            torch.cuda.get_device_name() if torch.cuda.is_available() else None
        ),
    }
    from bbam_ray.engine.split_file import keep_split

    if not resume:
        record = studies.StudyRecord.create(folder, content)
        keep_split(folder, settings)
        return record
    record = studies.StudyRecord.open(folder)
    if record.content.get("settings") != content["settings"]:
        raise UsageError(
            f"--resume: the settings of run '{folder.name}' were different; give the same flags and "
            "file as before, or use another --name"
        )
    keep_split(folder, settings)
    if not check_only:
        record.update(status=studies.RUNNING, ended_at=None)
    return record
