"""Ctrl-C and SIGTERM. They are remembered, since Python drops exceptions in fork hooks and finalizers."""

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
    """Raise KeyboardInterrupt if there was a signal, in case its own exception was dropped."""
    if _requested:
        raise KeyboardInterrupt


def listen() -> None:
    """Handle SIGINT (unless this process ignores it) and SIGTERM; Ray replaces the handler of SIGTERM."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


@contextmanager
def listening() -> Iterator[None]:
    """Listen while the block runs, and restore the handlers at its end."""
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
