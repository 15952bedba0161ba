"""``--gpus-per-worker auto`` on a cluster: it asks the nodes, not this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray
from ray.cluster_utils import Cluster

from bbam_ray.commands.gpus import automatic_gpus

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def test_a_cluster_gives_workers_gpus_once_a_node_has_some(cluster: Cluster) -> None:
    assert automatic_gpus(1, cluster.address) == 0
    cluster.add_node(num_cpus=1, num_gpus=2)
    assert automatic_gpus(1, cluster.address) == 1
    assert not ray.is_initialized()  # it only asks
