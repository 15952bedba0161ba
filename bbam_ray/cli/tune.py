"""``bbam-ray tune``: search settings, confirm the best, and say what was found."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bbam_ray.cli import options as shared
from bbam_ray.cli.bars import decoding_shown
from bbam_ray.cli.disk import check_room, expected_disk
from bbam_ray.cli.dry_run import show_plan
from bbam_ray.cli.mending import print_repairs
from bbam_ray.cli.outcome import as_json, show_result
from bbam_ray.cli.progress import StudyProgress
from bbam_ray.cli.search_rules import SamplerName, SchedulerName, SearchRules
from bbam_ray.cli.storage import with_storage
from bbam_ray.cli.study_setup import (
    TrialRunner,
    choose_runner,
    make_plan,
    open_record,
    space_path_of,
)
from bbam_ray.commands import checks
from bbam_ray.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_SOME_TRIALS_FAILED,
    StorageError,
    UsageError,
)
from bbam_ray.results.patience import Patience
from bbam_ray.results.repair import repair_study
from bbam_ray.results.schemas import FAILED
from bbam_ray.results.study import (
    INTERRUPTED,
    RUNNING,
    StudyRecord,
    check_folder,
    default_name,
    locked,
    source_folder,
)
from bbam_ray.results.summary import duration

if TYPE_CHECKING:
    from bbam_ray.scale.study.plan import StudyPlan, StudyResult


@with_storage
def tune(
    dataset: shared.Dataset = "digits",
    data_dir: shared.DataDir = None,
    method: shared.MethodName = "bbam",
    space: Annotated[Path | None, typer.Option(help="Search space file (YAML).")] = None,
    num_samples: Annotated[int, typer.Option(min=1, help="Trials in all.")] = 8,
    sampler: Annotated[
        SamplerName, typer.Option(help="Who draws settings: TPE, Gaussian process, Sobol, random.")
    ] = SamplerName.tpe,
    scheduler: Annotated[
        SchedulerName, typer.Option(help="What ends hopeless trials early (pbt is refused).")
    ] = SchedulerName.none,
    grace_epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="First epoch to stop after; default: an eighth into the main phase."
        ),
    ] = None,
    reduction_factor: Annotated[
        int, typer.Option(min=2, help="asha, hyperband: one trial in so many passes a rung.")
    ] = 3,
    time_budget: Annotated[str | None, typer.Option(help="End the search after, e.g. 30m.")] = None,
    gpu_hours: Annotated[
        float | None, typer.Option(min=0, help="End before the study has used so many.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="End before it has cost so much; see --price.")
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(metavar="NUMBER|FILE", help="Of a GPU-hour; FILE: YAML by GPU name."),
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="Begin with what another study knows (name or folder)."),
    ] = None,
    reuse: Annotated[
        bool, typer.Option(help="Answer what was trained before, by the same code, from the store.")
    ] = True,
    tracker: Annotated[
        list[str] | None, typer.Option(help="tensorboard, mlflow or wandb (offline); repeatable.")
    ] = None,
    name: shared.StudyName = None,
    results: shared.Results = Path("results"),
    seed: shared.Seed = 0,
    labeled_fraction: shared.Fraction = None,
    epochs: shared.Epochs = None,
    warmup_epochs: shared.WarmupEpochs = None,
    workers: shared.Workers = "1",
    gpus_per_worker: shared.Gpus = 0,
    cpus_per_worker: shared.Cpus = 1,
    max_concurrent: Annotated[
        int | None, typer.Option(min=1, help="Trials at once; default: as many as fit.")
    ] = None,
    trial_runner: Annotated[
        TrialRunner,
        typer.Option(help="gang: workers stay from trial to trial; train: Ray Train, elastic."),
    ] = TrialRunner.auto,
    address: shared.Address = "local",
    worker_timeout: shared.WorkerTimeout = "2m",
    start_timeout: shared.StartTimeout = "10m",
    max_failures: shared.MaxFailures = 3,
    set_: shared.Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study --name.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, start nothing.")
    ] = False,
    confirm_top: Annotated[
        int, typer.Option(min=0, help="How many of the best to confirm on the test part.")
    ] = 1,
    confirm_seeds: Annotated[int, typer.Option(min=0, help="Over how many seeds each.")] = 3,
    dashboard: Annotated[
        bool, typer.Option(help="Serve Ray's dashboard on this machine's loopback address.")
    ] = True,
    json_: shared.Json = False,
    quiet: shared.Quiet = False,
) -> int:
    """Search settings with Ray Tune and Optuna; trial 0 is the published configuration."""
    console = Console(stderr=json_, soft_wrap=True, highlight=False)
    named = {
        "data_dir": str(data_dir.absolute()) if data_dir else None,
        "labeled_fraction": labeled_fraction,
        "epochs": epochs,
        "warmup_epochs": warmup_epochs,
    }
    given = checks.given_settings(set_, named)
    fewest, most = checks.parse_workers(workers)
    runner = choose_runner(trial_runner, fewest, most)
    lost_after = checks.parse_worker_timeout(worker_timeout)
    wait = checks.parse_duration("--start-timeout", start_timeout)
    if resume and name is None:
        raise UsageError("--resume needs --name STUDY: which study shall go on?")
    checks.check_address(address)
    base = {"dataset": dataset, "method": method, "seed": seed, **given}
    space_path = space_path_of(space, dataset, method)
    study = name or default_name(method)
    folder = check_folder(results, dataset, study, resume=resume)
    rules = SearchRules(
        scheduler=scheduler,
        grace=grace_epochs,
        reduction=reduction_factor,
        sampler=sampler,
        seconds=checks.parse_duration("--time-budget", time_budget) if time_budget else None,
        gpu_hours=gpu_hours,
        cost=max_cost,
        price=price,
        reuse=reuse,
        trackers=tuple(tracker or ()),
        confirm_top=confirm_top,
        confirm_seeds=confirm_seeds,
        # A study that goes on knows what it knew at its beginning, whatever became of the other one.
        warm_start=source_folder(warm_start, folder) if warm_start and not resume else None,
        num_samples=num_samples,
        concurrency=max_concurrent,
    )
    shape = {
        "min_workers": fewest,
        "max_workers": most,
        "cpus": cpus_per_worker,
        "gpus": gpus_per_worker,
        "timeout_s": lost_after,
        "max_failures": max_failures,
    }
    with decoding_shown(Console(stderr=True, quiet=quiet)):
        plan = make_plan(base, space_path, shape, rules, runner=runner, local=address == "local")
    if dry_run:
        show_plan(console, plan, folder, local=address == "local")
        return 0
    if not resume:
        check_room(expected_disk(plan), folder)
    make = partial(open_record, folder, plan, space_path, resume=resume)
    with ExitStack() as held:
        if resume:
            held.enter_context(locked(folder))
            print_repairs(console, repair_study(folder))
            make(check_only=True)

        def make_record() -> tuple[StudyRecord, StudyPlan]:
            if not resume:
                held.enter_context(locked(folder, make=True))
            return make()

        result = _run(
            console,
            plan,
            make_record,
            address,
            wait=wait,
            dashboard=dashboard,
            quiet=quiet or json_,
        )
    if json_:
        typer.echo(json.dumps(as_json(folder, plan, result), default=str))
    else:
        show_result(console, folder, plan, result)
    if result.status == INTERRUPTED:
        return EXIT_INTERRUPTED
    if result.best is None:
        return EXIT_FAILED
    failed = any(row["state"] == FAILED for row in result.trials)
    failed = failed or any(row["error"] for row in result.confirm)
    return EXIT_SOME_TRIALS_FAILED if failed else 0


def _run(
    console: Console,
    plan: StudyPlan,
    make_record: Callable[[], tuple[StudyRecord, StudyPlan]],
    address: str,
    *,
    wait: float,
    dashboard: bool,
    quiet: bool,
) -> StudyResult:
    """Connect to Ray, run the study and show its progress; Ctrl-C keeps what is done."""
    from bbam_ray.scale.cluster.capacity import wait_for_workers
    from bbam_ray.scale.cluster.connection import connected
    from bbam_ray.scale.study.run import run_study, stored_result

    shown = Console(quiet=True) if quiet else console
    shown.print("starting Ray ..." if address == "local" else f"joining Ray at {address} ...")
    started = time.monotonic()
    environment = plan.train_shape.environment() if plan.train_shape else None
    with connected(address, dashboard=dashboard, environment=environment) as url:
        if address != "local":
            wait_for_workers(plan.shape.workers, plan.shape.bundles[0], wait)
        # Only now is there a folder: whatever was wrong before has left nothing behind.
        record, plan = make_record()
        if url:
            shown.print(f"Ray dashboard: http://{url} (token: ray get-auth-token)", style="dim")
        try:
            with _progress(shown, plan, record) as progress:
                result = run_study(plan, record, progress)
        except KeyboardInterrupt:
            if record.content["status"] == RUNNING:
                record.end(INTERRUPTED)
            result = stored_result(plan, record)
            console.print(
                f"\ninterrupted: what is done is kept in {record.folder}; go on with the same command "
                f"and --name {record.folder.name} --resume"
            )
    _write_report(console, record.folder, result)
    shown.print(f"took {duration(time.monotonic() - started)}", style="dim")
    return result


def _progress(shown: Console, plan: StudyPlan, record: StudyRecord) -> StudyProgress:
    from bbam_ray.methods import run_config
    from bbam_ray.scale.study.run import stored_result

    done = len(stored_result(plan, record).trials)
    workers = plan.shape.workers
    shown.print(
        f"study {record.folder}: {plan.num_samples} trials of {plan.settings['method']} on "
        f"{plan.settings['dataset']}, {plan.concurrency} at once"
        + (f", {workers} workers each" if workers > 1 else "")
        + (f", {done} done before" if done else "")
    )
    return StudyProgress(
        shown,
        total=plan.num_samples,
        done=done,
        epochs=run_config({**plan.settings, **plan.space.published}, "plan").training.epochs,
        metric=plan.space.metric,
        higher_is_better=plan.space.mode == "max",
        confirmations=plan.confirmations,
        concurrency=plan.concurrency,
    )


def _write_report(console: Console, folder: Path, result: StudyResult) -> None:
    from bbam_ray.report.study_report import write_report

    if result.trials:
        try:
            Patience(folder).insist(lambda: write_report(folder))
        except StorageError:  # it is made of the tables, at any time
            console.print(f"no report; bbam-ray report {folder} makes it", style="red")
