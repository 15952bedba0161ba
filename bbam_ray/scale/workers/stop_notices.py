"""Notices to a process of a trial: its node is about to be taken away, or its study has to stop."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

import ray

from bbam_ray.engine.stop_request import StopRequest
from bbam_ray.scale import private_api

_POLL_SECONDS = 1.0


class StopNotices:
    """Looks for notices in a thread: one of the node leads to one request, one of the study lasts.

    Args:
        heartbeats: the ``HeartbeatStore`` of the study, which has the driver's request.
        of_node: whether a notice of the node counts.
    """

    def __init__(self, heartbeats: Any, *, of_node: bool = True) -> None:
        self._request, self._ended = StopRequest(), threading.Event()
        self._heartbeats, self._of_node = heartbeats, of_node
        threading.Thread(target=self._poll, name="stop notices", daemon=True).start()

    def _poll(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            try:
                if self._of_node and _node_drains():
                    self._of_node = False
                    self._request.make()
                if ray.get(self._heartbeats.stop_requested.remote()):
                    self._request.make()
            except (ray.exceptions.RayError, RuntimeError, ConnectionError):
                continue  # the cluster or the store does not respond now

    def __call__(self) -> bool:
        """Whether there was a notice that has not led to a checkpoint yet."""
        return self._request()

    def saved(self) -> None:
        """There is a checkpoint, so that the trial can continue until its process ends."""
        self._request = StopRequest()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()


def _node_drains() -> bool:
    return ray.get_runtime_context().get_node_id() in private_api.draining_nodes()


def wait_for_end(config: dict[str, Any], *, is_saved: bool) -> None:
    """Wait in a trial, which has stopped, until its process ends; return if the study does not stop.

    Args:
        config: of the trial, see ``Trial``.
        is_saved: whether its state is on the disk.
    """
    heartbeats, number = config["run"]["heartbeats"], config["number"]
    with suppress(ray.exceptions.RayError):  # the store ends with the study
        # Again and again, since the store may be replaced.
        while ray.get(heartbeats.trial_stopped.remote(number, is_saved)):
            time.sleep(_POLL_SECONDS)
