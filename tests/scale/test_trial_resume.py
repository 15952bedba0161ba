"""A study that ends in the middle of its trials: on resume they continue from their checkpoints."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bbam_ray.results.store import read_table
from stress.start_faults import START_FAULTS

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

TRIALS, FOLDS, EPOCHS = 2, 2, 4


@pytest.fixture(scope="module")
def flags(second_long: list[str]) -> list[str]:
    """Of a study with two trials at once and epochs of seconds."""
    study = ["--name", "s", "--num-samples", str(TRIALS), "--max-concurrent", str(TRIALS)]
    study += ["--folds", str(FOLDS), "--confirm-seeds", "0", "--final", "single", "--no-baselines"]
    study += ["--no-dashboard", "--no-reuse", "--scheduler", "none"]
    return [*study, *second_long, "--set", "scenes=2500", "--epochs", str(EPOCHS)]


def rows(results: Path, table: str) -> list[dict[str, Any]]:
    """Rows without times, and without fingerprints, which depend on the runner of trials."""
    changing = ("seconds_", "images_per_second", "cost", "started_at", "duration_s", "gpu_hours")
    changing += ("fingerprint",)
    stored = read_table(results / "digits" / "s" / f"{table}.parquet").to_pylist()
    return [
        {name: value for name, value in row.items() if not name.startswith(changing)}
        for row in stored
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, flags: list[str], program: Any) -> Path:
    """The results folder of an undisturbed study."""
    results = tmp_path_factory.mktemp("whole")
    run = program("launch/tune.py", "--results", str(results), *flags)
    assert run.finish() == 0, run.output
    return results


def checkpoints(results: Path) -> dict[str, str]:
    """The newest checkpoint of each trial."""
    parent = results / "digits" / "s" / "checkpoints" / "trials"
    return {path.parent.name: path.name for path in sorted(parent.glob("*/*/epoch-*"))}


def wait_for(condition: Callable[[], bool], run: Any) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert not run.ended and time.monotonic() < deadline, run.output
        time.sleep(0.05)


def check_resumed(
    flags: list[str], results: Path, whole: Path, launch: Callable[..., Any]
) -> list[int]:
    """Resume the study; returns the numbers of the trials that continued."""
    run = launch("launch/tune.py", "--results", str(results), *flags, "--resume")
    assert run.finish(300) == 0, run.output
    for table in ("trials", "history", "folds", "labels"):
        assert str(rows(results, table)) == str(rows(whole, table)), table
    assert not checkpoints(results)
    pattern = r"trial (\d) resumes from its checkpoint$"
    return sorted(int(number) for number in re.findall(pattern, run.output, re.MULTILINE))


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [2, EPOCHS + 1], ids=["first fold", "second fold"])
def test_a_terminated_study_resumes_in_the_middle_of_the_epochs_of_its_trials(
    epoch: int, flags: list[str], whole: Path, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    run = launch("launch/tune.py", "--results", str(tmp_path), *flags)
    wait_for(lambda: f"epoch-{epoch:05d}" in checkpoints(tmp_path).values(), run)
    time.sleep(0.5)
    sent = time.monotonic()
    os.kill(run.pid, signal.SIGTERM)
    assert run.finish(60) == 130, run.output
    print(f"ended {time.monotonic() - sent:.1f} s after the signal")
    assert re.search(r"stopping: saving the state of 2 running trials", run.output), run.output
    seconds = re.search(r"2 of 2 running trials saved (\d+\.\d) s after the request", run.output)
    assert seconds is not None and float(seconds[1]) < 20, run.output
    assert "--resume" in run.output and "Traceback" not in run.output
    saved = checkpoints(tmp_path)
    assert sorted(saved) == ["t00000", "t00001"]
    assert any("-step-" in name for name in saved.values())
    study = json.loads((tmp_path / "digits" / "s" / "study.json").read_text())
    assert study["status"] == "INTERRUPTED"
    assert check_resumed(flags, tmp_path, whole, launch) == [0, 1]


@pytest.mark.slow
def test_a_killed_study_resumes_after_the_last_epochs_of_its_trials(
    flags: list[str], whole: Path, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    run = launch("launch/tune.py", "--results", str(tmp_path), *flags)
    wait_for(lambda: len(checkpoints(tmp_path)) == TRIALS, run)
    os.kill(run.pid, signal.SIGKILL)
    run.kill()
    assert check_resumed(flags, tmp_path, whole, launch) == [0, 1]


@pytest.mark.slow
def test_trials_under_ray_train_resume_in_the_middle_of_their_epochs(
    flags: list[str], whole: Path, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    flags = [*flags, "--trial-runner", "train"]
    run = launch("launch/tune.py", "--results", str(tmp_path), *flags)
    parent = tmp_path / "digits" / "s" / "checkpoints" / "trials"
    wait_for(lambda: bool(list(parent.glob("*/*/fold-0/epoch-00001"))), run)
    time.sleep(0.5)
    os.kill(run.pid, signal.SIGTERM)
    assert run.finish(90) == 130, run.output
    assert re.search(r"2 of 2 running trials saved", run.output), run.output
    names = [path.name for path in parent.glob("*/*/fold-*/epoch-*")]
    assert any("-step-" in name for name in names), (names, run.output)
    assert check_resumed(flags, tmp_path, whole, launch) == [0, 1]


_LATE = """
import os, signal, sys
from ray.tune import Callback
from bbam_ray.cli.main import main
from bbam_ray.scale.study import run

