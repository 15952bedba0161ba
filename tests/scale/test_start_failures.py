"""Commands whose workers cannot start, with real Ray: one sentence, failed trials, and a resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from bbam_ray.results.store import read_table
from stress import start_faults
from stress.start_faults import START_FAULTS, StartFault
from stress.stored_study import without_times

pytestmark = [pytest.mark.ray, pytest.mark.timeout(500)]

ROOT = Path(__file__).parents[2]
TINY = {"scenes": 150, "test_scenes": 60, "labeled_fraction": 0.4, "warmup_passes": 1}
TINY |= {"hidden_dim": 16, "feature_dim": 8}
SETTINGS = [part for name, value in TINY.items() for part in ("--set", f"{name}={value}")]
SETTINGS += ["--epochs", "2", "--warmup-epochs", "1"]
SEARCH = ["--no-dashboard", "--no-baselines", "--confirm-seeds", "0", "--max-concurrent", "2"]
SINGLE = ["--folds", "1", "--final", "single", "--no-reuse"]
FAULTS = {fault.name: fault for fault in START_FAULTS}


@dataclass
class Command:
    """Runs commands in a folder of their own.

    Args:
        folder: for the results and files of obstacles; the current folder is one in it.
    """

    folder: Path

    def __post_init__(self) -> None:
        self.current, self.results = self.folder / "current", self.folder / "results"
        self.current.mkdir()

    def __call__(
        self, script: str, *flags: str, variables: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        where = ["--results", str(self.results), "--name", "s"]
        return subprocess.run(
            [sys.executable, str(ROOT / "launch" / script), *where, *SETTINGS, *flags],
            cwd=self.current,
            env={**os.environ, "COLUMNS": "300", **(variables or {})},
            capture_output=True,
            text=True,
            timeout=400,
        )

    def obstacle(self, fault: StartFault) -> dict[str, str]:
        """Variables of an environment in which workers cannot start."""
        (folder := self.folder / "obstacle").mkdir()
        return fault.prepare(folder)

    def table(self, name: str, study: str = "s") -> pd.DataFrame:
        return read_table(self.results / "digits" / study / f"{name}.parquet").to_pandas()

    def status(self) -> str:
        record = json.loads((self.results / "digits" / "s" / "study.json").read_text())
        return str(record["status"])


@pytest.fixture()
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


def the_sentence(ended: subprocess.CompletedProcess[str], fault: StartFault) -> str:
    """The only line on standard error; the cause is nowhere else."""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ") and fault.cause in line, line
    assert "--name s --resume" in line
    assert fault.cause not in ended.stdout
    for word in ("Traceback", "(raylet)", "KeyError"):
        assert word not in ended.stdout
    return line


def assert_not_started(trials: pd.DataFrame, fault: StartFault) -> None:
    assert trials["state"].tolist() == ["FAILED"] * len(trials)
    assert trials["error"].str.contains(fault.cause, regex=False).all()
    assert trials["error"].str.contains("on node 127.0.0.1: ", regex=False).all()
    assert trials["started_at"].isna().all()
    assert trials["epochs"].tolist() == [0] * len(trials)


@pytest.mark.parametrize("path", ["", os.pathsep], ids=["", "an empty entry of PYTHONPATH"])
def test_modules_of_the_current_folder_do_no_harm(command: Command, path: str) -> None:
    """Neither to a search nor, when its trials are copied, to the trainings after it."""
    # Python itself reads an empty entry, before the command line can ignore it.
    start_faults.shadow(command.current, ["statistics"] if path else start_faults.SHADOWED_MODULES)
    variables = {"PYTHONPATH": os.environ.get("PYTHONPATH", "") + path}
    ended = command("tune.py", *SEARCH, *SINGLE, "--num-samples", "2", variables=variables)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert command.table("trials")["state"].tolist() == ["COMPLETE"] * 2
    flags = [
        *SEARCH,
        "--folds",
        "1",
        "--final",
        "single",
        "--num-samples",
        "2",
        "--confirm-seeds",
        "1",
    ]
    ended = command("tune.py", *flags, "--name", "again", variables=variables)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert command.table("trials", "again")["answered_by"].tolist() == ["s/t00000", "s/t00001"]
    confirm = command.table("confirm", "again")
    assert confirm["error"].isna().all() and confirm["test_map"].notna().all()


def test_a_search_without_a_package_ends_at_once_and_resume_runs_what_is_missing(
    command: Command,
) -> None:
    flags = [*SEARCH, *SINGLE]
    ended = command("tune.py", *flags, "--num-samples", "1")
    assert ended.returncode == 0, ended.stderr
    first = command.table("trials")
    fault = start_faults.MISSING
    variables = command.obstacle(fault)
    log = command.folder / "attempts"
    variables["START_ATTEMPTS"] = str(log)
    ended = command("tune.py", *flags, "--num-samples", "6", "--resume", variables=variables)
    assert ended.returncode == 3, ended.stdout  # a trial is complete
    the_sentence(ended, fault)
    assert len(set(log.read_text().split())) == 2  # processes: as many as trials at once
    trials = command.table("trials")
    assert trials["number"].tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(trials[:1], first, check_dtype=False)
    assert_not_started(trials[1:], fault)
    assert "the search ended after 3 of 6 trials" in ended.stdout
    ended = command("tune.py", *flags, "--num-samples", "6", "--resume")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "1 done before" in ended.stdout
    run = [line.split()[1] for line in ended.stdout.splitlines() if line.startswith("trial ")]
    assert sorted(run) == ["1", "2", "3", "4", "5"]
    trials = command.table("trials")
    pd.testing.assert_frame_equal(trials[:1], first, check_dtype=False)
    assert trials["state"].tolist() == ["COMPLETE"] * 6
    history = command.table("history")
    epochs = [(number, epoch) for number in range(6) for epoch in (1, 2)]
    assert list(zip(history["number"], history["epoch"], strict=True)) == epochs


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.cause])
def test_nothing_succeeds_where_no_worker_can_start(command: Command, name: str) -> None:
    fault = FAULTS[name]
    flags = [*SEARCH, *SINGLE, "--num-samples", "4"]
    ended = command("tune.py", *flags, variables=command.obstacle(fault))
    assert ended.returncode == 1, ended.stdout
    the_sentence(ended, fault)
    trials = command.table("trials")
    assert trials["number"].tolist() == [0, 1]
    assert_not_started(trials, fault)
    assert command.status() == "FAILED"
    assert "the search ended after 2 of 4 trials" in ended.stdout
    ended = command("tune.py", *flags, "--resume")
    assert (ended.returncode, ended.stderr) == (0, "")
    undisturbed = command("tune.py", *flags, "--name", "undisturbed")
    assert undisturbed.returncode == 0
    for table in ("trials", "history", "labels"):
        both = [without_times(command.table(table, study)) for study in ("s", "undisturbed")]
        pd.testing.assert_frame_equal(*both)


SEVERAL = {
    "gang": ["--workers", "2"],
    "Ray Train in each trial": ["--workers", "2", "--trial-runner", "train"],
}


@pytest.mark.slow
@pytest.mark.parametrize("workers", SEVERAL)
@pytest.mark.parametrize("fault", [start_faults.MISSING, start_faults.DIES], ids=lambda f: f.name)
def test_trials_of_several_workers(command: Command, workers: str, fault: StartFault) -> None:
    flags = [*SEARCH, *SINGLE, *SEVERAL[workers], "--num-samples", "4", "--max-concurrent", "1"]
    ended = command("tune.py", *flags, variables=command.obstacle(fault))
    assert ended.returncode == 1, ended.stdout
    the_sentence(ended, fault)
    trials = command.table("trials")
    assert trials["number"].tolist() == [0]
    assert_not_started(trials, fault)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.cause])
def test_a_run_under_ray_train_fails_with_a_sentence_and_resumes(
    command: Command, name: str
) -> None:
    fault = FAULTS[name]
    ended = command("train.py", "--workers", "2", variables=command.obstacle(fault))
    assert ended.returncode == 1, ended.stdout
    the_sentence(ended, fault)
    assert_not_started(command.table("trials"), fault)
    assert command.status() == "FAILED"
    ended = command("train.py", "--workers", "2", "--resume")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert command.table("history")["epoch"].tolist() == [1, 2]
    assert command.status() == "COMPLETE"


@pytest.mark.slow
def test_trainings_after_the_search_that_cannot_start(command: Command) -> None:
    """Folds of a further seed, models of all samples and confirming runs."""
    flags = [*SEARCH, "--folds", "2", "--final", "ensemble", "--no-reuse", "--num-samples", "1"]
    ended = command("tune.py", *flags)
    assert ended.returncode == 0, ended.stderr
    flags += ["--confirm-seeds", "2", "--resume"]
    fault = start_faults.IMPORT_ERROR
    ended = command("tune.py", *flags, variables=command.obstacle(fault))
    assert ended.returncode == 3, ended.stdout
    (line,) = ended.stderr.splitlines()
    assert fault.cause in line
    confirm = command.table("confirm")
    assert sorted(confirm["answer"]) == ["final", "final", "published", "published"]
    assert confirm["error"].str.contains(fault.cause, regex=False).all()
    assert confirm["test_map"].isna().all()
    ended = command("tune.py", *flags)
    assert (ended.returncode, ended.stderr) == (0, "")
    confirm = command.table("confirm")
    assert len(confirm) == 4 and confirm["test_map"].notna().all()


@pytest.fixture()
def broken_node(tmp_path: Path) -> Iterator[Callable[[StartFault], dict[str, str]]]:
    """Starts a cluster on one of whose two nodes workers cannot start; returns variables to join it."""
    processes: list[subprocess.Popen[str]] = []

    def start(fault: StartFault) -> dict[str, str]:
        (folder := tmp_path / "node").mkdir()
        process = subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "tests" / "scale" / "broken_node_script.py"),
                json.dumps(fault.prepare(folder)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("ADDRESS "):
                return {"RAY_ADDRESS": line.split()[1], "RAY_AUTH_MODE": "disabled"}
        raise AssertionError("the cluster has ended")

    yield start
    for process in processes:
        process.communicate(timeout=60)  # the script ends with its input


@pytest.mark.slow
def test_a_broken_node_fails_one_trial_and_the_others_run_elsewhere(
    command: Command, broken_node: Callable[[StartFault], dict[str, str]]
) -> None:
    fault = start_faults.MISSING
    flags = [*SEARCH, *SINGLE, "--num-samples", "5", "--address", "auto"]
    ended = command("tune.py", *flags, variables=broken_node(fault))
    assert ended.returncode == 3, ended.stdout
    (line,) = ended.stderr.splitlines()
    assert fault.cause in line
    trials = command.table("trials")
    assert trials["number"].tolist() == [0, 1, 2, 3, 4]
    assert sorted(trials["state"]) == ["COMPLETE"] * 4 + ["FAILED"]
    ended = command("tune.py", *SEARCH, *SINGLE, "--num-samples", "5", "--resume")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "4 done before" in ended.stdout
    assert command.table("trials")["state"].tolist() == ["COMPLETE"] * 5


@pytest.mark.slow
@pytest.mark.parametrize("fault", [start_faults.MISSING, start_faults.DIES], ids=lambda f: f.name)
def test_a_gang_on_a_broken_and_a_good_node_fails_at_once(
    command: Command, broken_node: Callable[[StartFault], dict[str, str]], fault: StartFault
) -> None:
    flags = [*SEARCH, *SINGLE, "--workers", "2", "--num-samples", "3", "--max-concurrent", "1"]
    ended = command("tune.py", *flags, "--address", "auto", variables=broken_node(fault))
    assert ended.returncode == 1, ended.stdout
    (line,) = ended.stderr.splitlines()
    assert fault.cause in line
    assert command.table("trials")["number"].tolist() == [0]


# The first worker runs on the good node and waits half an hour for a group of processes.
_GANG = """
import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from bbam_ray.errors import StartError
from bbam_ray.methods import run_config
from bbam_ray.scale.cluster.connection import connected
from bbam_ray.scale.workers.gang import Gang
from bbam_ray.scale.workers.shapes import GangShape
from bbam_ray.scale.workers.versions import versions

def start(driver):
    try:
        Gang(GangShape(2, 1, 0.0, 1800.0), "gang", driver)
    except StartError as error:
        return error.cause

with connected("auto"):
    group = placement_group([{"CPU": 1, "good": 1}, {"CPU": 1, "bad": 1}])
    strategy = PlacementGroupSchedulingStrategy(group, 0, True)
    task = ray.remote(num_cpus=1, scheduling_strategy=strategy)(start)
    driver = versions(run_config({"dataset": "digits"}, "test"))
    print("CAUSE", ray.get(task.remote(driver), timeout=150))
"""


@pytest.mark.slow
@pytest.mark.parametrize("fault", [start_faults.MISSING, start_faults.DIES], ids=lambda f: f.name)
def test_the_first_worker_of_a_gang_does_not_wait_for_one_that_cannot_start(
    broken_node: Callable[[StartFault], dict[str, str]], fault: StartFault
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _GANG],
        env={**os.environ, **broken_node(fault)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(f"CAUSE {fault.cause}"), ended.stdout
