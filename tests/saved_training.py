"""A training whose every epoch is saved, for tests that resume it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.trainer import EpochRecord, Trainer


def train_to_end(
    trainer: Trainer, folder: Path | None = None, before: Iterable[EpochRecord] = ()
) -> list[EpochRecord]:
    """Train to the end; the records of all epochs.

    Args:
        trainer: at the start, or after a restore.
        folder: gets a checkpoint of every epoch.
        before: records of the epochs before.
    """
    records = list(before)
    while not trainer.finished:
        records.append(trainer.run_epoch())
        if folder is not None:
            target = folder / checkpoint_folder.folder_name(trainer.epoch)
            target.mkdir()
            checkpoint_folder.save_part(target, trainer, records)
    return records
