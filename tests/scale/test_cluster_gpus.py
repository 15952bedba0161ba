"""``--gpus-per-worker auto`` on a cluster: it asks the nodes, not this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]
ROOT = Path(__file__).parents[2]

# In a process of its own: Ray remembers for the life of a process that it needs no token.
SCRIPT = """
import os
os.environ["RAY_AUTH_MODE"] = "disabled"
import ray
from ray.cluster_utils import Cluster
from bbam_ray.commands.gpus import automatic_gpus

nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
print("without", automatic_gpus(1, nodes.address), flush=True)
nodes.add_node(num_cpus=1, num_gpus=2)
print("with", automatic_gpus(1, nodes.address), flush=True)
print("connected", ray.is_initialized(), flush=True)
nodes.shutdown()
"""


def test_a_cluster_gives_workers_gpus_once_a_node_has_some() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=110
    )
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if line.split()[0] != "Ray"]
    assert lines[-3:] == ["without 0.0", "with 1.0", "connected False"]  # it only asks
