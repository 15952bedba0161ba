"""Unpacking of .tar, .tar.gz and .zip archives: checked first, then unpacked completely or not at all.

Files are copied here rather than by ``extractall``, so that every byte is counted before it is written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

from bbam_ray.data.cache.locks import lock
from bbam_ray.data.download.archive_members import BLOCK, DAMAGED, Member, read_members, refuse
from bbam_ray.errors import UsageError, brief, quoted
from bbam_ray.files import check_free

MAX_MEMBERS = 1_000_000


def extract(
    archive: Path,
    folder: Path,
    *,
    max_bytes: int,
    max_ratio: float = 200.0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Unpack an archive into a folder.

    The top-level entries of the archive appear in the folder at the end, each complete. Entries that
    exist already, with every file in its size, are kept; any other entry of the same name is an error, so
    nothing is overwritten.

    Args:
        archive: path of the archive.
        folder: where to unpack.
        max_bytes: limit for all files together.
        max_ratio: limit for the size of all files relative to that of the archive.
        progress: called with bytes written and bytes in total.

    Raises:
        UsageError: unsafe or damaged archive, too large, not enough space, or existing other files.
    """
    if not archive.is_file():
        raise UsageError(f"{archive}: no such file; download it first")
    try:
        with ExitStack() as stack:
            members = _checked(archive, read_members(archive, stack), max_bytes, max_ratio)
            missing = _missing(archive, folder, members)
            wanted = [member for inside in missing.values() for member in inside]
            if not wanted:
                return
            done, total = 0, sum(member.size for member in wanted)
            folder.mkdir(parents=True, exist_ok=True)
            purpose = f"unpacking {archive.name}"
            advice = "make space or choose another folder"
            check_free(folder.resolve(), total, purpose, advice)
            hidden = stack.enter_context(_hidden(folder, archive.name))
            for member in wanted:
                for written in _write(archive, member, hidden):
                    done += written
                    if progress is not None:
                        progress(done, total)
            for top in missing:
                if os.path.lexists(folder / top):
                    _in_the_way(archive, folder / top)
                (hidden / top).rename(folder / top)
    except DAMAGED as error:
        text = brief(error, 300)
        raise UsageError(
            f"{archive}: damaged or of another type than its name ({text}); remove and download it again"
        ) from None
    except OSError as error:
        raise UsageError(
            f"cannot unpack {archive} into {folder}: {error.strerror or error}; choose another folder"
        ) from None


def _checked(
    archive: Path, members: Iterable[Member], max_bytes: int, max_ratio: float
) -> list[Member]:
    """All members; stops at the first that violates a limit."""
    packed, total = max(1, archive.stat().st_size), 0
    checked: list[Member] = []
    files: set[tuple[str, ...]] = set()
    folders: set[tuple[str, ...]] = set()
    for member in members:
        total += member.size
        if total > max_bytes:
            refuse(archive, f"unpacks to more than the {max_bytes} bytes expected")
        if total > max_ratio * packed:
            refuse(archive, f"unpacks to more than {max_ratio:g} times its own size")
        if len(checked) >= MAX_MEMBERS:
            refuse(archive, f"contains more than {MAX_MEMBERS} files and folders")
        if not member.parts:  # the top folder itself
            continue
        checked.append(member)
        folders.update(member.parts[:depth] for depth in range(1, len(member.parts)))
        if member.open is None:
            folders.add(member.parts)
        elif member.parts in files:
            refuse(archive, f"contains the duplicate file {quoted('/'.join(member.parts))}")
        else:
            files.add(member.parts)
    if both := files & folders:
        refuse(archive, f"contains {quoted('/'.join(min(both)))} as a file and as a folder")
    if not files:
        refuse(archive, "contains no file")
    return checked


def _missing(archive: Path, folder: Path, members: list[Member]) -> dict[str, list[Member]]:
    """Members by top-level entry, without the entries that the folder has completely."""
    entries: dict[str, list[Member]] = {}
    for member in members:
        entries.setdefault(member.parts[0], []).append(member)
    for top in [top for top in entries if os.path.lexists(folder / top)]:
        if not all(_in_place(folder.joinpath(*m.parts), m) for m in entries.pop(top)):
            _in_the_way(archive, folder / top)
    return entries


def _in_place(path: Path, member: Member) -> bool:
    if member.open is None:
        return path.is_dir()
    return path.is_file() and path.stat().st_size == member.size


@contextmanager
def _hidden(folder: Path, name: str) -> Iterator[Path]:
    """An empty temporary folder next to the new entries, locked by this process; removed at the end."""
    path = folder / f".{name}.unpacking"
    path.mkdir(exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        lock(path, descriptor)
        try:
            for rest in path.iterdir():  # left by a process that was killed
                shutil.rmtree(rest) if rest.is_dir() and not rest.is_symlink() else rest.unlink()
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)


def _write(archive: Path, member: Member, hidden: Path) -> Iterator[int]:
    """Write one member; yields the number of bytes after each block."""
    path = hidden.joinpath(*member.parts)
    if member.open is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with member.open() as source, path.open("xb") as target:
        while block := source.read(BLOCK):
            left -= len(block)
            if left < 0:
                refuse(archive, f"{quoted('/'.join(member.parts))} is longer than declared")
            target.write(block)
            yield len(block)
    if left:
        raise EOFError(f"{quoted('/'.join(member.parts))} is shorter than declared")


def _in_the_way(archive: Path, path: Path) -> NoReturn:
    raise UsageError(
        f"{path} exists already and differs from {archive.name}; move it away or choose another folder"
    )
