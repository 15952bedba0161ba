"""Workers of Ray Train whose checkpoints meet a full disk: a real small file system."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.engine import checkpoint_folder
from bbam_ray.results.store import read_table
from stress.disks import fill, small_disk

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

WAITS = r"checkpoints cannot be written \(No space left on device.*; the run waits for up to"
EPOCHS = 6


@pytest.fixture()
def disk(tmp_path: Path) -> Iterator[Path]:
    try:
        with small_disk(tmp_path / "disk") as folder:
            yield folder
    except OSError as error:
        pytest.skip(str(error))


def arguments(disk: Path, flags: list[str], *more: str) -> list[str]:
    results = ["--results", str(disk / "results"), "--name", "run"]
    return ["launch/train.py", *results, *flags, "--workers", "2", *more]


def full_until_workers_wait(run: Any, disk: Path) -> None:
    """Fill the disk after two epochs, and again where removed checkpoints have made room."""
    run.line(r"^epoch +2/", timeout=200)

    def waits() -> bool:
        fill(disk)
        return re.search(WAITS, run.output) is not None

    run.until(waits, timeout=60)


def assert_complete(disk: Path) -> None:
    folder = disk / "results" / "digits" / "run"
    assert json.loads((folder / "study.json").read_text())["status"] == "COMPLETE"
    history = read_table(folder / "history.parquet")
    assert history["epoch"].to_pylist() == list(range(1, EPOCHS + 1))
    newest = next(checkpoint_folder.newest_first(folder / "checkpoints"))
    assert checkpoint_folder.epoch_of(newest) == EPOCHS
    assert checkpoint_folder.defect(newest) is None
    assert (folder / "checkpoints" / "model" / "model.safetensors").stat().st_size


@pytest.mark.slow
def test_workers_wait_longer_than_their_timeout_and_none_is_lost(
    disk: Path, launch: Callable[..., Any], second_long: list[str]
) -> None:
    run = launch(*arguments(disk, second_long, "--worker-timeout", "10s"))
    full_until_workers_wait(run, disk)
    time.sleep(13)
    assert not run.ended, run.output
    (disk / "ballast").unlink()
    assert run.finish() == 0, run.output
    assert len(re.findall(r"2 workers, from epoch", run.output)) == 1
    assert "again" not in run.output.replace("tries again", "")
    assert_complete(disk)


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_the_run_in_one_sentence_and_it_resumes(
    disk: Path,
    launch: Callable[..., Any],
    second_long: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """First a request to stop, which ends the wait; then the patience runs out; then there is room."""
    run = launch(*arguments(disk, second_long))
    full_until_workers_wait(run, disk)
    os.kill(run.pid, signal.SIGTERM)
    # 130, or 1 if rows of the last epoch could not be written either; they are in the checkpoints.
    assert run.finish(40) in (130, 1), run.output
    assert "without a checkpoint there, which could not be written" in run.output
    (disk / "ballast").unlink()
    monkeypatch.setenv("BBAM_RAY_PATIENCE", "3")
    run = launch(*arguments(disk, second_long, "--resume"))
    run.line(r"^2 workers, from epoch [12]$", timeout=200)
    run.until(lambda: fill(disk) or re.search(WAITS + " 3s", run.output), timeout=60)
    assert run.finish(40) == 1, run.output
    sentences = [line for _, line in run.lines if line.startswith("error: ")]
    assert len(sentences) == 1 and "could not be written for" in sentences[0]
    assert "Traceback" not in run.output
    (disk / "ballast").unlink()
    run = launch(*arguments(disk, second_long, "--resume"))
    assert run.finish() == 0, run.output
    assert re.search(r"^2 workers, from epoch [1-5]$", run.output, re.MULTILINE)
    assert "damaged" not in run.output
    assert_complete(disk)


@pytest.mark.slow
def test_a_trial_without_room_for_its_checkpoints_ends_the_study_which_resumes_it(
    tmp_path: Path,
    launch: Callable[..., Any],
    second_long: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is room for the tables: the trial does not count as failed, and keeps its checkpoints."""
    flags = ["launch/tune.py", "--results", str(tmp_path), "--name", "s", *second_long]
    flags += ["--trial-runner", "train", "--num-samples", "1", "--folds", "1", "--final", "single"]
    flags += ["--confirm-seeds", "0", "--no-baselines", "--no-dashboard", "--no-reuse"]
    monkeypatch.setenv("BBAM_RAY_PATIENCE", "3")
    run = launch(*flags)
    trials = tmp_path / "digits" / "s" / "checkpoints" / "trials"
    run.until(lambda: list(trials.glob("*/t00000/fold-0/epoch-00001/state.pt")), timeout=200)
    (fold,) = trials.glob("*/t00000/fold-0")
    try:
        with small_disk(fold, 1):
            while not run.ended:
                fill(fold)
                time.sleep(0.1)
            assert run.finish(60) == 1, run.output
    except OSError as error:
        pytest.skip(str(error))
    sentences = [line for _, line in run.lines if line.startswith("error: ")]
    assert len(sentences) == 1 and "could not be written for" in sentences[0], run.output
    folder = tmp_path / "digits" / "s"
    assert not len(read_table(folder / "trials.parquet"))
    run = launch(*flags, "--resume")
    assert run.finish() == 0, run.output
    assert "trial 0 resumes from its checkpoint" in run.output
    assert read_table(folder / "trials.parquet")["state"].to_pylist() == ["COMPLETE"]
    epochs = read_table(folder / "history.parquet")["epoch"].to_pylist()
    assert epochs == list(range(1, EPOCHS + 1))
