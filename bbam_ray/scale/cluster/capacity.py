"""Whether a cluster has, or can ever have, the workers of a run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from bbam_ray.errors import UsageError
from bbam_ray.scale import private_api

_MONITOR_S = 10.0


def fitting(bundle: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> int:
    """How many workers fit on nodes, each worker on one node.

    Args:
        bundle: resources of a worker.
        nodes: resources of each node.
    """
    return sum(
        min(int(node.get(name, 0) / needed + 1e-9) for name, needed in bundle.items() if needed)
        for node in nodes
    )


def wait_for_workers(workers: int, bundle: dict[str, float], wait_s: float) -> None:
    """Return once the workers can start; the request makes an autoscaler add nodes.

    Args:
        workers: that must run at the same time.
        bundle: resources of each.
        wait_s: seconds to wait for nodes that are busy or not there yet.

    Raises:
        UsageError: the cluster can never have them, or did not have them free in time.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fit = fitting(bundle, nodes)
    fit_scaled = _autoscaling(bundle)
    needs = " and ".join(f"{amount:g} {name}" for name, amount in bundle.items() if amount)
    request = f"--workers {workers} needs {workers} worker{'s' * (workers != 1)} of {needs} each"
    exists = f"the cluster's {len(nodes)} node{'s' * (len(nodes) != 1)} hold {fit}"
    # Ray's first autoscaler does not report its limits: with it, waiting is all that can be done.
    if workers > max(fit, fit_scaled or 0) and not (fit_scaled is None and _scales()):
        limit = (
            f"autoscaling could raise that to {fit_scaled}"
            if fit_scaled
            else "autoscaling adds no more"
        )
        raise UsageError(
            f"{request}; {exists} and {limit}; lower --workers or --cpus-per-worker or use a larger "
            "cluster"
        )
    group = placement_group(
        [dict(bundle) for _ in range(workers)], name="bbam-ray waits for workers"
    )
    try:
        if not group.wait(wait_s):
            raise UsageError(
                f"{request}; {exists}, but they were not free within {wait_s:g} s; wait for other work "
                "to end, or raise --start-timeout"
            )
    finally:
        remove_placement_group(group)


def has_gpus() -> bool:
    """Whether the connected cluster has GPUs, or autoscaling can add nodes that have."""
    if ray.cluster_resources().get("GPU", 0) > 0:
        return True
    groups = private_api.node_groups()
    return any(count != 0 and resources.get("GPU", 0) > 0 for count, resources in groups)


def _scales() -> bool:
    """Whether an autoscaler may add nodes; its monitor reports every few seconds after its start."""
    if private_api.autoscaler_is_v2():
        return True
    deadline = time.monotonic() + _MONITOR_S
    while (types := private_api.autoscaler_node_types()) is None:
        if time.monotonic() > deadline:
            return False  # a cluster without a monitor
        time.sleep(0.5)
    # Without autoscaling, the monitor names the type of each node after the node itself.
    return any(kind != f"node_{node}" for node, kind in types.items())


def _autoscaling(bundle: Mapping[str, float]) -> int | None:
    """Workers that fit on the largest cluster autoscaling may create; None without autoscaling."""
    groups = private_api.node_groups()
    if not groups:
        return None
    return sum(
        (count if count >= 0 else 10_000) * fitting(bundle, [resources])
        for count, resources in groups
    )
