"""What a .tar, .tar.gz or .zip holds, read without writing anything.

Only plain files and folders with harmless names pass, which is stricter than the ``data`` filter of
``tarfile``: an archive with a link, a device or a name that leads out of its folder is refused as a whole.
"""

from __future__ import annotations

import gzip
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, NoReturn, cast

from bbam_ray.errors import UsageError, quoted

#: what reading a damaged archive raises
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    ValueError,  # offsets and names that make no sense
    RuntimeError,  # headers nested without end
)


#: most bytes that are read at once
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """A file or folder in an archive.

    Args:
        parts: its name, split; empty for the folder that everything is in.
        open: gives the content; None for a folder.
    """

    parts: tuple[str, ...]
    size: int
    open: Callable[[], IO[bytes]] | None


def read_members(archive: Path, stack: ExitStack) -> Iterator[Member]:
    """Members in the order of the archive, which stays open until the stack ends."""
    name = archive.name.lower()
    if name.endswith(".zip"):
        return _zip_members(archive, stack.enter_context(zipfile.ZipFile(archive)))
    if name.endswith((".tar", ".tar.gz", ".tgz")):
        stream: IO[bytes] = stack.enter_context(archive.open("rb"))
        if not name.endswith(".tar"):
            stream = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=stream)))
        return _tar_members(archive, _ShortReads(stream))
    raise UsageError(
        f"{archive}: only .tar, .tar.gz and .zip are unpacked here; unpack it yourself"
    )


def _zip_members(archive: Path, source: zipfile.ZipFile) -> Iterator[Member]:
    bounded = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others unpack to any size in one step
    for info in source.infolist():
        name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            refuse(archive, f"{quoted(name)} is a link or a device")
        if info.flag_bits & 1 or info.compress_type not in bounded:
            refuse(archive, f"{quoted(name)} is encrypted or packed in an unusual way")
        is_folder = name.endswith("/") or kind == stat.S_IFDIR
        opens = None if is_folder else partial(source.open, info)
        yield Member(_parts(archive, name), info.file_size, opens)


def _tar_members(archive: Path, stream: _ShortReads) -> Iterator[Member]:
    """Members up to the zeros at the end, which may be missing, as for tar itself."""
    source = tarfile.TarFile(fileobj=cast(IO[bytes], stream))
    for info in source:
        if not (info.isfile() or info.isdir()) or info.issparse():
            refuse(archive, f"{quoted(info.name)} is a link or a device")
        opens = cast(Callable[[], IO[bytes]], partial(source.extractfile, info))
        yield Member(_parts(archive, info.name), info.size, None if info.isdir() else opens)
    stream.seek(source.offset)
    if any(stream.read(tarfile.BLOCKSIZE)):  # tarfile takes half a header, or rubbish, for the end
        raise tarfile.ReadError("it is cut off, or goes on with something else")


class _ShortReads:
    """A stream for tarfile, which would read a header of any declared size into memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= BLOCK:
            raise tarfile.ReadError(f"it has a header of {size} bytes")
        return self._stream.read(size)


def _parts(archive: Path, name: str) -> tuple[str, ...]:
    """A name as parts below the target; not one that is special here or on another system."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:|.*[\\\0]", name, re.DOTALL):
        refuse(archive, f"{quoted(name)} leads out of the folder")
    return tuple(part for part in parts if part not in ("", "."))


def refuse(archive: Path, why: str) -> NoReturn:
    """Say why an archive is not unpacked."""
    raise UsageError(f"{archive}: {why}; do not use it, and get it from its publisher again")
