"""How a training process uses its CPUs and its memory."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of glibc's mallopt(3)


def use_cpus(count: int) -> None:
    """Let torch use ``count`` CPU threads, which is part of what makes a CPU run repeatable, and let the
    process keep the memory of freed tensors for the next ones."""
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch.set_num_threads(count)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Give freed memory back to the system only beyond 2 GiB (glibc; elsewhere nothing changes).

    Otherwise every large tensor comes in fresh pages that the kernel has to clear: a quarter of a ResNet's
    forward pass on a CPU.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
