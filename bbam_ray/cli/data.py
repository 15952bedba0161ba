"""``bbam-ray data``: summarize, check, cache and download data sets; turn images into features."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import DownloadColumn
from rich.table import Table

from bbam_ray.cli import options as shared
from bbam_ray.cli.exit_codes import with_exit_code
from bbam_ray.cli.listener import console_listener
from bbam_ray.commands import checks
from bbam_ray.errors import EXIT_USAGE

if TYPE_CHECKING:
    from bbam_ray.data.inspection import Inspection

app = typer.Typer(help="Inspect, check, cache and download data sets; extract features of images.")
_MANY = 30  # labels in a table; --json has all


def _settings(
    set_: list[str] | None,
    data_dir: Path | None,
    seed: int | None = None,
    labeled_fraction: float | None = None,
) -> dict[str, Any]:
    """Settings by name, from ``--set`` and the named flags."""
    named = {"data_dir": data_dir, "seed": seed, "labeled_fraction": labeled_fraction}
    return checks.given_settings(set_, named)


@app.command()
@with_exit_code
def info(
    dataset: shared.Dataset = "digits",
    data_dir: shared.DataDir = None,
    seed: shared.Seed = 0,
    labeled_fraction: shared.Fraction = None,
    set_: shared.Set = None,
    json_: shared.Json = False,
) -> int:
    """Count the samples and labels of a data set, and how a run would split them."""
    from bbam_ray.commands import data as command

    settings = _settings(set_, data_dir, seed, labeled_fraction)
    console = Console(stderr=json_, soft_wrap=True, highlight=False)
    with console_listener(console) as listener:
        summary = command.info(dataset, settings, listener=listener)
    _show(console, dataset, summary.inspection, as_json=json_)
    if summary.has_images and not json_:
        console.print("`bbam-ray data check` reads every image", style="dim", markup=False)
    return 0


@app.command()
@with_exit_code
def check(
    dataset: shared.Dataset = "digits",
    data_dir: shared.DataDir = None,
    seed: shared.Seed = 0,
    labeled_fraction: shared.Fraction = None,
    set_: shared.Set = None,
    json_: shared.Json = False,
) -> int:
    """Read every label and image and list all problems; exit code 2 if a run would fail."""
    from bbam_ray.commands import data as command

    settings = _settings(set_, data_dir, seed, labeled_fraction)
    console = Console(stderr=json_, soft_wrap=True, highlight=False)
    with console_listener(console) as listener:
        inspection = command.check(dataset, settings, listener=listener)
    _show(console, dataset, inspection, as_json=json_)
    if inspection.first_rows and not json_:
        console.print("first rows as understood:", markup=False)
        for row in inspection.first_rows:
            console.print(f"  {row}", markup=False)
    if not inspection.errors and not inspection.warnings and not json_:
        console.print("checked everything: no problems")
    return EXIT_USAGE if inspection.errors else 0


@app.command()
@with_exit_code
def cache(
    dataset: shared.Dataset = "digits",
    data_dir: shared.DataDir = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete the cached images of this data set instead.")
    ] = False,
    set_: shared.Set = None,
) -> int:
    """Decode all images now, so that no run has to; or delete them from the cache."""
    from bbam_ray.commands import data as command

    console = Console(soft_wrap=True, highlight=False)
    settings = _settings(set_, data_dir)
    if remove:
        freed = command.clear_cache(dataset, settings)
        console.print(f"freed {freed.nbytes / 1e6:.1f} MB in {freed.folder}", markup=False)
        return 0
    with console_listener(console) as listener:
        cached = command.cache(dataset, settings, listener=listener)
    console.print(
        f"{cached.samples} samples, {cached.nbytes / 1e6:.1f} MB, in {cached.folder}", markup=False
    )
    return 0


@app.command()
@with_exit_code
def download(
    name: Annotated[str, typer.Argument(help="For example voc2012; an unknown name lists all.")],
    folder: Annotated[Path, typer.Option("--to", help="Folder for archives and data.")] = Path(
        "data"
    ),
) -> int:
    """Download a data set from its publisher and unpack it; call again to resume."""
    from bbam_ray.commands import data as command

    console = Console(soft_wrap=True, highlight=False)
    with console_listener(console, DownloadColumn()) as listener:
        data_dir = command.download(name, folder, listener=listener)
    console.print(f"done; use --dataset {name} --data-dir {data_dir}", markup=False)
    return 0


@app.command()
@with_exit_code
def example(
    output: Annotated[Path, typer.Option(help="New folder.")] = Path("data/example-texts"),
    train: Annotated[int, typer.Option(min=20, help="Number of training texts.")] = 1200,
    test: Annotated[int, typer.Option(min=20, help="Number of test texts.")] = 600,
) -> int:
    """Write synthetic posts about ten topics, to try --dataset text."""
    from bbam_ray.commands import data as command

    folder = command.example(output, train, test)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"done; use --dataset text --data-dir {folder}", markup=False)
    return 0


@app.command()
@with_exit_code
def extract(
    output: Annotated[Path, typer.Option(help="New Parquet file.")],
    dataset: shared.Dataset = "images",
    data_dir: shared.DataDir = None,
    backbone: Annotated[
        str, typer.Option(help="Any torchvision classification network.")
    ] = "resnet50",
    weights: Annotated[
        str, typer.Option(help="DEFAULT, another torchvision name, a file, or none.")
    ] = "DEFAULT",
    set_: shared.Set = None,
) -> int:
    """Turn images into features, for fast studies with --dataset features."""
    from bbam_ray.commands import data as command

    console = Console(soft_wrap=True, highlight=False)
    settings = _settings(set_, data_dir)
    with console_listener(console) as listener:
        width = command.extract(
            output, dataset, settings, backbone=backbone, weights=weights, listener=listener
        )
    console.print(
        f"{width} features per image; use --dataset features --data-dir {output}", markup=False
    )
    return 0


def _show(console: Console, dataset: str, inspection: Inspection, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(inspection)))
        return
    if inspection.understood:
        console.print(inspection.understood, markup=False)
    if inspection.counts:
        _show_counts(console, dataset, inspection)
    if inspection.sizes:
        sizes = ", ".join(f"{name} {w} x {h}" for name, (w, h) in inspection.sizes.items())
        console.print(f"image sizes: {sizes}", markup=False)
    if inspection.positives:
        _show_positives(console, inspection)
    for note in inspection.notes:
        console.print(f"read: {note}", markup=False)
    for error in inspection.errors:
        console.print(f"error: {error}", style="red", markup=False)
    for warning in inspection.warnings:
        console.print(f"note: {warning}", style="yellow", markup=False)


def _show_counts(console: Console, dataset: str, inspection: Inspection) -> None:
    counts = inspection.counts
    console.print(
        f"data set {dataset}: {counts['train']} training samples ({counts['known']} with known labels), "
        f"{counts['test']} test samples, {len(inspection.label_names)} labels"
    )
    if "labeled" in counts:
        console.print(
            f"a run uses {counts['labeled']} labelled, {counts['validation']} validation and "
            f"{counts['unlabeled']} unlabelled samples"
        )


def _show_positives(console: Console, inspection: Inspection) -> None:
    """A table of the positives of each label in each part."""
    names = inspection.label_names
    table = Table(title="positives", title_justify="left", box=None, header_style="bold")
    table.add_column("label")
    for part in inspection.positives:
        table.add_column(part, justify="right")
    for row, label in enumerate(names[:_MANY]):
        table.add_row(label, *(str(counts[row]) for counts in inspection.positives.values()))
    console.print(table)
    if len(names) > _MANY:
        console.print(f"... {len(names) - _MANY} more labels; --json has all")
