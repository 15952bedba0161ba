"""The number of threads of a training process."""

from __future__ import annotations

import os

import torch


def use_threads(count: int) -> None:
    """Let torch use ``count`` CPU threads; part of what makes a CPU run repeatable."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch.set_num_threads(count)
