"""Finding frozen processes: Ray notices at once when one dies, but waits for one that stands still.

Every process that trains for a search sends a beat now and then; one whose heartbeats stop is killed, and
goes the way of any lost worker.
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

from bbam_ray.scale.cluster.connection import on_this_node

HEARTBEAT_SECONDS = 2.0


class HeartbeatStore:
    """An actor that knows when each process was last heard of; (node, pid) names a process."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, int], float] = {}

    def __repr__(self) -> str:
        return "monitor over a study's processes"

    def beat(self, node: str, pid: int) -> None:
        self._last[node, pid] = time.monotonic()

    def forget(self, node: str, pid: int) -> None:
        self._last.pop((node, pid), None)

    def silent(self, limit_s: float) -> list[tuple[str, int]]:
        """Processes that were not heard of for so long; each is named once."""
        now = time.monotonic()
        found = [process for process, last in self._last.items() if now - last > limit_s]
        for process in found:
            del self._last[process]
        return found


class HeartbeatMonitor:
    """The driver's side: made once a study, asked again and again, and closed at the end of ``with``.

    Args:
        limit_s: silence after which a process counts as frozen.
    """

    def __init__(self, limit_s: float) -> None:
        # It comes again when its process is killed, and hears of all that live at their next beat.
        lasting = {"max_restarts": -1, "max_task_retries": -1}
        beside = on_this_node()
        self.heartbeats = ray.remote(num_cpus=0, scheduling_strategy=beside, **lasting)(
            HeartbeatStore
        ).remote()
        self._limit_s, self._asked = limit_s, time.monotonic()

    def __enter__(self) -> HeartbeatMonitor:
        return self

    def __exit__(self, *_: object) -> None:
        ray.kill(
            self.heartbeats
        )  # left alone it would live, one for each study, as long as Ray does

    def check(self) -> None:
        """Kill the processes that have gone silent; cheap when called often."""
        if time.monotonic() - self._asked < HEARTBEAT_SECONDS:
            return
        self._asked = time.monotonic()
        for node, pid in ray.get(self.heartbeats.silent.remote(self._limit_s)):
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            ray.remote(num_cpus=0)(_kill).options(scheduling_strategy=there).remote(pid)


def _kill(pid: int) -> None:
    """Kill a process of Ray; one that has ended may have left its number to somebody else."""
    try:
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::"):
            os.kill(pid, signal.SIGKILL)
    except OSError:
        return


class HeartbeatSender:
    """The training process's side: heartbeats in a thread of its own until it is stopped."""

    def __init__(self, heartbeats: Any) -> None:
        self._beats, self._stopped = heartbeats, threading.Event()
        self._name = ray.get_runtime_context().get_node_id(), os.getpid()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._beats.beat.remote(*self._name)
            self._stopped.wait(HEARTBEAT_SECONDS)

    def stop(self) -> None:
        self._stopped.set()
        self._beats.forget.remote(*self._name)
