"""Detection of frozen processes: Ray notices at once when a process dies, but waits for one that hangs.

Every process that trains for a search sends heartbeats; a process that stops is killed and handled as a
lost worker. The other way, trials get the driver's request to stop.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bbam_ray.errors import StartError
from bbam_ray.scale.cluster.connection import on_this_node
from bbam_ray.scale.workers.start_errors import died_at_start, start_error

HEARTBEAT_SECONDS = 2.0


class HeartbeatStore:
    """An actor with the time of the last heartbeat of each process; (node, pid) names a process."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, int], float] = {}
        self._stops = False
        self._stopped: dict[int, bool] = {}

    def __repr__(self) -> str:
        return "heartbeats of a study's processes"

    def beat(self, node: str, pid: int) -> None:
        self._last[node, pid] = time.monotonic()

    def forget(self, node: str, pid: int) -> None:
        self._last.pop((node, pid), None)

    def silent(self, limit_s: float) -> list[tuple[str, int]]:
        """Processes without a heartbeat for ``limit_s`` seconds; each is returned once."""
        now = time.monotonic()
        silent = [process for process, last in self._last.items() if now - last > limit_s]
        for process in silent:
            del self._last[process]
        return silent

    def request_stop(self) -> None:
        """The study has to stop: running trials save their state."""
        self._stops = True

    def stop_requested(self) -> bool:
        return self._stops

    def trial_stopped(self, number: int, is_saved: bool) -> bool:
        """Note that a trial has stopped, if the study has to; returns whether it has.

        Args:
            number: of the trial.
            is_saved: whether its state is on the disk.
        """
        if self._stops:
            self._stopped[number] = is_saved
        return self._stops

    def stopped_trials(self) -> dict[int, bool]:
        """Whether their state was saved, by number of the trials that have stopped on request."""
        return self._stopped


class HeartbeatMonitor:
    """The driver's side: one for each study, checked regularly; a context manager.

    Args:
        limit_s: seconds without a heartbeat after which a process counts as frozen.

    Attributes:
        start_error: why its actor cannot start, so that no frozen process is detected; else None.
    """

    def __init__(self, limit_s: float) -> None:
        # Ray restarts it if its process is killed; the next heartbeats then fill it again.
        restart = {"max_restarts": -1, "max_task_retries": -1}
        self.heartbeats = ray.remote(num_cpus=0, scheduling_strategy=on_this_node(), **restart)(
            HeartbeatStore
        ).remote()
        self._limit_s, self._checked = limit_s, time.monotonic()
        self.start_error: StartError | None = None
        self._silent: ray.ObjectRef[list[tuple[str, int]]] | None = None

    def __enter__(self) -> HeartbeatMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        ray.kill(self.heartbeats)  # otherwise it would live as long as Ray, one for each study

    def check(self) -> None:
        """Kill processes whose heartbeats have stopped; cheap when called often, and never waits."""
        if self._silent is None:
            if time.monotonic() - self._checked >= HEARTBEAT_SECONDS:
                self._checked = time.monotonic()
                self._silent = self.heartbeats.silent.remote(self._limit_s)
            return
        if not ray.wait([self._silent], timeout=0)[0]:
            return
        silent, self._silent = self._silent, None
        try:
            frozen = ray.get(silent)
        except ray.exceptions.RayError as error:
            self.start_error = start_error(error) or died_at_start(error)
            return
        for node, pid in frozen:
            on_node = NodeAffinitySchedulingStrategy(node, soft=False)
            ray.remote(num_cpus=0)(_kill).options(scheduling_strategy=on_node).remote(pid)

    def request_stop(self) -> dict[int, bool]:
        """Ask the trials to save their state; called again and again, since the store may be replaced.

        Returns:
            Whether it was saved, by number of the trials that have stopped.
        """
        try:
            self.heartbeats.request_stop.remote()
            return ray.get(self.heartbeats.stopped_trials.remote(), timeout=HEARTBEAT_SECONDS)
        except ray.exceptions.RayError:
            return {}


def _kill(pid: int) -> None:
    """Kill a process of Ray; if it has ended, its number may belong to another program by now."""
    try:
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
            os.kill(pid, signal.SIGKILL)
    except OSError:
        return


class HeartbeatSender:
    """The training process's side: sends heartbeats in its own thread until it is stopped."""

    def __init__(self, heartbeats: Any) -> None:
        self._heartbeats, self._stopped = heartbeats, threading.Event()
        self._process = ray.get_runtime_context().get_node_id(), os.getpid()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            # One that is lost is followed by another; Ray would report each of its retries.
            self._heartbeats.beat.options(max_task_retries=0).remote(*self._process)
            self._stopped.wait(HEARTBEAT_SECONDS)

    def stop(self) -> None:
        self._stopped.set()
        self._heartbeats.forget.options(max_task_retries=0).remote(*self._process)
