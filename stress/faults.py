"""All faults: processes are killed and stopped, files are damaged, disks fail."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bbam_ray.errors import EXIT_FAILED, EXIT_INTERRUPTED
from stress import disks
from stress.stored_study import CheckFailedError
from stress.study_process import Injection, StudyProcess

KILLED = -signal.SIGKILL
NOTICE_S = 120.0  # from a notice until the machine is taken away, as with spot machines


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Args:
        name: in the table.
        inject: injects it into a study; returns whether there was anything to hit.
        workers: per trial of the study.
        command: of the study: tune or train.
        disk: whether the results need a small disk of their own.
        exit_code: with which the command must end; None where it must survive the fault.
    """

    name: str
    inject: Injection
    workers: int = 1
    command: str = "tune"
    disk: bool = False
    exit_code: int | None = None


# ------------------------------------------------------------------------- processes


def _kill(kill: Callable[[int, int], None]) -> Injection:
    """Kill the driver or, with ``os.killpg``, its process group, and wait for its trials to end."""

    def inject(study: StudyProcess, rng: random.Random) -> bool:
        assert study.process is not None
        study.descendants()
        kill(study.process.pid, signal.SIGKILL)
        study.wait_for_trials_to_end()
        return True

    return inject


kill_driver, kill_group = _kill(os.kill), _kill(os.killpg)


def _targets(study: StudyProcess, title: str) -> list[int]:
    """Processes with a title, as soon as there are any; none if the study ends before."""
    while study.running:
        if pids := study.named(title):
            return pids
        study.wait(0.05)
    return []


def _send(title: str, number: int) -> Injection:
    """Send a signal to a random process with a title."""

    def inject(study: StudyProcess, rng: random.Random) -> bool:
        pids = _targets(study, title)
        if pids:
            os.kill(rng.choice(pids), number)
        return bool(pids)

    return inject


def _pause(title: str) -> Injection:
    """Stop a process for one to five seconds; the driver where the title is empty."""

    def inject(study: StudyProcess, rng: random.Random) -> bool:
        assert study.process is not None
        pids = _targets(study, title) if title else [study.process.pid]
        if not pids:
            return False
        pid = rng.choice(pids)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(rng.uniform(1, 5))
        os.kill(pid, signal.SIGCONT)
        return True

    return inject


def _preempt(study: StudyProcess, rng: random.Random) -> bool:
    """Send SIGTERM to the driver, as before its machine is taken away, and wait for its checkpoint.

    Returns:
        Whether it was in the middle of an epoch.
    """
    assert study.process is not None
    sent = time.monotonic()
    os.kill(study.process.pid, signal.SIGTERM)
    study.wait_for_end()
    if (seconds := time.monotonic() - sent) > NOTICE_S:
        raise CheckFailedError(f"{seconds:.0f} s from the notice to the end")
    return "checkpoint after step" in study.output


def saved_on_request(study: StudyProcess) -> bool:
    """Whether a search that was stopped had running trials; all of them must have saved their state."""
    match = re.search(r"(\d+) of (\d+) running trials? saved .* after the request", study.output)
    if match is not None and match[1] != match[2]:
        raise CheckFailedError(match[0])
    return match is not None


def _preempt_search(study: StudyProcess, rng: random.Random) -> bool:
    """The same during a search; not after it."""
    study.wait_for_rows()
    _preempt(study, rng)
    return saved_on_request(study)


# ----------------------------------------------------------------------------- files


def damage(path: Path, rng: random.Random) -> bool:
    """Cut a file at a random byte, or write zeros from there, as after a power failure.

    Returns:
        Whether the content has changed.
    """
    content = path.read_bytes()
    offset = rng.randrange(len(content)) if content else 0
    rest = bytes(len(content) - offset) if rng.random() < 0.5 else b""
    path.write_bytes(content[:offset] + rest)
    return content[:offset] + rest != content


def _damage(pattern: str, *, of_cache: bool = False) -> Injection:
    """Kill the driver, if it runs, and damage one of the files that match in the study's folder."""

    def inject(study: StudyProcess, rng: random.Random) -> bool:
        folder = Path(os.environ["BBAM_RAY_CACHE"]) if of_cache else study.folder
        if study.running:
            _files(study, folder, pattern)
            kill_driver(study, rng)
        paths = _files(study, folder, pattern)
        study.damaged = bool(paths)
        return bool(paths) and damage(rng.choice(paths), rng)

    return inject


