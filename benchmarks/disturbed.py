"""A small study or run that is disturbed, goes on, and is compared with one that was left alone."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
import psutil

from bbam_ray.documents import read_yaml_mapping
from bbam_ray.engine.model_folder import read_description, read_weights
from bbam_ray.errors import UsageError
from bbam_ray.results.store import read_table

ROOT = Path(__file__).parents[1]
LIMIT_S = 240.0  # every command ends within it, whatever happens
PATIENCE_S = 8.0  # that the studies have with a disk
TRIALS, LABELS = 6, 10
_ENDED_BETWEEN = 2  # trials that may end between two versions of a table, two being trained at once
_CLOCK = ("study", "started_at", "duration_s", "gpu_hours", "seconds_", "images_per", "cost")
_SETTINGS = ["--warmup-epochs", "3"]
for _setting in ("scenes=400", "test_scenes=60", "labeled_fraction=0.3", "warmup_passes=5"):
    _SETTINGS += ["--set", _setting]
# Said by a command that has looked at its files, and mended them if need be.
_MENDED = ("starting Ray", "joining Ray", "run /")
_COMMANDS = {
    "tune": [
        *(
            "--epochs",
            "8",
            "--num-samples",
            str(TRIALS),
            "--confirm-seeds",
            "1",
            "--no-dashboard",
            "--no-reuse",
        ),
        *("--scheduler", "asha", "--worker-timeout", "20s"),
    ],
    "train": ["--epochs", "40", "--worker-timeout", "20s"],
}


class BrokenPromiseError(Exception):
    """What must not happen has happened; the message says what."""


class LostError(BrokenPromiseError):
    """A trial that had ended is gone, or not whole."""


def figures(frame: pd.DataFrame) -> pd.DataFrame:
    """What does not depend on the clock."""
    return frame.drop(columns=[n for n in frame if str(n).startswith(_CLOCK)])


class Disturbed:
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
        self.place, self.command, self._flags = place, command, list(flags)
        self._variables = {"BBAM_RAY_PATIENCE": str(PATIENCE_S), "PYTHONUNBUFFERED": "1"}
        self._variables |= variables or {}
        self.results = results or place / "results"
        self.folder = self.results / "digits" / "s"
        self.slowest_s, self.unreadable, self.said_from = 0.0, 0, 0
        self.process: subprocess.Popen[bytes] | None = None
        self._seen: dict[int, int] = {}  # epochs of the trials that have ended
        self._began, self.torn = 0.0, False
        self._family: dict[int, psutil.Process] = {}
        place.mkdir(parents=True, exist_ok=True)

    # -------------------------------------------------------------------- its processes

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
        command += [*_COMMANDS[self.command], *self._flags]
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

    # ----------------------------------------------------------------------- its tables

    def table(self, name: str) -> pd.DataFrame:
        """A table as another process sees it now; empty before there is one."""
        path = self.folder / f"{name}.parquet"
        try:
            return read_table(path).to_pandas() if path.exists() else pd.DataFrame()
        except UsageError as error:
            self.unreadable += 1
            raise BrokenPromiseError(str(error)) from None

    def look(self) -> None:
        """The store is whole, and what has ended stays ended."""
        if self.torn and not any(words in self.output for words in _MENDED):
            return
        trials = self.table("trials")
        now = dict(zip(trials["number"], trials["epochs"], strict=True)) if len(trials) else {}
        lost = {n for n, epochs in self._seen.items() if now.get(n) != epochs}
        allowed = _ENDED_BETWEEN if self.torn and "repaired: " in self.output else 0
        self.torn = False
        if len(lost) > allowed:
            raise LostError(f"trials {lost} had ended, and are gone or changed")
        history, labels = (_rows_by_number(self.table(name)) for name in ("history", "labels"))
        self.table("confirm")
        for number, epochs in now.items():
            if history.get(number, 0) != epochs:
                raise LostError(f"trial {number} has ended without all of its {epochs} epochs")
            if labels.get(number, 0) != epochs * LABELS:
                raise LostError(f"trial {number} has ended without all rows of its labels")
        self._seen = now

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
        self.look()
        time.sleep(0.1)

    # ------------------------------------------------------------------------- its end

    def lost_or_doubled(self) -> int:
        """Trials that are absent, or there twice, or whose epochs or labels are not each there once."""
        trials, history, labels = (self.table(name) for name in ("trials", "history", "labels"))
        expected = set(range(TRIALS if self.command == "tune" else 1))
        wrong = len(expected ^ set(trials["number"])) + int(trials["number"].duplicated().sum())
        wrong += int(labels.duplicated(["number", "epoch", "label"]).sum() > 0)
        wrong += int(len(labels) != LABELS * len(history))
        for number, count in zip(trials["number"], trials["epochs"], strict=True):
            epochs = sorted(history.loc[history["number"] == number, "epoch"])
            wrong += epochs != list(range(1, count + 1))
        if self.command == "tune":
            wrong += len(self.table("confirm")) != 1
        return wrong

    def other_figures(self, calm: Disturbed, *, exact: bool) -> int:
        """Trials, confirmed runs and models that are not those of the study left alone.

        Args:
            exact: bit for bit, else (workers that came and went add in another order) within 0.005 mAP.
        """
        if not exact:
            return sum(_far(self.table(name), calm.table(name)) for name in ("trials", "confirm"))
        different: set[tuple[str, int]] = set()
        for name in ("trials", "history", "labels", "confirm"):
            ours, theirs = (figures(s.table(name)) for s in (self, calm))
            for number in theirs["number"].unique() if len(theirs) else ():
                rows = [f[f["number"] == number].reset_index(drop=True) for f in (ours, theirs)]
                if not rows[0].equals(rows[1]):
                    different.add(("confirm" if name == "confirm" else "trial", int(number)))
        for path in calm.folder.glob("checkpoints/confirm-*/model.safetensors"):
            mine = self.folder / path.relative_to(calm.folder)
            if not mine.exists() or mine.read_bytes() != path.read_bytes():
                different.add(("model", 0))
        return len(different)

    def check_end(self) -> None:
        """It has ended as one does that was left alone, and every file of it can be used."""
        state = json.loads((self.folder / "study.json").read_text())["status"]
        if state != "COMPLETE" or not set(self.table("trials")["state"]) <= {"COMPLETE", "PRUNED"}:
            raise BrokenPromiseError(
                f"{self.folder}: {state}, {self.table('trials')['state'].tolist()}"
            )
        models = [p.parent for p in self.folder.rglob("config.json")]
        for model in models:
            read_description(model), read_weights(model)
        read_table(self.folder / "split.parquet")
        if self.command == "tune":
            read_yaml_mapping(self.folder / "best.yaml")
            page = (self.folder / "report.html").read_text(encoding="utf-8")
            with sqlite3.connect(self.folder / "study.db") as database:
                answer = database.execute("pragma integrity_check").fetchone()
            if answer != ("ok",) or not page.rstrip().endswith("</html>"):
                raise BrokenPromiseError(f"{self.folder}: study.db or report.html is damaged")
        if not models or list(self.folder.rglob(".*.[0-9]*")):
            raise BrokenPromiseError(f"{self.folder}: no model, or temporary files stay")


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


def _rows_by_number(frame: pd.DataFrame) -> dict[int, int]:
    return dict(Counter(frame["number"].tolist())) if len(frame) else {}


def _far(ours: pd.DataFrame, theirs: pd.DataFrame) -> int:
    """Rows that end otherwise, or whose mAP is not within 0.005."""
    keys = [name for name in ("number", "seed", "state", "epochs", "error") if name in theirs]
    if ours[keys].to_dict("records") != theirs[keys].to_dict("records"):
        return max(1, abs(len(ours) - len(theirs)))
    measure = "test_map" if "test_map" in theirs else "val_map"
    near = (ours[measure] - theirs[measure]).abs() <= 0.005
    return int((~near).sum())
