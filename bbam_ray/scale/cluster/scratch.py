"""Temporary folders and Ray's session folders on a machine's own disk, and their removal.

Each is locked by its process, and the lock ends with the process. The next process can therefore
remove folders of killed processes without touching folders in use.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bbam_ray.files import lock

_PREFIX, _LOCK = "bbam-ray-", ".bbam-ray.lock"
_YOUNG_S = 60.0  # younger folders may not have their lock yet
KEPT_SESSIONS = 3  # of studies that failed or were killed: their logs may be needed
LOG_BYTES, LOG_FILES = 16 << 20, 2  # size of each of Ray's log files, and number of older ones kept


class Scratch:
    """A temporary folder, removed at the end, or by another process if this one is killed."""

    def __init__(self) -> None:
        _sweep(Path(tempfile.gettempdir()), _PREFIX)
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = _hold(self.folder)

    def __enter__(self) -> Path:
        return self.folder

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __del__(self) -> None:
        self.remove()


@contextmanager
def kept_session(folder: Path) -> Iterator[None]:
    """Remove a private Ray's session folder after success; keep it, with its logs, after a failure.

    Of the folders that were kept, only the newest few stay.
    """
    held = _hold(folder)
    _sweep(folder.parent, "session_", keep=KEPT_SESSIONS)
    success = False
    try:
        yield
        success = True
    finally:
        if held is not None:
            os.close(held)
        if success:
            shutil.rmtree(folder, ignore_errors=True)
            _drop_links_to(folder)


def _drop_links_to(session: Path) -> None:
    """Remove Ray's links to the session: to the newest session, and to the file for Prometheus."""
    with suppress(OSError):
        for path in session.parent.iterdir():
            if path.is_symlink() and path.readlink().is_relative_to(session):
                path.unlink()


def _hold(folder: Path) -> int | None:
    """Lock a folder until the descriptor is closed; None if the file system has no locks."""
    descriptor = None
    with suppress(OSError):
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(folder / _LOCK, flags, 0o600)
        lock(descriptor)
        os.write(descriptor, _machine())
    return descriptor


def _machine() -> bytes:
    """This machine since its last boot: a lock is only valid among processes of one machine."""
    started = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{platform.node()} {started}".encode()


def _sweep(parent: Path, prefix: str, *, keep: int = 0) -> None:
    """Remove folders that no process holds any more, except for the newest ``keep``."""
    abandoned = []
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            if folder.is_dir() and not folder.is_symlink() and _is_abandoned(folder):
                abandoned.append((folder.stat().st_mtime, folder))
    for _, folder in sorted(abandoned, reverse=True)[keep:]:
        shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Whether this user and machine created a folder and no process holds its lock."""
    own = all(path.lstat().st_uid == os.getuid() for path in (folder, folder / _LOCK))
    if not own or time.time() - folder.stat().st_mtime < _YOUNG_S:
        return False
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        lock(descriptor)
        return os.read(descriptor, 1000) == _machine()
    except OSError:
        return False
    finally:
        os.close(descriptor)