class Late(Callback):
    def on_experiment_end(self, trials, **info):
        os.kill(os.getpid(), signal.SIGTERM)

run.tracking_callbacks = lambda *arguments: [Late()]
main(["tune", *sys.argv[1:]])
"""


@pytest.mark.slow
def test_a_signal_after_the_last_step_of_a_search_is_not_lost(
    flags: list[str], tmp_path: Path, launch: Callable[..., Any]
) -> None:
    """The trials are complete; the trainings after the search do not start."""
    (script := tmp_path / "late.py").write_text(_LATE)
    flags = [*flags, "--num-samples", "1", "--epochs", "2", "--confirm-seeds", "1"]
    flags += ["--set", "scenes=300", "--warmup-epochs", "1"]
    run = launch(script, "--results", str(tmp_path), *flags)
    assert run.finish() == 130, run.output
    assert re.search("^trial +0 +complete", run.output, re.MULTILINE)
    assert not re.search("^confirm ", run.output, re.MULTILINE)
    assert [row["state"] for row in rows(tmp_path, "trials")] == ["COMPLETE"]


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["gang", "train"])
def test_a_trial_that_cannot_start_again_keeps_its_checkpoint(
    runner: str,
    flags: list[str],
    tmp_path: Path,
    launch: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = [*flags, "--trial-runner", runner, "--num-samples", "1", "--max-concurrent", "1"]
    run = launch("launch/tune.py", "--results", str(tmp_path), *flags)
    parent = tmp_path / "digits" / "s" / "checkpoints" / "trials"
    wait_for(lambda: bool(list(parent.glob("**/epoch-00002"))), run)
    os.kill(run.pid, signal.SIGTERM)
    assert run.finish(60) == 130, run.output
    (fault,) = (fault for fault in START_FAULTS if fault.name == "start: package missing")
    (obstacle := tmp_path / "obstacle").mkdir()
    with monkeypatch.context() as patch:
        for name, value in fault.prepare(obstacle).items():
            patch.setenv(name, value)
        run = launch("launch/tune.py", "--results", str(tmp_path), *flags, "--resume")
        assert run.finish() == 1, run.output
        assert fault.cause in run.output
    run = launch("launch/tune.py", "--results", str(tmp_path), *flags, "--resume")
    assert run.finish() == 0, run.output
    assert "trial 0 resumes from its checkpoint" in run.output
    assert [row["state"] for row in rows(tmp_path, "trials")] == ["COMPLETE"]
