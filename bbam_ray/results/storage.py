"""Results on object storage (s3://, gs://, ...): a study runs in a local copy, which a thread uploads.

Files are uploaded when they change, each one atomically, the table of trials last. If the storage is
temporarily unavailable, the study continues and uploads later. Every copy has an owner ID, which is
uploaded with its files. It detects stale copies, and two machines that run the same study.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from bbam_ray.errors import StorageError, UsageError
from bbam_ray.files import atomic_folder
from bbam_ray.results.patience import patience_s
from bbam_ray.results.remote_files import RemoteFiles, short
from bbam_ray.results.sync_state import (
    LAST,
    STATE,
    copies_dir,
    file_stats,
    is_part,
    needs_others,
    read_owner,
    read_state,
    stamp,
    upload_order,
    write_state,
)

_SECONDS = 1.0  # between checks of the local copy
_TRIES = 5  # to download a study that changes meanwhile


class _ChangedError(Exception):
    """A study has changed while its files were uploaded."""


class Storage:
    """A results folder on object storage and its local copy. As a context manager it uploads changes.

    Args:
        uri: of the results folder, whose studies are ``<uri>/<data set>/<study>``.
        reads: the caller reads studies of others: only files that change here are uploaded, and the
            owner of the studies stays the same.

    Raises:
        UsageError: an unknown scheme, or no access.
    """

    def __init__(self, uri: str, *, reads: bool = False) -> None:
        self._files, self._reads = RemoteFiles(uri), reads
        self.uri = self._files.uri
        self.local = copies_dir() / hashlib.sha256(uri.encode()).hexdigest()[:16]
        self._older = set(self._studies())
        self._owned: set[Path] = set()
        self._problem: str | None = None
        self._conflict: StorageError | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    # ------------------------------------------------------------------ download

    def fetch(self, name: str) -> None:
        """Update the local copy of a study, and of studies named ``<name>.<suffix>``."""
        for parent in self._files.folders(""):
            for folder in self._files.folders(parent):
                last = folder.rsplit("/", 1)[-1]
                if last == name or last.startswith(f"{name}."):
                    self._fetch(self.local / folder)
        for copy in self._studies():
            if copy.name == name and copy not in self._owned and (copy / STATE).is_file():
                if read_state(copy)["files"]:
                    raise UsageError(
                        f"study '{name}' is no longer in {self.uri}, but a local copy is in {copy}; "
                        "remove it, or use another --name"
                    )
                self._owned.add(copy)  # its first upload was not completed

    def _fetch(self, copy: Path) -> None:
        owner = self._owner(copy)
        self._owned.add(copy)
        known = read_state(copy) if (copy / STATE).is_file() else None
        if known and known["owner"] == owner:
            return  # not changed elsewhere: the local copy is as new or newer
        if known and self._reads and known["after"] == owner:
            self._download(copy, copy, known)
            return
        empty: dict[str, Any] = {"files": {}, "there": {}}
        with atomic_folder(copy) as new:
            new.mkdir(parents=True)
            self._download(copy, new, {"owner": uuid.uuid4().hex, "after": owner, **empty})

    def _download(self, copy: Path, folder: Path, state: dict[str, Any]) -> None:
        """Download the files that changed remotely into a folder; other files keep their times."""
        for _ in range(_TRIES - 1):
            with suppress(FileNotFoundError):  # its machine has removed a file since the listing
                self._download_once(copy, folder, state)
                return
        self._download_once(copy, folder, state)

    def _download_once(self, copy: Path, folder: Path, state: dict[str, Any]) -> None:
        study, before = self._name(copy), state["there"]
        now: dict[str, list[int]] = {}
        # Trials first: what they need was uploaded before them, so a later list of files has it.
        for of_trials in (True, False):
            listed = {
                name: stamp
                for name, stamp in self._files.listing(study).items()
                if needs_others(name) == of_trials
            }
            for name in sorted(listed, key=upload_order, reverse=True):
                if listed[name] != before.get(name):
                    self._files.download(f"{study}/{name}", folder / name)
            for name in before.keys() - listed.keys():
                if needs_others(name) == of_trials:
                    (folder / name).unlink(missing_ok=True)
            now |= listed
        if now != before:
            write_state(folder, state | {"there": now, "files": file_stats(folder)})

    def _owner(self, copy: Path) -> str | None:
        """ID of the copy that was uploaded last; None if there is none."""
        path = f"{self._name(copy)}/{STATE}"
        content = self._files.read(path)
        return None if content is None else read_owner(content, path)

    # -------------------------------------------------------------------- upload

    def __enter__(self) -> Storage:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        deadline = time.monotonic() + patience_s()
        while self._conflict is None:
            try:
                self._push_all()
                return
            except OSError as error:
                self._problem = short(error)
            if time.monotonic() > deadline:
                break
            time.sleep(_SECONDS)
        if kind is None:
            raise self._conflict or StorageError(
                f"{self.uri} does not answer ({self._problem}); the results are kept in {self.local}; "
                "continue with --resume to upload them"
            )

    def check_writable(self) -> None:
        """Raise a UsageError unless files can be created on the storage."""
        probe = f".probe-{uuid.uuid4().hex}"
        try:
            self._files.write(probe, b"")
            self._files.delete(probe)
        except OSError as error:
            raise UsageError(f"--results {self.uri}: cannot be written ({short(error)})") from None

    def _run(self) -> None:
        while not self._ended.wait(_SECONDS):
            try:
                self._push_all()
            except OSError as error:
                self._problem = short(error)
            except (StorageError, UsageError) as error:
                self._conflict = StorageError(str(error))
                return

    def _push_all(self) -> None:
        for copy in self._studies():
            if copy in self._owned or copy not in self._older:
                self._push(copy)

    def _push(self, copy: Path) -> None:
        """Upload the files that changed since the last time, and remove deleted ones."""
        if (copy / STATE).is_file():
            state = read_state(copy)
        else:
            state = {"owner": uuid.uuid4().hex, "after": None, "files": {}, "there": {}}
        now, before = file_stats(copy), state["files"]
        changed = sorted((name for name in now if now[name] != before.get(name)), key=upload_order)
        gone = [name for name in before if name not in now and not self._reads]
        if not changed and not gone and before:
            return
        if not self._reads:
            owner = self._owner(copy)
            if owner not in (state["owner"], state["after"]):
                raise StorageError(
                    f"study '{copy.name}' in {self.uri} is also being run elsewhere; the results of this "
                    f"machine are in {copy}"
                )
            if owner != state["owner"]:
                mark = json.dumps({"owner": state["owner"]}).encode()
                self._files.write(f"{self._name(copy)}/{STATE}", mark)
            state["after"] = state["owner"]  # from now on no other owner is accepted
        try:
            self._push_files(copy, changed, now, before)
        except _ChangedError:
            return  # the next push begins again
        finally:
            write_state(copy, state)
        for name in gone:
            with suppress(FileNotFoundError):
                self._files.delete(f"{self._name(copy)}/{name}")
            del before[name]
        write_state(copy, state)

    def _push_files(
        self, copy: Path, changed: list[str], now: dict[str, Any], before: dict[str, Any]
    ) -> None:
        """Upload files in this order, and add the stamp of each one to ``before``.

        Raises:
            _ChangedError: the study has written files of another moment in between.
        """
        with ExitStack() as stack:
            # What is uploaded last is opened first: a trial that ends during the upload must not arrive
            # without its history, which was uploaded before.
            opened: dict[str, BinaryIO] = {}
            for name in reversed([name for name in changed if name in LAST]):
                opened[name] = stack.enter_context((copy / name).open("rb"))
                if stamp(os.fstat(opened[name].fileno())) != now[name]:
                    raise _ChangedError  # files that had not changed before may belong to it
            for name in changed:
                try:
                    source = opened.get(name) or stack.enter_context((copy / name).open("rb"))
                except FileNotFoundError:  # deleted since
                    if is_part(name):  # its rows are in a newer file
                        raise _ChangedError from None
                    continue
                self._files.write(f"{self._name(copy)}/{name}", source)
                source.close()
                before[name] = now[name]

    def _name(self, copy: Path) -> str:
        """The folder of a study below the results folder."""
        return copy.relative_to(self.local).as_posix()

    def _studies(self) -> Iterator[Path]:
        """Folders of studies in the local copy."""
        return (p for p in self.local.glob("*/*") if p.is_dir() and not p.name.startswith("."))
