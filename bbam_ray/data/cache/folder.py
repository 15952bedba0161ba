"""The cache folder, and how files in it are written: complete or not at all, by one process."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bbam_ray.data.cache.row_file import DamagedRowsError, StoredRows
from bbam_ray.errors import UsageError


def cache_dir() -> Path:
    """Folder of generated and decoded data: BBAM_RAY_CACHE, else the user's cache folder."""
    chosen = os.environ.get("BBAM_RAY_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "bbam_ray"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name; it appears under its own name complete or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}; set BBAM_RAY_CACHE to a folder with space"
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def opened(target: Path, kind: type[StoredRows] = StoredRows) -> StoredRows | None:
    """The stored rows of a file; None if it is missing, or damaged: then it is removed, to be rebuilt."""
    try:
        return kind(target)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(
            f"{target}: cannot be read ({error.strerror}); remove it, and it is rebuilt"
        ) from None
    except DamagedRowsError:
        target.unlink(missing_ok=True)
        return None


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the lock of a cache folder; others wait. It ends with the process, even if that is killed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("w")
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror}; set BBAM_RAY_CACHE to a folder with space"
        ) from None
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def check_space(folder: Path, needed: int, otherwise: str) -> None:
    """Raise a UsageError if the disk has too little free space.

    Args:
        folder: where files will be written.
        needed: bytes.
        otherwise: what the user can do instead of freeing space.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UsageError(
            f"{folder}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; set "
            f"BBAM_RAY_CACHE to a folder with space, or {otherwise}"
        )


def remove_torn(target: Path) -> None:
    """Remove unfinished versions of a file that killed processes have left; needs the lock."""
    for torn in target.parent.glob(f".{target.name}.*"):
        torn.unlink(missing_ok=True)


def forget(name: str | None = None) -> int:
    """Remove the cached rows of one data set, or of all; returns the freed bytes."""
    freed = 0
    for path in cache_dir().glob(f"{name or '*'}/*.rows"):
        with suppress(FileNotFoundError):
            freed += path.stat().st_size
            path.unlink()
    return freed
