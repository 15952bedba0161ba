"""Files and folders that appear complete or not at all, locks between processes, and free disk space."""

from __future__ import annotations

import fcntl
import glob
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bbam_ray.errors import UsageError

PREVIOUS = ".previous"  # subfolder with the versions that were replaced
_log = logging.getLogger(__name__)


@contextmanager
def atomic_file(path: Path, *, keep_previous: bool = False) -> Iterator[Path]:
    """Write a file under a temporary name, flush it to the disk, and rename it to ``path``.

    A reader sees the old file or the new one, never a part. If the block raises or the process is
    killed, the old file stays.

    Args:
        path: the file; its folder exists.
        keep_previous: keep the version that is replaced, in the subfolder ``.previous``.

    Yields:
        The temporary path, in the same folder.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        if keep_previous:
            _keep_previous(path)
        temporary.replace(path)
    finally:
        with suppress(OSError):  # a disk that has become read-only
            temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")


def _keep_previous(path: Path) -> None:
    """Link the version that is about to be replaced; without effect on a file system without links."""
    if not path.exists():
        return
    previous = path.parent / PREVIOUS / path.name
    link = _temporary(previous)
    with suppress(OSError):
        previous.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.hardlink_to(path)
        link.replace(previous)
        link.unlink(missing_ok=True)  # rename does nothing if both are the same file already


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text (UTF-8), atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_unfinished(path: Path) -> None:
    """Remove temporary files of ``path`` that killed processes left; no other process may write it now."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*"):
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Fill a new folder, which then replaces ``folder`` as a whole.

    If the block raises, the old folder stays.

    Yields:
        The path of the new folder, next to ``folder``. It does not exist; the block creates it.
    """
    new, old = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)
    try:
        yield new
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def lock(descriptor: int, *, wait: bool = False) -> None:
    """Lock an open file or folder until its descriptor is closed or the process ends.

    Args:
        wait: wait for the process that holds the lock.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the file system has no locks.
    """
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file, created if necessary; also network file systems support these locks.

    On a file system without locks the block runs after a warning.

    Args:
        wait: wait for the process that holds the lock.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the lock file cannot be created.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            lock(descriptor, wait=wait)
        except BlockingIOError:
            raise
        except OSError as error:
            _log.warning(
                "%s cannot be locked (%s): do not run two processes here at the same time",
                path.parent,
                error,
            )
        yield
    finally:
        os.close(descriptor)


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder, which need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_free(folder: Path, needed: int, purpose: str, advice: str) -> None:
    """Raise a UsageError unless a disk has enough space.

    Args:
        folder: on that disk.
        needed: bytes.
        purpose: what needs them, for the message.
        advice: what the user can do, for the message.
    """
    free = free_bytes(folder)
    if free < needed:
        raise UsageError(
            f"{folder}: {purpose} needs {_size(needed)}, {_size(free)} are free; {advice}"
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def check_regular(path: Path) -> None:
    """Raise a UsageError for a pipe or a device, which could be read without end."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UsageError(f"{path}: is a pipe or a device; replace it by a regular file")
