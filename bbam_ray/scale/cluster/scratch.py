"""What is left on a machine's own disk while a study runs, and that it does not stay there.

Temporary folders and the folders of private Ray sessions are held by a lock that ends with their process,
so what killed processes have left is told from what is in use, and removed by the next one.
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
KEPT_SESSIONS = 3  # of studies that failed or were killed: their logs may be wanted
LOG_BYTES, LOG_FILES = 16 << 20, 2  # of each of Ray's log files, and how many older ones beside it


class Scratch:
    """A temporary folder, removed at the end, or by another process when this one is killed."""

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
    """Around the use of a private Ray's session folder: it goes when all went well, else its logs stay.

    Of folders that stayed, the newest few are kept.
    """
    held = _hold(folder)
    _sweep(folder.parent, "session_", keep=KEPT_SESSIONS)
    well = False
    try:
        yield
        well = True
    finally:
        if held is not None:
            os.close(held)
        if well:
            shutil.rmtree(folder, ignore_errors=True)
            _drop_links_to(folder)


def _drop_links_to(session: Path) -> None:
    """Ray links its newest session, and the file that Prometheus reads, to what is gone now."""
    with suppress(OSError):
        for path in session.parent.iterdir():
            if path.is_symlink() and path.readlink().is_relative_to(session):
                path.unlink()


def _hold(folder: Path) -> int | None:
    """Lock a folder until the descriptor is closed; None where there are no locks."""
    descriptor = None
    with suppress(OSError):
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(folder / _LOCK, flags, 0o600)
        lock(descriptor)
        os.write(descriptor, _machine())
    return descriptor


def _machine() -> bytes:
    """This machine since it was started: a lock says nothing about the processes of another one."""
    started = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{platform.node()} {started}".encode()


def _sweep(parent: Path, prefix: str, *, keep: int = 0) -> None:
    """Remove folders of ours that no process holds any more, but for the newest ones."""
    left = []
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            if folder.is_dir() and not folder.is_symlink() and _is_left(folder):
                left.append((folder.stat().st_mtime, folder))
    for _, folder in sorted(left, reverse=True)[keep:]:
        shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """Whether a folder is ours and has our lock, made on this machine, which nobody holds."""
    mine = all(path.lstat().st_uid == os.getuid() for path in (folder, folder / _LOCK))
    if not mine or time.time() - folder.stat().st_mtime < _YOUNG_S:
        return False
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        lock(descriptor)
        return os.read(descriptor, 1000) == _machine()
    except OSError:
        return False
    finally:
        os.close(descriptor)
