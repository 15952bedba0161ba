"""Checks between the steps of a search."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback

from bbam_ray.scale.cluster import interruption
from bbam_ray.scale.study.start_failures import StartFailures
from bbam_ray.scale.workers.heartbeat import HeartbeatMonitor


class Watchdog(Callback):
    """Raises a pending Ctrl-C and kills frozen processes, after every step of Tune.

    Args:
        monitor: of the processes.
        failures: gets the reason if the monitor cannot start.
    """

    def __init__(self, monitor: HeartbeatMonitor, failures: StartFailures) -> None:
        self._monitor, self._failures = monitor, failures

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore that this project does not use."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        interruption.check()
        self._monitor.check()
        if (error := self._monitor.start_error) is not None:
            self._failures.report("frozen workers are not detected", error)
