"""A small cluster for several commands at once: prints its address, ends when its input does."""

from __future__ import annotations

import os
import sys

os.environ["RAY_AUTH_MODE"] = "disabled"
from ray.cluster_utils import Cluster

from bbam_ray.scale.cluster import connection as cluster


def main() -> None:
    os.environ.update(cluster._SETTINGS)
    head = {"num_cpus": 4, "include_dashboard": False, "resources": {cluster.TRIAL_SLOT: 1000}}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    print("ADDRESS", nodes.address, flush=True)
    sys.stdin.read()
    nodes.shutdown()


if __name__ == "__main__":
    main()
