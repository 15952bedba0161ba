"""A notice in the middle of an epoch: workers of Ray Train save at once, and the run resumes there."""

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

from bbam_ray.engine import checkpoint_folder
from bbam_ray.results.store import read_table

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

EPOCHS = 8
SAVED = r"^checkpoint after step (\d+) of epoch (\d+), (\d+\.\d) s after the request to stop"


@pytest.fixture(scope="module")
def long_epochs(second_long: list[str]) -> list[str]:
    """Flags of runs with epochs of several seconds, in which every step is a few milliseconds."""
    return [*second_long, "--set", "scenes=8000", "--epochs", str(EPOCHS)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, long_epochs: list[str], program: Any) -> Path:
    """An undisturbed run in one process."""
    results = tmp_path_factory.mktemp("alone") / "results"
    run = program("launch/train.py", "--results", str(results), "--name", "run", *long_epochs)
    assert run.finish() == 0, run.output
    return results / "digits" / "run"


def val_maps(folder: Path) -> dict[int, float]:
    history: pd.DataFrame = read_table(folder / "history.parquet").to_pandas()
    assert not history["epoch"].duplicated().any()
    return dict(zip(history["epoch"], history["val_map"], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [("1", "1"), ("2", "2"), ("2", "1"), ("1", "2")], ids="-".join)
def test_a_terminated_run_resumes_in_the_middle_of_its_epoch(
    workers: tuple[str, str],
    alone: Path,
    tmp_path: Path,
    launch: Callable[..., Any],
    long_epochs: list[str],
) -> None:
    """With the same number of workers or another one; a single one gives the same bits."""
    results, (before, after) = tmp_path / "results", workers
    flags = ["launch/train.py", "--results", str(results), "--name", "run", *long_epochs]
    run = launch(*flags, "--workers", before)
    run.line(r"^epoch +3/", timeout=200)
    time.sleep(1.5)
    os.kill(run.pid, signal.SIGTERM)
    assert run.finish(60) == 130, run.output
    match = re.search(SAVED, run.output, re.MULTILINE)
    assert match is not None, run.output
    step, epoch, seconds = int(match[1]), int(match[2]), float(match[3])
    assert step > 0 and seconds < 5
    print(f"{before} workers: {seconds} s")
    assert "--resume" in run.output and "Traceback" not in run.output
    folder = results / "digits" / "run"
    newest = next(checkpoint_folder.newest_first(folder / "checkpoints"))
    assert newest.name == checkpoint_folder.folder_name(epoch - 1, step)
    assert json.loads((folder / "study.json").read_text())["status"] == "INTERRUPTED"
    resumed = launch(*flags, "--workers", after, "--resume")
    assert resumed.finish() == 0, resumed.output
    assert re.search(rf"from epoch {epoch - 1} and {step} steps? of the next", resumed.output)
    expected = val_maps(alone)
    if workers == ("1", "1"):
        assert val_maps(folder) == expected
    else:
        assert val_maps(folder) == pytest.approx(expected, abs=0.005)


_DRAINED = """
import json, subprocess, sys, time
import os
os.environ["RAY_AUTH_MODE"] = "disabled"
import ray
from ray.cluster_utils import Cluster
from bbam_ray.scale.cluster import connection
from bbam_ray.scale.cluster.connection import connected
from bbam_ray.scale.workers.shapes import TrainShape
from bbam_ray.scale.workers.train_run import TrainJob, train_with_ray

settings, checkpoints = json.loads(sys.argv[1]), sys.argv[2]
os.environ.update(connection._SETTINGS)
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
shape = TrainShape(2, 2, cpus=1, gpus=0.0, timeout_s=60.0, max_failures=0)
drained = []

def tell(kind, **content):
    print("TOLD", json.dumps({"kind": kind, "at": time.time(), **content}), flush=True)

def drain():
    state = {actor["ActorID"]: actor for actor in ray._private.state.actors().values()}
    used = {a["Address"]["NodeID"] for a in state.values()
            if a["ActorClassName"].startswith("RayTrainWorker") and a["State"] == "ALIVE"}
    node = sorted(used)[0]
    drained.append(node)
    tell("drained", node=node)
    command = ["ray", "drain-node", "--address", cluster.address, "--node-id", node]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    subprocess.run([*command, "--deadline-remaining-seconds", "120"], check=True, timeout=60)
    tell("notice sent")

def listen(entry):
    if entry["kind"] == "epoch":
        row = entry["record"]["scalars"]
        tell("epoch", epoch=row["epoch"], val_map=row["val_map"], again=entry["again"])
        if row["epoch"] == 3 and not drained:
            drain()
    else:
        tell(**entry)

with connected("auto", environment=shape.environment()):
    cluster.wait_for_nodes()
    train_with_ray(TrainJob(settings, checkpoints, keep=2, every=1, cpus=1), shape, listen)
cluster.shutdown()
"""


@pytest.mark.slow
def test_workers_of_a_node_that_drains_save_and_start_again_elsewhere(
    alone: Path, tmp_path: Path, launch: Callable[..., Any]
) -> None:
    """One of two workers gets the notice; both stop at the same step, long before the deadline."""
    (tmp_path / "drained.py").write_text(_DRAINED)
    settings = json.loads((alone / "study.json").read_text())["settings"]
    run = launch(tmp_path / "drained.py", json.dumps(settings), str(tmp_path / "checkpoints"))
    assert run.finish(300) == 0, run.output
    entries = [json.loads(line[4:]) for _, line in run.lines if line.startswith("TOLD")]
    kinds = [entry["kind"] for entry in entries]
    assert "failed" not in kinds and kinds.count("started") == 2
    (stopped,) = (entry for entry in entries if entry["kind"] == "stopped")
    match = re.fullmatch(r"after step (\d+) of epoch (\d+)", stopped["where"])
    assert match is not None, stopped
    first, second = (entry for entry in entries if entry["kind"] == "started")
    assert (first["epoch"], first["step"]) == (0, None)
    assert (second["epoch"], second["step"]) == (int(match[2]) - 1, int(match[1]))
    (sent,) = (entry["at"] for entry in entries if entry["kind"] == "notice sent")
    print(
        f"checkpoint {stopped['at'] - sent:.1f} s after the notice was sent, {stopped['seconds']:.2f} s"
    )
    print(f"workers started again {second['at'] - sent:.1f} s after it")
    assert stopped["at"] - sent < 20 and second["at"] - sent < 100
    rows = {entry["epoch"]: entry["val_map"] for entry in entries if entry["kind"] == "epoch"}
    assert rows == pytest.approx(val_maps(alone), abs=0.005)
    trained = [e["epoch"] for e in entries if e["kind"] == "epoch" and not e["again"]]
    assert trained == sorted(rows)  # none is trained twice


_SEARCH = """
import os, subprocess, sys, time
from pathlib import Path
os.environ["RAY_AUTH_MODE"] = "disabled"
import ray
from ray.cluster_utils import Cluster
import bbam_ray
from bbam_ray.scale.cluster import connection

results, flags = Path(sys.argv[1]), sys.argv[2:]
os.environ.update(connection._SETTINGS)
head = {"num_cpus": 0, "include_dashboard": False, "resources": {connection.TRIAL_SLOT: 1000}}
cluster = Cluster(initialize_head=True, head_node_args=head, connect=True)
nodes = [cluster.add_node(num_cpus=1)]
cluster.wait_for_nodes()
script = Path(bbam_ray.__file__).parents[1] / "launch" / "tune.py"
command = [sys.executable, str(script), "--address", "auto", "--results", str(results), *flags]
study = subprocess.Popen(command, env={**os.environ, "RAY_ADDRESS": cluster.address})
trials = results / "digits" / "s" / "checkpoints" / "trials"

def wait(condition):
    while not condition():
        assert study.poll() is None, "the study has ended"
        time.sleep(0.02)

wait(lambda: list(trials.glob("*/t00000/epoch-00002")))
time.sleep(0.5)
drain = ["ray", "drain-node", "--address", cluster.address, "--node-id", nodes[0].node_id]
drain += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
subprocess.run([*drain, "--deadline-remaining-seconds", "60"], check=True, timeout=60)
sent = time.monotonic()
wait(lambda: list(trials.glob("*/t00000/epoch-*-step-*")))
(saved,) = trials.glob("*/t00000/epoch-*-step-*")
print(f"SAVED {saved.name} {time.monotonic() - sent:.1f}", flush=True)
cluster.remove_node(nodes[0], allow_graceful=False)
cluster.add_node(num_cpus=1)
code = study.wait(300)
print("CODE", code, flush=True)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_trial_of_a_node_that_drains_resumes_in_its_epoch_elsewhere(
    tmp_path: Path, launch: Callable[..., Any], program: Any, long_epochs: list[str]
) -> None:
    flags = ["--name", "s", *long_epochs, "--num-samples", "1", "--confirm-seeds", "0"]
    flags += ["--folds", "1", "--final", "single", "--no-baselines", "--no-dashboard"]
    flags += ["--no-reuse", "--scheduler", "none"]
    (tmp_path / "search.py").write_text(_SEARCH)
    run = launch(tmp_path / "search.py", str(tmp_path / "drained"), *flags)
    assert run.finish(350) == 0, run.output
    _, line = run.line("^SAVED")
    print(line)
    _, name, seconds = line.split()
    assert re.fullmatch(r"epoch-\d{5}-step-\d{5}", name) and float(seconds) < 30
    assert run.line("^CODE")[1] == "CODE 0", run.output
    whole = program("launch/tune.py", "--results", str(tmp_path / "whole"), *flags)
    assert whole.finish() == 0, whole.output
    drained, alone = (val_maps(tmp_path / n / "digits" / "s") for n in ("drained", "whole"))
    assert drained == alone and list(alone) == list(range(1, EPOCHS + 1))
