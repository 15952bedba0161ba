"""The loop over epochs, and the interface to its environment.

There are three environments: this process (``LocalSession``), a worker of Ray Train and a worker of a
gang (both in ``scale/``). Rank and number of ranks are those of the process group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.stop_request import never
from bbam_ray.engine.stop_vote import any_rank
from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.errors import TrainingStoppedError
from bbam_ray.files import atomic_folder
from bbam_ray.results.patience import Patience


class Session(Protocol):
    """Source of the first checkpoint of a run, and destination of its records and checkpoints."""

    def resume_folder(self) -> Path | None:
        """The checkpoint to resume from, equal on every rank; None = start from the beginning."""

    def resumed(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        """Receive the records of the epochs in the checkpoint, on every rank; empty for a new run."""

    def report(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        """Receive the records so far, the newest last, and save a checkpoint if one is due."""

    def stop_requested(self) -> bool:
        """Whether this rank has a request to stop; called often, so it does not wait for anything."""

    def stopped(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        """Save a checkpoint, on every rank: training ends here, maybe in the middle of an epoch."""


def run_epochs(trainer: Trainer, session: Session) -> Iterator[EpochRecord]:
    """Train a run from its newest checkpoint to the end; every rank iterates alike.

    A request to one rank stops all of them after the same step.

    Yields:
        The record of each epoch that is trained here, after it has been reported.

    Raises:
        TrainingStoppedError: a rank had a request to stop, and a checkpoint was saved.
    """
    records: list[EpochRecord] = []
    if (folder := session.resume_folder()) is not None:
        records = checkpoint_folder.load(folder, trainer)
    session.resumed(trainer, records)
    yield from further_epochs(trainer, session, records)


def further_epochs(
    trainer: Trainer, session: Session, records: list[EpochRecord]
) -> Iterator[EpochRecord]:
    """``run_epochs`` from where the trainer is now, also after a stop.

    Args:
        trainer: of a run that has begun.
        session: of the run.
        records: of the epochs so far; new ones are added.
    """
    while not trainer.finished:
        try:
            if any_rank(session.stop_requested(), trainer.device):
                raise TrainingStoppedError(f"after epoch {trainer.epoch}")
            record = trainer.run_epoch(session.stop_requested)
        except TrainingStoppedError:
            session.stopped(trainer, records)
            raise
        records.append(record)
        session.report(trainer, records)
        yield record


def is_due(trainer: Trainer, every: int) -> bool:
    """Whether to save a checkpoint: after every ``every`` epochs, the last epoch, and an epoch whose
    weights may be kept instead of those of the last one."""
    fallback = trainer.weight_choice.fallback
    is_fallback = fallback is not None and fallback.epoch == trainer.epoch
    return is_fallback or trainer.finished or trainer.epoch % every == 0


class LocalSession:
    """A session of one process, with its checkpoints in a folder.

    Args:
        folder: of all checkpoints of the run.
        listener: called with every record, and whether it comes from a checkpoint.
        started: called with the checkpoint that the run resumes from (None = a new run), and the defects
            of later ones.
        keep: number of newest checkpoints to keep, in addition to that of the best epoch.
        every: epochs between checkpoints.
        requested: whether there is a request to stop.
    """

    def __init__(
        self,
        folder: Path,
        listener: Callable[[EpochRecord, bool], None],
        *,
        started: Callable[[Path | None, list[str]], None] = lambda checkpoint, defects: None,
        keep: int = 2,
        every: int = 1,
        requested: Callable[[], bool] = never,
    ) -> None:
        self._folder, self._listener, self._started = folder, listener, started
        self._keep, self._every = keep, every
        self._patience, self._requested = Patience(folder), requested
        self._patience.hurry_when(requested)

    def resume_folder(self) -> Path | None:
        checkpoint, defects = checkpoint_folder.resume_point(self._folder)
        self._started(checkpoint, defects)
        return checkpoint

    def resumed(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        for record in records:
            self._listener(record, True)
        checkpoint_folder.tidy_run(self._folder, self._keep, trainer)

    def report(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        # Rows first: a checkpoint may be one epoch older than the rows, and the epoch is then repeated.
        self._listener(records[-1], False)
        if is_due(trainer, self._every):
            self._save(trainer, records)

    def stop_requested(self) -> bool:
        return self._requested()

    def stopped(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        is_new = not trainer.epoch and trainer.running is None
        if not is_new and not (self._folder / checkpoint_folder.name_now(trainer)).is_dir():
            self._save(trainer, records)

    def _save(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        target = self._folder / checkpoint_folder.name_now(trainer)

        def save() -> None:
            with atomic_folder(target) as new:
                checkpoint_folder.save_part(new, trainer, records)

        self._patience.insist(save)
        self._patience.insist(lambda: checkpoint_folder.tidy_run(self._folder, self._keep, trainer))
