"""How a worker of Ray Train learns that it has to stop: by the driver, or since a node is taken away."""

from __future__ import annotations

import threading
from typing import Any

import ray

from bbam_ray import distributed
from bbam_ray.engine.stop_request import StopRequest
from bbam_ray.scale import private_api

_POLL_SECONDS = 1.0


class StopWatch:
    """Reads the driver's request in a thread of rank 0, and Ray's notice of preemption on every rank.

    Args:
        ledger: the actor to which the driver sends its request.
    """

    def __init__(self, ledger: Any) -> None:
        self._ledger, self._ended = ledger, threading.Event()
        self.request = StopRequest()
        if distributed.rank() == 0:
            threading.Thread(target=self._poll, name="stop watch", daemon=True).start()

    def _poll(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            try:
                if ray.get(self._ledger.stop_requested.remote()):
                    self.request.make()
                    return
            except ray.exceptions.RayError:  # it ends with the driver
                return

    def __call__(self) -> bool:
        """Whether this rank has a request."""
        if not self.request() and private_api.preemption_noticed():
            self.request.make()
        return self.request()

    def end(self) -> None:
        """Stop to read."""
        self._ended.set()
