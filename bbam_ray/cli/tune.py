"""``bbam-ray tune``: search settings, confirm the best, and print the result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from bbam_ray.cli import options as shared
from bbam_ray.cli.dry_run import show_preview
from bbam_ray.cli.outcome import as_json, exit_code, show_result
from bbam_ray.cli.screen import Screen
from bbam_ray.commands import checks
from bbam_ray.commands.choices import Final, Pools, TrialRunner


def tune(
    dataset: shared.Dataset = "digits",
    data_dir: shared.DataDir = None,
    method: shared.MethodName = "bbam",
    space: Annotated[
        Path | None,
        typer.Option(help="Search space file (YAML); default: that of data set and method."),
    ] = None,
    num_samples: Annotated[int, typer.Option(min=1, help="Number of trials.")] = 8,
    sampler: Annotated[
        shared.SamplerName,
        typer.Option(help="Sampler of configurations: TPE, Gaussian process, Sobol, random."),
    ] = "tpe",
    scheduler: Annotated[
        shared.SchedulerName, typer.Option(help="Rule that prunes trials (pbt is rejected).")
    ] = "none",
    grace_epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="First epoch after which a trial can be pruned; default: an eighth into the main "
            "phase.",
        ),
    ] = None,
    reduction_factor: Annotated[
        int, typer.Option(min=2, help="asha, hyperband: one trial in this many passes a rung.")
    ] = 3,
    time_budget: Annotated[
        str | None, typer.Option(help="End the search after this time, e.g. 30m.")
    ] = None,
    gpu_hours: Annotated[
        float | None, typer.Option(min=0, help="Most GPU-hours that the study may use.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(min=0, help="Most that the study may cost; needs --price.")
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER|FILE", help="Price per GPU-hour, or a YAML file of prices by GPU name."
        ),
    ] = None,
    warm_start: Annotated[
        Path | None,
        typer.Option(
            metavar="STUDY", help="Start with the results of another study (name or folder)."
        ),
    ] = None,
    reuse: Annotated[
        bool, typer.Option(help="Reuse results of identical trials (same code and data).")
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
    gpus_per_worker: shared.Gpus = "auto",
    cpus_per_worker: shared.Cpus = 1,
    max_concurrent: Annotated[
        int | None,
        typer.Option(
            min=1, help="Trials at the same time; default: as many as fit on this machine."
        ),
    ] = None,
    trial_runner: Annotated[
        TrialRunner,
        typer.Option(help="gang: all trials use the same workers; train: Ray Train, elastic."),
    ] = TrialRunner.auto,
    address: shared.Address = "local",
    worker_timeout: shared.WorkerTimeout = "2m",
    start_timeout: shared.StartTimeout = "10m",
    max_failures: shared.MaxFailures = 3,
    set_: shared.Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the study --name.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and start nothing.")
    ] = False,
    confirm_top: Annotated[
        int,
        typer.Option(min=0, help="Number of best configurations to measure on the test part."),
    ] = 1,
    confirm_seeds: Annotated[
        int, typer.Option(min=0, help="Number of seeds for each of them.")
    ] = 3,
    folds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Folds of the labelled samples that each trial trains; default: 1 if there are many "
            "labelled samples, else 5.",
        ),
    ] = None,
    final: Annotated[
        Final | None,
        typer.Option(
            help="Final answer: one model on all labelled samples; the average of fold models and of "
            "models on all labelled samples; one model with the average of the weights of the fold "
            "models; or an ensemble of the chosen trial, the best trial and baselines. Default: best "
            "with folds, else single."
        ),
    ] = None,
    confirm_pools: Annotated[
        Pools,
        typer.Option(help="Labelled samples of confirming runs: those of the search, or new ones."),
    ] = Pools.same,
    baselines: Annotated[
        bool,
        typer.Option(help="Compare with baselines, and use them in the final answer if they help."),
    ] = True,
    dashboard: Annotated[
        bool, typer.Option(help="Serve Ray's dashboard on this machine's loopback address.")
    ] = True,
    json_: shared.Json = False,
    quiet: shared.Quiet = False,
) -> int:
    """Search settings with Ray Tune and Optuna; trial 0 is the published configuration."""
    settings = checks.given_settings(
        set_,
        {
            "data_dir": str(data_dir.absolute()) if data_dir else None,
            "labeled_fraction": labeled_fraction,
            "epochs": epochs,
            "warmup_epochs": warmup_epochs,
        },
    )
    shape = checks.worker_shape(
        workers,
        cpus=cpus_per_worker,
        gpus=gpus_per_worker,
        timeout=worker_timeout,
        max_failures=max_failures,
    )
    # torch takes two seconds to load: everything above is checked first.
    from bbam_ray.commands import remote_results, search_rules, study_setup

    rules = search_rules.SearchRules(
        num_samples=num_samples,
        sampler=sampler,
        scheduler=scheduler,
        grace_epochs=grace_epochs,
        reduction_factor=reduction_factor,
        time_budget=None
        if time_budget is None
        else checks.parse_duration("--time-budget", time_budget),
        gpu_hours=gpu_hours,
        max_cost=max_cost,
        price=None if price is None else checks.parse_price(price),
        warm_start=warm_start,
        reuse=reuse,
        trackers=tuple(tracker or ()),
        max_concurrent=max_concurrent,
        confirm_top=confirm_top,
        confirm_seeds=confirm_seeds,
        folds=folds,
        final=final,
        confirm_pools=confirm_pools,
        baselines=baselines,
    )
    options = study_setup.TuneOptions(
        settings={"dataset": dataset, "method": method, "seed": seed, **settings},
        shape=shape,
        rules=rules,
        space=space,
        runner=trial_runner,
        name=name,
        address=address,
        start_timeout=checks.parse_duration("--start-timeout", start_timeout),
        dashboard=dashboard,
        resume=resume,
    )
    screen = Screen(json=json_, quiet=quiet)
    fetch = (name, warm_start)
    with remote_results.local_results(results, fetch, screen, upload=not dry_run) as folder:
        with screen.bars():
            study = study_setup.prepare(replace(options, results=folder), screen)
        if dry_run:
            show_preview(screen.console, study_setup.preview(study))
            return 0
        from bbam_ray.commands import tune as command  # loads Ray

        result = command.run(study, screen)
        if json_:
            typer.echo(json.dumps(as_json(study.folder, study.plan, result), default=str))
        else:
            show_result(screen.console, study.folder, study.plan, result)
        return exit_code(result)
