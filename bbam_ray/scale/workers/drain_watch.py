"""How a process of a trial notices that its node is about to be taken away."""

from __future__ import annotations

import threading

import ray

from bbam_ray.engine.stop_request import StopRequest
from bbam_ray.scale import private_api

_POLL_SECONDS = 2.0


class DrainWatch:
    """Looks in a thread whether Ray drains the node of this process; one request for one notice."""

    def __init__(self) -> None:
        self._request = StopRequest()
        self._saved = False
        threading.Thread(target=self._poll, name="drain watch", daemon=True).start()

    def _poll(self) -> None:
        node, ended = ray.get_runtime_context().get_node_id(), threading.Event()
        while not ended.wait(_POLL_SECONDS):
            try:
                if node in private_api.draining_nodes():
                    self._request.make()
                    return
            except (ray.exceptions.RayError, RuntimeError, ConnectionError):
                continue  # the cluster does not respond now

    def __call__(self) -> bool:
        """Whether there was a notice that has not led to a checkpoint yet."""
        return self._request() and not self._saved

    def saved(self) -> None:
        """There is a checkpoint; the trial continues until the node is gone."""
        self._saved = self._request()
