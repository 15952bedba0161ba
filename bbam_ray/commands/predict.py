"""Scores and labels of new samples, in this process or on workers of Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bbam_ray.commands import checks
from bbam_ray.commands.gpus import automatic_gpus, devices_text, unused_gpu
from bbam_ray.commands.listener import SILENT, Listener
from bbam_ray.data.prediction.inputs import find_chunks
from bbam_ray.engine.model import load_model
from bbam_ray.engine.prediction import (
    check_output,
    prediction_file,
    prediction_schema,
    predictions,
)
from bbam_ray.engine.process import use_cpus

if TYPE_CHECKING:
    import pyarrow as pa

    from bbam_ray.data.prediction.chunks import Chunk
    from bbam_ray.engine.model import Model


@dataclass(frozen=True)
class Prediction:
    """A finished prediction.

    Args:
        output: the file that was written.
        rows: samples in it, unreadable ones included.
        unreadable: samples without scores; the column ``error`` has the reason.
        seconds: time that scoring and writing took.
        noted: images that are not 8-bit grey or RGB; the column ``note`` says how each was read.
    """

    output: Path
    rows: int
    unreadable: int
    seconds: float
    noted: int = 0


@dataclass(frozen=True)
class _Workers:
    """Processes that score samples, each with ``cpus`` threads and ``gpus`` GPUs."""

    count: int
    cpus: int
    gpus: float
    address: str

    @property
    def in_this_process(self) -> bool:
        return self.count == 1 and self.address == "local"


def predict(
    model: Path | str,
    inputs: Path | str,
    output: Path | str,
    *,
    logits: bool = False,
    workers: int = 1,
    cpus_per_worker: int = 1,
    gpus_per_worker: float | str = "auto",
    address: str = "local",
    listener: Listener = SILENT,
) -> Prediction:
    """Score new samples, decide their labels, and write both to a new file.

    Args:
        model: folder of an exported model, a run, or a confirmed study.
        inputs: folder of images, or a ``.parquet`` or ``.npz`` file.
        output: new file, ``.parquet`` or ``.csv``; it appears whole or not at all.
        logits: write logits instead of probabilities.
        workers: processes; more than one use Ray.
        cpus_per_worker: CPU threads of each.
        gpus_per_worker: GPUs of each; a fraction shares one, "auto" uses those that are there.
        address: of Ray: "local", "auto" or "ray://HOST:PORT".
        listener: receives the progress in samples.

    Raises:
        UsageError: no usable model or input, or an output that cannot be written.
    """
    checks.check_address(address)
    checks.parse_workers(str(workers))
    gpus = checks.parse_gpus(gpus_per_worker)
    if gpus is None:
        gpus = automatic_gpus(workers, address)
    if address == "local":
        checks.check_machine(workers, cpus_per_worker, gpus)
    output = Path(output)
    processes = _Workers(workers, cpus_per_worker, gpus, address)
    loaded = load_model(Path(model), device="cuda" if gpus and processes.in_this_process else "cpu")
    check_output(output, loaded.label_names)
    chunks = find_chunks(
        Path(inputs).absolute(),
        loaded.input_shape,
        loaded.label_names,
        loaded.takes_texts,
        loaded.description.image_range,
    )
    total = sum(chunk.count for chunk in chunks)
    many = f", {workers} workers" if workers > 1 else ""
    cost = f" ({loaded.networks} networks per sample)" if loaded.networks > 1 else ""
    devices = devices_text(cpus_per_worker, gpus, address)
    listener.message(f"model {loaded.folder}{cost}: {total} samples{many}, {devices}")
    if note := unused_gpu(gpus, address):
        listener.warning(note)
    started = time.monotonic()
    schema = prediction_schema(loaded.label_names, notes=any(c.encoded_images for c in chunks))
    with prediction_file(output, schema) as file:
        for table in _tables(loaded, chunks, logits, processes):
            file.write(table)
            listener.progress("scoring", file.rows, total)
    seconds = time.monotonic() - started
    return Prediction(output, file.rows, file.unreadable, seconds, file.noted)


def _tables(
    model: Model, chunks: list[Chunk], logits: bool, workers: _Workers
) -> Iterator[pa.Table]:
    """Predictions in the order of the input."""
    if workers.in_this_process:
        use_cpus(workers.cpus)
        for chunk in chunks:
            yield from predictions(model, chunk, logits=logits)
        return
    # One process needs no Ray, which takes seconds to load.
    from bbam_ray.scale.cluster.connection import connected
    from bbam_ray.scale.workers.predict import predictions_by_workers

    with connected(workers.address, dashboard=False):
        yield from predictions_by_workers(
            model.folder.absolute(),
            chunks,
            logits=logits,
            workers=workers.count,
            cpus=workers.cpus,
            gpus=workers.gpus,
        )
