"""A cluster of two nodes on this machine, one of which can be killed and is followed by another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# The program that holds the cluster, and takes orders on its standard input.
_PROGRAM = """
import os, sys
from ray.cluster_utils import Cluster
from bbam_ray.scale.cluster import connection as cluster

os.environ.update(cluster._SETTINGS)
head = {"num_cpus": 0, "include_dashboard": False, "resources": {cluster.TRIAL_SLOT: 1000}}
whole = Cluster(initialize_head=True, head_node_args=head)
nodes = [whole.add_node(num_cpus=1) for _ in range(2)]
print("ANSWER", whole.address, flush=True)
for _ in sys.stdin:
    whole.remove_node(nodes.pop(0), allow_graceful=False)
    nodes.append(whole.add_node(num_cpus=1))
    print("ANSWER replaced", flush=True)
whole.shutdown()
"""


class Nodes:
    """The cluster, in a process of its own; as a context it ends with the block."""

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
        self.address = self._answer()

    def replace_one(self) -> bool:
        """Kill a node with everything on it (SIGKILL); a new one takes its place. Returns True."""
        assert self._process.stdin is not None
        print("replace", file=self._process.stdin, flush=True)
        return self._answer() == "replaced"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("ANSWER "):
                return line.removeprefix("ANSWER ").strip()
        raise RuntimeError("the cluster has ended")

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)  # the end of its input ends it
