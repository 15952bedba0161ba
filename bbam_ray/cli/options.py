"""Command-line options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from bbam_ray.commands.choices import SAMPLERS, SCHEDULERS
from bbam_ray.data import DATASETS
from bbam_ray.methods import METHODS

if TYPE_CHECKING:
    SamplerName: TypeAlias = str
    SchedulerName: TypeAlias = str
else:  # enums for the command line, made from the names that there are
    SamplerName = StrEnum("SamplerName", [(name, name) for name in SAMPLERS])
    SchedulerName = StrEnum("SchedulerName", [(name, name) for name in SCHEDULERS])

Dataset = Annotated[str, typer.Option(help=f"Data set: {', '.join(DATASETS)}.")]
OptionalDataset = Annotated[
    str | None,
    typer.Option(help=f"Data set: {', '.join(DATASETS)}. Default: that of --config, or digits."),
]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder (or file) of the data set, if it needs one.")
]
MethodName = Annotated[str, typer.Option(help=f"Learning method: {', '.join(METHODS)}.")]
OptionalMethod = Annotated[
    str | None,
    typer.Option(
        help=f"Learning method: {', '.join(METHODS)}. Default: that of --config, or bbam."
    ),
]
StudyName = Annotated[
    str | None, typer.Option("--name", help="Name of the study or run; default: method and time.")
]
Results = Annotated[Path, typer.Option(help="Folder (or URI) of all results.")]
Seed = Annotated[
    int, typer.Option(help="Seed of split, search, initial weights, sample order and views.")
]
OptionalSeed = Annotated[
    int | None,
    typer.Option(help="Seed of split, initial weights, sample order and views; default 0."),
]
Fraction = Annotated[
    float | None,
    typer.Option(help="Share of the training samples whose labels may be used, in (0, 1)."),
]
Epochs = Annotated[int | None, typer.Option(help="Number of epochs, warm-up included.")]
WarmupEpochs = Annotated[
    int | None, typer.Option(help="Number of first epochs that use labelled samples only.")
]
Workers = Annotated[
    str,
    typer.Option(
        metavar="N|MIN-MAX", help="Data-parallel workers of a run; a range makes the run elastic."
    ),
]
Address = Annotated[str, typer.Option(help="Ray: local, auto, or ray://HOST:PORT.")]
WorkerTimeout = Annotated[
    str, typer.Option(help="A worker without a heartbeat for this long is replaced.")
]
StartTimeout = Annotated[
    str, typer.Option(help="How long to wait until a cluster has the workers available.")
]
MaxFailures = Annotated[
    int, typer.Option(min=-1, help="How often lost workers are replaced; -1 = always.")
]
Gpus = Annotated[
    str,
    typer.Option(
        "--gpus-per-worker",
        metavar="auto|NUMBER",
        help="GPUs of a worker: 0, a fraction, or 1; auto: 1 where there are GPUs.",
    ),
]
Cpus = Annotated[int, typer.Option("--cpus-per-worker", min=1, help="CPU threads of a worker.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Any other setting (see bbam-ray settings); repeatable."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only the result.")]
