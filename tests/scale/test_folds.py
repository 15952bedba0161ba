"""Trials with folds under real Ray: killed between and within folds, several workers, resume, reuse."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bbam_ray.results.store import read_table
from stress.stored_study import without_times

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

FOLDS, EPOCHS, TRIALS = 3, 4, 2
PEER, ACTOR = r"ray::TrialWorker\b", r"ray::Trial(?!Worker)\b"
SEARCH_TABLES = ("trials", "history", "folds", "labels")
SPACE = """
parameters:
  margin: {type: float, low: 0.2, high: 0.5}
  learning_rate: {type: float, low: 4e-3, high: 1.6e-2, log: true}
published: {margin: 0.4, learning_rate: 8e-3}
"""
SETTINGS = {
    "scenes": 300,
    "test_scenes": 60,
    "labeled_fraction": 0.3,
    "warmup_passes": 5,
    "hidden_dim": 16,
    "feature_dim": 8,
    "unlabeled_weight": 1,
}


def frame(folder: Path, table: str) -> pd.DataFrame:
    return read_table(folder / f"{table}.parquet").to_pandas()


def arguments(results: Path, name: str, *more: str) -> list[str]:
    space = results.parent / "space.yaml"
    space.write_text(SPACE)
    settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    return [
        *("launch/tune.py", "--results", str(results), "--name", name, "--space", str(space)),
        *("--no-dashboard", "--num-samples", str(TRIALS), "--max-concurrent", "1"),
        *("--folds", str(FOLDS), "--epochs", str(EPOCHS), "--warmup-epochs", "2"),
        *settings,
        *more,
    ]


SEARCH_ONLY = ("--confirm-seeds", "0", "--no-reuse")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, program: Callable[..., Any]) -> Path:
    """An undisturbed study with one worker, and its final answer for the seed of the search."""
    results = tmp_path_factory.mktemp("whole") / "results"
    study = program(*arguments(results, "whole", "--confirm-seeds", "1"))
    assert study.finish() == 0, study.output
    return results / "digits" / "whole"


def assert_equal(folder: Path, reference: Path, *tables: str) -> None:
    """Bit for bit, except for what depends on the clock."""
    for table in tables:
        mine, theirs = (without_times(frame(path, table)) for path in (folder, reference))
        ignored = [name for name in ("answered_by",) if name in mine]
        pd.testing.assert_frame_equal(mine.drop(columns=ignored), theirs.drop(columns=ignored))


def assert_near(folder: Path, reference: Path) -> None:
    for table in ("trials", "history", "folds"):
        mine, theirs = frame(folder, table), frame(reference, table)
        keys = [name for name in ("number", "fold", "epoch", "state", "folds") if name in theirs]
        pd.testing.assert_frame_equal(mine[keys], theirs[keys])
        assert mine["val_map"].to_numpy() == pytest.approx(theirs["val_map"].to_numpy(), abs=0.005)


def status(folder: Path) -> str:
    return str(json.loads((folder / "study.json").read_text())["status"])


def final_answer(folder: Path) -> Any:
    record = json.loads((folder / "study.json").read_text())
    return record["final"], record["gain"], record["chosen"]


def steps(folder: Path) -> list[int]:
    """Steps of trial 0 that have a checkpoint now; a step is an epoch of a fold."""
    found = folder.glob("checkpoints/trials/*/t00000/epoch-*")
    return sorted(int(path.name.removeprefix("epoch-")) for path in found)


def scores_of(folder: Path, fold: int) -> Path:
    return folder / "checkpoints" / "folds" / "t00000" / f"fold-{fold}" / "scores.npz"


def kill_after_step(study: Any, folder: Path, pattern: str, step: int) -> int:
    """Kill a process of trial 0 as soon as the checkpoint of a step exists; returns the newest step."""
    study.until(lambda: study.processes(pattern))
    (pid,) = study.processes(pattern)
    deadline = time.monotonic() + 120
    while max(steps(folder), default=0) < step:
        assert not study.ended and time.monotonic() < deadline, study.output
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    study.until(lambda: pid not in study.processes(pattern))
    return max(steps(folder))


def test_a_trial_that_is_killed_between_folds_and_within_a_fold_resumes(
    whole: Path, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    study = launch(*arguments(tmp_path / "results", "hurt", *SEARCH_ONLY))
    folder = tmp_path / "results" / "digits" / "hurt"
    assert kill_after_step(study, folder, ACTOR, EPOCHS) == EPOCHS  # the first fold has ended
    first = scores_of(folder, 0).stat()
    assert not scores_of(folder, 1).exists()
    within = kill_after_step(study, folder, ACTOR, EPOCHS + 2)
    assert EPOCHS + 2 <= within < 2 * EPOCHS
    assert study.finish() == 0, study.output
    assert scores_of(folder, 0).stat().st_mtime_ns == first.st_mtime_ns  # not trained again
    assert_equal(folder, whole, *SEARCH_TABLES)
    for fold in range(FOLDS):
        assert scores_of(folder, fold).read_bytes() == scores_of(whole, fold).read_bytes()


def test_two_workers_train_folds_as_one_does(
    whole: Path, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    study = launch(*arguments(tmp_path / "results", "pair", *SEARCH_ONLY, "--workers", "2"))
    assert study.finish() == 0, study.output
    assert "2 workers each" in study.output
    folder = tmp_path / "results" / "digits" / "pair"
    assert_near(folder, whole)
    labels = frame(folder, "labels")
    assert not labels.duplicated(["number", "epoch", "label"]).any()
    assert len(labels) == 10 * len(frame(folder, "history"))


@pytest.mark.slow
def test_a_gang_that_loses_a_worker_in_its_second_fold_resumes(
    whole: Path, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    more = ("--workers", "2", "--worker-timeout", "20s")
    study = launch(*arguments(tmp_path / "results", "hurt", *SEARCH_ONLY, *more))
    folder = tmp_path / "results" / "digits" / "hurt"
    killed = kill_after_step(study, folder, PEER, EPOCHS + 1)
    assert EPOCHS < killed < 2 * EPOCHS
    first = scores_of(folder, 0).stat()
    assert study.finish() == 0, study.output
    assert scores_of(folder, 0).stat().st_mtime_ns == first.st_mtime_ns
    assert_near(folder, whole)


@pytest.mark.slow
def test_trials_under_ray_train_give_the_same_folds(
    whole: Path, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    more = ("--trial-runner", "train")
    study = launch(*arguments(tmp_path / "results", "train", *SEARCH_ONLY, *more))
    assert study.finish() == 0, study.output
    folder = tmp_path / "results" / "digits" / "train"
    assert_near(folder, whole)
    for fold in range(FOLDS):
        assert scores_of(folder, fold).read_bytes() == scores_of(whole, fold).read_bytes()


@pytest.mark.slow
def test_a_killed_driver_leaves_a_study_that_ends_with_the_same_final_answer(
    whole: Path, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    """Killed in the second fold of a trial, after the first baseline and after a confirmed run."""
    folder = tmp_path / "results" / "digits" / "cut"
    command = arguments(tmp_path / "results", "cut", "--confirm-seeds", "1", "--no-reuse")
    moments: list[Callable[[], object]] = [
        lambda: max(steps(folder), default=0) > EPOCHS,
        lambda: (folder / "checkpoints" / "folds" / "logistic" / "fold-0").is_dir(),
        lambda: list(folder.glob("checkpoints/confirm-*")),
    ]
    for number, moment in enumerate(moments):
        study = launch(*command, *(["--resume"] if number else []))
        study.until(moment, timeout=200)
        study.processes()
        os.killpg(study.pid, signal.SIGKILL)
        assert study.finish() == -signal.SIGKILL
        assert status(folder) == "RUNNING"
    study = launch(*command, "--resume")
    assert study.finish() == 0, study.output
    assert status(folder) == "COMPLETE"
    assert_equal(folder, whole, *SEARCH_TABLES, "confirm")
    assert final_answer(folder) == final_answer(whole)


def test_the_same_study_again_reuses_trials_with_their_folds_and_models(
    whole: Path, launch: Callable[..., Any]
) -> None:
    study = launch(*arguments(whole.parents[1], "again", "--confirm-seeds", "1"))
    assert study.finish() == 0, study.output
    folder = whole.parent / "again"
    trials = frame(folder, "trials")
    assert trials["answered_by"].tolist() == [f"whole/t{number:05d}" for number in range(TRIALS)]
    assert trials["gpu_hours"].sum() == 0 and trials["duration_s"].sum() == 0
    assert_equal(folder, whole, *SEARCH_TABLES, "confirm")
    pd.testing.assert_series_equal(
        frame(folder, "folds")["seconds_train"], frame(whole, "folds")["seconds_train"]
    )
    assert final_answer(folder) == final_answer(whole)
    models = {
        path.relative_to(whole): path.read_bytes()
        for path in whole.glob("checkpoints/folds/t*/*/**/model.safetensors")
    }
    assert len(models) > FOLDS
    for path, content in models.items():
        assert (folder / path).read_bytes() == content
        # copied with its times, not trained again
        assert (folder / path).stat().st_mtime_ns == (whole / path).stat().st_mtime_ns
