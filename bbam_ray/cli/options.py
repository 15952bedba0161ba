"""Command-line options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bbam_ray.data import DATASETS
from bbam_ray.methods import METHODS

Dataset = Annotated[str, typer.Option(help=f"Data set: {', '.join(DATASETS)}.")]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder (or file) of the data set, where it needs one.")
]
MethodName = Annotated[str, typer.Option(help=f"Learning method: {', '.join(METHODS)}.")]
StudyName = Annotated[str | None, typer.Option("--name", help="Name; default: method and time.")]
Results = Annotated[Path, typer.Option(help="Folder of all results.")]
Seed = Annotated[int, typer.Option(help="Of split, search, initial weights, order and views.")]
Fraction = Annotated[
    float | None, typer.Option(help="Share of training samples whose labels may be used, (0, 1).")
]
Epochs = Annotated[int | None, typer.Option(help="Epochs in all, warm-up included.")]
WarmupEpochs = Annotated[int | None, typer.Option(help="Epochs on labelled samples, at the start.")]
Workers = Annotated[
    str, typer.Option(help="Data-parallel workers of a run: N, or MIN-MAX to grow and shrink.")
]
Address = Annotated[str, typer.Option(help="Ray: local, auto, or ray://HOST:PORT.")]
WorkerTimeout = Annotated[
    str, typer.Option(help="A worker that does not answer for so long counts as lost.")
]
StartTimeout = Annotated[
    str, typer.Option(help="How long to wait for a cluster to have the workers free.")
]
MaxFailures = Annotated[
    int, typer.Option(min=-1, help="How often lost workers are replaced; -1 = always.")
]
Gpus = Annotated[float, typer.Option("--gpus-per-worker", min=0, help="0, a fraction, or 1.")]
Cpus = Annotated[int, typer.Option("--cpus-per-worker", min=1, help="CPU threads of a worker.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting; repeatable.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only the result.")]
