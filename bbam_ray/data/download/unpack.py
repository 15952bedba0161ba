"""Unpacking of .tar, .tar.gz and .zip: checked as a whole first, then visible as a whole or not at all.

The files are copied here rather than by ``extractall``, so that every byte is counted before it is
written.
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
from bbam_ray.errors import UsageError, quoted, shown
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

    What the archive holds at its top appears in the folder at the end, each entry complete. Entries
    that are there already with every file in its size stay as they are; any other entry of the same
    name is refused, so nothing is overwritten.

    Args:
        max_bytes: of all files together.
        max_ratio: of the bytes of all files to those of the archive.
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
        text = shown(error, 300)
        raise UsageError(
            f"{archive}: damaged or not what its name says ({text}); remove it and download it again"
        ) from None
    except OSError as error:
        raise UsageError(
            f"cannot unpack {archive} into {folder}: {error.strerror or error}; choose another folder"
        ) from None


def _checked(
    archive: Path, members: Iterable[Member], max_bytes: int, max_ratio: float
) -> list[Member]:
    """All members; reads no further than to the first that goes too far."""
    packed, total = max(1, archive.stat().st_size), 0
    found: list[Member] = []
    files: set[tuple[str, ...]] = set()
    folders: set[tuple[str, ...]] = set()
    for member in members:
        total += member.size
        if total > max_bytes:
            refuse(archive, f"unpacks to more than the {max_bytes} bytes expected")
        if total > max_ratio * packed:
            refuse(archive, f"unpacks to more than {max_ratio:g} times its own size")
        if len(found) >= MAX_MEMBERS:
            refuse(archive, f"holds more than {MAX_MEMBERS} files and folders")
        if not member.parts:  # the top itself
            continue
        found.append(member)
        folders.update(member.parts[:depth] for depth in range(1, len(member.parts)))
        if member.open is None:
            folders.add(member.parts)
        elif member.parts in files:
            refuse(archive, f"holds {quoted('/'.join(member.parts))} twice")
        else:
            files.add(member.parts)
    if both := files & folders:
        refuse(archive, f"holds {quoted('/'.join(min(both)))} as a file and as a folder")
    if not files:
        refuse(archive, "holds no file")
    return found


def _missing(archive: Path, folder: Path, members: list[Member]) -> dict[str, list[Member]]:
    """Members by entry at the top, without the entries that are in the folder completely."""
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
    """An empty folder beside the entries to come, for this process alone; removed at the end."""
    path = folder / f".{name}.unpacking"
    path.mkdir(exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        lock(path, descriptor)
        try:
            for left in path.iterdir():  # by a process that was killed
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
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
                refuse(archive, f"{quoted('/'.join(member.parts))} is longer than the archive says")
            target.write(block)
            yield len(block)
    if left:
        raise EOFError(f"{quoted('/'.join(member.parts))} is shorter than the archive says")


def _in_the_way(archive: Path, path: Path) -> NoReturn:
    raise UsageError(
        f"{path} exists already and is not what {archive.name} holds; move it away or choose another "
        "folder"
    )
