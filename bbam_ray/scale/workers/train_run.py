"""A run under Ray Train: any number of workers on any number of nodes; it survives lost workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch

from bbam_ray.scale.cluster import interruption
from bbam_ray.scale.cluster.connection import on_this_node
from bbam_ray.scale.workers.rendezvous import Rendezvous
from bbam_ray.scale.workers.shapes import TrainShape
from bbam_ray.scale.workers.train_worker import TrainJob, train_worker

TrainingFailed = ray.train.TrainingFailedError
_POLL_SECONDS = 0.2


def _scaling(shape: TrainShape) -> Any:
    number = (shape.min_workers, shape.max_workers) if shape.elastic else shape.max_workers
    return ray.train.ScalingConfig(
        num_workers=number,
        use_gpu=shape.gpus > 0,
        resources_per_worker=shape.bundle,
        elastic_resize_monitor_interval_s=10.0,
    )


def _torch(shape: TrainShape) -> Any:
    backend = "nccl" if shape.gpus >= 1 else "gloo"
    return Rendezvous(backend=backend, timeout_s=int(shape.timeout_s))


class Ledger:
    """An actor on the driver's node that holds the reports of rank 0 until the driver has read them."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = []

    def put(self, entry: dict[str, Any]) -> None:
        self._entries.append(entry)

    def since(self, index: int) -> list[dict[str, Any]]:
        """All entries from an index on."""
        return self._entries[index:]


def train_with_ray(
    job: TrainJob,
    shape: TrainShape,
    listener: Callable[[dict[str, Any]], None],
) -> None:
    """Train a run to its end inside a connected Ray.

    Args:
        job: what to train; resumes from the newest complete checkpoint in its folder.
        shape: number and resources of the workers.
        listener: gets, in order: {"kind": "started", "workers", "epoch", "defects"} whenever workers
            (re)start, {"kind": "epoch", "record", "again", "finished"} for every epoch, and
            {"kind": "failed", "error"}.

    Raises:
        TrainingFailed: workers were lost more often than ``shape.max_failures``.
    """
    checkpoints = Path(job.checkpoints)
    checkpoints.mkdir(parents=True, exist_ok=True)
    # Ray Train's list of checkpoints ignores damage; we read the folder itself.
    for snapshot in checkpoints.glob("*snapshot*.json"):
        snapshot.unlink()
    ledger = ray.remote(num_cpus=0, scheduling_strategy=on_this_node())(Ledger).remote()
    trainer = ray.train.torch.TorchTrainer(
        train_worker,
        train_loop_config={"job": job, "ledger": ledger},
        scaling_config=_scaling(shape),
        torch_config=_torch(shape),
        run_config=ray.train.RunConfig(
            name=checkpoints.name,
            storage_path=str(checkpoints.parent.resolve()),
            failure_config=ray.train.FailureConfig(
                max_failures=shape.max_failures, controller_failure_limit=20
            ),
        ),
    )
    _follow(trainer, ledger, listener)


def _follow(trainer: Any, ledger: Any, listener: Callable[[dict[str, Any]], None]) -> None:
    """Run the trainer in its own thread, so that Ctrl-C and records reach this one."""
    errors: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    read = 0
    running = True
    while running:
        running = thread.is_alive()
        entries = ray.get(ledger.since.remote(read))
        read += len(entries)
        for entry in entries:
            listener(entry)
        interruption.check()
        time.sleep(_POLL_SECONDS if running else 0)
    if errors:
        raise errors[0]
