"""A run under Ray Train: any number of workers on any number of nodes, one that survives their loss."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from bbam_ray import distributed
from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.session import is_due, run_epochs
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.threads import use_threads
from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.errors import NonFiniteError, UsageError
from bbam_ray.methods import run_config
from bbam_ray.scale import interruption

TrainingFailed = ray.train.TrainingFailedError
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class TrainShape:
    """How a run is spread over a cluster.

    Args:
        min_workers, max_workers: equal for a fixed number; else Ray Train starts with what there is
            and grows or shrinks the run between epochs.
        cpus, gpus: of each worker.
        timeout_s: seconds after which a worker that does not answer counts as lost.
        max_failures: how often lost workers are replaced before the run fails; -1 = always.
    """

    min_workers: int
    max_workers: int
    cpus: int
    gpus: float
    timeout_s: float
    max_failures: int

    @property
    def elastic(self) -> bool:
        return self.min_workers != self.max_workers

    @property
    def bundle(self) -> dict[str, float]:
        """Ray resources of a worker."""
        return {"CPU": float(self.cpus)} | ({"GPU": self.gpus} if self.gpus else {})

    def scaling(self) -> Any:
        number = (self.min_workers, self.max_workers) if self.elastic else self.max_workers
        return ray.train.ScalingConfig(
            num_workers=number,
            use_gpu=self.gpus > 0,
            resources_per_worker=self.bundle,
            elastic_resize_monitor_interval_s=10.0,
        )

    def torch(self) -> Any:
        backend = "nccl" if self.gpus >= 1 else "gloo"
        return ray.train.torch.TorchConfig(backend=backend, timeout_s=int(self.timeout_s))

    def environment(self) -> dict[str, str]:
        """Ray Train's own time-outs, so that no frozen worker holds a run up for minutes."""
        wait = str(self.timeout_s)
        return {
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
            "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": wait,
            "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": wait,
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
            "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
            "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",
            "RAY_CHDIR_TO_TRIAL_DIR": "0",
        }


@dataclass(frozen=True)
class TrainJob:
    """What every worker is told.

    Args:
        values: flat settings.
        checkpoints: folder of the run's checkpoints, which all nodes can reach.
        keep: how many of the last checkpoints are kept, beside that of the best epoch.
        every: epochs between checkpoints.
        cpus: threads of a worker.
    """

    values: dict[str, Any]
    checkpoints: str
    keep: int
    every: int
    cpus: int


class Ledger:
    """An actor beside the driver: what rank 0 reports waits here until the driver has read it."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = []

    def put(self, entry: dict[str, Any]) -> None:
        self._entries.append(entry)

    def since(self, place: int) -> list[dict[str, Any]]:
        """All entries from a place on."""
        return self._entries[place:]


class TrainSession:
    """The place the loop of a Ray Train worker runs in."""

    def __init__(self, job: TrainJob, ledger: Any) -> None:
        self._job, self._ledger = job, ledger
        self._parent = Path(job.checkpoints)
        self._device = torch.device("cpu")
        if torch.cuda.is_available() and job.values.get("device") != "cpu":
            self._device = ray.train.torch.get_device()

    def _tell(self, kind: str, **content: Any) -> None:
        if distributed.rank() == 0:
            ray.get(self._ledger.put.remote({"kind": kind, **content}))

    def resume_folder(self) -> Path | None:
        """Rank 0 looks for all."""
        epoch, defects = 0, list[str]()
        if distributed.rank() == 0:
            found, defects = checkpoint_folder.resume_point(self._parent)
            epoch = checkpoint_folder.epoch_of(found) if found else 0
        epoch = int(distributed.from_rank_zero(epoch, self._device))
        self._tell("started", workers=distributed.world_size(), epoch=epoch, defects=defects)
        return self._parent / checkpoint_folder.folder_name(epoch) if epoch else None

    def resumed(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        for record in records:
            self._tell("epoch", record=asdict(record), again=True, finished=False)
        if distributed.rank() == 0:
            checkpoint_folder.tidy(self._parent, self._job.keep, trainer.best_epoch)

    def report(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        # The driver's rows first: a checkpoint may lag behind them, never the other way round.
        record = asdict(records[-1])
        self._tell("epoch", record=record, again=False, finished=trainer.finished)
        due = is_due(trainer, self._job.every)
        if ray.train.get_preemption_info() is not None:  # asked of all ranks at once
            due = True
        metrics = {"epoch": trainer.epoch, "best_epoch": trainer.best_epoch}
        if not due:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory(prefix="bbam-ray-") as name:
            checkpoint_folder.save_part(Path(name), trainer, records)
            ray.train.report(
                metrics,
                checkpoint=ray.train.Checkpoint.from_directory(name),
                checkpoint_dir_name=checkpoint_folder.folder_name(trainer.epoch),
            )
        if distributed.rank() == 0:
            checkpoint_folder.tidy(self._parent, self._job.keep, trainer.best_epoch)


def train_worker(config: dict[str, Any]) -> None:
    """What each worker of Ray Train runs."""
    job: TrainJob = config["job"]
    use_threads(job.cpus)
    if torch.cuda.is_available() and job.values.get("device") != "cpu":
        torch.cuda.set_device(ray.train.torch.get_device())
    settings = run_config(job.values, "run")
    session = TrainSession(job, config["ledger"])
    try:
        for _ in run_epochs(Trainer(settings, *prepare_training(settings)), session):
            pass
    except (
        NonFiniteError,
        UsageError,
    ) as error:  # the same on every rank, however often it is tried
        session._tell("failed", error=f"{type(error).__name__}: {error}")


def train_with_ray(
    job: TrainJob,
    shape: TrainShape,
    listener: Callable[[dict[str, Any]], None],
) -> None:
    """Train a run to its end inside a connected Ray.

    Args:
        job: what to train; goes on from the newest whole checkpoint in its folder.
        shape: how many workers, and what they need.
        listener: is told, in order: {"kind": "started", "workers", "epoch", "defects"} whenever workers
            (re)start, {"kind": "epoch", "record", "again", "finished"} for every epoch, and
            {"kind": "failed", "error"}.

    Raises:
        TrainingFailed: workers were lost more often than ``shape.max_failures``.
    """
    checkpoints = Path(job.checkpoints)
    checkpoints.mkdir(parents=True, exist_ok=True)
    # Ray Train's own list of checkpoints knows nothing of damaged ones; ours is the folder itself.
    for snapshot in checkpoints.glob("*snapshot*.json"):
        snapshot.unlink()
    ledger = ray.remote(num_cpus=0)(Ledger).remote()
    trainer = ray.train.torch.TorchTrainer(
        train_worker,
        train_loop_config={"job": job, "ledger": ledger},
        scaling_config=shape.scaling(),
        torch_config=shape.torch(),
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
    """Run the trainer in a thread of its own, so that Ctrl-C and records reach this one."""
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
