"""Out-of-fold scores and fold models of a study, in its folder ``checkpoints/folds``.

``t00003/fold-2/scores.npz`` has the scores of the fold's validation samples, ``t00003/fold-2/last/`` and
``warmup/`` are model folders, ``t00003/full-0/`` and so on are models of all labelled samples. Scores are
kept for every trial, models for the best trials and for the published settings. What is missing or
damaged is trained again when it is needed: a fold is reproducible.
"""

from __future__ import annotations

import io
import math
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch

from bbam_ray.engine.folds import FoldResult, FoldWeights, write_files
from bbam_ray.engine.kept_weights import difference_error
from bbam_ray.files import atomic_folder
from bbam_ray.results.store import Row, StudyStore
from bbam_ray.scale.search.outcomes import ranked, trial_id
from bbam_ray.scale.search.space import Space

FOLDS, SCORES = Path("checkpoints") / "folds", "scores.npz"
KEPT_TRIALS = 5  # trials with models, besides the published settings
# what reading a damaged file raises
_DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, BadZipFile, zlib.error)


class FoldStore:
    """Writes and reads the results of folds.

    Args:
        store: of the study.
    """

    def __init__(self, store: StudyStore) -> None:
        self._store = store

    def folder(self, name: str, fold: int) -> Path:
        """Folder of a fold.

        Args:
            name: ID of a trial, or another name of a series of folds.
            fold: from 0.
        """
        return self._store.folder / FOLDS / name / f"fold-{fold}"

    def write(self, name: str, result: FoldResult) -> None:
        """Write or replace the result of a fold."""
        target = self.folder(name, result.fold)

        def write() -> None:
            with atomic_folder(target) as new:
                new.mkdir(parents=True)
                (new / SCORES).write_bytes(_packed(result))
                for phase, weights in result.weights.items():
                    write_files(weights.files, new / phase)

        self._store.patience.insist(write)

    def read(self, name: str, fold: int) -> FoldResult | None:
        """The result of a fold without its models; None if it is missing or damaged."""
        try:
            content = io.BytesIO((self.folder(name, fold) / SCORES).read_bytes())
            with ZipFile(content) as archive:
                if archive.testzip():  # checksums, which numpy does not always verify
                    return None
            content.seek(0)
            with np.load(content) as arrays:
                return _unpacked(fold, arrays)
        except _DAMAGE:
            return None

    def model(self, name: str, fold: int, phase: str) -> Path:
        """Folder of the model of a fold; it may not exist."""
        return self.folder(name, fold) / phase

    def copy(self, source: Path, name: str) -> None:
        """Copy all folds of a trial from the folder of another study, if it has them."""
        parent = self._store.folder / FOLDS / name
        if source.is_dir() and not parent.exists():

            def copy() -> None:
                with atomic_folder(parent) as new:
                    shutil.copytree(source, new)

            with suppress(FileNotFoundError):  # deleted meanwhile
                self._store.patience.insist(copy)

    def keep_models(self, trials: Iterable[Row], space: Space) -> list[Row]:
        """Delete the models of trials that are neither among the best nor the published settings.

        Args:
            trials: rows of all trials that may have models.
            space: its objectives.

        Returns:
            The rows of those that keep their models.
        """
        trials = list(trials)
        best = [row["trial_id"] for row in ranked(trials, space)[:KEPT_TRIALS]]
        with_models = {trial_id(0), *best}
        for row in trials:
            parent = self._store.folder / FOLDS / row["trial_id"]
            if row["trial_id"] not in with_models and parent.is_dir():
                for path in parent.glob("fold-*/*"):
                    if path.is_dir():
                        shutil.rmtree(path, ignore_errors=True)
        return [row for row in trials if row["trial_id"] in with_models]


def paired_error(folds: FoldStore, phases: Mapping[int, str]) -> Callable[[int, int], float | None]:
    """Standard errors of the difference in val_map of two trials with one fold.

    By a paired bootstrap if both have the same validation samples, else from the errors of both.

    Args:
        folds: results of the study.
        phases: of the kept weights, by trial.

    Returns:
        A function of two trial numbers; None where scores are missing.
    """

    def error(first: int, second: int) -> float | None:
        one, two = (folds.read(trial_id(number), 0) for number in (first, second))
        if one is None or two is None:
            return None
        if not np.array_equal(one.rows, two.rows):
            return math.hypot(
                *(
                    result.weights.get(phase, result.weights["last"]).standard_error
                    for result, phase in ((one, phases[first]), (two, phases[second]))
                )
            )
        pairs = ((one, phases[first]), (two, phases[second]))
        scores = [
            torch.from_numpy(result.weights.get(phase, result.weights["last"]).logits)
            for result, phase in pairs
        ]
        return difference_error(scores[0], scores[1], torch.from_numpy(one.labels))

    return error


def _packed(result: FoldResult) -> bytes:
    arrays: dict[str, Any] = {"rows": result.rows, "labels": result.labels}
    for phase, weights in result.weights.items():
        arrays[f"{phase}_logits"] = weights.logits
        arrays[f"{phase}_epoch"] = np.array(weights.epoch)
        arrays[f"{phase}_error"] = np.array(weights.standard_error)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _unpacked(fold: int, arrays: Mapping[str, np.ndarray]) -> FoldResult:
    phases = [name.removesuffix("_logits") for name in arrays if name.endswith("_logits")]
    if "last" not in phases:
        raise KeyError("last_logits")
    return FoldResult(
        fold,
        arrays["rows"],
        arrays["labels"],
        {
            phase: FoldWeights(
                int(arrays[f"{phase}_epoch"]),
                arrays[f"{phase}_logits"],
                {},
                float(arrays[f"{phase}_error"]),
            )
            for phase in phases
        },
    )
