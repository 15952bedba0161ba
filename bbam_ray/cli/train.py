"""``bbam-ray train``: train one configuration, in this process or on many workers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bbam_ray.cli import options as shared
from bbam_ray.cli.screen import Screen
from bbam_ray.commands import checks
from bbam_ray.core.metric_names import HEADLINE_METRICS
from bbam_ray.errors import EXIT_DONE, EXIT_FAILED
from bbam_ray.results.redaction import redacted
from bbam_ray.results.summary import duration

if TYPE_CHECKING:
    from bbam_ray.commands.train import TrainResult


def train(
    dataset: shared.OptionalDataset = None,
    data_dir: shared.DataDir = None,
    method: shared.OptionalMethod = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Settings (YAML): a best.yaml, or a search space for its published ones."
        ),
    ] = None,
    name: shared.StudyName = None,
    results: shared.Results = Path("results"),
    seed: shared.OptionalSeed = None,
    labeled_fraction: shared.Fraction = None,
    epochs: shared.Epochs = None,
    warmup_epochs: shared.WarmupEpochs = None,
    workers: shared.Workers = "1",
    gpus_per_worker: shared.Gpus = "auto",
    cpus_per_worker: shared.Cpus = 1,
    address: shared.Address = "local",
    worker_timeout: shared.WorkerTimeout = "2m",
    start_timeout: shared.StartTimeout = "10m",
    max_failures: shared.MaxFailures = 8,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, help="Epochs between checkpoints; the best is always kept.")
    ] = 1,
    keep_checkpoints: Annotated[
        int, typer.Option(min=1, help="Number of latest checkpoints to keep.")
    ] = 2,
    set_: shared.Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run --name.")] = False,
    test: Annotated[
        bool, typer.Option("--test", help="Measure the model on the test part at the end.")
    ] = False,
    json_: shared.Json = False,
    quiet: shared.Quiet = False,
) -> int:
    """Train one configuration and keep its model, history and checkpoints."""
    settings = checks.given_settings(
        set_,
        {
            "dataset": dataset,
            "method": method,
            "seed": seed,
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
    wait = checks.parse_duration("--start-timeout", start_timeout)
    # torch takes two seconds to load: everything above is checked first.
    from bbam_ray.commands import remote_results
    from bbam_ray.commands import train as command

    options = command.TrainOptions(
        settings=settings,
        shape=shape,
        config=config,
        name=name,
        address=address,
        start_timeout=wait,
        checkpoint_every=checkpoint_every,
        keep_checkpoints=keep_checkpoints,
        resume=resume,
        test=test,
    )
    screen = Screen(json=json_, quiet=quiet)
    with remote_results.local_results(results, [name], screen) as folder:
        with screen.bars():
            run = command.prepare(replace(options, results=folder), screen)
        result = command.run(run, screen)
        if result.error:
            errors = Console(stderr=True, soft_wrap=True, highlight=False)
            errors.print(f"error: {redacted(result.error)}", markup=False)
            return EXIT_FAILED
        _show(screen.progress_console, result)
        if json_:
            typer.echo(json.dumps(_as_json(result)))
        return EXIT_DONE


def _show(console: Console, result: TrainResult) -> None:
    """Print the kept epoch, the test metrics and where the files are."""
    if result.best.get("val_map") is not None:
        console.print(
            f"\nkept epoch {result.best['epoch']}: val_map {result.best['val_map']:.4f}",
            style="bold",
        )
    for name in HEADLINE_METRICS:
        if (value := result.test_metrics.get(f"test_{name}")) is not None:
            console.print(f"test_{name} {value:.4f}")
    console.print(f"model: {result.model}", markup=False)
    console.print(f"history: {result.folder / 'history.parquet'}", markup=False)
    console.print(f"took {duration(result.seconds)}", style="dim")


def _as_json(result: TrainResult) -> dict[str, object]:
    """The result of a run as one JSON object."""
    best = {name: value for name, value in result.best.items() if name.startswith("val_")}
    folder, epoch = str(result.folder), result.best["epoch"]
    return {"folder": folder, "best_epoch": epoch, **best, **result.test_metrics}
