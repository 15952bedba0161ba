"""A run under Ray Train: any number of workers on any number of nodes; it survives lost workers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch

from bbam_ray.engine.stop_request import StopRequest, made_by_signal, never
from bbam_ray.errors import TrainingStoppedError
from bbam_ray.methods import run_config
from bbam_ray.scale import private_api
from bbam_ray.scale.cluster import interruption
from bbam_ray.scale.workers.ledger import LedgerReader, Record, new_ledger
from bbam_ray.scale.workers.rendezvous import Rendezvous
from bbam_ray.scale.workers.shapes import TrainShape
from bbam_ray.scale.workers.start_errors import died_at_start, start_error
from bbam_ray.scale.workers.train_worker import TrainJob, train_worker
from bbam_ray.scale.workers.versions import versions

TrainingFailed = ray.train.TrainingFailedError
_POLL_SECONDS, _LAST_SECONDS = 0.2, 5.0
# Ray Train counts both together: workers that die while they start, and waits of 30 s for resources.
_FAILED_STARTS, _WAITS = 3, 5
_STOP_SECONDS = 90.0  # for which workers that have to stop are waited for; Slurm grants 120


def _scaling(shape: TrainShape) -> Any:
    number = (shape.min_workers, shape.max_workers) if shape.elastic else shape.max_workers
    return ray.train.ScalingConfig(
        num_workers=number,
        use_gpu=shape.gpus > 0,
        resources_per_worker=shape.bundle,
        elastic_resize_monitor_interval_s=10.0,
    )


def _torch(job: TrainJob, shape: TrainShape) -> Any:
    return Rendezvous(
        backend="nccl" if shape.gpus >= 1 else "gloo",
        timeout_s=int(shape.timeout_s),
        versions=versions(run_config(job.values, "run")),
    )


def train_with_ray(
    job: TrainJob,
    shape: TrainShape,
    listener: Callable[[Record], None],
    requested: Callable[[], bool] = never,
) -> None:
    """Train a run to its end inside a connected Ray.

    A notice of preemption, of Ray, stops the workers with a checkpoint in the middle of the epoch; they
    start again elsewhere at once. SIGTERM to this process, or ``requested``, stops them in the same way.

    Args:
        job: what to train; resumes from the newest complete checkpoint in its folder.
        shape: number and resources of the workers.
        listener: gets, in order: {"kind": "started", "workers", "epoch", "step", "defects"} whenever
            workers (re)start, {"kind": "epoch", "record", "again", "finished"} for every epoch,
            {"kind": "waiting", "folder", "reason", "limit_s"} when a checkpoint could not be written and
            all workers wait, {"kind": "stopped", "where", "seconds", "is_saved"} after a request, with the
            seconds from the request to the checkpoint and whether it could be written, and
            {"kind": "failed", "error", "start_error", "of_disk"}, where ``of_disk`` means that
            checkpoints could not be written for too long.
        requested: whether there is a request to stop, besides SIGTERM.

    Raises:
        TrainingFailed: workers were lost more often than ``shape.max_failures``.
        StartError: a worker cannot start.
        TrainingStoppedError: SIGTERM or a request, after the checkpoint.
        KeyboardInterrupt: a second SIGTERM, or workers that do not stop.
    """
    Path(job.checkpoints).mkdir(parents=True, exist_ok=True)
    ledger = new_ledger()
    reader, waits, lost = LedgerReader(ledger), 0, False
    request = StopRequest()
    try:
        while True:
            try:
                with made_by_signal(request):
                    run = _trainer(job, shape, ledger)
                    stopped = _follow(run, reader, listener, request, requested)
                if stopped is None:
                    return
                if request():
                    raise stopped
            except ray.train.ControllerError as error:
                waits += 1
                if waits == _WAITS or not private_api.timed_out_at_start(error):
                    raise
            except ray.exceptions.RayActorError as error:  # the process that controls the run
                if lost:
                    raise died_at_start(error) from error
                lost = True
    finally:
        ray.kill(ledger)  # otherwise it would live as long as this process, one for each fold


def _trainer(job: TrainJob, shape: TrainShape, ledger: Any) -> Any:
    checkpoints = Path(job.checkpoints)
    # Ray's list of checkpoints, of runs that an earlier version has started: it ignores damage.
    for snapshot in checkpoints.glob("*snapshot*.json"):
        snapshot.unlink()
    return ray.train.torch.TorchTrainer(
        train_worker,
        train_loop_config={"job": job, "ledger": ledger},
        scaling_config=_scaling(shape),
        torch_config=_torch(job, shape),
        run_config=ray.train.RunConfig(
            name=checkpoints.name,
            storage_path=str(checkpoints.parent.resolve()),
            failure_config=ray.train.FailureConfig(
                max_failures=shape.max_failures, controller_failure_limit=_FAILED_STARTS
            ),
        ),
    )


def _follow(
    trainer: Any,
    ledger: LedgerReader,
    listener: Callable[[Record], None],
    request: StopRequest,
    requested: Callable[[], bool],
) -> TrainingStoppedError | None:
    """Run the trainer in its own thread, so that Ctrl-C and records reach this one.

    Returns:
        Where the workers stopped on request; None if they have finished.
    """
    errors: list[Exception] = []
    stopped: TrainingStoppedError | None = None

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:
            errors.append(error)

    def read(wait_s: float) -> None:
        nonlocal stopped
        try:
            records = ledger.new_records(wait_s)
        except ray.exceptions.RayError as error:
            lost.append(error)  # it cannot start, so the workers cannot send anything
            return
        for record in records:
            if record["kind"] == "stopped":
                stopped = TrainingStoppedError(record["where"], is_saved=record["is_saved"])
            listener(record)

    lost: list[Exception] = []
    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    while thread.is_alive():
        if not lost:
            read(_POLL_SECONDS)
        interruption.check()
        if requested():
            request.make()
        if request():
            ledger.request_stop()
        if request.seconds > _STOP_SECONDS:
            raise KeyboardInterrupt
        thread.join(_POLL_SECONDS)
    if not lost:  # of a run that has failed; one that ends well waits until everything was read
        read(_LAST_SECONDS)
    for error in (*lost, *errors):
        if (failure := start_error(error)) is not None:
            raise failure from error
    if errors:
        raise died_at_start(errors[0]) if private_api.died_at_start(errors[0]) else errors[0]
    return stopped