def _files(study: StudyProcess, folder: Path, pattern: str) -> list[Path]:
    """Files that match, as soon as there are any; none if the study ends before."""
    while True:
        if paths := sorted(path for path in folder.glob(pattern) if path.is_file()):
            return paths
        if not study.running:
            return []
        study.wait(0.05)


def _damage_trial_checkpoint(study: StudyProcess, rng: random.Random) -> bool:
    """Damage a file of a trial's checkpoint, and kill the trials so that they need their checkpoints."""
    while study.running:
        paths = _files(study, study.folder, "checkpoints/trials/*/*/epoch-*/*.pt")
        pids = study.named("ray::Trial")
        with suppress(FileNotFoundError):  # its trial has just ended
            if paths and pids and damage(rng.choice(paths), rng):
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                return True
        study.wait(0.05)
    return False


# ----------------------------------------------------------------------------- table

PROCESS_FAULTS = (
    Fault("driver killed", kill_driver, exit_code=KILLED),
    Fault("driver process group killed", kill_group, exit_code=KILLED),
    Fault("trial process killed", _send("ray::Trial", signal.SIGKILL)),
    Fault("worker of a gang of 2 killed", _send("ray::TrialWorker", signal.SIGKILL), workers=2),
    Fault("driver paused", _pause("")),
    Fault("trial process paused", _pause("ray::Trial")),
    Fault("trial process stopped permanently", _send("ray::Trial", signal.SIGSTOP)),
    Fault("heartbeat store killed", _send("ray::HeartbeatStore", signal.SIGKILL)),
    Fault("train killed", kill_driver, command="train", exit_code=KILLED),
    Fault(
        "records of train killed",
        _send("ray::Ledger", signal.SIGKILL),
        workers=2,
        command="train",
    ),
    Fault("preemption of a search in mid-epoch", _preempt_search, exit_code=EXIT_INTERRUPTED),
    Fault("preemption in mid-epoch", _preempt, command="train", exit_code=EXIT_INTERRUPTED),
    Fault(
        "preemption of 2 workers in mid-epoch",
        _preempt,
        workers=2,
        command="train",
        exit_code=EXIT_INTERRUPTED,
    ),
)
FILE_FAULTS = (
    Fault("trials.parquet damaged", _damage("trials.parquet"), exit_code=KILLED),
    Fault("history.parquet damaged", _damage("history.parquet"), exit_code=KILLED),
    Fault("labels.parquet damaged", _damage("labels.parquet"), exit_code=KILLED),
    Fault("study.json damaged", _damage("study.json"), exit_code=KILLED),
    Fault("split.parquet damaged", _damage("split.parquet"), exit_code=KILLED),
    Fault("trial checkpoint damaged, process killed", _damage_trial_checkpoint),
    Fault("cached data damaged", _damage("**/*.np[yz]", of_cache=True), exit_code=KILLED),
    Fault(
        "checkpoint of train damaged",
        _damage("checkpoints/epoch-*/*.pt"),
        command="train",
        exit_code=KILLED,
    ),
    Fault(
        "history of train damaged", _damage("history.parquet"), command="train", exit_code=KILLED
    ),
)
#: of studies that have ended; they are resumed and have nothing left to train
FILE_FAULTS_AFTER_END = tuple(
    Fault(f"{name} damaged after the end", _damage(pattern))
    for name, pattern in (
        ("trials.parquet", "trials.parquet"),
        ("history.parquet", "history.parquet"),
        ("labels.parquet", "labels.parquet"),
        ("confirm.parquet", "confirm.parquet"),
        ("study.json", "study.json"),
        ("study.db", "study.db"),
        ("best.yaml", "best.yaml"),
        ("report.html", "report.html"),
        ("confirmed model", "checkpoints/confirm-*/*"),
    )
)
DISK_FAULTS = tuple(
    Fault(
        f"{name} {'permanently' if permanent else 'temporarily'}",
        inject(permanent=permanent),
        workers=workers,
        command=command,
        disk=True,
        exit_code=EXIT_FAILED if permanent else None,
    )
    for name, inject, workers, command in (
        ("disk full", disks.full, 1, "tune"),
        ("disk read-only", disks.read_only, 1, "tune"),
        ("disk of train full", disks.full, 2, "train"),
    )
    for permanent in (False, True)
)
