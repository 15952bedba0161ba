"""The cache folder, and how files in it are written: complete or not at all, by one process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bbam_ray.data.cache.row_file import DamagedRowsError, StoredRows
from bbam_ray.errors import UsageError
from bbam_ray.files import atomic_file, check_free, locked


def cache_dir() -> Path:
    """Folder of generated and decoded data: BBAM_RAY_CACHE, else the user's cache folder."""
    chosen = os.environ.get("BBAM_RAY_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "bbam_ray"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name; it appears under its own name complete or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            yield temporary
    except OSError as error:
        raise UsageError(
            f"cannot write {path}: {error.strerror}; set BBAM_RAY_CACHE to a folder with space"
        ) from None


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
    """Held by one process at a time; ends with the process, also if it is killed."""
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder / ".lock", wait=True))
        except OSError as error:
            raise UsageError(
                f"cannot write to {folder}: {error.strerror}; set BBAM_RAY_CACHE to a folder with space"
            ) from None
        yield


def check_space(folder: Path, needed: int, otherwise: str) -> None:
    """Raise a UsageError if the disk has too little free space.

    Args:
        folder: where files will be written.
        needed: bytes.
        otherwise: what the user can do instead of freeing space.
    """
    advice = f"set BBAM_RAY_CACHE to a folder with space, or {otherwise}"
    check_free(folder, needed, "the cache of this data set", advice)


def forget(name: str | None = None) -> int:
    """Remove the cached rows of one data set, or of all; returns the freed bytes."""
    freed = 0
    for path in cache_dir().glob(f"{name or '*'}/*.rows"):
        with suppress(FileNotFoundError):
            freed += path.stat().st_size
            path.unlink()
    return freed
