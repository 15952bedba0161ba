"""Studies whose trials have a gang of workers: same figures, one gang for all, no loss when one dies."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bbam_ray.results.store import read_table

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

EPOCHS, TRIALS = 6, 2
PEER, ACTOR = r"ray::TrialWorker\b", r"ray::Trial(?!Worker)\b"
CLOCK = ["study", "started_at", "duration_s", "gpu_hours"]
SPACE = """
parameters:
  margin: {type: float, low: 0.2, high: 0.5}
  learning_rate: {type: float, low: 4e-3, high: 1.6e-2, log: true}
published: {margin: 0.4, learning_rate: 8e-3}
"""


def frame(folder: Path, table: str) -> pd.DataFrame:
    return read_table(folder / f"{table}.parquet").to_pandas()


def trained(folder: Path) -> list[tuple[int, int]]:
    """Trial and epoch of the rows that the history has at this moment."""
    if not (folder / "history.parquet").exists():
        return []
    return [(row.number, row.epoch) for row in frame(folder, "history").itertuples()]


def arguments(results: Path, name: str, flags: list[str], *more: str) -> list[str]:
    space = results.parent / "space.yaml"
    space.write_text(SPACE)
    return [
        *("--results", str(results), "--name", name, "--space", str(space), "--no-dashboard"),
        "--no-reuse",
        *("--folds", "1", "--final", "single", "--no-baselines"),
        *("--num-samples", str(TRIALS), "--max-concurrent", "1", *flags, *more),
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, second_long: list[str], program: Any) -> Path:
    """An undisturbed study with one worker."""
    results = tmp_path_factory.mktemp("alone") / "results"
    flags = [*second_long, "--confirm-seeds", "0"]
    study = program("launch/tune.py", *arguments(results, "alone", flags))
    assert study.finish() == 0, study.output
    return results / "digits" / "alone"


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory, second_long: list[str], program: Any
) -> tuple[Path, dict[str, set[int]]]:
    """An undisturbed study with two workers, and which processes trained its trials."""
    results = tmp_path_factory.mktemp("pair") / "results"
    folder = results / "digits" / "pair"
    flags = [*second_long, "--confirm-seeds", "2", "--workers", "2"]
    study = program("launch/tune.py", *arguments(results, "pair", flags))
    seen: dict[str, set[int]] = {PEER: set(), ACTOR: set()}
    while not study.ended:
        found = {pattern: study.processes(pattern) for pattern in seen}
        table = folder / "trials.parquet"
        if table.exists() and len(frame(folder, "trials")) == TRIALS:
            break  # the confirmation has gangs of its own
        for pattern, pids in found.items():
            seen[pattern] |= set(pids)
        time.sleep(0.2)
    assert study.finish() == 0, study.output
    assert "2 workers each" in study.output
    return folder, seen


def assert_each_epoch_once(folder: Path) -> None:
    expected = [(number, epoch) for number in range(TRIALS) for epoch in range(1, EPOCHS + 1)]
    assert sorted(trained(folder)) == expected
    labels = frame(folder, "labels")
    assert len(labels) == TRIALS * EPOCHS * 10
    assert not labels.duplicated(["number", "epoch", "label"]).any()
    assert json.loads((folder / "study.json").read_text())["status"] == "COMPLETE"
    assert frame(folder, "trials")["state"].tolist() == ["COMPLETE"] * TRIALS


def assert_near(folder: Path, reference: Path) -> None:
    for table in ("trials", "history"):
        mine, theirs = frame(folder, table), frame(reference, table)
        assert mine["val_map"].to_numpy() == pytest.approx(theirs["val_map"].to_numpy(), abs=0.005)


def assert_equal(folder: Path, reference: Path) -> None:
    """Bit for bit, but for what depends on the clock."""
    for table in ("trials", "history", "labels"):
        frames = [frame(path, table) for path in (folder, reference)]
        frames = [
            f.drop(columns=[n for n in f if n in CLOCK or re.match(r"seconds_|images_per", n)])
            for f in frames
        ]
        pd.testing.assert_frame_equal(frames[0], frames[1])


@pytest.mark.slow
def test_two_workers_find_what_one_finds(alone: Path, pair: tuple) -> None:
    folder, _ = pair
    for path in (alone, folder):
        assert_each_epoch_once(path)
    assert_near(folder, alone)
    mine, theirs = frame(folder, "trials"), frame(alone, "trials")
    for name in ("param_margin", "param_learning_rate"):
        assert mine[name].tolist()[0] == theirs[name].tolist()[0]


@pytest.mark.slow
def test_the_winner_of_two_workers_is_confirmed_by_two(pair: tuple) -> None:
    folder, _ = pair
    confirm = frame(folder, "confirm")
    assert confirm["seed"].tolist() == [0, 1, 0, 1]
    assert sorted(confirm["answer"]) == ["final"] * 2 + ["published"] * 2
    assert confirm["error"].isna().all()
    assert confirm["test_map"].between(0.3, 1).all()
    assert confirm["n_test"].tolist() == [60] * 4
    for seed in (0, 1):
        (model,) = (folder / "checkpoints").glob(f"confirm-t*-seed{seed}/model.safetensors")
        assert model.stat().st_size > 0


@pytest.mark.slow
def test_a_gang_stays_from_trial_to_trial(pair: tuple) -> None:
    _, seen = pair
    assert {pattern: len(pids) for pattern, pids in seen.items()} == {PEER: 1, ACTOR: 1}


_IN_PROCESS = """
import json, sys, time
from pathlib import Path
import ray
from ray.util import placement_group_table
from bbam_ray.engine.task import check_task, load_part
from bbam_ray.methods import run_config
from bbam_ray.results.study import StudyRecord
from bbam_ray.scale.cluster.connection import connected
from bbam_ray.scale.workers.shapes import GangShape
from bbam_ray.scale.search.pruning import Stopping
from bbam_ray.scale.study.plan import StudyPlan
from bbam_ray.scale.search.space_file import read_space
from bbam_ray.scale.study.run import run_study

