"""The code of a Ray Train worker: the training loop, and the session that it reports to."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
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
from bbam_ray.engine.stop_vote import any_rank
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.errors import NonFiniteError, StorageError, TrainingStoppedError, UsageError
from bbam_ray.methods import run_config
from bbam_ray.results.patience import patience_s
from bbam_ray.scale import private_api
from bbam_ray.scale.workers.ledger import LedgerWriter
from bbam_ray.scale.workers.shared_patience import SharedPatience
from bbam_ray.scale.workers.start_errors import import_error
from bbam_ray.scale.workers.stop_watch import StopWatch


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
        patience_s: seconds for which a full disk is waited for; by default those of this process.
    """

    values: dict[str, Any]
    checkpoints: str
    keep: int
    every: int
    cpus: int
    pruning_rule: PruningRule | None = None
    is_fold: bool = False
    fold_models: bool = False
    patience_s: float = field(default_factory=patience_s)


class TrainSession:
    """The session of the training loop in a Ray Train worker.

    Attributes:
        is_saved: False if training has to stop and the checkpoint there could not be written.
    """

    def __init__(self, job: TrainJob, ledger: LedgerWriter, watch: StopWatch) -> None:
        self._job, self._ledger, self._watch = job, ledger, watch
        self._saved: str | None = None  # name of the last checkpoint
        self._parent = Path(job.checkpoints)
        self._device = torch.device("cpu")
        if torch.cuda.is_available() and job.values.get("device") != "cpu":
            self._device = ray.train.torch.get_device()
        self.is_saved = True
        self._patience = SharedPatience(
            self._parent, job.patience_s, self._device, stop_requested=watch, warn=self._warn
        )

    def _warn(self, reason: str) -> None:
        folder, limit_s = str(self._parent), self._job.patience_s
        self.send("waiting", folder=folder, reason=reason, limit_s=limit_s)

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
        """The newest complete checkpoint; rank 0 finds it for all.

        Raises:
            UsageError: a worker does not reach the folder of the run.
        """
        if any_rank(not private_api.storage_is_shared(), self._device):
            raise UsageError(
                f"{self._parent}: not all nodes reach this folder; choose --results on a file system that "
                "all of them share"
            )
        checkpoint, defects = None, list[str]()
        if distributed.rank() == 0:
            checkpoint, defects = checkpoint_folder.resume_point(self._parent)
        epoch, step = checkpoint_folder.position(checkpoint)
        epoch = int(distributed.broadcast_float(epoch, self._device))
        sent = int(distributed.broadcast_float(-1 if step is None else step, self._device))
        step = None if sent < 0 else sent
        size = distributed.world_size()
        self.send("started", workers=size, epoch=epoch, step=step, defects=defects)
        if not epoch and step is None:
            return None
        self._saved = checkpoint_folder.folder_name(epoch, step)
        return self._parent / self._saved

    def resumed(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        for index, record in enumerate(records, start=1):
            done = self._progress(trainer, last=index == len(records))
            self.send("epoch", record=asdict(record), again=True, **done)
        if not self._tidy(trainer):
            raise TrainingStoppedError(f"after epoch {trainer.epoch}")

    def report(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        # Rows go to the driver first: a checkpoint may be older than the rows, but not newer.
        record = asdict(records[-1])
        self.send("epoch", record=record, again=False, **self._progress(trainer, last=True))
        if is_due(trainer, self._job.every) and not self._save(trainer, records):
            raise TrainingStoppedError(f"after epoch {trainer.epoch}")
        # Without the checkpoint: Ray would copy it and write a list of its own, without waiting for room.
        ray.train.report({"epoch": trainer.epoch, "best_epoch": trainer.best_epoch})

    def stop_requested(self) -> bool:
        return self._watch()

    def stopped(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        is_new = not trainer.epoch and trainer.running is None
        if not is_new and self._saved != checkpoint_folder.name_now(trainer):
            self._save(trainer, records)

    def _save(self, trainer: Trainer, records: list[EpochRecord]) -> bool:
        """Write a checkpoint, of which every rank writes its part, and remove old ones.

        Returns:
            Whether all was written; False = training stops first, see ``SharedPatience``.
        """
        name = checkpoint_folder.name_now(trainer)
        folder = self._parent / name

        def write() -> None:
            checkpoint_folder.save_part(folder, trainer, records)

        try:
            self.is_saved = self._patience.insist(write)
        except StorageError:
            _remove(folder)
            raise
        if not self.is_saved:
            _remove(folder)
            return False
        self._saved = name
        return self._tidy(trainer)

    def _tidy(self, trainer: Trainer) -> bool:
        """Remove old checkpoints and copy the best model, on rank 0; returns whether it succeeded."""

        def tidy() -> None:
            if distributed.rank() == 0:
                checkpoint_folder.tidy_run(self._parent, self._job.keep, trainer)

        return self._patience.insist(tidy)


def _remove(folder: Path) -> None:
    """Remove a checkpoint that could not be completed, on rank 0."""
    if distributed.rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)


def train_worker(config: dict[str, Any]) -> None:
    """Train a run; Ray Train calls it in each worker."""
    job: TrainJob = config["job"]
    use_cpus(job.cpus)
    if torch.cuda.is_available() and job.values.get("device") != "cpu":
        torch.cuda.set_device(ray.train.torch.get_device())
    settings = run_config(job.values, "run")
    ledger, watch = LedgerWriter(config["ledger"]), StopWatch(config["ledger"])
    session = TrainSession(job, ledger, watch)
    try:
        for _ in run_epochs(
            make_trainer(settings, *prepare_training(settings), job.pruning_rule), session
        ):
            pass
    except TrainingStoppedError as stop:
        seconds = watch.request.seconds
        session.send("stopped", where=str(stop), seconds=seconds, is_saved=session.is_saved)
    # The same on every rank and in every attempt.
    except (NonFiniteError, StorageError, UsageError, ImportError) as error:
        failure, of_disk = import_error(error), isinstance(error, StorageError)
        session.send("failed", error=str(failure or error), start_error=failure, of_disk=of_disk)
    watch.end()
    ledger.wait()
