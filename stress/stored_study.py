"""The tables of a small study or run, and checks that no trial is lost, duplicated or changed."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from pathlib import Path

import pandas as pd

from bbam_ray.documents import read_yaml_mapping
from bbam_ray.engine.model_folder import read_description, read_weights
from bbam_ray.errors import UsageError
from bbam_ray.results.parts import part_numbers
from bbam_ray.results.store import read_table

TRIALS, LABELS = 6, 10
_MAX_LOST = 2  # trials that damage to a table may cost: those that ended after its previous version
_TIMES = ("study", "started_at", "duration_s", "gpu_hours", "seconds_", "images_per", "cost")
# A command prints one of these after it has checked its files and repaired damaged ones.
_CHECKED = ("starting Ray", "joining Ray", "run /")


class CheckFailedError(Exception):
    """A study or run has failed a check; the message describes the failure."""


class LostTrialError(CheckFailedError):
    """A trial that had ended is missing or incomplete."""


def without_times(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns that must be reproducible: no times, costs or study names."""
    return frame.drop(columns=[n for n in frame if str(n).startswith(_TIMES)])


class StoredStudy:
    """The tables of a study (``tune``) or run (``train``), while it runs and after its end.

    Args:
        folder: ``<results>/<dataset>/<study>``.
        command: tune or train.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self.folder, self.command = folder, command
        self.unreadable, self.damaged = 0, False
        self._ended: dict[int, int] = {}  # number of each ended trial to its epochs
        self._checked_versions: list[tuple[int, ...]] = []

    def table(self, name: str) -> pd.DataFrame:
        """A table as another process reads it now; empty if there is no file yet."""
        path = self.folder / f"{name}.parquet"
        try:
            return read_table(path).to_pandas() if path.exists() else pd.DataFrame()
        except UsageError as error:
            self.unreadable += 1
            raise CheckFailedError(str(error)) from None

    def check_tables(self, output: str = "") -> None:
        """Check that each ended trial is complete, and that none was lost since the last check.

        Args:
            output: of the command. After damage nothing is checked until it shows that the command has
                checked its files.

        Raises:
            LostTrialError: a trial is missing, changed or incomplete.
            CheckFailedError: a table cannot be read.
        """
        if self.damaged and not any(words in output for words in _CHECKED):
            return
        # Before the tables are read, so that a table written in between is checked next time.
        versions = self._versions()
        if versions == self._checked_versions and not self.damaged:
            return
        trials = self.table("trials")
        if len(trials):  # those whose workers could not start are run again
            trials = trials[(trials["state"] != "FAILED") | trials["started_at"].notna()]
        ended = dict(zip(trials["number"], trials["epochs"], strict=True)) if len(trials) else {}
        lost = {n for n, epochs in self._ended.items() if ended.get(n) != epochs}
        allowed = _MAX_LOST if self.damaged and "repaired: " in output else 0
        self.damaged = False
        if len(lost) > allowed:
            raise LostTrialError(f"trials {lost} had ended, and are missing or changed")
        history, labels = (_rows_by_number(self.table(name)) for name in ("history", "labels"))
        self.table("confirm")
        for number, epochs in ended.items():
            if history.get(number, 0) != epochs:
                raise LostTrialError(f"trial {number} has ended without all of its {epochs} epochs")
            if labels.get(number, 0) != epochs * LABELS:
                raise LostTrialError(f"trial {number} has ended without all rows of its labels")
        self._ended, self._checked_versions = ended, versions

    def _versions(self) -> list[tuple[int, ...]]:
        """For each table: inode, size and time, which change with its file; numbers of its parts."""
        versions: list[tuple[int, ...]] = []
        for name in ("trials", "history", "labels", "confirm"):
            path = self.folder / f"{name}.parquet"
            try:
                state = path.stat()
            except FileNotFoundError:
                versions.append(())
            else:
                numbers = part_numbers(path)
                versions.append((state.st_ino, state.st_size, state.st_mtime_ns, *numbers))
        return versions

    def lost_or_duplicated(self) -> int:
        """Number of trials that are missing, duplicated, or whose epochs or labels are."""
        trials, history, labels = (self.table(name) for name in ("trials", "history", "labels"))
        expected = set(range(TRIALS if self.command == "tune" else 1))
        wrong = len(expected ^ set(trials["number"])) + int(trials["number"].duplicated().sum())
        wrong += int(labels.duplicated(["number", "epoch", "label"]).sum() > 0)
        wrong += int(len(labels) != LABELS * len(history))
        for number, count in zip(trials["number"], trials["epochs"], strict=True):
            epochs = sorted(history.loc[history["number"] == number, "epoch"])
            wrong += epochs != list(range(1, count + 1))
        if self.command == "tune":
            confirm = self.table("confirm")
            answers = sorted(confirm["answer"]) if len(confirm) else []
            wrong += int(answers != ["final", "published"])
        return wrong

    def differences(self, reference: StoredStudy, *, exact: bool) -> int:
        """Number of trials, confirmed runs and models that differ from those of the undisturbed study.

        Args:
            exact: compare bit by bit; else mAP within 0.005 (after a worker was replaced, gradients are
                added in another order).
        """
        if not exact:
            return sum(
                _distant(self.table(name), reference.table(name)) for name in ("trials", "confirm")
            )
        different: set[tuple[str, int]] = set()
        for name in ("trials", "history", "labels", "confirm"):
            ours, theirs = (without_times(s.table(name)) for s in (self, reference))
            for number in theirs["number"].unique() if len(theirs) else ():
                rows = [f[f["number"] == number].reset_index(drop=True) for f in (ours, theirs)]
                if not rows[0].equals(rows[1]):
                    different.add(("confirm" if name == "confirm" else "trial", int(number)))
        for path in reference.folder.glob("checkpoints/confirm-*/model.safetensors"):
            own = self.folder / path.relative_to(reference.folder)
            if not own.exists() or own.read_bytes() != path.read_bytes():
                different.add(("model", 0))
        return len(different)

    def check_end(self) -> None:
        """Check that the study is complete and that each of its files can be used."""
        state = json.loads((self.folder / "study.json").read_text())["status"]
        if state != "COMPLETE" or not set(self.table("trials")["state"]) <= {"COMPLETE", "PRUNED"}:
            raise CheckFailedError(
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
                integrity = database.execute("pragma integrity_check").fetchone()
            if integrity != ("ok",) or not page.rstrip().endswith("</html>"):
                raise CheckFailedError(f"{self.folder}: study.db or report.html is damaged")
        if not models or list(self.folder.rglob(".*.[0-9]*")):
            raise CheckFailedError(f"{self.folder}: no model, or temporary files were left")


def _rows_by_number(frame: pd.DataFrame) -> dict[int, int]:
    return dict(Counter(frame["number"].tolist())) if len(frame) else {}


def _distant(ours: pd.DataFrame, theirs: pd.DataFrame) -> int:
    """Number of rows with another state or number of epochs, or whose mAP differs by more than 0.005."""
    keys = [name for name in ("number", "seed", "state", "epochs", "error") if name in theirs]
    if ours[keys].to_dict("records") != theirs[keys].to_dict("records"):
        return max(1, abs(len(ours) - len(theirs)))
    metric = "test_map" if "test_map" in theirs else "val_map"
    near = (ours[metric] - theirs[metric]).abs() <= 0.005
    return int((~near).sum())
