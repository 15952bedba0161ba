"""Runs on a cluster whose nodes come and go, and whether a cluster can have the workers at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bbam_ray.results.store import read_table
from bbam_ray.scale.cluster.capacity import fitting

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

NODE = {"CPU": 4.0, "GPU": 2.0, "memory": 1e9}


@pytest.mark.parametrize(
    ("bundle", "nodes", "workers"),
    [
        ({"CPU": 1.0}, [NODE], 4),
        ({"CPU": 1.0}, [NODE, {"CPU": 1.0}, {"memory": 1e9}], 5),
        (
            {"CPU": 3.0},
            [NODE, NODE, {"CPU": 2.0}],
            2,
        ),  # what is left over on two nodes is no worker
        ({"CPU": 5.0}, [NODE, NODE], 0),
        ({"CPU": 1.0, "GPU": 1.0}, [NODE, {"CPU": 8.0}], 2),
        ({"CPU": 2.0, "GPU": 0.5}, [NODE], 2),
        ({"CPU": 1.0, "GPU": 0.1}, [{"CPU": 100.0, "GPU": 1.0}], 10),
        ({"CPU": 1.0, "GPU": 0.0}, [{"CPU": 3.0}], 3),  # what is not asked for may be absent
        ({"CPU": 1.0}, [], 0),
    ],
)
def test_workers_that_fit(
    bundle: dict[str, float], nodes: list[dict[str, float]], workers: int
) -> None:
    assert fitting(bundle, nodes) == workers


_CLUSTER = """
import json, os, sys, time
os.environ["RAY_AUTH_MODE"] = "disabled"
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from bbam_ray.errors import UsageError
from bbam_ray.scale.cluster.capacity import wait_for_workers
from bbam_ray.scale.cluster.connection import connected
from bbam_ray.scale.workers.shapes import TrainShape
from bbam_ray.scale.workers.train_run import TrainJob, train_with_ray

started = time.monotonic()

def tell(kind, **content):
    print("TOLD" + json.dumps({"kind": kind, "at": time.monotonic() - started} | content), flush=True)

def refused(*question):
    before = time.monotonic()
    try:
        wait_for_workers(*question)
    except UsageError as error:
        tell("refused", reason=str(error), seconds=time.monotonic() - before)
    else:
        tell("accepted", seconds=time.monotonic() - before)

def train(cluster, settings, checkpoints, shape, after):
    job = TrainJob(settings, checkpoints, keep=2, every=1, cpus=1)
    def listen(entry):
        if entry["kind"] == "epoch":
            tell("epoch", row=entry["record"]["scalars"], again=entry["again"])
        else:
            tell(**entry)
        after(entry)
    train_with_ray(job, shape, listen)

head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": 0}
cluster = Cluster(initialize_head=True, head_node_args=head)
os.environ["RAY_ADDRESS"] = cluster.address
settings, checkpoints = json.loads(sys.argv[1]), sys.argv[2]
"""

_REPLACED = (
    _CLUSTER
    + """
nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
shape = TrainShape(2, 2, cpus=1, gpus=0.0, timeout_s=60.0, max_failures=8)

def after(entry):
    if entry["kind"] == "epoch" and entry["record"]["scalars"]["epoch"] == 2 and len(nodes) == 2:
        cluster.remove_node(nodes[0], allow_graceful=False)
        tell("removed")
        nodes.append(cluster.add_node(num_cpus=1))
        tell("added")

with connected("auto", environment=shape.environment()):
    cluster.wait_for_nodes()
    refused(3, {"CPU": 1.0}, 60.0)
    refused(1, {"CPU": 2.0}, 60.0)
    refused(2, {"CPU": 1.0}, 60.0)
    holder = placement_group([{"CPU": 1.0}])
    ray.get(holder.ready())
    refused(2, {"CPU": 1.0}, 3.0)
    refused(1, {"CPU": 1.0}, 60.0)
    remove_placement_group(holder)
    refused(2, {"CPU": 1.0}, 60.0)
    tell("groups", states=[group["state"] for group in placement_group_table().values()])
    train(cluster, settings, checkpoints, shape, after)
cluster.shutdown()
"""
)

_ELASTIC = (
    _CLUSTER
    + """
nodes = [cluster.add_node(num_cpus=1)]
shape = TrainShape(1, 2, cpus=1, gpus=0.0, timeout_s=60.0, max_failures=8)
workers, epochs = 0, 0

def after(entry):
    global workers, epochs
    if entry["kind"] == "started":
        workers, epochs = entry["workers"], 0
        return
    epochs += not entry["again"]
    if len(nodes) == 1 and workers == 1:
        nodes.append(cluster.add_node(num_cpus=1))
        tell("added")
    elif len(nodes) == 2 and workers == 2 and epochs == 2:  # the first of them has its checkpoint
        cluster.remove_node(nodes[1], allow_graceful=False)
        nodes.append(None)
        tell("removed")

with connected("auto", environment=shape.environment()):
    cluster.wait_for_nodes()
    train(cluster, settings, checkpoints, shape, after)
