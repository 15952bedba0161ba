"""``bbam-ray predict``: scores and labels of new samples."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bbam_ray.cli import options as shared
from bbam_ray.cli.listener import console_listener


class Scores(StrEnum):
    """What the columns ``score_*`` contain."""

    probability = "probability"
    logit = "logit"


def predict(
    model: Annotated[
        Path, typer.Option(help="Folder of an exported model, a run, or a confirmed study.")
    ],
    input_: Annotated[
        Path,
        typer.Option(
            "--input", help="Folder of images, or a file: .parquet, .npz, .csv, .tsv, .jsonl."
        ),
    ],
    output: Annotated[Path, typer.Option(help="New file, .parquet or .csv.")],
    scores: Annotated[
        Scores, typer.Option(help="Write probabilities (calibrated if the model is) or logits.")
    ] = Scores.probability,
    workers: Annotated[
        int, typer.Option(min=1, help="Number of processes; more than one use Ray.")
    ] = 1,
    cpus_per_worker: shared.Cpus = 1,
    gpus_per_worker: shared.Gpus = "auto",
    address: shared.Address = "local",
    json_: shared.Json = False,
    quiet: shared.Quiet = False,
) -> int:
    """Score new samples and predict their labels; unreadable samples are listed with the reason."""
    from bbam_ray.commands import predict as command

    console = Console(stderr=json_, quiet=quiet, soft_wrap=True, highlight=False)
    with console_listener(console) as listener:
        result = command.predict(
            model,
            input_,
            output,
            logits=scores is Scores.logit,
            workers=workers,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
            address=address,
            listener=listener,
        )
    if json_:
        counts = {"rows": result.rows, "unreadable": result.unreadable}
        seconds = round(result.seconds, 3)
        typer.echo(json.dumps({"output": str(output), **counts, "seconds": seconds}))
        return 0
    if result.unreadable:
        console.print(
            f"note: {result.unreadable} of {result.rows} samples could not be read; column 'error' has "
            "the reason",
            style="yellow",
            markup=False,
        )
    if result.noted:
        console.print(
            f"note: {result.noted} of {result.rows} images are not 8-bit grey or RGB; column 'note' says "
            "how each was read",
            style="yellow",
            markup=False,
        )
    rate = result.rows / result.seconds
    console.print(f"{output}: {result.rows} samples, {rate:.0f} samples/s", markup=False)
    return 0
