"""Notices to a process of a trial: its node is about to be taken away, or its study has to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ray

from bbam_ray.engine.stop_request import StopRequest
from bbam_ray.scale import private_api

_POLL_SECONDS = 1.0


class StopNotices:
    """Looks for notices in a thread; each of the two kinds leads to one request to stop.

    Args:
        heartbeats: the ``HeartbeatStore`` of the study, which has the driver's request; None = only the
            notice of the node counts.
    """

    def __init__(self, heartbeats: Any = None) -> None:
        self._request, self._ended = StopRequest(), threading.Event()
        self._sources: list[Callable[[], bool]] = [_node_drains]
        if heartbeats is not None:
            self._sources.append(lambda: bool(ray.get(heartbeats.stop_requested.remote())))
        threading.Thread(target=self._poll, name="stop notices", daemon=True).start()

    def _poll(self) -> None:
        while self._sources and not self._ended.wait(_POLL_SECONDS):
            for source in list(self._sources):
                try:
                    if source():
                        self._request.make()
                        self._sources.remove(source)
                except (ray.exceptions.RayError, RuntimeError, ConnectionError):
                    continue  # the cluster or the store does not respond now

    def __call__(self) -> bool:
        """Whether there was a notice that has not led to a checkpoint yet."""
        return self._request()

    def saved(self) -> None:
        """There is a checkpoint; the trial continues until its process ends."""
        self._request = StopRequest()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()


def _node_drains() -> bool:
    return ray.get_runtime_context().get_node_id() in private_api.draining_nodes()
