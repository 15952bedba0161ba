"""A single run on workers of Ray Train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bbam_ray.commands.run_log import CHECKPOINTS, RunLog
from bbam_ray.config import RunConfig
from bbam_ray.errors import StartError, StorageError, TrainingStoppedError
from bbam_ray.scale.cluster.capacity import wait_for_workers
from bbam_ray.scale.cluster.connection import connected
from bbam_ray.scale.workers.shapes import TrainShape
from bbam_ray.scale.workers.train_run import TrainingFailed, train_with_ray
from bbam_ray.scale.workers.train_worker import TrainJob


def train_on_ray(
    config: RunConfig,
    shape: TrainShape,
    open_log: Callable[[], RunLog],
    *,
    address: str,
    start_timeout: float,
    keep_checkpoints: int,
    checkpoint_every: int,
) -> RunLog:
    """Train a run to its end.

    Args:
        config: of the run.
        shape: its workers.
        open_log: creates the run's folder; called when the workers are available.
        address: of Ray.
        start_timeout: seconds to wait until a cluster has the workers free.
        keep_checkpoints, checkpoint_every: see ``TrainOptions``.
    """
    with connected(address, dashboard=True, environment=shape.environment()):
        if address != "local":
            wait_for_workers(shape.min_workers, shape.bundle, start_timeout)
        log = open_log()
        job = TrainJob(
            values=config.flat(),
            checkpoints=str((log.folder / CHECKPOINTS).absolute()),
            keep=keep_checkpoints,
            every=checkpoint_every,
            cpus=shape.cpus,
        )

        def listen(entry: dict[str, Any]) -> None:
            if entry["kind"] == "epoch":
                record = entry["record"]
                log.epoch(record["scalars"], record["labels"], again=entry["again"])
            elif entry["kind"] == "started":
                log.started(entry["workers"], entry["epoch"], entry["step"], entry["defects"])
            elif entry["kind"] == "stopped":
                log.saved_on_request(entry["where"], entry["seconds"], entry["is_saved"])
            elif entry["kind"] == "waiting":
                log.waits(entry["folder"], entry["reason"], entry["limit_s"])
            elif entry["of_disk"]:
                full_disks.append(entry["error"])
            else:
                log.error, log.could_start = entry["error"], entry["start_error"] is None

        full_disks: list[str] = []
        try:
            train_with_ray(job, shape, listen)
            for sentence in full_disks:
                raise StorageError(sentence)
        except TrainingFailed as failure:
            name = log.folder.name
            log.error = f"{failure}; completed epochs are kept, resume with --name {name} --resume"
        except StartError as failure:
            name, log.could_start = log.folder.name, False
            log.error = f"{failure}; remove the cause and resume with --name {name} --resume"
        except TrainingStoppedError:
            log.stopped(interruption := KeyboardInterrupt())
            raise interruption from None
        except BaseException as reason:
            log.stopped(reason)
            raise
    return log
