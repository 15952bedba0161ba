"""Resumable download of one published file, checked before it appears under its own name."""

from __future__ import annotations

import hashlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

from bbam_ray.data.cache.locks import lock, still_there
from bbam_ray.data.download.secure_http import content_range, opener, refuse_insecure
from bbam_ray.errors import UsageError
from bbam_ray.files import check_free

#: seconds before each retry after a dropped connection; any progress restarts the list
WAITS: tuple[float, ...] = (1.0, 4.0, 15.0, 60.0)
TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 18

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RemoteFile:
    """A file as its publisher offers it.

    Args:
        url: https address.
        name: of the stored file.
        size: bytes; None if it is not known from an independent source. Then the length that the server
            announces must arrive, and a server that announces none is rejected.
        sha256, md5: hexadecimal; those that are not None are checked. Without them, only the size of a
            resumed file is verified.
    """

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None

    def __post_init__(self) -> None:
        if self.name in ("", ".", "..") or "/" in self.name:
            raise ValueError(f"'{self.name}' is not a plain file name")


class _DroppedError(Exception):
    """The connection failed, and a retry may help."""

    def __init__(self, reason: str, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.unreachable = unreachable


def fetch(file: RemoteFile, folder: Path, progress: Progress | None = None) -> Path:
    """Download a file into a folder and return its path; a correct existing file is kept.

    Bytes are appended to ``<name>.part`` as they arrive, so a killed download can resume. Digests are
    computed from the stored file at the end, so that they cover all runs and the disk.

    Raises:
        UsageError: no connection, a wrong file, no space, or no permission.
    """
    refuse_insecure(file.url)
    target, part = folder / file.name, folder / f"{file.name}.part"
    try:
        if target.exists():
            return _existing_file(file, target)
        folder.mkdir(parents=True, exist_ok=True)
        with _exclusive(part) as handle:
            if target.exists():  # another process was faster
                return _existing_file(file, target)
            _receive(file, folder, handle, progress)
            if wrong := _wrong(file, part):
                part.unlink()
                raise UsageError(
                    f"{file.url}: {wrong}, so the download was deleted; run it again, and if that "
                    f"does not help, get {file.name} elsewhere and put it into {folder.resolve()}"
                )
            os.fsync(handle.fileno())
            part.rename(target)
    except OSError as error:
        raise UsageError(
            f"cannot write {part}: {error.strerror or error}; choose another folder"
        ) from None
    return target


def _existing_file(file: RemoteFile, target: Path) -> Path:
    """Check an existing file, which is never overwritten."""
    if wrong := _wrong(file, target):
        raise UsageError(f"{target}: {wrong}; move it away to download it again")
    return target


def _wrong(file: RemoteFile, path: Path) -> str | None:
    """Why a stored file is wrong, or None."""
    stored = path.stat().st_size
    if file.size is not None and stored != file.size:
        return f"has {stored} bytes instead of {file.size}"
    for kind, wanted in (("sha256", file.sha256), ("md5", file.md5)):
        if wanted is None:
            continue
        with path.open(
            "rb"
        ) as handle:  # MD5 detects damage, and some publishers offer nothing else
            fresh = partial(hashlib.new, kind, usedforsecurity=False)
            digest = hashlib.file_digest(handle, fresh).hexdigest()
        if digest != wanted.lower():
            return f"has {kind} {digest} instead of {wanted.lower()}"
    return None


@contextmanager
def _exclusive(part: Path) -> Iterator[BinaryIO]:
    """The partial file, open for appending and locked; removed at the end if it is empty."""
    with part.open("ab") as handle:
        lock(part, handle.fileno())
        try:
            yield handle
        finally:
            if still_there(part, handle.fileno()) and not part.stat().st_size:
                part.unlink()


def _receive(file: RemoteFile, folder: Path, handle: BinaryIO, progress: Progress | None) -> None:
    """Append to the partial file until it is complete."""
    begin = best = handle.seek(0, os.SEEK_END)
    waits = iter(WAITS)
    complete = begin == file.size
    while not complete:
        try:
            _request(file, folder, handle, progress)
            complete = True
        except _DroppedError as drop:
            have = handle.seek(0, os.SEEK_END)
            if have > best:
                best, waits = have, iter(WAITS)
            wait = next(waits, None)
            if wait is None or (drop.unreachable and best == begin):
                resume = f"run the command again to resume at byte {have}, or " if have else ""
                raise _elsewhere(file, folder, str(drop), resume) from None
            time.sleep(wait)


def _request(file: RemoteFile, folder: Path, handle: BinaryIO, progress: Progress | None) -> None:
    """Request the missing bytes; returns when the file is complete."""
    have = handle.seek(0, os.SEEK_END)
    request = urllib.request.Request(file.url, headers={"User-Agent": "bbam-ray"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = opener(file.url).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            if file.size is None and content_range(error.headers) == (None, have):
                return  # nothing is missing
            handle.truncate(0)
            raise _DroppedError("the server has fewer bytes than are stored here") from None
        reason = f"the server responds {error.code} {' '.join(error.reason.split())}"
        if error.code in (408, 429) or error.code >= 500:
            raise _DroppedError(reason) from None
        raise _elsewhere(file, folder, reason) from None
    except (OSError, HTTPException) as error:
        raise _DroppedError(_reason(error), unreachable=True) from None
    with response:
        start = 0
        if response.status == 206:
            first, announced = content_range(response.headers)
            if first != have:
                handle.truncate(0)
                raise _DroppedError("the server sends another range than requested")
            start = have
        elif response.status == 200:
            length = response.headers.get("Content-Length", "")
            announced = int(length) if length.isdecimal() else None
        else:
            raise _elsewhere(file, folder, f"the server responds {response.status}")
        total = announced if file.size is None else file.size
        if total is None or announced not in (None, total):
            says = "no length" if total is None else f"{announced} bytes instead of {total}"
            raise _elsewhere(file, folder, f"the server announces {says}")
        handle.truncate(start)
        advice = "make space or choose another folder"
        check_free(folder.resolve(), total - start, file.name, advice)
        _store(response, handle, start, total, progress)


def _store(
    response: HTTPResponse, handle: BinaryIO, done: int, total: int, progress: Progress | None
) -> None:
    while True:
        if progress is not None:
            progress(done, total)
        try:
            block = response.read(BLOCK)
        except (OSError, HTTPException) as error:
            raise _DroppedError(_reason(error)) from None
        done += len(block)
        if not block or done > total:
            break
        handle.write(block)
        handle.flush()  # a kill loses at most one block
    if done > total:
        handle.truncate(0)
        raise _DroppedError(f"the server sends more than the expected {total} bytes")
    if done < total:
        raise _DroppedError(f"the connection ended after {done} of {total} bytes")


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no response for {TIMEOUT:g} seconds"
    text = getattr(cause, "strerror", None) or str(cause)
    return " ".join(text.split()) or type(cause).__name__


def _elsewhere(file: RemoteFile, folder: Path, reason: str, first: str = "") -> UsageError:
    return UsageError(
        f"cannot download {file.url} ({reason}): {first}download it elsewhere and put it into "
        f"{folder.resolve()} as {file.name}"
    )
