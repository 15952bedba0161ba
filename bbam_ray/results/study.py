"""A study's folder and its ``study.json``: what was asked, where it ran, how it ended."""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bbam_ray.documents import check_regular, parse_json
from bbam_ray.errors import UsageError, shown
from bbam_ray.results.files import PREVIOUS, write_json
from bbam_ray.results.patience import Patience
from bbam_ray.results.redaction import redacted_words
from bbam_ray.results.schemas import SCHEMA_VERSION

RUNNING, COMPLETE, FAILED, INTERRUPTED = "RUNNING", "COMPLETE", "FAILED", "INTERRUPTED"
LOCK = ".lock"
_log = logging.getLogger(__name__)
PACKAGES = ("bbam-ray", "torch", "torchvision", "ray", "optuna", "pyarrow", "numpy", "scikit-learn")


def default_name(method: str) -> str:
    """A study name nobody has used: method and UTC time."""
    return f"{method}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def check_folder(
    results: Path, dataset: str, name: str, *, resume: bool, goes_on: bool = False
) -> Path:
    """The folder of a study, checked but not created.

    Args:
        results, dataset, name: the folder is ``<results>/<dataset>/<name>``.
        resume: it must be a study that there is.
        goes_on: it may be there.

    Raises:
        UsageError: a name that is no file name, an existing study without ``resume``, no study to
            resume, or a results folder that cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UsageError(
            f"study name '{name}' is not possible: use letters, digits, '.', '_' and '-' (at most 100)"
        )
    folder = results / dataset / name
    records = (folder / "study.json", folder / PREVIOUS / "study.json")
    if resume and not any(path.is_file() for path in records):
        raise UsageError(f"--resume: there is no study in {folder}; check --name and --results")
    if not resume and not goes_on and folder.exists() and not is_empty_study(folder):
        raise UsageError(
            f"study '{name}' exists already in {folder}; choose another --name, or add --resume to go on"
        )
    above = folder
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(
            f"results folder {results} cannot be written ({above} is not a writable folder); "
            "choose another --results"
        )
    return folder


def is_empty_study(folder: Path) -> bool:
    """Whether a process made the folder and was killed before it could write anything."""
    return folder.is_dir() and all(
        path.name == LOCK or path.name.startswith(".study.json.") for path in folder.iterdir()
    )


def source_folder(given: str, beside: Path) -> Path:
    """The folder of a study given by its name, as a neighbour, or by a path."""
    neighbour = beside.parent / given
    return neighbour if (neighbour / "study.json").is_file() else Path(given)


def describe_environment(gpu: str | None) -> dict[str, Any]:
    """Versions, commit, host and GPU, for reproducing a study."""

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = None
    return {
        "packages": {package: installed(package) for package in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu_count": os.cpu_count(),
        "gpu": gpu,
        "git_commit": commit,
    }


def command_line() -> str:
    """The running command as a shell takes it, without secrets."""
    words = ["python", *sys.argv] if sys.argv[0].endswith(".py") else sys.argv
    return shlex.join(redacted_words(words))


@contextmanager
def locked(folder: Path, *, make: bool = False) -> Iterator[None]:
    """Hold a study's folder, so that no second process writes into it at the same time.

    The lock is on a file in it, which network file systems know too; it ends with the process.

    Args:
        make: make the folder first.

    Raises:
        UsageError: another process holds it, or it cannot be made.
    """
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder}: {error.strerror}; make room, or choose another --results"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageError(
            f"study '{folder.name}' in {folder} is being run by another process; wait until it has "
            "ended, or use another --name"
        ) from None
    except OSError as error:
        _log.warning("%s cannot be locked (%s): run this study once at a time", folder, error)
    try:
        yield
    finally:
        os.close(descriptor)


class StudyRecord:
    """``study.json``, rewritten as a whole at every change of state."""

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.folder, self.content = folder, content
        self.patience = Patience(folder)

    @classmethod
    def create(cls, folder: Path, content: dict[str, Any]) -> StudyRecord:
        """Make the folder (which must not exist, or hold nothing) and write the first state."""
        record = cls(folder, {"schema_version": SCHEMA_VERSION, "study": folder.name} | content)
        record.content |= {"status": RUNNING, "started_at": _now(), "ended_at": None}
        record.content["command"] = command_line()
        made = False
        try:
            folder.mkdir(parents=True, exist_ok=folder.exists() and is_empty_study(folder))
            made = True
            record._write()
        except OSError as error:
            if made:  # half a record would only take the name
                with suppress(OSError):
                    (folder / "study.json").unlink(missing_ok=True)
            raise UsageError(
                f"cannot create {folder}: {error.strerror or error}; choose another --results"
            ) from None
        return record

    @classmethod
    def open(cls, folder: Path) -> StudyRecord:
        path = folder / "study.json"
        check_regular(path)
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: not a readable study ({shown(error, 200)})") from None
        version = content.get("schema_version") if isinstance(content, dict) else None
        if not isinstance(version, int):
            raise UsageError(f"{path}: not a study of bbam-ray (no schema_version)")
        if version > SCHEMA_VERSION:
            raise UsageError(
                f"{path}: schema version {shown(version)} is newer than this program's {SCHEMA_VERSION}; "
                "update bbam-ray"
            )
        return cls(folder, content)

    def update(self, **values: Any) -> None:
        self.content |= values
        self.patience.insist(self._write)

    def _write(self) -> None:
        """Two copies of it all, one after the other: without it nothing can go on."""
        path = self.folder / "study.json"
        write_json(path, self.content)
        (self.folder / PREVIOUS).mkdir(exist_ok=True)
        write_json(self.folder / PREVIOUS / path.name, self.content)

    def end(self, status: str) -> None:
        self.update(status=status, ended_at=_now())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
