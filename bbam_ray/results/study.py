"""The folder of a study and its ``study.json``: the request, the environment, the status."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bbam_ray import files
from bbam_ray.documents import parse_json, write_json
from bbam_ray.errors import NewerVersionError, UsageError, brief
from bbam_ray.results.patience import Patience
from bbam_ray.results.redaction import redacted_words
from bbam_ray.results.schemas import SCHEMA_VERSION


class StudyStatus(StrEnum):
    """The state of a study or run, as in ``study.json``."""

    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"


RUNNING, COMPLETE = StudyStatus.RUNNING, StudyStatus.COMPLETE
FAILED, INTERRUPTED = StudyStatus.FAILED, StudyStatus.INTERRUPTED
LOCK = ".lock"
PACKAGES = (
    *("bbam-ray", "torch", "torchvision", "ray", "optuna", "pyarrow", "numpy", "scikit-learn"),
    "timm",  # null without the extra
)


def default_name(method: str) -> str:
    """A new study name: method and UTC time."""
    return f"{method.replace('+', '-')}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def check_folder(
    results: Path, dataset: str, name: str, *, resume: bool, may_exist: bool = False
) -> Path:
    """Check the folder of a study, without creating it.

    Args:
        results, dataset, name: the folder is ``<results>/<dataset>/<name>``.
        resume: the study must exist.
        may_exist: the study may exist.

    Returns:
        The folder.

    Raises:
        UsageError: an invalid name, an existing study without ``resume``, no study to resume, or a
            results folder that is not writable.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UsageError(
            f"study name '{name}' is invalid: use letters, digits, '.', '_' and '-' (at most 100)"
        )
    folder = results / dataset / name
    records = (folder / "study.json", folder / files.PREVIOUS / "study.json")
    if resume and not any(path.is_file() for path in records):
        raise UsageError(f"--resume: there is no study in {folder}; check --name and --results")
    if not resume and not may_exist and folder.exists() and not is_empty_study(folder):
        raise UsageError(
            f"study '{name}' exists already in {folder}; choose another --name, or add --resume"
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
    """Whether a process created the folder and was killed before it could write anything."""
    return folder.is_dir() and all(
        path.name == LOCK or path.name.startswith(".study.json.") for path in folder.iterdir()
    )


def source_folder(name_or_path: str, study: Path) -> Path:
    """The folder of a study, given by its path or by its name on the same data set as ``study``."""
    neighbour = study.parent / name_or_path
    return neighbour if (neighbour / "study.json").is_file() else Path(name_or_path)


def describe_environment(gpu: str | None) -> dict[str, Any]:
    """Versions, commit, host and GPU, which are needed to reproduce a study."""

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
    """The current command, quoted for a shell, without secrets."""
    words = ["python", *sys.argv] if sys.argv[0].endswith(".py") else sys.argv
    return shlex.join(redacted_words(words))


@contextmanager
def locked(folder: Path, *, make: bool = False) -> Iterator[None]:
    """Lock the folder of a study, so that no second process writes to it at the same time.

    Args:
        make: create the folder first.

    Raises:
        UsageError: another process holds the lock, or the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            if make:
                folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(files.locked(folder / LOCK))
        except BlockingIOError:
            raise UsageError(
                f"study '{folder.name}' in {folder} is being run by another process; wait until it has "
                "ended, or use another --name"
            ) from None
        except OSError as error:
            raise UsageError(
                f"cannot write to {folder}: {error.strerror}; free disk space, or choose another --results"
            ) from None
        yield


class StudyRecord:
    """``study.json``, rewritten as a whole at every change."""

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.folder, self.content = folder, content
        self.patience = Patience(folder)

    @classmethod
    def create(cls, folder: Path, content: dict[str, Any]) -> StudyRecord:
        """Create the folder (which must be new or empty) and write the first state."""
        record = cls(folder, {"schema_version": SCHEMA_VERSION, "study": folder.name} | content)
        record.content |= {"status": RUNNING, "started_at": _now(), "ended_at": None}
        record.content["command"] = command_line()
        made = False
        try:
            folder.mkdir(parents=True, exist_ok=folder.exists() and is_empty_study(folder))
            made = True
            record._write()
        except OSError as error:
            if made:  # an incomplete record would only block the name
                with suppress(OSError):
                    (folder / "study.json").unlink(missing_ok=True)
            raise UsageError(
                f"cannot create {folder}: {error.strerror or error}; choose another --results"
            ) from None
        return record

    @classmethod
    def open(cls, folder: Path) -> StudyRecord:
        """Read the record of an existing study.

        Raises:
            UsageError: there is none, or it is damaged.
            NewerVersionError: written by a newer version of this program.
        """
        path = folder / "study.json"
        files.check_regular(path)
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{path}: not a readable study ({brief(error, 200)}); check the path"
            ) from None
        version = content.get("schema_version") if isinstance(content, dict) else None
        if not isinstance(version, int):
            raise UsageError(f"{path}: not a study of bbam-ray (no schema_version); check the path")
        if version > SCHEMA_VERSION:
            raise NewerVersionError(
                f"{path}: schema version {brief(version)} is newer than this program's {SCHEMA_VERSION}; "
                "update bbam-ray"
            )
        return cls(folder, content)

    def update(self, **values: Any) -> None:
        """Change entries and write the file."""
        self.content |= values
        self.patience.insist(self._write)

    def _write(self) -> None:
        """Write the record and a full copy of it: a study without a record cannot be resumed."""
        path = self.folder / "study.json"
        write_json(path, self.content)
        (self.folder / files.PREVIOUS).mkdir(exist_ok=True)
        write_json(self.folder / files.PREVIOUS / path.name, self.content)

    def end(self, status: str) -> None:
        """Record how the study ended."""
        self.update(status=status, ended_at=_now())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
