"""Checks between the steps of a search."""

from __future__ import annotations

import time
from typing import Any

from ray.tune import Callback

from bbam_ray.engine.stop_request import StopRequest
from bbam_ray.scale.cluster import interruption
from bbam_ray.scale.study.events import Listener, Notice
from bbam_ray.scale.study.start_failures import StartFailures
from bbam_ray.scale.study.tune_searcher import StudySearcher
from bbam_ray.scale.workers.heartbeat import HeartbeatMonitor

_STOP_SECONDS = 90.0  # for which trials that have to stop are waited for; Slurm grants 120
_POLL_SECONDS = 0.5


class Watchdog(Callback):
    """After every step of Tune: raises a pending Ctrl-C, kills frozen processes, and stops on request.

    Args:
        monitor: of the processes.
        failures: gets the reason if the monitor cannot start.
        searcher: starts no further trial after a request.
        request: to stop. Running trials then save their state, and the search is interrupted.
        listener: gets a notice at the request and at the end.
    """

    def __init__(
        self,
        monitor: HeartbeatMonitor,
        failures: StartFailures,
        searcher: StudySearcher,
        request: StopRequest,
        listener: Listener,
    ) -> None:
        self._monitor, self._failures, self._searcher = monitor, failures, searcher
        self._request, self._listener = request, listener
        self._polled: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks for a restore that this project does not use."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        interruption.check()
        self._monitor.check()
        if (error := self._monitor.start_error) is not None:
            self._failures.report("frozen workers are not detected", error)
        if self._request():
            self._stop({trial.config["number"] for trial in trials if trial.status == "RUNNING"})

    def _stop(self, running: set[int]) -> None:
        """Wait until all running trials have stopped; raises KeyboardInterrupt then."""
        if not running:
            raise KeyboardInterrupt
        if self._polled is None:
            self._searcher.stop()
            self._listener(Notice(f"stopping: saving the state of {_trials(len(running))}"))
        elif time.monotonic() - self._polled < _POLL_SECONDS:
            return
        self._polled = time.monotonic()
        stopped = self._monitor.request_stop()
        if running <= stopped.keys() or self._request.seconds > _STOP_SECONDS:
            saved = sum(stopped.get(number, False) for number in running)
            after = f"{self._request.seconds:.1f} s after the request to stop"
            text = f"{saved} of {_trials(len(running))} saved {after}"
            if saved < len(running):
                text += "; the others resume from their checkpoints before"
            self._listener(Notice(text))
            raise KeyboardInterrupt


def _trials(count: int) -> str:
    return f"{count} running trial{'s' * (count != 1)}"
