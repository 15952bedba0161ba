"""What is done to studies: processes killed, stopped and frozen, files torn, disks filled and locked."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bbam_ray.errors import EXIT_FAILED
from stress.disturbed import PATIENCE_S, Disturbed

KILLED = -signal.SIGKILL
Strike = Callable[[Disturbed, random.Random], bool]


@dataclass(frozen=True)
class Fault:
    """One kind of disturbance.

    Args:
        name: in the table.
        strike: does it; returns whether there was anything to hit.
        workers: of the trials of studies that it is done to.
        command: what it is done to: tune or train.
        disk: whether the study is on a small disk of its own.
        ends: the exit code with which it ends the command; None where the command has to survive it.
    """

    name: str
    strike: Strike
    workers: int = 1
    command: str = "tune"
    disk: bool = False
    ends: int | None = None


# ------------------------------------------------------------------------- processes


def _kill(kill: Callable[[int, int], None]) -> Strike:
    """Kill the driver, or with ``os.killpg`` all that it leads, and wait for what trained with it."""

    def strike(study: Disturbed, rng: random.Random) -> bool:
        assert study.process is not None
        study.family()
        kill(study.process.pid, signal.SIGKILL)
        study.gone()
        return True

    return strike


kill_driver, kill_group = _kill(os.kill), _kill(os.killpg)


def _victims(study: Disturbed, title: str) -> list[int]:
    """Processes of a title, as soon as there are any; none when the study ends before."""
    while study.running:
        if found := study.named(title):
            return found
        study.wait(0.05)
    return []


def _send(title: str, number: int) -> Strike:
    def strike(study: Disturbed, rng: random.Random) -> bool:
        found = _victims(study, title)
        if found:
            os.kill(rng.choice(found), number)
        return bool(found)

    return strike


def _pause(title: str) -> Strike:
    """Stop for a while; the driver itself where the title is empty."""

    def strike(study: Disturbed, rng: random.Random) -> bool:
        assert study.process is not None
        found = _victims(study, title) if title else [study.process.pid]
        if not found:
            return False
        process = rng.choice(found)
        os.kill(process, signal.SIGSTOP)
        time.sleep(rng.uniform(1, 5))
        os.kill(process, signal.SIGCONT)
        return True

    return strike


# ----------------------------------------------------------------------------- files


def torn(path: Path, rng: random.Random) -> bool:
    """Cut a file at a random byte, or let zeros follow from there as after a power failure."""
    content = path.read_bytes()
    offset = rng.randrange(len(content)) if content else 0
    rest = bytes(len(content) - offset) if rng.random() < 0.5 else b""
    path.write_bytes(content[:offset] + rest)
    return content[:offset] + rest != content


def tear(pattern: str, *, of_cache: bool = False) -> Strike:
    """Kill the driver, if it runs, and tear one of the files that match in the study's folder."""

    def strike(study: Disturbed, rng: random.Random) -> bool:
        base = Path(os.environ["BBAM_RAY_CACHE"]) if of_cache else study.folder
        if study.running:
            _files(study, base, pattern)
            kill_driver(study, rng)
        found = _files(study, base, pattern)
        study.torn = bool(found)
        return bool(found) and torn(rng.choice(found), rng)

    return strike


def _files(study: Disturbed, base: Path, pattern: str) -> list[Path]:
    """Files that match, as soon as there are any; none when the study ends before."""
    while True:
        if found := sorted(path for path in base.glob(pattern) if path.is_file()):
            return found
        if not study.running:
            return []
        study.wait(0.05)


def tear_checkpoint(study: Disturbed, rng: random.Random) -> bool:
    """Tear a file of the checkpoint of a trial, and kill the process that would not have needed it."""
    while study.running:
        found = _files(study, study.folder, "checkpoints/trials/*/*/epoch-*/*.pt")
        victims = study.named("ray::Trial")
        with suppress(FileNotFoundError):  # its trial has ended just now
            if found and victims and torn(rng.choice(found), rng):
                for victim in victims:
                    os.kill(victim, signal.SIGKILL)
                return True
        study.wait(0.05)
    return False


