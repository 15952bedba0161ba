"""A request to stop training: by a signal, a notice of preemption, or any other part of the program."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def never() -> bool:
    """No request to stop."""
    return False


class StopRequest:
    """A flag that a signal handler or a thread sets, and that training reads between steps."""

    def __init__(self) -> None:
        self._made_at: float | None = None

    def make(self) -> None:
        """Request the stop; later calls change nothing."""
        if self._made_at is None:
            self._made_at = time.monotonic()

    def __call__(self) -> bool:
        """Whether the stop was requested."""
        return self._made_at is not None

    @property
    def seconds(self) -> float:
        """Since the request; 0 if there is none."""
        return 0.0 if self._made_at is None else time.monotonic() - self._made_at


@contextmanager
def made_by_signal(request: StopRequest, number: int = signal.SIGTERM) -> Iterator[None]:
    """While the block runs, the first signal makes the request, and each further one interrupts at once.

    Outside of the main thread, where Python handles no signals, the block runs without a handler.

    Args:
        request: that the signal makes.
        number: of the signal; SIGTERM is what schedulers and clouds send before they take a machine away.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if request():
            raise KeyboardInterrupt
        request.make()

    before = signal.signal(number, handle)
    try:
        yield
    finally:
        signal.signal(number, before)
