"""Run by test_shared_patience.py: ranks of a gloo group whose writes fail for a while, or for good.

Usage: rank_patience.py FOLDER WORLD_SIZE; rank r writes rank-r.pt.
"""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import torch
from gloo_group import run_script

from bbam_ray.errors import StorageError
from bbam_ray.scale.workers.shared_patience import SharedPatience

FAILING = 1  # the rank


def insist(rank: int, *, failures: int, limit_s: float, stop_after: int | None) -> dict[str, Any]:
    """Write together, once.

    Args:
        rank: of this process; ``FAILING`` fails.
        failures: number of its attempts that fail.
        limit_s: of the patience.
        stop_after: attempts of rank 0's vote after which it has a request to stop.
    """
    attempts, votes, reasons = 0, 0, list[str]()

    def write() -> None:
        nonlocal attempts
        attempts += 1
        if rank == FAILING and attempts <= failures:
            raise OSError(errno.ENOSPC, "full")

    def stop_requested() -> bool:
        nonlocal votes
        votes += 1
        return rank == 0 and stop_after is not None and votes > stop_after

    patience = SharedPatience(
        Path("run"),
        limit_s,
        torch.device("cpu"),
        stop_requested=stop_requested,
        warn=reasons.append,
    )
    began = time.monotonic()
    try:
        outcome: bool | str = patience.insist(write)
    except StorageError as error:
        outcome = str(error)
    seconds = time.monotonic() - began
    return {
        "outcome": outcome,
        "attempts": attempts,
        "votes": votes,
        "reasons": reasons,
        "seconds": seconds,
        "ended": time.monotonic(),
    }


def work(rank: int, world_size: int, folder: Path) -> dict[str, Any]:
    return {
        "at once": insist(rank, failures=0, limit_s=60, stop_after=None),
        "for a while": insist(rank, failures=2, limit_s=60, stop_after=None),
        "for good": insist(rank, failures=10**6, limit_s=2.5, stop_after=None),
        "stopped": insist(rank, failures=10**6, limit_s=60, stop_after=1),
    }


if __name__ == "__main__":
    run_script(work)
