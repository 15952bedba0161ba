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
from bbam_ray.scale.workers.start_errors import died_at_start, start_error
from bbam_ray.scale.workers.trial_worker import TrialWorker


class Gang:
    """Calls a method of ``TrialWorker`` on all ranks at once; with one worker, in this process.

    Args:
        shape: of the gang; the current placement group has its bundles.
        name: shown in Ray's dashboard.
        versions: of the driver, see ``check_versions``.
        heartbeats: of the study, which has the driver's requests to stop; None = nothing stops an epoch.

    Raises:
        StartError: a worker cannot start.
    """

    def __init__(
        self, shape: GangShape, name: str, versions: dict[str, str], heartbeats: Any = None
    ) -> None:
        self.worker = TrialWorker()
        self.worker.check(versions)
        self._peers: list[Any] = []
        if shape.workers == 1:
            if heartbeats is not None:
                self.worker.watch(heartbeats)
            return
        try:
            # Only workers that have started join: a group waits long for one that does not come.
            self._start_peers(shape, name, versions)
            address = f"{ray.util.get_node_ip_address()}:{_free_port()}"
            options = shape.workers, shape.backend, shape.timeout_s
            joined = [
                peer.join.remote(address, rank, *options)
                for rank, peer in enumerate(self._peers, 1)
            ]
            self.worker.join(address, 0, *options)
            ray.get(joined)
            if heartbeats is not None:
                self.call("watch", heartbeats)
        except BaseException:
            self.close()
            raise

    def _start_peers(self, shape: GangShape, name: str, versions: dict[str, str]) -> None:
        """Start the other workers; one whose process dies meanwhile is started once more."""
        group = get_current_placement_group()
        actor = ray.remote(num_cpus=shape.cpus, num_gpus=shape.gpus, max_restarts=0)(TrialWorker)

        def start(rank: int) -> tuple[Any, ray.ObjectRef[None]]:
            strategy = PlacementGroupSchedulingStrategy(group, rank)
            peer = actor.options(scheduling_strategy=strategy).remote(f"{name}, rank {rank}")
            return peer, peer.check.remote(versions)

        started = [start(rank) for rank in range(1, shape.workers)]
        self._peers = [peer for peer, _ in started]
        for index, (_, checked) in enumerate(started):
            for is_last in (False, True):
                try:
                    ray.get(checked)
                    break
                except ray.exceptions.RayError as error:
                    if (failure := start_error(error)) is not None:
                        raise failure from error
                    if is_last:
                        raise died_at_start(error) from error
                    self._peers[index], checked = start(index + 1)

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
        files: Files = {path.name: path.read_bytes() for path in folder.glob("*.pt")}
        self.call("restore", files)

    def close(self) -> None:
        """End the other workers and leave the process group."""
        self.worker.end_watch()
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
