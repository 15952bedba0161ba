"""A study on a head without CPUs makes Ray's autoscaler add nodes and remove them afterwards."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bbam_ray.results.loading import load_study

ROOT = Path(__file__).parents[2]
PORT = 6379  # fixed in the fake provider
CONFIG = Path(__file__).with_name("autoscaling.yaml")
_NODES = """
import json, ray
ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
print(json.dumps(sum(n["Alive"] and n["Resources"].get("CPU", 0) > 0 for n in ray.nodes())))
"""


def workers() -> int | None:
    """Number of nodes with CPUs; None while no cluster responds."""
    ended = subprocess.run([sys.executable, "-c", _NODES], capture_output=True, text=True)
    return json.loads(ended.stdout) if ended.returncode == 0 else None


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(500)
def test_nodes_are_added_for_a_study_and_removed_after_it(
    start_head: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip("port 6379 is taken by another cluster")
    for name, value in (
        ("RAY_AUTH_MODE", "disabled"),
        ("RAY_FAKE_CLUSTER", "1"),
        ("AUTOSCALER_UPDATE_INTERVAL_S", "1"),
        # The provider expects this id of the head; other nodes get their own ids.
        ("RAY_OVERRIDE_NODE_ID_FOR_TESTING", "f" * 51 + "00000"),
    ):
        monkeypatch.setenv(name, value)
    flags = [f"--port={PORT}", "--num-cpus=0", f"--autoscaling-config={CONFIG}"]
    start_head(*flags, ready=lambda: workers() is not None)
    monkeypatch.delenv("RAY_OVERRIDE_NODE_ID_FOR_TESTING")
    assert workers() == 0
    command = ["launch/tune.py", "--address", "auto", "--results", str(tmp_path / "results")]
    command += ["--name", "far", "--num-samples", "4", "--max-concurrent", "2"]
    command += ["--epochs", "3", "--warmup-epochs", "1", "--confirm-seeds", "1"]
    command += ["--folds", "1", "--final", "single", "--no-baselines"]
    for setting in ("scenes=100", "test_scenes=40", "warmup_passes=1", "labeled_fraction=0.4"):
        command += ["--set", setting]
    study = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    seen, deadline = 0, time.monotonic() + 200
    while study.poll() is None and time.monotonic() < deadline:
        seen = max(seen, workers() or 0)
        time.sleep(1)
    study.kill()  # no effect on a process that has ended
    output, _ = study.communicate(timeout=10)
    assert study.returncode == 0, output
    assert seen >= 1  # short trials may end before a second node is there
    loaded = load_study(tmp_path / "results" / "digits" / "far")
    assert loaded.status == "COMPLETE" and len(loaded.trials) == 4
    assert sorted(loaded.confirm["answer"]) == ["final", "published"]
    deadline = time.monotonic() + 120
    while workers() != 0:
        assert time.monotonic() < deadline, "nodes are not removed"
        time.sleep(10)
