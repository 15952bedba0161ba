"""The loop over epochs, and what it asks of the place it runs in.

There are three such places: this process (``LocalSession``), a worker of Ray Train and a worker of a
gang (both in ``scale/``). Rank and number of ranks are those of the process group.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.trainer import EpochRecord, Trainer

SavePart = Callable[[Path], None]


class Session(Protocol):
    """Where a run begins, and where its records and checkpoints go."""

    def resume_folder(self) -> Path | None:
        """The checkpoint to go on from; None to begin. The same on every rank."""

    def resumed(self, records: list[EpochRecord]) -> None:
        """Told on every rank which epochs the checkpoint had."""

    def report(self, record: EpochRecord, trainer: Trainer, save: SavePart) -> None:
        """Take an epoch's record; ``save(folder)`` writes this rank's part of a checkpoint."""


def run_epochs(trainer: Trainer, session: Session) -> Iterator[EpochRecord]:
    """Train a run to its end, from its newest checkpoint; every rank iterates alike.

    Yields:
        The record of each epoch that is trained here, after it was reported.
    """
    records: list[EpochRecord] = []
    if (folder := session.resume_folder()) is not None:
        records = checkpoint_folder.load(folder, trainer)
    session.resumed(records)
    while not trainer.finished:
        record = trainer.run_epoch()
        records.append(record)
        session.report(
            record, trainer, lambda folder: checkpoint_folder.save_part(folder, trainer, records)
        )
        yield record


class LocalSession:
    """One process that keeps its checkpoints in a folder of its own.

    Args:
        folder: of all checkpoints of the run.
        listener: is told of every record, with whether it comes from a checkpoint.
        keep: how many of the last checkpoints are kept, beside that of the best epoch.
        every: epochs between checkpoints.
    """

    def __init__(
        self,
        folder: Path,
        listener: Callable[[EpochRecord, bool], None],
        *,
        keep: int = 1,
        every: int = 1,
    ) -> None:
        self._folder, self._listener, self._keep, self._every = folder, listener, keep, every
        self.defects: list[str] = []

    def resume_folder(self) -> Path | None:
        found, self.defects = checkpoint_folder.latest_valid(self._folder)
        return found

    def resumed(self, records: list[EpochRecord]) -> None:
        for record in records:
            self._listener(record, True)

    def report(self, record: EpochRecord, trainer: Trainer, save: SavePart) -> None:
        # Rows first: a checkpoint may lag behind them by an epoch, which is then written again.
        self._listener(record, False)
        best = trainer.best_epoch == trainer.epoch
        if not (best or trainer.finished or trainer.epoch % self._every == 0):
            return
        target = self._folder / checkpoint_folder.folder_name(trainer.epoch)
        new = target.with_name(f".{target.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        save(new)
        shutil.rmtree(target, ignore_errors=True)  # one that was found damaged
        new.rename(target)
        checkpoint_folder.keep_only(self._folder, self._keep, trainer.best_epoch)
