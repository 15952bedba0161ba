"""Start the ranks of a real gloo group, each with one thread; for worker scripts of tests.

The ranks are forked after the imports of the script, since importing in each rank would take seconds.
Ranks that use a GPU are spawned: CUDA does not survive a fork.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _rank(rank: int, world_size: int, folder: str, work: Callable[[int, int, Path], Any]) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    torch.save(work(rank, world_size, Path(folder)), Path(folder) / f"rank-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def run_script(
    work: Callable[[int, int, Path], Any], start_method: Literal["fork", "spawn"] = "fork"
) -> None:
    """Run ``work(rank, world_size, folder)`` on every rank; usage: SCRIPT FOLDER WORLD_SIZE."""
    folder, world_size = sys.argv[1], int(sys.argv[2])
    mp.start_processes(
        _rank, args=(world_size, folder, work), nprocs=world_size, start_method=start_method
    )
