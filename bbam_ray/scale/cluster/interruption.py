"""Ctrl-C and SIGTERM, remembered: Python drops an exception that a fork hook or finalizer raises."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_requested = False


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _requested
    _requested = True
    raise KeyboardInterrupt


def check() -> None:
    """Raise KeyboardInterrupt if one was asked for, wherever the first one got lost."""
    if _requested:
        raise KeyboardInterrupt


def listen() -> None:
    """Take SIGINT (unless this process was told to ignore it) and SIGTERM; Ray replaces the latter."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


@contextmanager
def listening() -> Iterator[None]:
    """Listen while the block runs, and put back what was there."""
    global _requested
    _requested = False
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    listen()
    try:
        yield
    finally:
        _requested = False
        for number, handler in before.items():
            signal.signal(number, handler)
