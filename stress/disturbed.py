"""The processes of a small study or run that is disturbed and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from stress.stored_study import TRIALS, BrokenPromiseError, StoredStudy

ROOT = Path(__file__).parents[1]
LIMIT_S = 240.0  # every command ends within it, whatever happens
PATIENCE_S = 8.0  # that the studies have with a disk
_SETTINGS = ["--warmup-epochs", "3"]
for _setting in ("scenes=400", "test_scenes=60", "labeled_fraction=0.3", "warmup_passes=5"):
    _SETTINGS += ["--set", _setting]
_COMMANDS = {
    "tune": f"--epochs 8 --num-samples {TRIALS} --confirm-seeds 1 --no-dashboard --no-reuse "
    "--scheduler asha --worker-timeout 20s",
    "train": "--epochs 40 --worker-timeout 20s",
}


class Disturbed(StoredStudy):
    """One study (``tune``) or run (``train``) in a folder of its own.

    Args:
        place: holds everything of it: results, output.
        command: tune or train.
        flags: further ones, for example ``--workers 2``.
        results: elsewhere, for example on a disk of its own.
        variables: of its environment, beside our own.
    """

    def __init__(
        self,
        place: Path,
        command: str,
        flags: Iterable[str] = (),
        results: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.place, self._flags = place, list(flags)
        self._variables = {"BBAM_RAY_PATIENCE": str(PATIENCE_S), "PYTHONUNBUFFERED": "1"}
        self._variables |= variables or {}
        self.results = results or place / "results"
        super().__init__(self.results / "digits" / "s", command)
        self.slowest_s, self._began, self.said_from = 0.0, 0.0, 0
        self.process: subprocess.Popen[bytes] | None = None
        self._family: dict[int, psutil.Process] = {}
        place.mkdir(parents=True, exist_ok=True)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def returncode(self) -> int | None:
        return None if self.process is None else self.process.poll()

    @property
    def output(self) -> str:
        """What it has printed since it was last started."""
        path = self.place / "output.txt"
        return path.read_text(errors="replace")[self.said_from :] if path.exists() else ""

    def start(self) -> None:
        """Begin it, or go on with it."""
        self.said_from += len(self.output)
        command = [sys.executable, str(ROOT / "launch" / f"{self.command}.py")]
        command += ["--results", str(self.results), "--name", "s", *_SETTINGS]
        command += [*_COMMANDS[self.command].split(), *self._flags]
        command += ["--resume"] if (self.folder / ".previous").exists() else []
        with (self.place / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, **self._variables},
            )
        self._began = time.monotonic()

    def family(self) -> list[psutil.Process]:
        """Living processes that it has started, directly or not."""
        assert self.process is not None
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.Error:
            found = []
        self._family |= {process.pid: process for process in found}
        return found

    def named(self, title: str) -> list[int]:
        """Processes of Ray whose title is one word, followed by anything but a letter."""
        found = []
        for process in self.family():
            try:
                words = (process.cmdline() or [""])[0].split(".")[0].split("(")[0].strip()
                if words == title:
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found

    def gone(self) -> None:
        """Wait until a driver that was killed has taken with it what trains; Ray's agents take longer."""
        assert self.process is not None
        self.process.wait(10)

        def trains(process: psutil.Process) -> bool:
            try:
                return " ".join(process.cmdline()).startswith(("ray::Trial", "ray::_confirm"))
            except psutil.Error:
                return False

        if alive := still_there([p for p in self._family.values() if trains(p)], timeout=40):
            raise BrokenPromiseError(f"processes outlive their driver: {alive}")

    def left_behind(self) -> list[psutil.Process]:
        """What still lives of all that it has ever started."""
        return still_there(self._family.values(), timeout=150)

    def close(self) -> None:
        """End it if it still runs; of one that has ended, nothing may be left to end."""
        if self.running:
            assert self.process is not None
            for process in self.family():
                process.kill()
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def wait(self, seconds: float) -> None:
        """Let it run, and look at it all the while."""
        until = time.monotonic() + seconds
        while self.running and time.monotonic() < until:
            self._look_and_sleep()

    def until_training(self) -> None:
        """Wait for the first epoch since it was started."""
        before = self._epochs()
        while self.running and self._epochs() == before:
            self._look_and_sleep()

    def _epochs(self) -> int:
        path = self.folder / "history.parquet"
        return path.stat().st_mtime_ns if path.exists() else 0

    def to_end(self) -> int:
        """Its exit code."""
        assert self.process is not None
        while self.running:
            self._look_and_sleep()
        self.slowest_s = max(self.slowest_s, time.monotonic() - self._began)
        return int(self.process.returncode)

    def _look_and_sleep(self) -> None:
        if time.monotonic() - self._began > LIMIT_S:
            raise BrokenPromiseError(f"{self.folder}: has not ended within {LIMIT_S:g} s")
        self.family()
        self.look(self.output)
        time.sleep(0.1)

    # ------------------------------------------------------------------------- its end


def still_there(processes: Iterable[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Those that have not ended after so many seconds."""
    deadline, left = time.monotonic() + timeout, list(processes)
    while left and time.monotonic() < deadline:
        left = [process for process in left if _lives(process)]
        time.sleep(0.1)
    return left


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