# ----------------------------------------------------------------------------- disks


@contextmanager
def small_disk(place: Path, megabytes: int = 24) -> Iterator[Path]:
    """A file system of its own size; OSError where none may be mounted."""
    place.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    if subprocess.run(["mount", *options], capture_output=True).returncode:
        raise OSError("no file system may be mounted here")
    try:
        yield place
    finally:
        while os.path.ismount(place):
            subprocess.run(["umount", "-l", str(place)], check=True)


def _disk_of(study: Disturbed) -> Path:
    return study.results.parent


def _lock(disk: Path) -> None:
    """Let the folder be seen read-only; the disk itself cannot become so while a file of it is open."""
    if os.path.ismount(disk) and not os.statvfs(disk).f_flag & os.ST_RDONLY:
        subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)


def _unlock(disk: Path) -> None:
    subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill(disk: Path) -> None:
    with (disk / "ballast").open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def _disk(begin: Callable[[Path], object], end: Callable[[Path], object], *, stays: bool) -> Strike:
    """Trouble that ends within the study's patience, or outlasts it and ends the study."""

    def strike(study: Disturbed, rng: random.Random) -> bool:
        disk = _disk_of(study)
        begin(disk)
        # Checkpoints that go make room again, and what lies before the end of a trial is nothing to write.
        while study.running and (stays or "cannot be written" not in study.output):
            begin(disk)
            study.wait(0.1)
        study.wait(rng.uniform(0, PATIENCE_S / 2))
        end(disk)
        return "cannot be written" in study.output  # else it had nothing to write

    return strike


def _full(*, stays: bool) -> Strike:
    return _disk(_fill, lambda disk: (disk / "ballast").unlink(), stays=stays)


def _locked(*, stays: bool) -> Strike:
    return _disk(_lock, _unlock, stays=stays)


KILLS = (
    Fault("driver killed", kill_driver, ends=KILLED),
    Fault("driver's process group killed", kill_group, ends=KILLED),
    Fault("trial's process killed", _send("ray::Trial", signal.SIGKILL)),
    Fault("worker of a gang of 2 killed", _send("ray::TrialWorker", signal.SIGKILL), workers=2),
    Fault("driver stopped for a while", _pause("")),
    Fault("trial's process stopped for a while", _pause("ray::Trial")),
    Fault("trial's process frozen for good", _send("ray::Trial", signal.SIGSTOP)),
    Fault("watch over processes killed", _send("ray::HeartbeatStore", signal.SIGKILL)),
    Fault("train killed", kill_driver, command="train", ends=KILLED),
)
TEARS = (
    Fault("trials.parquet torn", tear("trials.parquet"), ends=KILLED),
    Fault("history.parquet torn", tear("history.parquet"), ends=KILLED),
    Fault("labels.parquet torn", tear("labels.parquet"), ends=KILLED),
    Fault("study.json torn", tear("study.json"), ends=KILLED),
    Fault("split.parquet torn", tear("split.parquet"), ends=KILLED),
    Fault("trial's checkpoint torn, its process killed", tear_checkpoint),
    Fault("cached data torn", tear("**/*.np[yz]", of_cache=True), ends=KILLED),
    Fault(
        "checkpoint of train torn", tear("checkpoints/epoch-*/*.pt"), command="train", ends=KILLED
    ),
    Fault("history of train torn", tear("history.parquet"), command="train", ends=KILLED),
)
# Files that are there when a study has ended; it is asked to go on, and has nothing left to train.
TEARS_AFTERWARDS = tuple(
    Fault(f"{name} torn afterwards", tear(pattern))
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
DISKS = (
    Fault("disk full for a while", _full(stays=False), disk=True),
    Fault("disk read-only for a while", _locked(stays=False), disk=True),
    Fault("disk full for good", _full(stays=True), disk=True, ends=EXIT_FAILED),
    Fault("disk read-only for good", _locked(stays=True), disk=True, ends=EXIT_FAILED),
)
