"""Runs under Ray Train, through the command line: any number of workers, and no loss when one goes."""

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
import torch
from safetensors.torch import load_file

from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.checkpoint import load_checkpoint
from bbam_ray.results.store import read_table

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

EPOCHS = 6
WORKER = "ray::RayTrainWorker"
FROM = r"workers?, from epoch (\d+)"
PRINTED = r"^epoch +(\d+)/"


def frame(folder: Path, table: str) -> pd.DataFrame:
    return read_table(folder / f"{table}.parquet").to_pandas()


def status(folder: Path) -> str:
    return json.loads((folder / "study.json").read_text())["status"]


def arguments(results: Path, flags: list[str], *more: str) -> list[str]:
    return ["launch/train.py", "--results", str(results), "--name", "run", *flags, *more]


def run_folder(results: Path) -> Path:
    return results / "digits" / "run"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, second_long: list[str], program: Any) -> Path:
    """An undisturbed run in one process."""
    results = tmp_path_factory.mktemp("alone") / "results"
    run = program(*arguments(results, second_long, "--test"))
    assert run.finish() == 0, run.output
    return run_folder(results)


def printed_and_kept(run: Any, folder: Path, least: int) -> int:
    """Wait until an epoch from a certain one on is printed and its checkpoint is whole; its number."""
    run.line(rf"^epoch +{least}/", timeout=200)
    moment, line = next((m, t) for m, t in reversed(list(run.lines)) if re.search(PRINTED, t))
    match = re.search(PRINTED, line)
    assert match is not None and moment
    epoch = int(match[1])
    kept = folder / "checkpoints" / checkpoint_folder.folder_name(epoch)
    run.until(lambda: kept.is_dir() and checkpoint_folder.defect(kept) is None, timeout=60)
    return epoch


def began_again(run: Any, killed: float, timeout: float = 150) -> int:
    """The epoch that workers went on from after a moment; prints how long it took."""
    moment, line = run.line(FROM, after=killed, timeout=timeout)
    print(f"{moment - killed:.1f} s until '{line}'")
    match = re.search(FROM, line)
    assert match is not None
    return int(match[1])


def assert_like(folder: Path, reference: Path) -> None:
    """Every epoch once, the same course, and the files of the contract."""
    history, expected = frame(folder, "history"), frame(reference, "history")
    assert history["epoch"].tolist() == list(range(1, EPOCHS + 1))
    assert history["phase"].tolist() == expected["phase"].tolist()
    assert history["val_map"].to_numpy() == pytest.approx(expected["val_map"].to_numpy(), abs=0.005)
    labels = frame(folder, "labels")
    assert len(labels) == EPOCHS * 10
    assert not labels.duplicated(["epoch", "label"]).any()
    (trial,) = frame(folder, "trials").to_dict("records")
    assert trial["state"] == "COMPLETE"
    assert trial["epochs"] == EPOCHS
    assert trial["best_epoch"] == (3 if trial["kept"].startswith("warmup") else EPOCHS)
    assert trial["val_map"] == history.set_index("epoch")["val_map"][trial["best_epoch"]]
    assert status(folder) == "COMPLETE"
    model = load_file(folder / "checkpoints" / "model" / "model.safetensors")
    assert model["network.head.weight"].shape[0] == 10
    last = next(checkpoint_folder.newest_first(folder / "checkpoints"))
    assert checkpoint_folder.epoch_of(last) == EPOCHS
    assert checkpoint_folder.defect(last) is None


@pytest.mark.slow
def test_two_workers_train_as_one_does(
    alone: Path, tmp_path: Path, launch: Callable[..., Any], second_long: list[str]
) -> None:
    results = tmp_path / "results"
    run = launch(*arguments(results, second_long, "--test", "--workers", "2"))
    assert run.finish() == 0, run.output
    folder = run_folder(results)
    assert_like(alone, alone)
    assert_like(folder, alone)
    assert len(re.findall(FROM, run.output)) == 1
    assert re.search(r"^2 workers, from epoch 0$", run.output, re.MULTILINE)
    assert len(re.findall(PRINTED, run.output, re.MULTILINE)) == EPOCHS
    assert "Traceback" not in run.output
    both = [frame(path, "confirm")["test_map"].tolist() for path in (alone, folder)]
    assert both[1] == pytest.approx(both[0], abs=0.01)
    names = [sorted(path.name for path in one.iterdir()) for one in (alone, folder)]
    assert names[0] == names[1]
    kept = [p.name for p in checkpoint_folder.newest_first(folder / "checkpoints")]
    assert kept[:2] == ["epoch-00006", "epoch-00005"]
    assert len(kept) <= 3  # the last two and that of the best epoch


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_no_epoch_is_lost(
    alone: Path, tmp_path: Path, launch: Callable[..., Any], second_long: list[str]
) -> None:
    results = tmp_path / "results"
    run = launch(*arguments(results, second_long, "--workers", "2"))
    done = printed_and_kept(run, run_folder(results), 2)
    workers = run.processes(WORKER)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    assert began_again(run, time.monotonic()) >= done
    assert run.finish() == 0, run.output
    assert re.findall(r"(\d) workers, from", run.output) == ["2", "2"]
    assert_like(run_folder(results), alone)


