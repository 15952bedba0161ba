"""How all workers of a run wait together while the disk of one of them is full or not writable.

A worker that waits alone keeps the others in their next collective until its timeout, and counts as lost.
Here all ranks vote after each attempt, so that no collective takes much longer than an attempt.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bbam_ray import distributed
from bbam_ray.errors import StorageError
from bbam_ray.results.patience import RETRY_S, reason_of


class SharedPatience:
    """Retries of writes in which every rank takes part.

    Args:
        folder: that is written, for messages.
        limit_s: seconds after which a write that fails again and again is given up.
        device: of the training.
        stop_requested: whether this rank has a request to stop.
        warn: called on every rank with the reason, when a write has failed for the first time.
    """

    def __init__(
        self,
        folder: Path,
        limit_s: float,
        device: torch.device,
        *,
        stop_requested: Callable[[], bool],
        warn: Callable[[str], None],
    ) -> None:
        self._folder, self._limit_s, self._device = folder, limit_s, device
        self._stop_requested, self._warn = stop_requested, warn

    def insist(self, write: Callable[[], object]) -> bool:
        """Write on every rank; a rank whose write has failed tries again until all have succeeded.

        The ranks send one message after each attempt.

        Args:
            write: what this rank writes; a second attempt replaces what the first one has left.

        Returns:
            Whether all ranks have succeeded; False = there is a request to stop, and a further attempt
            has failed. The same on every rank.

        Raises:
            StorageError: a rank has failed for too long; every rank raises it.
        """
        failure, since = _attempt(write), time.monotonic()
        warned = is_last = False
        while True:
            seconds = time.monotonic() - since
            numbers, is_over, stops = self._vote(failure, seconds >= self._limit_s)
            if not any(numbers):
                return True
            reason = _reason(failure, numbers)
            if is_over:
                raise StorageError(
                    f"{self._folder} could not be written for {seconds:.0f} s ({reason}); all earlier "
                    "checkpoints are stored: free disk space and continue with --resume"
                ) from failure
            if is_last:
                return False
            if not warned:
                self._warn(reason)
            warned, is_last = True, stops
            time.sleep(RETRY_S)
            if failure is not None:
                failure = _attempt(write)

    def _vote(self, failure: OSError | None, is_late: bool) -> tuple[list[int], bool, bool]:
        """What all ranks know after an attempt: the error number of each (0 = it has succeeded), whether
        one that has failed is late, and whether one has a request to stop."""
        size = distributed.world_size()
        votes = torch.zeros(size + 2, device=self._device)
        if failure is not None:
            votes[distributed.rank()] = failure.errno or errno.EIO
            votes[size] = float(is_late)
        votes[size + 1] = float(self._stop_requested())
        (sums,) = distributed.all_reduce_sum(votes)
        *numbers, late, stops = sums.tolist()
        return [int(number) for number in numbers], late > 0, stops > 0


def _attempt(write: Callable[[], object]) -> OSError | None:
    try:
        write()
    except OSError as error:
        return error
    return None


def _reason(failure: OSError | None, numbers: list[int]) -> str:
    """Why a write has failed: on this rank, otherwise on the first rank that has failed."""
    if failure is not None:
        return reason_of(failure)
    rank = next(rank for rank, number in enumerate(numbers) if number)
    return f"{os.strerror(numbers[rank])}, worker {rank}"