cluster.shutdown()
"""
)


def undisturbed(program: Callable[..., Any], folder: Path, flags: list[str]) -> Path:
    """The same run in one process."""
    run = program(
        "launch/train.py", "--results", str(folder / "results"), "--name", "alone", *flags
    )
    assert run.finish() == 0, run.output
    return folder / "results" / "digits" / "alone"


def on_cluster(
    launch: Callable[..., Any], folder: Path, script: str, reference: Path
) -> list[dict[str, Any]]:
    """The printed entries of a script on a separate cluster, in order."""
    (folder / "cluster.py").write_text(script)
    settings = json.loads((reference / "study.json").read_text())["settings"]
    arguments = [json.dumps(settings), str(folder / "run" / "checkpoints")]
    run = launch(folder / "cluster.py", *arguments)
    assert run.finish(300) == 0, run.output
    return [json.loads(line[4:]) for _, line in run.lines if line.startswith("TOLD")]


def assert_like(entries: list[dict[str, Any]], reference: Path) -> None:
    """Every epoch ends up once; one that is trained twice gives the same; figures are near."""
    expected: pd.DataFrame = read_table(reference / "history.parquet").to_pandas()
    rows: dict[int, float] = {}
    for entry in entries:
        if entry["kind"] == "epoch":
            epoch, figure = entry["row"]["epoch"], entry["row"]["val_map"]
            assert figure == pytest.approx(rows.get(epoch, figure), abs=0.005)
            rows[epoch] = figure
    assert list(rows) == expected["epoch"].tolist()
    assert list(rows.values()) == pytest.approx(expected["val_map"].tolist(), abs=0.005)
    trained = [e["row"]["epoch"] for e in entries if e["kind"] == "epoch" and not e["again"]]
    starts = sum(entry["kind"] == "started" for entry in entries)
    assert len(trained) <= len(rows) + starts - 1  # at most one epoch is lost with each change


def moment(entries: list[dict[str, Any]], kind: str) -> float:
    return next(entry["at"] for entry in entries if entry["kind"] == kind)


@pytest.fixture(scope="module")
def replaced(
    tmp_path_factory: pytest.TempPathFactory, program: Callable[..., Any], second_long: list[str]
) -> tuple[list[dict[str, Any]], Path]:
    """A run of two workers on two nodes, one of which dies and is followed by another."""
    folder = tmp_path_factory.mktemp("replaced")
    reference = undisturbed(program, folder, second_long)
    return on_cluster(program, folder, _REPLACED, reference), reference


@pytest.mark.slow
def test_a_cluster_is_asked_for_its_workers_first(replaced: tuple) -> None:
    entries, _ = replaced
    answers = [entry for entry in entries if entry["kind"] in ("refused", "accepted")]
    assert [entry["kind"] for entry in answers] == [
        *("refused", "refused", "accepted"),
        *("refused", "accepted", "accepted"),
    ]
    too_many, too_large, _, busy, *_ = answers
    for words, answer in (
        (("--workers 3", "3 workers of 1 CPU", "hold 2", "autoscaling adds no more"), too_many),
        (("--workers 1", "1 worker", "2 CPU", "hold 0", "autoscaling adds no more"), too_large),
    ):
        assert answer["seconds"] < 10  # nothing to wait for
        for word in words:
            assert word in answer["reason"]
    assert 3 <= busy["seconds"] < 30
    assert re.search(r"--workers 2 .*hold 2.*not free within 3 s.*--start-timeout", busy["reason"])
    groups = next(entry for entry in entries if entry["kind"] == "groups")
    assert set(groups["states"]) == {"REMOVED"}


@pytest.mark.slow
def test_a_run_resumes_when_a_node_is_replaced(replaced: tuple) -> None:
    entries, reference = replaced
    starts = [entry for entry in entries if entry["kind"] == "started"]
    assert [entry["workers"] for entry in starts] == [2, 2]
    assert starts[0]["epoch"] == 0
    assert starts[1]["epoch"] >= 1
    assert starts[1]["at"] > moment(entries, "removed")
    print(f"{starts[1]['at'] - moment(entries, 'removed'):.1f} s from loss to training")
    assert_like(entries, reference)


@pytest.mark.slow
def test_a_run_grows_and_shrinks_with_the_cluster(
    tmp_path: Path, launch: Callable[..., Any], second_long: list[str]
) -> None:
    # Long epochs: Ray Train looks for more nodes every ten seconds.
    flags = [*second_long, "--set", "warmup_passes=60", "--epochs", "12", "--warmup-epochs", "10"]
    reference = undisturbed(launch, tmp_path, flags)
    entries = on_cluster(launch, tmp_path, _ELASTIC, reference)
    starts = [entry for entry in entries if entry["kind"] == "started"]
    assert [entry["workers"] for entry in starts] == [1, 2, 1]
    epochs = [entry["epoch"] for entry in starts]
    assert epochs[0] == 0 < epochs[1] < epochs[2]
    for change, start in (("added", starts[1]), ("removed", starts[2])):
        print(f"{start['at'] - moment(entries, change):.1f} s from '{change}' to training")
        assert start["at"] > moment(entries, change)
    assert_like(entries, reference)