folder, space_path, settings, events = Path(sys.argv[1]), Path(sys.argv[2]), {}, []
base = json.loads(sys.argv[3])
space = read_space(space_path, "digits", "bbam", base)
settings = {"device": "cpu", **base}
config = run_config({**settings, **space.published}, "test")
plan = StudyPlan(
    space=space, settings=settings, label_names=load_part(config, "train").label_names,
    num_samples=2, concurrency=1, shape=GangShape(2, 1, 0.0, 60.0), train_shape=None,
    confirm_top=1, confirm_seeds=1, max_failures=3, lag=1,
    stopping=Stopping("none", 4, 3, 6, 3, "val_map", "max"),
)
with connected("local", dashboard=False):
    run_study(plan, StudyRecord.create(folder, {"settings": settings}), events.append)
    states = [group["state"] for group in placement_group_table().values()]
    deadline, held = time.monotonic() + 20, 1.0
    while held and time.monotonic() < deadline:
        held = ray.cluster_resources()["CPU"] - ray.available_resources().get("CPU", 0)
        time.sleep(0.2)
print("RESULT" + json.dumps({"states": states, "held": held}))
"""


@pytest.mark.slow
def test_the_study_repeats_itself_and_leaves_no_placement_group(
    pair: tuple, tmp_path: Path, launch: Callable[..., Any], second_long: list[str]
) -> None:
    reference, _ = pair
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "study.py").write_text(_IN_PROCESS)
    settings = json.loads((reference / "study.json").read_text())["settings"]
    folder = tmp_path / "results" / "digits" / "again"
    script = launch(
        tmp_path / "study.py", str(folder), str(tmp_path / "space.yaml"), json.dumps(settings)
    )
    assert script.finish() == 0, script.output
    _, line = script.line("^RESULT")
    found = json.loads(line.removeprefix("RESULT"))
    assert len(found["states"]) >= 2  # that of the search and that of the confirmation
    assert set(found["states"]) == {"REMOVED"}
    assert found["held"] == 0
    assert_equal(folder, reference)


def kill_in_mid_trial(
    launch: Callable[..., Any],
    results: Path,
    flags: list[str],
    pattern: str,
    sent: signal.Signals = signal.SIGKILL,
) -> tuple[Path, pd.DataFrame]:
    """Kill or stop a process of the second trial; returns the folder, and the history at that moment."""
    study = launch("launch/tune.py", *arguments(results, "hurt", flags, "--confirm-seeds", "0"))
    folder = results / "digits" / "hurt"
    study.until(lambda: any(n == 1 and e >= 2 for n, e in trained(folder)), timeout=200)
    time.sleep(0.3)  # not at the border of an epoch, where the rows were just written
    study.until(lambda: study.processes(pattern))  # a loaded machine may be about to start it
    (pid,) = study.processes(pattern)
    before = frame(folder, "history")
    assert len(before) < TRIALS * EPOCHS
    os.kill(pid, sent)
    killed = time.monotonic()
    study.until(lambda: set(study.processes(pattern)) - {pid}, timeout=100)
    began = time.monotonic() - killed
    rows = len(before)
    study.until(lambda: len(trained(folder)) > rows or study.ended, timeout=150)
    print(f"new process after {began:.1f} s, new rows after {time.monotonic() - killed:.1f} s")
    assert study.finish() == 0, study.output
    return folder, before


def assert_went_on(folder: Path, before: pd.DataFrame) -> None:
    """Epochs before the kill were not trained again, but for the one whose checkpoint was not made."""
    after = frame(folder, "history")
    kept = before.merge(after, on=["number", "epoch"], suffixes=("", "_after"))
    assert len(kept) == len(before)
    again = kept[kept["seconds_train"] != kept["seconds_train_after"]]
    assert len(again) <= 1
    assert set(again["epoch"]) <= {before[before["number"] == 1]["epoch"].max()}
    assert len(before[before["number"] == 1]) >= 2


@pytest.mark.parametrize(
    ("pattern", "sent"),
    [
        pytest.param(PEER, signal.SIGKILL, id="peer killed", marks=pytest.mark.slow),
        pytest.param(ACTOR, signal.SIGKILL, id="actor killed", marks=pytest.mark.slow),
        pytest.param(PEER, signal.SIGSTOP, id="peer frozen", marks=pytest.mark.slow),
        pytest.param(ACTOR, signal.SIGSTOP, id="actor frozen", marks=pytest.mark.slow),
    ],
)
def test_a_gang_that_loses_a_worker_resumes(
    pattern: str,
    sent: signal.Signals,
    alone: Path,
    tmp_path: Path,
    launch: Callable[..., Any],
    second_long: list[str],
) -> None:
    flags = [*second_long, "--workers", "2", "--worker-timeout", "20s"]
    folder, before = kill_in_mid_trial(launch, tmp_path / "results", flags, pattern, sent)
    assert_each_epoch_once(folder)
    assert_went_on(folder, before)
    assert_near(folder, alone)


@pytest.mark.slow
def test_a_trial_of_one_worker_resumes_bit_for_bit(
    tmp_path: Path, launch: Callable[..., Any], second_long: list[str]
) -> None:
    # Longer epochs: the history is written every two seconds, and the trial must still run then.
    flags = [*second_long, "--set", "warmup_passes=120"]
    whole = launch(
        "launch/tune.py", *arguments(tmp_path / "results", "whole", flags, "--confirm-seeds", "0")
    )
    assert whole.finish() == 0, whole.output
    folder, before = kill_in_mid_trial(launch, tmp_path / "results", flags, ACTOR)
    assert_each_epoch_once(folder)
    assert_went_on(folder, before)
    assert_equal(folder, folder.parent / "whole")


@pytest.mark.slow
def test_a_configuration_that_fails_on_all_workers_leaves_the_gang_whole(
    tmp_path: Path, launch: Callable[..., Any]
) -> None:
    """Trials that fail when they are built and in an epoch, each followed by one that does not."""
    space = tmp_path / "space.yaml"
    space.write_text(
        "parameters:\n"
        "  backbone: {type: categorical, choices: [small-cnn, mlp]}\n"  # mlp takes no images
        "  unlabeled_weight: {type: categorical, choices: [1.0, 1.0e+38]}\n"  # not finite
        "published: {backbone: small-cnn, unlabeled_weight: 1.0e+38}\n"
    )
    tiny = {"scenes": 150, "test_scenes": 60, "labeled_fraction": 0.4, "hidden_dim": 16}
    settings = [part for name, value in tiny.items() for part in ("--set", f"{name}={value}")]
    study = launch(
        *("launch/tune.py", "--results", str(tmp_path / "results"), "--name", "f"),
        *("--space", str(space), "--no-dashboard", "--num-samples", "6", "--confirm-seeds", "0"),
        *("--epochs", "3", "--warmup-epochs", "2", "--workers", "2", "--folds", "1", *settings),
    )
    code = study.finish()
    trials = frame(tmp_path / "results" / "digits" / "f", "trials")
    whole = (trials["param_backbone"] == "small-cnn") & (trials["param_unlabeled_weight"] == 1)
    assert set(trials["state"][whole]) == {"COMPLETE"}
    assert set(trials["state"][~whole]) == {"FAILED"}
    assert code == 3, study.output
    assert trials["error"][~whole].str.len().gt(0).all()
    diverged = ~whole & (trials["param_backbone"] == "small-cnn")
    assert trials["error"][diverged].str.contains("not finite at epoch 3, step 1").all()
