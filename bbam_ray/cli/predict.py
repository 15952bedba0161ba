"""``bbam-ray predict``: scores and labels of new samples."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn

from bbam_ray.cli import options as shared
from bbam_ray.cli.bars import bar
from bbam_ray.commands import checks

if TYPE_CHECKING:
    from bbam_ray.data.prediction.chunks import Piece
    from bbam_ray.engine.model import Model


class Scores(StrEnum):
    """What the columns ``score_*`` hold."""

    probability = "probability"
    logit = "logit"


def predict(
    model: Annotated[
        Path, typer.Option(help="Folder of an exported model, a run, or a confirmed study.")
    ],
    input_: Annotated[
        Path, typer.Option("--input", help="Folder of images, a .parquet or an .npz file.")
    ],
    output: Annotated[Path, typer.Option(help="New file, .parquet or .csv.")],
    scores: Annotated[
        Scores, typer.Option(help="Sigmoid of the logits, or the logits themselves.")
    ] = Scores.probability,
    workers: Annotated[int, typer.Option(min=1, help="Processes; more than one use Ray.")] = 1,
    cpus_per_worker: shared.Cpus = 1,
    gpus_per_worker: shared.Gpus = 0,
    address: shared.Address = "local",
    json_: shared.Json = False,
    quiet: shared.Quiet = False,
) -> int:
    """Score new samples and decide their labels; what cannot be read is listed, and stops nothing."""
    from bbam_ray.data.prediction.inputs import find_pieces
    from bbam_ray.engine.model import load_model
    from bbam_ray.engine.prediction import check_output, prediction_file, prediction_schema

    checks.check_address(address)
    if address == "local":
        checks.check_machine(workers, cpus_per_worker, gpus_per_worker)
    console = Console(stderr=json_, quiet=quiet, soft_wrap=True, highlight=False)
    loaded = load_model(model)
    check_output(output, loaded.label_names)
    pieces = find_pieces(
        input_.absolute(), loaded.input_shape, loaded.label_names, loaded.takes_texts
    )
    total = sum(piece.count for piece in pieces)
    many = f", {workers} workers" if workers > 1 else ""
    console.print(f"model {loaded.folder}: {total} samples{many}", markup=False)
    started = time.monotonic()
    tables = _tables(
        loaded,
        pieces,
        logits=scores is Scores.logit,
        shape={"workers": workers, "cpus": cpus_per_worker, "gpus": gpus_per_worker},
        address=address,
    )
    with (
        prediction_file(output, prediction_schema(loaded.label_names)) as file,
        bar(console, MofNCompleteColumn()) as advance,
    ):
        for table in tables:
            file.write(table)
            advance("scoring", file.rows, total)
    seconds = time.monotonic() - started
    if json_:
        said = {"output": str(output), "rows": file.rows, "unreadable": file.unreadable}
        typer.echo(json.dumps({**said, "seconds": round(seconds, 3)}))
        return 0
    if file.unreadable:
        console.print(
            f"note: {file.unreadable} of {file.rows} samples could not be read; column 'error' says why",
            style="yellow",
            markup=False,
        )
    console.print(
        f"{output}: {file.rows} samples, {file.rows / seconds:.0f} a second", markup=False
    )
    return 0


def _tables(
    model: Model, pieces: list[Piece], *, logits: bool, shape: dict[str, Any], address: str
) -> Iterator[Any]:
    """Predictions in input order: here, or on workers of Ray."""
    from bbam_ray.engine.prediction import predictions
    from bbam_ray.engine.process import use_cpus

    if shape["workers"] == 1 and address == "local":
        use_cpus(shape["cpus"])
        for piece in pieces:
            yield from predictions(model, piece, logits=logits)
        return
    from bbam_ray.scale.cluster.connection import connected
    from bbam_ray.scale.workers.predict import predictions_by_workers

    with connected(address, dashboard=False):
        yield from predictions_by_workers(model.folder.absolute(), pieces, logits=logits, **shape)
