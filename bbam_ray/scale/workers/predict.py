"""Prediction on several workers: Ray Data distributes chunks and returns results in input order."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from bbam_ray.data.prediction.chunks import Chunk
from bbam_ray.engine.model import Model
from bbam_ray.engine.prediction import predictions
from bbam_ray.engine.process import use_cpus

_model = lru_cache(maxsize=1)(Model)  # loaded once in a process, which scores many chunks


def _score(batch: dict[str, Any]) -> Iterator[pa.Table]:
    """Runs in a worker of Ray, which repeats a task that is lost with its worker."""
    for packed in batch["task"]:
        chunk, folder, logits, cpus = pickle.loads(packed)
        use_cpus(cpus)
        yield from predictions(_model(folder), chunk, logits=logits)


def predictions_by_workers(
    folder: Path, chunks: list[Chunk], *, logits: bool, workers: int, cpus: int, gpus: float
) -> Iterator[pa.Table]:
    """Score chunks on the workers of a connected Ray; the tables come in the order of the chunks.

    Args:
        folder: of the model; every node must be able to read it and the inputs.
        chunks: of the inputs.
        logits: as in ``predictions``.
        workers: processes, each with ``cpus`` threads and ``gpus`` GPUs.
    """
    if not chunks:
        return
    context = ray.data.DataContext.get_current()
    # The command has its own progress bar. Importing ray.data has reset the log level.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    items = [{"task": pickle.dumps((chunk, folder, logits, cpus))} for chunk in chunks]
    scored = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _score,
        batch_size=1,
        num_cpus=cpus,
        num_gpus=gpus,
        compute=ray.data.TaskPoolStrategy(size=min(workers, len(chunks))),
    )
    yield from scored.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