@pytest.mark.slow
def test_a_frozen_worker_does_not_hold_the_run_up(
    alone: Path, tmp_path: Path, launch: Callable[..., Any], second_long: list[str]
) -> None:
    results = tmp_path / "results"
    run = launch(*arguments(results, second_long, "--workers", "2", "--worker-timeout", "15s"))
    done = printed_and_kept(run, run_folder(results), 2)
    workers = run.processes(WORKER)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGSTOP)
    assert began_again(run, time.monotonic(), timeout=120) >= done
    assert run.finish(180) == 0, run.output
    assert_like(run_folder(results), alone)


_ONE_WORKER = """
import json, sys
from bbam_ray.scale.cluster.connection import connected
from bbam_ray.scale.workers.shapes import TrainShape
from bbam_ray.scale.workers.train_run import TrainJob, train_with_ray

def listen(entry):
    if entry["kind"] == "epoch":
        row = entry["record"]["scalars"]
        print("epoch", f"{row['epoch']}/", "again" if entry["again"] else "", flush=True)
        print("ROW" + json.dumps(row | {"labels": entry["record"]["labels"]}), flush=True)
    else:
        print(f"{entry['workers']} worker, from epoch {entry['epoch']}", entry, flush=True)

shape = TrainShape(1, 1, cpus=1, gpus=0.0, timeout_s=30.0, max_failures=3)
job = TrainJob(json.loads(sys.argv[1]), sys.argv[2], keep=2, every=1, cpus=1)
with connected("local", environment=shape.environment()):
    train_with_ray(job, shape, listen)
"""


@pytest.mark.slow
def test_one_worker_that_was_killed_gives_the_same_weights_bit_for_bit(
    alone: Path, tmp_path: Path, launch: Callable[..., Any], identical: Callable[[Any, Any], bool]
) -> None:
    (tmp_path / "one.py").write_text(_ONE_WORKER)
    settings = json.loads((alone / "study.json").read_text())["settings"]
    mine, theirs = tmp_path / "run" / "checkpoints", alone / "checkpoints"
    run = launch(tmp_path / "one.py", json.dumps(settings), str(mine))
    done = printed_and_kept(run, mine.parent, 2)
    (worker,) = run.processes(WORKER)
    os.kill(worker, signal.SIGKILL)
    assert began_again(run, time.monotonic()) >= done
    assert run.finish() == 0, run.output
    models = [load_file(path / "model" / "model.safetensors") for path in (mine, theirs)]
    torch.testing.assert_close(models[0], models[1], rtol=0, atol=0, equal_nan=True)
    name = checkpoint_folder.folder_name(EPOCHS)
    states = [load_checkpoint(path / name / "state.pt")["trainer"] for path in (mine, theirs)]
    assert identical(*states)
    rows = {}
    for _, line in run.lines:
        if line.startswith("ROW"):
            row = json.loads(line.removeprefix("ROW"))
            rows[row["epoch"]] = row
    expected = frame(alone, "history").to_dict("records")
    assert sorted(rows) == [row["epoch"] for row in expected]
    for row in expected:
        for column in ("loss", "val_map", "val_micro_f1", "lr"):
            assert rows[row["epoch"]][column] == row[column]


@pytest.mark.slow
def test_records_survive_the_process_that_keeps_them(
    alone: Path, tmp_path: Path, launch: Callable[..., Any], second_long: list[str]
) -> None:
    """It is killed twice; no epoch is lost or doubled, and the workers do not notice."""
    results = tmp_path / "results"
    run = launch(*arguments(results, second_long, "--workers", "2"))
    killed: list[int] = []
    for epoch in (2, 4):
        run.line(rf"^epoch +{epoch}/", timeout=200)
        run.until(lambda: set(run.processes(r"ray::Ledger\b")) - set(killed))
        (process,) = set(run.processes(r"ray::Ledger\b")) - set(killed)
        os.kill(process, signal.SIGKILL)
        killed.append(process)
    assert run.finish() == 0, run.output
    assert re.findall(r"(\d) workers, from", run.output) == ["2"]
    printed = [int(n) for n in re.findall(PRINTED, run.output, re.MULTILINE)]
    assert printed == list(range(1, EPOCHS + 1))
    assert_like(run_folder(results), alone)


@pytest.mark.slow
def test_a_run_whose_controlling_process_is_killed_resumes(
    alone: Path, tmp_path: Path, launch: Callable[..., Any], second_long: list[str]
) -> None:
    results = tmp_path / "results"
    run = launch(*arguments(results, second_long, "--workers", "2"))
    done = printed_and_kept(run, run_folder(results), 2)
    (process,) = run.processes(r"ray::TrainController\b")
    os.kill(process, signal.SIGKILL)
    assert began_again(run, time.monotonic()) >= done
    assert run.finish() == 0, run.output
    assert_like(run_folder(results), alone)


