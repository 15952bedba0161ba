"""``bbam-ray data``: look at a data set, check it, decode it, fetch it, turn images into features."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import DownloadColumn, MofNCompleteColumn
from rich.table import Table

from bbam_ray.cli import options as shared
from bbam_ray.cli.bars import bar, decoding_shown
from bbam_ray.cli.exit_codes import with_exit_code
from bbam_ray.commands import checks
from bbam_ray.errors import EXIT_USAGE, UsageError

if TYPE_CHECKING:
    from bbam_ray.config import RunConfig
    from bbam_ray.data.inspection import Inspection

app = typer.Typer(help="Look at data, check, decode, download them; make features of images.")
_MANY = 30  # labels that a table shows before it is told to show all


def _config(dataset: str, data_dir: Path | None, set_: list[str] | None, **named: Any) -> RunConfig:
    from bbam_ray.methods import run_config

    named |= {"data_dir": str(data_dir.absolute()) if data_dir else None}
    given = checks.given_settings(set_, named)
    return run_config({"dataset": dataset, **given}, "command line")


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
    """Say what a data set holds and how a run would divide it."""
    from bbam_ray.data import DATASETS, Samples
    from bbam_ray.data.datasets.base import Part
    from bbam_ray.data.datasets.image_base import ImageDataset
    from bbam_ray.data.inspection import Inspection, add_split, count_parts
    from bbam_ray.engine.task import load_part, split_of

    config = _config(dataset, data_dir, set_, seed=seed, labeled_fraction=labeled_fraction)
    console = Console(stderr=json_, soft_wrap=True, highlight=False)
    with decoding_shown(console):
        parts: dict[Part, Samples] = {
            "train": load_part(config, "train"),
            "test": load_part(config, "test"),
        }
    found = Inspection()
    count_parts(found, parts)
    add_split(found, parts["train"], split_of(parts["train"], config))
    _show(console, dataset, found, as_json=json_)
    if isinstance(DATASETS[dataset], ImageDataset) and not json_:
        console.print("`bbam-ray data check` looks at every image", style="dim", markup=False)
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
    """Read every label and image, and say what is wrong; ends with 2 if a run would break."""
    from bbam_ray.data import DATASETS
    from bbam_ray.data.inspection import add_split, inspect
    from bbam_ray.engine.task import load_part, split_of

    config = _config(dataset, data_dir, set_, seed=seed, labeled_fraction=labeled_fraction)
    console = Console(stderr=json_, soft_wrap=True, highlight=False)
    with decoding_shown(console):
        found = inspect(DATASETS[dataset], config.data, config.training.data_dir)
    if not found.errors:
        samples = load_part(config, "train")
        try:
            add_split(found, samples, split_of(samples, config))
        except UsageError as error:
            found.errors.append(str(error))
    _show(console, dataset, found, as_json=json_)
    if not found.errors and not found.warnings and not json_:
        console.print("checked all of it: nothing is wrong")
    return EXIT_USAGE if found.errors else 0


@app.command()
@with_exit_code
def cache(
    dataset: shared.Dataset = "digits",
    data_dir: shared.DataDir = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove what is kept of this data set instead.")
    ] = False,
    set_: shared.Set = None,
) -> int:
    """Decode all images now, so that no run has to; or free the space."""
    from bbam_ray.data.cache import folder as kept
    from bbam_ray.engine.task import load_part

    console = Console(soft_wrap=True, highlight=False)
    config = _config(dataset, data_dir, set_)
    if remove:
        freed = kept.forget(dataset)
        console.print(f"freed {freed / 1e6:.1f} MB of {kept.cache_dir()}", markup=False)
        return 0
    with decoding_shown(console):
        parts = [load_part(config, part) for part in ("train", "test")]
    size = sum(samples.inputs.nbytes for samples in parts)
    count = sum(len(samples.labels) for samples in parts)
    console.print(
        f"{count} samples, {size / 1e6:.1f} MB, in {kept.cache_dir() / dataset}", markup=False
    )
    return 0


@app.command()
@with_exit_code
def download(
    name: Annotated[
        str,
        typer.Argument(help="Such as voc2012; an unknown name lists all."),
    ],
    folder: Annotated[Path, typer.Option("--to", help="Where archives and data go.")] = Path(
        "data"
    ),
) -> int:
    """Fetch a data set from its publisher and unpack it; call again to go on after a failure."""
    from bbam_ray.data.download import sources as sources

    console = Console(soft_wrap=True, highlight=False)
    if publication := sources.publications().get(name):
        console.print(f"{publication.page}\n{publication.terms}", style="dim", markup=False)
    with bar(console, DownloadColumn()) as advance:
        place = sources.download(name, folder, advance)
    console.print(f"done; use --dataset {name} --data-dir {place}", markup=False)
    return 0


@app.command()
@with_exit_code
def example(
    output: Annotated[Path, typer.Option(help="A new folder.")] = Path("data/example-texts"),
    train: Annotated[int, typer.Option(min=20, help="Training texts.")] = 1200,
    test: Annotated[int, typer.Option(min=20, help="Test texts.")] = 600,
) -> int:
    """Write made-up posts about ten topics, to try --dataset text on."""
    from bbam_ray.data.example_texts import write_example

    write_example(output, train, test)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"done; use --dataset text --data-dir {output}", markup=False)
    return 0


@app.command()
@with_exit_code
def extract(
    output: Annotated[Path, typer.Option(help="The Parquet file to write.")],
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
    """Turn images into features, for quick studies with --dataset features."""
    from bbam_ray.engine.extraction import extract_features, feature_network

    console = Console(soft_wrap=True, highlight=False)
    if output.exists():
        raise UsageError(f"--output {output}: exists already; give another name or remove it")
    if output.suffix != ".parquet":
        raise UsageError(f"--output {output}: expected a name that ends with .parquet")
    config = _config(dataset, data_dir, set_)
    network = feature_network(backbone, weights)
    with decoding_shown(console), bar(console, MofNCompleteColumn()) as advance:

        def listen(done: int, total: int) -> None:
            advance(f"features by {backbone}", done, total)

        width = extract_features(config, network, output, listen)
    console.print(
        f"{width} features an image; use --dataset features --data-dir {output}", markup=False
    )
    return 0


def _show(console: Console, dataset: str, found: Inspection, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    if found.counts:
        _show_counts(console, dataset, found)
    if found.sizes:
        sizes = ", ".join(f"{name} {w} x {h}" for name, (w, h) in found.sizes.items())
        console.print(f"image sizes: {sizes}", markup=False)
    if found.positives:
        table = Table(title="positives", title_justify="left", box=None, header_style="bold")
        table.add_column("label")
        for name in found.positives:
            table.add_column(name, justify="right")
        for row, label in enumerate(found.label_names[:_MANY]):
            table.add_row(label, *(str(counts[row]) for counts in found.positives.values()))
        console.print(table)
        if len(found.label_names) > _MANY:
            console.print(f"... {len(found.label_names) - _MANY} more labels; --json has all")
    for kind, style, texts in (("error", "red", found.errors), ("note", "yellow", found.warnings)):
        for text in texts:
            console.print(f"{kind}: {text}", style=style, markup=False)


def _show_counts(console: Console, dataset: str, found: Inspection) -> None:
    counts = found.counts
    console.print(
        f"data set {dataset}: {counts['train']} training samples ({counts['known']} with known labels), "
        f"{counts['test']} test samples, {len(found.label_names)} labels"
    )
    if "labeled" in counts:
        console.print(
            f"a run uses {counts['labeled']} labelled, {counts['validation']} for validation, "
            f"{counts['unlabeled']} without their labels"
        )
