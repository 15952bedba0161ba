"""Where generated files are kept, and how they are written: whole or not at all, by one process."""

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


def opened(target: Path) -> StoredRows | None:
    """The rows in a file, if it is there; a damaged one is removed, so that it is made anew."""
    try:
        return StoredRows(target)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(
            f"{target}: cannot be read ({error.strerror}); remove it, and it is made anew"
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
    """Refuse to begin what cannot be finished.

    Args:
        folder: that is written to.
        needed: bytes.
        otherwise: another way out than a larger disk.
    """
    advice = f"set BBAM_RAY_CACHE to a folder with space, or {otherwise}"
    check_free(folder, needed, "the cache of this data set", advice)


def forget(name: str | None = None) -> int:
    """Remove the stored rows of a data set, or of all; returns the bytes that were freed."""
    freed = 0
    for path in cache_dir().glob(f"{name or '*'}/*.rows"):
        with suppress(FileNotFoundError):
            freed += path.stat().st_size
            path.unlink()
    return freed
