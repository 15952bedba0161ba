"""The members of a .tar, .tar.gz or .zip archive, read without writing anything.

Only regular files and folders with safe names are accepted, which is stricter than the ``data`` filter of
``tarfile``: an archive with a link, a device or a path outside its folder is rejected as a whole.
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

#: exceptions that a damaged archive raises
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    ValueError,  # invalid offsets and names
    RuntimeError,  # endlessly nested headers
)
#: maximum bytes that are read at once
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """A file or folder in an archive.

    Args:
        parts: its path, split; empty for the top folder.
        size: of the content in bytes.
        open: opens the content; None for a folder.
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
    raise UsageError(f"{archive}: only .tar, .tar.gz and .zip can be unpacked; unpack it yourself")


def _zip_members(archive: Path, source: zipfile.ZipFile) -> Iterator[Member]:
    bounded = (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
    )  # other methods may unpack any size in one step
    for info in source.infolist():
        name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            refuse(archive, f"{quoted(name)} is a link or a device")
        if info.flag_bits & 1 or info.compress_type not in bounded:
            refuse(archive, f"{quoted(name)} is encrypted or uses an unusual compression")
        is_folder = name.endswith("/") or kind == stat.S_IFDIR
        opens = None if is_folder else partial(source.open, info)
        yield Member(_parts(archive, name), info.file_size, opens)


def _tar_members(archive: Path, stream: _ShortReads) -> Iterator[Member]:
    """Members up to the zeros at the end, which may be missing, as tar allows."""
    source = tarfile.TarFile(fileobj=cast(IO[bytes], stream))
    for info in source:
        if not (info.isfile() or info.isdir()) or info.issparse():
            refuse(archive, f"{quoted(info.name)} is a link or a device")
        opens = cast(Callable[[], IO[bytes]], partial(source.extractfile, info))
        yield Member(_parts(archive, info.name), info.size, None if info.isdir() else opens)
    stream.seek(source.offset)
    if any(stream.read(tarfile.BLOCKSIZE)):  # tarfile takes half a header, or garbage, for the end
        raise tarfile.ReadError("it is truncated, or has data behind its end")


class _ShortReads:
    """A stream that limits reads, since tarfile would read a header of any declared size into memory."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= BLOCK:
            raise tarfile.ReadError(f"it has a header of {size} bytes")
        return self._stream.read(size)


def _parts(archive: Path, name: str) -> tuple[str, ...]:
    """A path split into parts; rejects paths that point elsewhere, on this or another system."""
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:|.*[\\\0]", name, re.DOTALL):
        refuse(archive, f"{quoted(name)} points outside the folder")
    return tuple(part for part in parts if part not in ("", "."))


def refuse(archive: Path, why: str) -> NoReturn:
    """Raise a UsageError for an archive that must not be unpacked."""
    raise UsageError(f"{archive}: {why}; do not use it, and download it from its publisher again")
