"""``bbam-ray compare``: several methods under one protocol, and a table that shows what is noise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bbam_ray.cli import options as shared
from bbam_ray.cli.screen import Screen
from bbam_ray.commands import checks
from bbam_ray.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_SOME_TRIALS_FAILED,
)

if TYPE_CHECKING:
    from bbam_ray.commands.compare import CompareResult

_WIDTH = 130


def compare(
    dataset: shared.Dataset = "digits",
    data_dir: shared.DataDir = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Comma-separated methods; METHOD:KEY=VALUE+KEY=VALUE fixes settings of one. "
            "Default: all."
        ),
    ] = "",
    labeled_fractions: Annotated[
        str, typer.Option(help="Comma-separated shares of labelled training samples, in (0, 1).")
    ] = "0.05",
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of runs of each method on the test part.")
    ] = 5,
    tune_samples: Annotated[
        int, typer.Option(min=1, help="Trials of each search; 1 = the published settings.")
    ] = 1,
    folds: Annotated[
        int,
        typer.Option(
            min=1, help="Folds of the labelled samples that each trial trains, as in tune --folds."
        ),
    ] = 1,
    name: Annotated[str, typer.Option("--name", help="Name of the comparison.")] = "comparison",
    results: shared.Results = Path("results"),
    seed: shared.Seed = 0,
    epochs: shared.Epochs = None,
    warmup_epochs: shared.WarmupEpochs = None,
    cpus_per_worker: shared.Cpus = 1,
    gpus_per_worker: shared.Gpus = "auto",
    max_concurrent: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at the same time; default: as many as fit on this machine."),
    ] = None,
    address: shared.Address = "local",
    set_: shared.Set = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the comparison, or add methods to it.")
    ] = False,
    json_: shared.Json = False,
    quiet: shared.Quiet = False,
) -> int:
    """Compare methods: same splits, backbone and budget of trials, epochs and seeds for each."""
    settings = checks.given_settings(
        set_,
        {
            "data_dir": str(data_dir.absolute()) if data_dir else None,
            "epochs": epochs,
            "warmup_epochs": warmup_epochs,
        },
    )
    shape = checks.worker_shape(
        1, cpus=cpus_per_worker, gpus=gpus_per_worker, timeout="2m", max_failures=3
    )
    fractions = checks.parse_fractions(labeled_fractions)
    # torch takes two seconds to load: everything above is checked first.
    from bbam_ray.commands import compare_setup, remote_results

    options = compare_setup.CompareOptions(
        settings={"dataset": dataset, "seed": seed, **settings},
        shape=shape,
        methods=[text.strip() for text in methods.split(",") if text.strip()],
        labeled_fractions=fractions,
        seeds=seeds,
        tune_samples=tune_samples,
        folds=folds,
        max_concurrent=max_concurrent,
        name=name,
        address=address,
        resume=resume,
    )
    screen = Screen(json=json_, quiet=quiet)
    with remote_results.local_results(results, [name], screen) as folder:
        with screen.bars():
            prepared = compare_setup.prepare(replace(options, results=folder), screen)
        from bbam_ray.commands import compare as command  # loads Ray

        result = command.run(prepared, screen)
        if result.interrupted:
            return EXIT_INTERRUPTED
        if json_:
            content = {"folder": str(result.folder), "rows": result.rows}
            typer.echo(json.dumps(content, default=str))
        else:
            _show(screen.console, result)
        if not result.failed:
            return EXIT_DONE
        return EXIT_SOME_TRIALS_FAILED if result.rows else EXIT_FAILED


def _show(console: Console, result: CompareResult) -> None:
    """Print the table, its legend and where the files are."""
    table = Table(box=None, header_style="bold")
    for head in result.heads:
        table.add_column(head, justify="left" if head == "method" else "right", no_wrap=True)
    for cells in result.cells:
        table.add_row(*(Text(text, style="bold" if best else "") for text, best in cells))
    wide = max(console.width, _WIDTH)  # in a narrow terminal lines wrap, and no column is lost
    Console(file=console.file, width=wide, soft_wrap=True, highlight=False).print(table)
    console.print(result.legend, style="dim")
    for file in result.files:
        console.print(f"  {file}", markup=False)
