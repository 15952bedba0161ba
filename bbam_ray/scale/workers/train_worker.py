"""The code of a Ray Train worker: the training loop, and the session that it reports to."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch

from bbam_ray import distributed
from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.fitted_trainer import make_trainer
from bbam_ray.engine.folds import fold_result
from bbam_ray.engine.process import use_cpus
from bbam_ray.engine.pruning_rule import PruningRule
from bbam_ray.engine.session import is_due, run_epochs
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.errors import NonFiniteError, UsageError
from bbam_ray.methods import run_config
from bbam_ray.scale.cluster.scratch import Scratch
from bbam_ray.scale.workers.ledger import LedgerWriter
from bbam_ray.scale.workers.start_errors import import_error


@dataclass(frozen=True)
class TrainJob:
    """The task of every worker.

    Args:
        values: flat settings.
        checkpoints: folder of the run's checkpoints, which all nodes can reach.
        keep: how many of the last checkpoints are kept, in addition to that of the best epoch.
        every: epochs between checkpoints.
        cpus: threads of a worker.
        pruning_rule: of a trial of a search.
        is_fold: whether the run is a fold of a trial, whose result is sent with its last epoch.
        fold_models: whether that result has the files of the models.
    """

    values: dict[str, Any]
    checkpoints: str
    keep: int
    every: int
    cpus: int
    pruning_rule: PruningRule | None = None
    is_fold: bool = False
    fold_models: bool = False


class TrainSession:
    """The session of the training loop in a Ray Train worker."""

    def __init__(self, job: TrainJob, ledger: LedgerWriter) -> None:
        self._job, self._ledger = job, ledger
        self._parent = Path(job.checkpoints)
        self._device = torch.device("cpu")
        if torch.cuda.is_available() and job.values.get("device") != "cpu":
            self._device = ray.train.torch.get_device()

    def send(self, kind: str, **content: Any) -> None:
        """Send a record to the driver; rank 0 does it for all."""
        if distributed.rank() == 0:
            self._ledger.write({"kind": kind, **content})

    def _progress(self, trainer: Trainer, *, last: bool) -> dict[str, Any]:
        """Whether training has ended with an epoch, which epoch is kept, and the result of a fold."""
        progress = trainer.progress if last else dict.fromkeys(trainer.progress, False)
        result = None
        if self._job.is_fold and progress["finished"] and not progress["stopped_early"]:
            result = fold_result(trainer, with_models=self._job.fold_models)
        return {**progress, "best_epoch": trainer.best_epoch, "fold_result": result}

    def resume_folder(self) -> Path | None:
        """The newest complete checkpoint; rank 0 finds it for all."""
        epoch, defects = 0, list[str]()
        if distributed.rank() == 0:
            checkpoint, defects = checkpoint_folder.resume_point(self._parent)
            epoch = checkpoint_folder.epoch_of(checkpoint) if checkpoint else 0
        epoch = int(distributed.broadcast_float(epoch, self._device))
        self.send("started", workers=distributed.world_size(), epoch=epoch, defects=defects)
        return self._parent / checkpoint_folder.folder_name(epoch) if epoch else None

    def resumed(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        for index, record in enumerate(records, start=1):
            done = self._progress(trainer, last=index == len(records))
            self.send("epoch", record=asdict(record), again=True, **done)
        if distributed.rank() == 0:
            checkpoint_folder.tidy_run(self._parent, self._job.keep, trainer)

    def report(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        # Rows go to the driver first: a checkpoint may be older than the rows, but not newer.
        record = asdict(records[-1])
        self.send("epoch", record=record, again=False, **self._progress(trainer, last=True))
        due = is_due(trainer, self._job.every)
        if ray.train.get_preemption_info() is not None:  # the same on all ranks
            due = True
        metrics = {"epoch": trainer.epoch, "best_epoch": trainer.best_epoch}
        if not due:
            ray.train.report(metrics)
            return
        with Scratch() as scratch:
            folder = scratch / "checkpoint"
            checkpoint_folder.save_part(folder, trainer, records)
            ray.train.report(
                metrics,
                checkpoint=ray.train.Checkpoint.from_directory(str(folder)),
                checkpoint_dir_name=checkpoint_folder.folder_name(trainer.epoch),
            )
        if distributed.rank() == 0:
            checkpoint_folder.tidy_run(self._parent, self._job.keep, trainer)


def train_worker(config: dict[str, Any]) -> None:
    """Train a run; Ray Train calls it in each worker."""
    job: TrainJob = config["job"]
    use_cpus(job.cpus)
    if torch.cuda.is_available() and job.values.get("device") != "cpu":
        torch.cuda.set_device(ray.train.torch.get_device())
    settings = run_config(job.values, "run")
    ledger = LedgerWriter(config["ledger"])
    session = TrainSession(job, ledger)
    try:
        for _ in run_epochs(
            make_trainer(settings, *prepare_training(settings), job.pruning_rule), session
        ):
            pass
    # The same on every rank and in every attempt.
    except (NonFiniteError, UsageError, ImportError) as error:
        failure = import_error(error)
        session.send("failed", error=str(failure or error), start_error=failure)
    ledger.wait()
