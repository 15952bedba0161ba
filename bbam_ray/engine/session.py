"""The loop over epochs, and what it asks of the place it runs in.

There are three such places: this process (``LocalSession``), a worker of Ray Train and a worker of a
gang (both in ``scale/``). Rank and number of ranks are those of the process group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.files import atomic_folder
from bbam_ray.results.patience import Patience


class Session(Protocol):
    """Where a run begins, and where its records and checkpoints go."""

    def resume_folder(self) -> Path | None:
        """The checkpoint to go on from; None to begin. The same on every rank."""

    def resumed(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        """Told on every rank which epochs the checkpoint had; none at a beginning."""

    def report(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        """Take the newest of all records so far, and keep a checkpoint if it is time."""


def run_epochs(trainer: Trainer, session: Session) -> Iterator[EpochRecord]:
    """Train a run to its end, from its newest checkpoint; every rank iterates alike.

    Yields:
        The record of each epoch that is trained here, after it was reported.
    """
    records: list[EpochRecord] = []
    if (folder := session.resume_folder()) is not None:
        records = checkpoint_folder.load(folder, trainer)
    session.resumed(trainer, records)
    while not trainer.finished:
        record = trainer.run_epoch()
        records.append(record)
        session.report(trainer, records)
        yield record


def is_due(trainer: Trainer, every: int) -> bool:
    """Whether an epoch is to be kept: every so many, the best so far, and the last."""
    best = trainer.best_epoch == trainer.epoch
    return best or trainer.finished or trainer.epoch % every == 0


class LocalSession:
    """One process that keeps its checkpoints in a folder of its own.

    Args:
        folder: of all checkpoints of the run.
        listener: is told of every record, with whether it comes from a checkpoint.
        started: is told the epoch that the run goes on from, and what is wrong with later checkpoints.
        keep: how many of the last checkpoints are kept, beside that of the best epoch.
        every: epochs between checkpoints.
    """

    def __init__(
        self,
        folder: Path,
        listener: Callable[[EpochRecord, bool], None],
        *,
        started: Callable[[int, list[str]], None] = lambda epoch, defects: None,
        keep: int = 2,
        every: int = 1,
    ) -> None:
        self._folder, self._listener, self._started = folder, listener, started
        self._keep, self._every = keep, every
        self._patience = Patience(folder)

    def resume_folder(self) -> Path | None:
        found, defects = checkpoint_folder.resume_point(self._folder)
        self._started(checkpoint_folder.epoch_of(found) if found else 0, defects)
        return found

    def resumed(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        for record in records:
            self._listener(record, True)
        checkpoint_folder.tidy(self._folder, self._keep, trainer.best_epoch)

    def report(self, trainer: Trainer, records: list[EpochRecord]) -> None:
        # Rows first: a checkpoint may lag behind them by an epoch, which is then written again.
        self._listener(records[-1], False)
        if not is_due(trainer, self._every):
            return
        target = self._folder / checkpoint_folder.folder_name(trainer.epoch)

        def save() -> None:
            with atomic_folder(target) as new:
                checkpoint_folder.save_part(new, trainer, records)

        self._patience.insist(save)
        self._patience.insist(
            lambda: checkpoint_folder.tidy(self._folder, self._keep, trainer.best_epoch)
        )
