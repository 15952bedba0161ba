"""Checkpoint folders: the state that all ranks share, and one file per rank with the state of its samples.

``epoch-00007/state.pt`` (weights, average, optimizer, method, records of all epochs so far),
``epoch-00007/samples-0-of-2.pt`` and so on, and ``epoch-00007/model/`` when that epoch is the best so
far. Any number of ranks can resume from it. It is valid only if every file is present and undamaged.
``epoch-00007-step-00120/`` was taken on request, after 120 steps of the epoch that follows epoch 7.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from bbam_ray import distributed
from bbam_ray.engine.checkpoint import load_checkpoint, save_checkpoint
from bbam_ray.engine.model_folder import WEIGHTS, save_model
from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.errors import UsageError, brief
from bbam_ray.files import atomic_folder, check_regular

STATE, MODEL = "state.pt", "model"
FOLDS = "folds.pt"  # only of a trial of a search
_NAME = re.compile(r"epoch-(\d{5,})(?:-step-(\d{5,}))?")
_SAMPLES = re.compile(r"samples-(\d+)-of-(\d+)\.pt")
_COMPLETE = -1  # in place of a step: no epoch was running


def folder_name(epoch: int, step: int | None = None) -> str:
    """Name of a checkpoint.

    Args:
        epoch: the last complete one.
        step: steps of the next epoch that were taken; None = at the end of an epoch.
    """
    return f"epoch-{epoch:05d}" + ("" if step is None else f"-step-{step:05d}")


def name_now(trainer: Trainer) -> str:
    """Name of a checkpoint of the current state."""
    return folder_name(trainer.epoch, None if trainer.running is None else trainer.running.step)


def epoch_of(folder: Path) -> int:
    """The last epoch that was complete in a checkpoint."""
    return _position(folder)[0]


def step_of(folder: Path) -> int | None:
    """Steps of the next epoch in a checkpoint; None = it was taken at the end of an epoch."""
    step = _position(folder)[1]
    return None if step == _COMPLETE else step


def position(checkpoint: Path | None) -> tuple[int, int | None]:
    """``epoch_of`` and ``step_of`` a checkpoint; (0, None) without one."""
    return (0, None) if checkpoint is None else (epoch_of(checkpoint), step_of(checkpoint))


def _position(folder: Path) -> tuple[int, int]:
    match = _NAME.fullmatch(folder.name)
    if match is None:
        raise ValueError(f"{folder} is not named like a checkpoint")
    return int(match[1]), _COMPLETE if match[2] is None else int(match[2])


def save_part(
    folder: Path, trainer: Trainer, records: list[EpochRecord], *, model: bool = True
) -> None:
    """Write this rank's files of a checkpoint; every rank calls this, rank 0 also writes the shared state.

    Args:
        folder: of this checkpoint; may differ between ranks if the folders are merged afterwards.
        trainer: at the end of an epoch, or where it stopped.
        records: of all epochs so far.
        model: whether to save the model too, ready for use, if this is the best or the last epoch.
    """
    rank, world_size = distributed.rank(), distributed.world_size()
    name = f"samples-{rank}-of-{world_size}.pt"
    save_checkpoint(folder / name, trainer.sample_state())
    if rank:
        return
    is_best = trainer.finished or trainer.best_epoch == trainer.epoch
    if model and is_best and trainer.running is None:
        best = next(r for r in records if r.scalars["epoch"] == trainer.best_epoch)
        thresholds = best.labels.get("threshold")
        with trainer.using(trainer.kept_weights):
            save_model(folder / MODEL, trainer, thresholds or [0.0] * len(trainer.data.label_names))
    state = {"trainer": trainer.state_dict(), "records": [asdict(record) for record in records]}
    save_checkpoint(folder / STATE, state)


def load(folder: Path, trainer: Trainer) -> list[EpochRecord]:
    """Load a checkpoint into a trainer with the same configuration; returns the records of its epochs."""
    state = load_checkpoint(folder / STATE)
    shards = [load_checkpoint(path) for path in _sample_files(folder)]
    try:
        trainer.load_state_dict(state["trainer"])
        trainer.load_sample_state(shards)
        return [EpochRecord(**record) for record in state["records"]]
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UsageError(
            f"{folder}: not a checkpoint of this run ({brief(error, 200)}); move it away to train from "
            "the start"
        ) from None


def _sample_files(folder: Path) -> list[Path]:
    """The files of all ranks in rank order; a UsageError names the first one that is missing."""
    try:
        counts = {match[2] for p in folder.iterdir() if (match := _SAMPLES.fullmatch(p.name))}
    except OSError as error:
        raise UsageError(f"{folder}: not a checkpoint ({error.strerror})") from None
    if len(counts) != 1:
        raise UsageError(f"{folder}: not a checkpoint (files of {len(counts)} worker counts)")
    (count,) = counts
    paths = []
    for rank in range(int(count)):  # one at a time: a file's name may claim any number
        paths.append(folder / f"samples-{rank}-of-{count}.pt")
        if not paths[-1].is_file():
            raise UsageError(f"{paths[-1]}: this part of the checkpoint is missing")
    return paths


def defect(folder: Path) -> str | None:
    """Why a checkpoint cannot be resumed, or None if every file is present, undamaged and readable."""
    try:
        paths = [folder / STATE, *_sample_files(folder)]
        if os.path.lexists(folder / FOLDS):
            paths.append(folder / FOLDS)
    except (UsageError, OSError) as error:
        return brief(error, 400)
    for path in paths:
        try:
            check_regular(path)
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()  # checksums, which torch does not verify
            load_checkpoint(path)
        except UsageError as error:
            return str(error)
        except (OSError, zipfile.BadZipFile, EOFError, RuntimeError, ValueError) as error:
            return f"{path}: {brief(error, 200)}"
        if broken:
            return f"{path}: damaged at {broken}"
    return None


def newest_first(parent: Path) -> Iterator[Path]:
    """Checkpoint folders, valid or not, from the last one to the first."""
    folders = [path for path in parent.glob("epoch-*") if _NAME.fullmatch(path.name)]
    yield from sorted(folders, key=_position, reverse=True)


def latest_valid(parent: Path) -> tuple[Path | None, list[str]]:
    """The newest valid checkpoint, and the defects of the newer ones."""
    defects: list[str] = []
    for folder in newest_first(parent):
        reason = defect(folder)
        if reason is None:
            return folder, defects
        defects.append(reason)
    return None, defects


def resume_point(parent: Path) -> tuple[Path | None, list[str]]:
    """``latest_valid``; deletes the damaged checkpoints after it, whose epochs will be repeated."""
    checkpoint, defects = latest_valid(parent)
    for folder in newest_first(parent):
        if checkpoint is None or _position(folder) > _position(checkpoint):
            shutil.rmtree(folder, ignore_errors=True)
    return checkpoint, defects


def tidy_run(parent: Path, last: int, trainer: Trainer) -> None:
    """``tidy`` for the current state of a run."""
    fallback = trainer.weight_choice.fallback
    # The checkpoint of the last epoch has the model of the best one.
    model = trainer.epoch if trainer.finished else trainer.best_epoch
    fallback_epoch = fallback.epoch if fallback else None
    tidy(parent, last, trainer.best_epoch, model_epoch=model, fallback_epoch=fallback_epoch)


def tidy(
    parent: Path,
    last: int,
    best_epoch: int,
    *,
    model_epoch: int | None = None,
    fallback_epoch: int | None = None,
) -> None:
    """Copy the model of the best epoch to ``parent/model``, and delete old checkpoints.

    Of the checkpoints in the middle of epochs, only one that is the newest of all is kept.

    Args:
        parent: folder of the checkpoints.
        last: number of newest ends of epochs to keep, in addition to that of the best epoch.
        best_epoch: the best epoch so far.
        model_epoch: the epoch whose checkpoint has its model; default: ``best_epoch``.
        fallback_epoch: an epoch that may become the best one again; its checkpoint is kept as well.
    """
    best = parent / folder_name(best_epoch if model_epoch is None else model_epoch) / MODEL
    needed = {folder_name(epoch) for epoch in (best_epoch, fallback_epoch) if epoch is not None}
    if best.is_dir() and _age(best) != _age(parent / MODEL):
        with atomic_folder(parent / MODEL) as new:
            shutil.copytree(best, new)
    folders = list(newest_first(parent))
    ends = [folder.name for folder in folders if step_of(folder) is None]
    needed |= {*ends[:last], *(folder.name for folder in folders[:1])}
    for folder in folders:
        if folder.name not in needed:
            shutil.rmtree(folder, ignore_errors=True)


def _age(model: Path) -> int | None:
    """Time at which a model was written, which a copy keeps; None without a model."""
    path = model / WEIGHTS
    return path.stat().st_mtime_ns if path.is_file() else None
