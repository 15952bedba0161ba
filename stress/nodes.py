"""A Ray cluster of two nodes on this machine whose nodes can be killed and replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Runs the cluster, and replaces a node for each line on its standard input.
_PROGRAM = """
import os, sys
from ray.cluster_utils import Cluster
from bbam_ray.scale.cluster import connection as cluster

os.environ.update(cluster._SETTINGS)
head = {"num_cpus": 0, "include_dashboard": False, "resources": {cluster.TRIAL_SLOT: 1000}}
local = Cluster(initialize_head=True, head_node_args=head)
nodes = [local.add_node(num_cpus=1) for _ in range(2)]
print("REPLY", local.address, flush=True)
for _ in sys.stdin:
    local.remove_node(nodes.pop(0), allow_graceful=False)
    nodes.append(local.add_node(num_cpus=1))
    print("REPLY replaced", flush=True)
local.shutdown()
"""


class Nodes:
    """The cluster, in a separate process; a context manager that ends it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        )
        self.address = self._reply()

    def replace_one(self) -> bool:
        """Kill a node with everything on it (SIGKILL); a new one takes its place. Returns True."""
        assert self._process.stdin is not None
        print("replace", file=self._process.stdin, flush=True)
        return self._reply() == "replaced"

    def _reply(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("REPLY "):
                return line.removeprefix("REPLY ").strip()
        raise RuntimeError("the cluster has ended")

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)  # the program ends with its input
