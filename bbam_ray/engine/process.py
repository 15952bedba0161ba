"""CPU threads and memory of a training process."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of glibc's mallopt(3)


def use_cpus(count: int) -> None:
    """Set the number of CPU threads of torch, and keep the memory of freed tensors for reuse.

    Results on a CPU are reproducible only with a fixed number of threads.
    """
    os.environ["OMP_NUM_THREADS"] = str(count)
    torch.set_num_threads(count)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Return freed memory to the system only beyond 2 GiB (glibc only; no effect elsewhere).

    Otherwise every large tensor gets fresh pages that the kernel has to clear: a quarter of the time of a
    ResNet's forward pass on a CPU.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
