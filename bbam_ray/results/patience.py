"""Retry writes to a results folder while its disk is full or temporarily not writable."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from bbam_ray.errors import StorageError

VARIABLE, PATIENCE_S = "BBAM_RAY_PATIENCE", 600.0
RETRY_S = 1.0  # between two attempts
_log = logging.getLogger(__name__)


def patience_s() -> float:
    """Seconds to wait for a full disk, or for a storage that does not answer, before giving up."""
    try:
        return float(os.environ.get(VARIABLE, PATIENCE_S))
    except ValueError:
        return PATIENCE_S


def reason_of(error: OSError) -> str:
    """Why a write has failed, without the name of the file."""
    return os.strerror(error.errno) if error.errno else " ".join(str(error).split())


class Patience:
    """Retries of failed writes to a folder; an error only after ``patience_s`` seconds.

    Args:
        folder: for messages.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._since: float | None = None
        self._hurried = False
        self._requested: Callable[[], bool] = lambda: False

    def hurry(self) -> None:
        """Make the next failed write an error at once, because the user wants to stop."""
        self._hurried = True

    def hurry_when(self, requested: Callable[[], bool]) -> None:
        """The same from the moment at which a function returns True; it is read at each failure."""
        self._requested = requested

    @property
    def waiting(self) -> bool:
        """Whether the last write failed."""
        return self._since is not None

    def attempt(self, write: Callable[[], object]) -> bool:
        """Try to write once.

        Returns:
            Whether it succeeded.

        Raises:
            StorageError: all attempts failed for too long.
        """
        try:
            write()
        except OSError as error:
            reason, now = reason_of(error), time.monotonic()
            if self._since is None:
                self._since = now
                _log.warning(
                    "%s cannot be written (%s); the study keeps its results in memory and tries again",
                    self._folder,
                    reason,
                )
            if self._hurried or self._requested() or now - self._since >= patience_s():
                raise StorageError(
                    f"{self._folder} could not be written for {now - self._since:.0f} s ({reason}); all "
                    "earlier results are stored: free disk space and continue with --resume"
                ) from error
            return False
        self._since = None
        return True

    def insist(self, write: Callable[[], object]) -> None:
        """Retry until the write succeeds.

        Raises:
            StorageError: all attempts failed for too long.
        """
        while not self.attempt(write):
            time.sleep(RETRY_S)
