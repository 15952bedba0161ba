"""A cluster of a head and two nodes, one of which has a variable of its own: prints its address."""

from __future__ import annotations

import json
import os
import sys

os.environ["RAY_AUTH_MODE"] = "disabled"
from ray.cluster_utils import Cluster

from bbam_ray.scale.cluster import connection as cluster


def main() -> None:
    os.environ.update(cluster._SETTINGS)
    head = {"num_cpus": 0, "include_dashboard": False, "resources": {cluster.TRIAL_SLOT: 1000}}
    nodes = Cluster(initialize_head=True, head_node_args=head)
    nodes.add_node(num_cpus=1, resources={"good": 1})
    nodes.add_node(num_cpus=1, resources={"bad": 1}, env_vars=json.loads(sys.argv[1]))
    nodes.wait_for_nodes()
    print("ADDRESS", nodes.address, flush=True)
    sys.stdin.read()
    nodes.shutdown()


if __name__ == "__main__":
    main()
