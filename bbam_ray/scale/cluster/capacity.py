"""Whether a cluster has, or can ever have, the workers that a run asks for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental.internal_kv import _internal_kv_get
from ray.util.placement_group import placement_group, remove_placement_group

from bbam_ray.errors import UsageError

_MONITOR_S = 10.0


def fitting(bundle: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> int:
    """How many workers fit on nodes with such resources, each worker on one node."""
    return sum(
        min(int(node.get(name, 0) / needed + 1e-9) for name, needed in bundle.items() if needed)
        for node in nodes
    )


def wait_for_workers(workers: int, bundle: dict[str, float], wait_s: float) -> None:
    """Return once so many workers can start; the request makes an autoscaler add nodes.

    Args:
        workers: that must run at the same time.
        bundle: resources of each.
        wait_s: seconds to wait for nodes that are busy or still to come.

    Raises:
        UsageError: the cluster can never have them, or did not have them free in time.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    there = fitting(bundle, nodes)
    more = _autoscaling(bundle)
    needs = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items() if amount)
    asked = f"--workers {workers} asks for {workers} worker{'s' * (workers != 1)} of {needs} each"
    exists = f"the cluster's {len(nodes)} node{'s' * (len(nodes) != 1)} hold {there}"
    # Ray's own autoscaler does not tell its limits: there, waiting is all that can be done.
    if workers > max(there, more or 0) and not (more is None and _scales()):
        could = f"autoscaling could raise that to {more}" if more else "no autoscaling adds more"
        raise UsageError(
            f"{asked}; {exists} and {could}; lower --workers or --cpus-per-worker or use a larger cluster"
        )
    group = placement_group(
        [dict(bundle) for _ in range(workers)], name="bbam-ray asks for workers"
    )
    try:
        if not group.wait(wait_s):
            raise UsageError(
                f"{asked}; {exists}, but they were not free within {wait_s:g} s; wait for other work "
                "to end, or raise --start-timeout"
            )
    finally:
        remove_placement_group(group)


def _scales() -> bool:
    """Whether an autoscaler may add nodes; its monitor reports every few seconds, from its start on."""
    if is_autoscaler_v2(fetch_from_server=True):
        return True
    deadline = time.monotonic() + _MONITOR_S
    while not (status := _internal_kv_get(DEBUG_AUTOSCALING_STATUS)):
        if time.monotonic() > deadline:
            return False  # a cluster without a monitor
        time.sleep(0.5)
    kinds = json.loads(status)["autoscaler_report"]["node_type_mapping"] or {}
    # Where nothing is scaled, the monitor calls each node's type by the node's own name.
    return any(kind != f"node_{node}" for node, kind in kinds.items())


def _autoscaling(bundle: Mapping[str, float]) -> int | None:
    """Workers on the largest cluster that autoscaling may make; None where nothing is scaled."""
    config: Any = ray._private.state.state.get_cluster_config()
    if config is None or not config.node_group_configs:
        return None
    total = 0
    for group in config.node_group_configs:
        count = group.max_count if group.max_count >= 0 else 10_000
        total += count * fitting(bundle, [dict(group.resources)])
    return total
