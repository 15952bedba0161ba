"""A results folder that cannot be written for a while: what is to be written waits in memory."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from bbam_ray.errors import StorageError

VARIABLE, PATIENCE_S = "BBAM_RAY_PATIENCE", 600.0
_AGAIN_S = 1.0
_log = logging.getLogger(__name__)


def patience_s() -> float:
    """Seconds that a full disk, or a storage that does not answer, is waited for."""
    try:
        return float(os.environ.get(VARIABLE, PATIENCE_S))
    except ValueError:
        return PATIENCE_S


class Patience:
    """Writes into a folder, which may fail for a while before that is an error.

    Args:
        folder: named in messages.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._since: float | None = None
        self._hurried = False

    def hurry(self) -> None:
        """From now on a write that fails is an error at once: somebody wants to stop."""
        self._hurried = True

    @property
    def waiting(self) -> bool:
        """Whether the last write failed."""
        return self._since is not None

    def attempt(self, write: Callable[[], object]) -> bool:
        """Write if that is possible now, and say whether it was.

        Raises:
            StorageError: it has not been possible for too long.
        """
        try:
            write()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
            now = time.monotonic()
            if self._since is None:
                self._since = now
                _log.warning(
                    "%s cannot be written (%s); the study waits for it, and keeps what is done in memory",
                    self._folder,
                    reason,
                )
            if self._hurried or now - self._since >= patience_s():
                raise StorageError(
                    f"{self._folder} could not be written for {now - self._since:.0f} s ({reason}); what "
                    "was stored before is whole: make room and go on with --resume"
                ) from error
            return False
        self._since = None
        return True

    def insist(self, write: Callable[[], object]) -> None:
        """Write as soon as that is possible.

        Raises:
            StorageError: it has not been possible for too long.
        """
        while not self.attempt(write):
            time.sleep(_AGAIN_S)
