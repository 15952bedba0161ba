"""Checkpoints of the trials of a study: ``<study>/checkpoints/trials/<run of the study>/t00003/``.

They are on the disk of the trial's node. A trial deletes its own when it ends. When a study is resumed,
its unfinished trials resume from those on the driver's machine.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from bbam_ray.engine import checkpoint_folder
from bbam_ray.files import write_text

_FINGERPRINT = "fingerprint"


def claim(folder: Path, fingerprint: str) -> None:
    """Delete the checkpoints of another configuration, code or data from the folder of a trial.

    Args:
        folder: of the trial; created if it does not exist.
        fingerprint: of the trial, see ``TrialCache.fingerprint``.
    """
    path = folder / _FINGERPRINT
    with suppress(OSError):  # a full disk: then the trial has no checkpoint to resume from either
        if not path.is_file() or path.read_text(encoding="utf-8") != fingerprint:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_text(path, fingerprint)


def collect(parent: Path, run: str) -> None:
    """Move what earlier runs of a study left into the folder of the new run.

    A process of an earlier run may still be writing, so each run has a folder of its own. What such a
    process writes after the move has no fingerprint and is not used.

    Args:
        parent: ``<study>/checkpoints/trials``.
        run: name of the new folder.
    """
    newest: dict[str, Path] = {}
    folders = [path.parent for path in parent.glob(f"*/*/{_FINGERPRINT}")]
    for folder in sorted(folders, key=_position):
        newest[folder.name] = folder
    target = parent / run
    for name, folder in newest.items():
        with suppress(OSError):  # the trial then starts from its beginning
            target.mkdir(parents=True, exist_ok=True)
            folder.rename(target / name)
    for old in parent.glob("*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


def _position(trial: Path) -> tuple[int, int, int]:
    """Fold, epochs and steps of the newest intact checkpoint of a trial; (-1, -1, -1) without one.

    The checkpoints of a trial under Ray Train are in ``fold-0/`` and so on.
    """
    newest = (-1, -1, -1)
    for folder in (trial, *trial.glob("fold-*")):
        checkpoint, _ = checkpoint_folder.latest_valid(folder)
        if checkpoint is not None:
            fold = 0 if folder == trial else int(folder.name.removeprefix("fold-"))
            epoch, step = checkpoint_folder.position(checkpoint)
            newest = max(newest, (fold, epoch, step or 0))
    return newest