# Ray Train gives up after four waits of a second; the CPUs are free after the first of these.
_BUSY = (
    """
import os, threading, time
os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "1"
import ray
from ray.util.placement_group import placement_group, remove_placement_group
from bbam_ray.scale.workers import train_run
"""
    + _ONE_WORKER.replace(
        "    train_with_ray(",
        """    holder = placement_group([{"CPU": float(os.cpu_count())}])
    ray.get(holder.ready())
    follow, starts = train_run._follow, []

    def noted(*arguments):
        starts.append(time.monotonic())
        if len(starts) == 2:
            remove_placement_group(holder)
        return follow(*arguments)

    train_run._follow = noted
    train_with_ray(""",
    )
    + """
print("STARTS", len(starts))
"""
)


@pytest.mark.slow
def test_a_run_waits_longer_for_busy_workers_than_for_those_that_die(
    alone: Path, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    (tmp_path / "busy.py").write_text(_BUSY)
    settings = json.loads((alone / "study.json").read_text())["settings"]
    run = launch(tmp_path / "busy.py", json.dumps(settings), str(tmp_path / "run" / "checkpoints"))
    assert run.finish() == 0, run.output
    _, line = run.line("^STARTS")
    assert int(line.split()[1]) >= 2
    epochs = [int(n) for n in re.findall(r"^epoch (\d+)/", run.output, re.MULTILINE)]
    assert epochs == list(range(1, EPOCHS + 1))


@pytest.mark.slow
def test_a_killed_driver_leaves_a_run_that_another_number_of_workers_finishes(
    alone: Path, tmp_path: Path, launch: Callable[..., Any], second_long: list[str]
) -> None:
    """Two workers, all killed at once; then one in process, although the newest checkpoint is torn."""
    results = tmp_path / "results"
    folder = run_folder(results)
    run = launch(*arguments(results, second_long, "--workers", "2"))
    printed_and_kept(run, folder, 2)  # workers notice after an epoch or two
    run.processes()
    os.killpg(run.pid, signal.SIGKILL)
    assert run.finish() == -signal.SIGKILL
    assert status(folder) == "RUNNING"
    newest, before, *_ = checkpoint_folder.newest_first(folder / "checkpoints")
    assert checkpoint_folder.epoch_of(newest) < EPOCHS
    state = newest / checkpoint_folder.STATE
    whole = state.stat().st_size if state.exists() else 0
    with state.open("ab") as file:
        file.truncate(whole // 2)
    resumed = launch(*arguments(results, second_long, "--workers", "1", "--resume"))
    assert resumed.finish() == 0, resumed.output
    assert f"damaged checkpoint left out: {state}" in resumed.output
    epoch = checkpoint_folder.epoch_of(before)
    assert f"1 worker, from epoch {epoch}" in resumed.output
    numbers = [int(n) for n in re.findall(PRINTED, resumed.output, re.MULTILINE)]
    assert numbers == list(range(epoch + 1, EPOCHS + 1))
    assert_like(folder, alone)


@pytest.mark.slow
def test_ctrl_c_keeps_the_run_and_resume_finishes_it(
    alone: Path, tmp_path: Path, launch: Callable[..., Any], second_long: list[str]
) -> None:
    results = tmp_path / "results"
    folder = run_folder(results)
    run = launch(*arguments(results, second_long, "--workers", "2"))
    done = printed_and_kept(run, folder, 2)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    assert run.finish(60) == 130, run.output
    assert "--resume" in run.output
    assert "Traceback" not in run.output
    assert status(folder) == "INTERRUPTED"
    resumed = launch(*arguments(results, second_long, "--workers", "2", "--resume"))
    assert resumed.finish() == 0, resumed.output
    match = re.search(r"2 workers, from epoch (\d+)", resumed.output)
    assert match is not None
    assert int(match[1]) >= done
    assert_like(folder, alone)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run_at_once(
    tmp_path: Path, launch: Callable[..., Any]
) -> None:
    tiny = {"scenes": 150, "test_scenes": 60, "hidden_dim": 16, "unlabeled_weight": "1e38"}
    flags = [part for name, value in tiny.items() for part in ("--set", f"{name}={value}")]
    flags += ["--epochs", "4", "--warmup-epochs", "2", "--labeled-fraction", "0.4"]
    run = launch(*arguments(tmp_path / "results", flags, "--workers", "2"))
    assert run.finish() == 1, run.output
    assert re.search(r"^error: .*not finite at epoch 3, step 1", run.output, re.MULTILINE)
    assert len(re.findall(FROM, run.output)) == 1  # nothing was tried again
    folder = run_folder(tmp_path / "results")
    assert status(folder) == "FAILED"
    assert frame(folder, "history")["epoch"].tolist() == [1, 2]
    (trial,) = frame(folder, "trials").to_dict("records")
    assert trial["state"] == "FAILED"
    assert "not finite" in trial["error"]
