"""Existence, place, size and time of the files of a list, with one look at each."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bbam_ray.errors import UsageError, brief


def name_of_file(name: str) -> str:
    """A file name as text that can be stored; bytes that are not UTF-8 become escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_hidden(path: Path, root: Path) -> bool:
    """Whether a file, or a folder between it and the root, is hidden, as ``._x.jpg`` of macOS archives."""
    return any(name.startswith(".") or name == "__MACOSX" for name in path.relative_to(root).parts)


def safe_relative(name: Any, where: str) -> str:
    """Normalize a file name from a user's table, and reject one that points outside the data folder.

    Args:
        name: as in the table; either kind of slash.
        where: position in the table, for the message.

    Returns:
        A relative path with forward slashes.
    """
    text = str(name).replace("\\", "/").strip() if name is not None else ""
    parts = text.split("/")
    if not text or text.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", text):
        raise UsageError(
            f"{where}: file '{brief(name)}' is not a path inside the data set's folder; use a path "
            "relative to it"
        )
    return "/".join(part for part in parts if part not in ("", "."))


@dataclass(frozen=True)
class FileScan:
    """The result of one look at every file of a list.

    Args:
        digest: hexadecimal, of real paths, sizes and modification times.
        missing: paths that are not regular files.
        outside: the first path that is not below the root, by its name or by a symlink.
        unreadable: the first path whose status cannot be read, and why.
    """

    digest: str
    missing: tuple[Path, ...] = ()
    outside: Path | None = None
    unreadable: tuple[Path, str] | None = None

    def state(self) -> str:
        """The digest; it changes when a file does.

        Raises:
            UsageError: a file is missing or cannot be read.
        """
        if self.unreadable is not None:
            path, reason = self.unreadable
            raise UsageError(
                f"{brief(str(path), 300)}: cannot be read ({reason}); restore or remove it"
            )
        return self.digest


def files_state(paths: Iterable[Path]) -> str:
    """A digest of paths, sizes and times that changes when a file does."""
    return scan_files(paths).state()


def scan_files(paths: Iterable[Path], root: Path | None = None) -> FileScan:
    """Look at every file once; one system call for a file that is not a symlink.

    Args:
        paths: files, in the order that the digest depends on.
        root: folder that the files should be in; None = anywhere. Its direct subfolders may be
            symlinks: they are the layout, which the user has made.
    """
    digest = hashlib.sha256()
    folders: dict[Path, _Folder] = {}
    missing: list[Path] = []
    outside: Path | None = None
    unreadable: tuple[Path, str] | None = None
    for path in paths:
        folder = folders.get(path.parent)
        if folder is None:
            folder = folders[path.parent] = _Folder(path.parent, root)
        real, status = _real_path_and_status(path, folder)
        if outside is None and not folder.allows(real):
            outside = path
        if isinstance(status, str):
            unreadable = unreadable or (path, status)
            missing.append(path)
            continue
        if not stat.S_ISREG(status.st_mode):
            missing.append(path)
        digest.update(os.fsencode(f"{real}\0{status.st_size}\0{status.st_mtime_ns}\n"))
    return FileScan(digest.hexdigest(), tuple(missing), outside, unreadable)


class _Folder:
    """A folder that listed files are in, resolved once for all of them."""

    def __init__(self, path: Path, root: Path | None) -> None:
        self._path, self._root = path, root
        self.real = _real_path(path)

    @cached_property
    def _bases(self) -> list[str]:
        """Real paths of the root and of its direct subfolder that this folder is in."""
        assert self._root is not None
        top = self._path.relative_to(self._root).parts[:1]
        bases = {self._root, *(self._root / name for name in top if name != "..")}
        return [_real_path(base) for base in bases]

    @cached_property
    def _inside(self) -> bool:
        return self._holds(self.real)

    def _holds(self, real: str) -> bool:
        return any(os.path.commonpath((real, base)) == base for base in self._bases)

    def allows(self, real: str) -> bool:
        """Whether this folder, and a file named in it by its real path, are below the root."""
        if self._root is None:
            return True
        return self._inside and (os.path.dirname(real) == self.real or self._holds(real))


def _real_path(path: Path) -> str:
    """The path without symlinks; a name with a null byte, which no file has, as it is."""
    try:
        return os.path.realpath(path)
    except ValueError:
        return os.path.abspath(path)


def _real_path_and_status(path: Path, folder: _Folder) -> tuple[str, os.stat_result | str]:
    """Real path of a file, and its status or the reason why it has none."""
    real = os.path.join(folder.real, path.name)
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            real = _real_path(path)
            status = os.stat(path)
    except OSError as error:  # missing, a name that is too long, a symlink to nowhere or to itself
        return real, error.strerror or str(error)
    except ValueError as error:  # a null byte
        return real, str(error)
    return real, status
