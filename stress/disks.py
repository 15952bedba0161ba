"""Disk faults: a small file system becomes full or read-only, temporarily or permanently."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stress.study_process import PATIENCE_S, Injection, StudyProcess


@contextmanager
def small_disk(folder: Path, megabytes: int = 24) -> Iterator[Path]:
    """Mount a small file system at a folder.

    Raises:
        OSError: this process must not mount file systems.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], capture_output=True).returncode:
        raise OSError("no file system may be mounted here")
    try:
        yield folder
    finally:
        while os.path.ismount(folder):
            subprocess.run(["umount", "-l", str(folder)], check=True)


def full(*, permanent: bool) -> Injection:
    """Fill the disk of a study's results."""
    return _disk_fault(fill, lambda disk: (disk / "ballast").unlink(), permanent=permanent)


def read_only(*, permanent: bool) -> Injection:
    """Make the disk of a study's results read-only."""
    return _disk_fault(_lock, _unlock, permanent=permanent)


def _disk_fault(
    begin: Callable[[Path], object], end: Callable[[Path], object], *, permanent: bool
) -> Injection:
    """A fault that ends while the study still retries, or that lasts until the study has ended."""

    def inject(study: StudyProcess, rng: random.Random) -> bool:
        disk = study.results.parent
        begin(disk)
        # Removed checkpoints make room again, and a study may have nothing to write for a while.
        while study.running and (permanent or "cannot be written" not in study.output):
            begin(disk)
            study.wait(0.1)
        study.wait(rng.uniform(0, PATIENCE_S / 2))
        end(disk)
        return "cannot be written" in study.output  # else it had nothing to write

    return inject


def _lock(disk: Path) -> None:
    """Mount the folder read-only on itself: a disk with an open file cannot become read-only."""
    if os.path.ismount(disk) and not os.statvfs(disk).f_flag & os.ST_RDONLY:
        subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)


def _unlock(disk: Path) -> None:
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return
