"""The processes of a small study or run under fault injection."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil

from stress.stored_study import TRIALS, CheckFailedError, StoredStudy

ROOT = Path(__file__).parents[1]
LIMIT_S = 240.0  # every command must end within this time
PATIENCE_S = 8.0  # for how long a study retries a failing disk
_VARIABLES = {"BBAM_RAY_PATIENCE": str(PATIENCE_S), "PYTHONUNBUFFERED": "1"}
_SETTINGS = ["--warmup-epochs", "3"]
for _setting in ("scenes=400", "test_scenes=60", "labeled_fraction=0.3", "warmup_passes=5"):
    _SETTINGS += ["--set", _setting]
_COMMANDS = {
    "tune": f"--epochs 8 --num-samples {TRIALS} --confirm-seeds 1 --no-dashboard --no-reuse "
    "--scheduler asha --worker-timeout 20s --folds 1 --final single --no-baselines",
    "train": "--epochs 40 --worker-timeout 20s",
}


class StudyProcess(StoredStudy):
    """One study (``tune``) or run (``train``) that is started, watched, killed and resumed.

    Args:
        folder: for all of its files: results, output. Its name identifies the study in messages.
        command: tune or train.
        flags: additional ones, for example ``--workers 2``.
        results: results folder; default: in ``folder``. May be on another disk.
        variables: added to the environment of the process.
        cwd: current folder of the process; default: that of this one.
    """

    def __init__(
        self,
        folder: Path,
        command: str,
        flags: Iterable[str] = (),
        results: Path | None = None,
        variables: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.base, self._flags, self._cwd = folder, list(flags), cwd
        self.variables = dict(variables or {})
        self.results = results or folder / "results"
        super().__init__(self.results / "digits" / "s", command)
        self.slowest_s, self._started, self._output_start = 0.0, 0.0, 0
        self.process: subprocess.Popen[bytes] | None = None
        self._descendants: dict[int, psutil.Process] = {}
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def returncode(self) -> int | None:
        return None if self.process is None else self.process.poll()

    @property
    def output(self) -> str:
        """Text printed since the last start."""
        path = self.base / "output.txt"
        return path.read_text(errors="replace")[self._output_start :] if path.exists() else ""

    def program(self) -> list[str]:
        """The command, before its flags."""
        return [sys.executable, str(ROOT / "launch" / f"{self.command}.py")]

    def start(self) -> None:
        """Start the study, or resume it."""
        self._output_start += len(self.output)
        command = [*self.program(), "--results", str(self.results), "--name", "s", *_SETTINGS]
        command += [*_COMMANDS[self.command].split(), *self._flags]
        command += ["--resume"] if (self.folder / ".previous").exists() else []
        with (self.base / "output.txt").open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd=self._cwd,
                env={**os.environ, **_VARIABLES, **self.variables},
            )
        self._started = time.monotonic()

    def descendants(self) -> list[psutil.Process]:
        """Running processes that the driver has started, directly or not."""
        assert self.process is not None
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.Error:
            children = []
        self._descendants |= {process.pid: process for process in children}
        return children

    def named(self, title: str) -> list[int]:
        """Ids of Ray's processes with this title; what follows after "." or "(" is ignored."""
        pids = []
        for process in self.descendants():
            try:
                words = (process.cmdline() or [""])[0].split(".")[0].split("(")[0].strip()
                if words == title:
                    pids.append(process.pid)
            except psutil.Error:
                continue
        return pids

    def wait_for_trials_to_end(self) -> None:
        """After the driver was killed: wait until no trial trains; Ray's agents take longer to end."""
        assert self.process is not None
        self.process.wait(10)

        def trains(process: psutil.Process) -> bool:
            try:
                # jobs after the search are named after the study
                return " ".join(process.cmdline()).startswith(("ray::Trial", "ray::s: "))
            except psutil.Error:
                return False

        if alive := still_running([p for p in self._descendants.values() if trains(p)], timeout=40):
            raise CheckFailedError(f"processes outlive their driver: {alive}")

    def left_behind(self) -> list[psutil.Process]:
        """Processes that still run, of all that were ever started."""
        return still_running(self._descendants.values(), timeout=150)

    def close(self) -> None:
        """Kill the study if it still runs. One that has ended must have ended its own processes."""
        if self.running:
            assert self.process is not None
            for process in self.descendants():
                process.kill()
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def wait(self, seconds: float) -> None:
        """Let the study run for some time, and check its tables all the time."""
        until = time.monotonic() + seconds
        while self.running and time.monotonic() < until:
            self._check_and_sleep()

    def wait_for_epoch(self) -> None:
        """Wait for the first epoch since the last start."""
        before = self._history_version()
        while self.running and self._history_version() == before:
            self._check_and_sleep()

    def wait_for_rows(self) -> None:
        """Wait until an epoch is stored, also one before the last start."""
        while self.running and not len(self.table("history")):
            self._check_and_sleep()

    def _history_version(self) -> int:
        path = self.folder / "history.parquet"
        return path.stat().st_mtime_ns if path.exists() else 0

    def wait_for_end(self) -> int:
        """Wait until the study ends; returns its exit code."""
        assert self.process is not None
        while self.running:
            self._check_and_sleep()
        self.slowest_s = max(self.slowest_s, time.monotonic() - self._started)
        assert self.returncode is not None
        return self.returncode

    def _check_and_sleep(self) -> None:
        if time.monotonic() - self._started > LIMIT_S:
            raise CheckFailedError(f"{self.folder}: has not ended within {LIMIT_S:g} s")
        self.descendants()
        self.check_tables(self.output)
        time.sleep(0.1)


#: injects a fault into a study; returns whether there was anything to hit
Injection = Callable[[StudyProcess, random.Random], bool]


def still_running(processes: Iterable[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Processes that have not ended after ``timeout`` seconds."""
    deadline, running = time.monotonic() + timeout, list(processes)
    while running and time.monotonic() < deadline:
        running = [process for process in running if _is_running(process)]
        time.sleep(0.1)
    return running


def _is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
