"""A small study or run as its folder shows it: what has ended stays, and each trial is there once."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from pathlib import Path

import pandas as pd

from bbam_ray.documents import read_yaml_mapping
from bbam_ray.engine.model_folder import read_description, read_weights
from bbam_ray.errors import UsageError
from bbam_ray.results.schemas import COMPLETE, PRUNED
from bbam_ray.results.store import read_table

TRIALS, LABELS = 6, 10
_ENDED_BETWEEN = 2  # trials that may end between two versions of a table, two being trained at once
_CLOCK = ("study", "started_at", "duration_s", "gpu_hours", "seconds_", "images_per", "cost")
# Said by a command that has looked at its files, and mended them if need be.
_MENDED = ("starting Ray", "joining Ray", "run /")


class BrokenPromiseError(Exception):
    """What must not happen has happened; the message says what."""


class LostError(BrokenPromiseError):
    """A trial that had ended is gone, or not whole."""


def figures(frame: pd.DataFrame) -> pd.DataFrame:
    """What does not depend on the clock."""
    return frame.drop(columns=[n for n in frame if str(n).startswith(_CLOCK)])


class StoredStudy:
    """The tables of a study (``tune``) or run (``train``), while it runs and when it has ended.

    Args:
        folder: ``<results>/<dataset>/<study>``.
        command: tune or train.
    """

    def __init__(self, folder: Path, command: str) -> None:
        self.folder, self.command = folder, command
        self.unreadable, self.torn = 0, False
        self._seen: dict[int, int] = {}  # epochs of the trials that have ended
        self._looked_at: list[tuple[int, ...]] = []

    def table(self, name: str) -> pd.DataFrame:
        """A table as another process sees it now; empty before there is one."""
        path = self.folder / f"{name}.parquet"
        try:
            return read_table(path).to_pandas() if path.exists() else pd.DataFrame()
        except UsageError as error:
            self.unreadable += 1
            raise BrokenPromiseError(str(error)) from None

    def look(self, said: str = "") -> None:
        """The store is whole, and what has ended stays ended.

        Args:
            said: what the command has printed; until it has mended what was torn, nothing is asked.
        """
        if self.torn and not any(words in said for words in _MENDED):
            return
        # Before the tables are read: what is written meanwhile is read next time.
        files = self._versions()
        if files == self._looked_at and not self.torn:
            return
        trials = self.table("trials")
        now = dict(zip(trials["number"], trials["epochs"], strict=True)) if len(trials) else {}
        lost = {n for n, epochs in self._seen.items() if now.get(n) != epochs}
        allowed = _ENDED_BETWEEN if self.torn and "repaired: " in said else 0
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
        self._seen, self._looked_at = now, files

    def _versions(self) -> list[tuple[int, ...]]:
        """Of each table, what changes when it is written, in place or by another file."""
        found: list[tuple[int, ...]] = []
        for name in ("trials", "history", "labels", "confirm"):
            path = self.folder / f"{name}.parquet"
            try:
                state = path.stat()
            except FileNotFoundError:
                found.append(())
            else:
                found.append((state.st_ino, state.st_size, state.st_mtime_ns))
        return found

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

    def other_figures(self, calm: StoredStudy, *, exact: bool) -> int:
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
        if state != COMPLETE or not set(self.table("trials")["state"]) <= {COMPLETE, PRUNED}:
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
