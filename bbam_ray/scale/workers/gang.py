"""A gang: the workers of one trial, a group that is reused from trial to trial.

The process that owns the gang is its rank 0; the others are actors in the bundles 1, 2, ... of the
same placement group, so a gang uses exactly the resources of its workers and frees all of them.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from bbam_ray.engine.folds import Files
from bbam_ray.scale.workers.shapes import GangShape
from bbam_ray.scale.workers.trial_worker import FOLD_PROGRESS, TrialWorker


class Gang:
    """Calls a method of ``TrialWorker`` on all ranks at once; with one worker, in this process.

    Args:
        shape: of the gang; the current placement group has its bundles.
        name: shown in Ray's dashboard.
    """

    def __init__(self, shape: GangShape, name: str) -> None:
        self.worker = TrialWorker()
        self._peers: list[Any] = []
        if shape.workers == 1:
            return
        group = get_current_placement_group()
        actor = ray.remote(num_cpus=shape.cpus, num_gpus=shape.gpus, max_restarts=0)(TrialWorker)
        self._peers = [
            actor.options(
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, bundle)
            ).remote(f"{name}, rank {bundle}")
            for bundle in range(1, shape.workers)
        ]
        address = f"{ray.util.get_node_ip_address()}:{_free_port()}"
        options = shape.workers, shape.backend, shape.timeout_s
        joined = [
            peer.join.remote(address, rank, *options) for rank, peer in enumerate(self._peers, 1)
        ]
        self.worker.join(address, 0, *options)
        ray.get(joined)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method on all ranks; returns the result of rank 0, raises an error of any rank."""
        pending = [getattr(peer, method).remote(*arguments) for peer in self._peers]
        try:
            result = getattr(self.worker, method)(*arguments)
        except Exception as error:
            raise _cause(pending, error) from error
        ray.get(pending)
        return result

    def save(self, folder: Path) -> None:
        """Write a whole checkpoint to a folder of this machine."""
        parts = [peer.saved_files.remote() for peer in self._peers]
        self.worker.save(folder)
        for files in ray.get(parts):
            for name, content in files.items():
                (folder / name).write_bytes(content)

    def restore(self, folder: Path) -> None:
        """Let every rank resume from a checkpoint in a folder of this machine."""
        paths = [*folder.glob("*.pt"), folder / FOLD_PROGRESS]
        files: Files = {path.name: path.read_bytes() for path in paths}
        self.call("restore", files)

    def close(self) -> None:
        """End the other workers and leave the process group."""
        for peer in self._peers:
            ray.kill(peer)
        if self._peers:
            self.worker.leave()
        self._peers = []


def _cause(pending: list[Any], error: Exception) -> Exception:
    """The first error: a lost connection on this rank may follow from an error of another rank."""
    ready, _ = ray.wait(pending, num_returns=len(pending), timeout=2) if pending else ([], [])
    for reference in ready:
        try:
            ray.get(reference)
        except ray.exceptions.RayActorError as lost:
            return lost
        except ray.exceptions.RayTaskError as failed:
            if not isinstance(failed.cause, type(error)):
                return failed.cause if isinstance(failed.cause, Exception) else failed
    return error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
