"""What the trials of a study needed of a GPU, and how many of them could share one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

#: Bytes of a GPU that a process needs besides its tensors: CUDA's context, its kernels, libraries.
CONTEXT = 600 << 20
#: Shares of the memory and of the time of a GPU that trials together may need. Trials wait for the host
#: now and then, so a little more than all of the time is no loss.
MOST_MEMORY, MOST_USE = 0.9, 1.2
_SIZES = (8, 4, 2)  # trials on a GPU


@dataclass(frozen=True)
class GpuNeed:
    """What a trial needed of a GPU.

    Args:
        memory: most bytes, ``CONTEXT`` included.
        total: bytes of the smallest GPU that was used.
        use: share of the time in which a kernel of the trial ran; None = not measured.
    """

    memory: int
    total: int
    use: float | None

    @property
    def sentence(self) -> str:
        """Memory and use, for people."""
        gib = 1 << 30
        text = f"GPU: a trial needed at most {self.memory / gib:.1f} of {self.total / gib:.0f} GiB"
        if self.use is None:
            return f"{text}; how busy it was is not measured (install nvidia-ml-py to measure it)"
        return f"{text} and kept the GPU busy {self.use:.0%} of the time"


def gpu_need(rows: Iterable[Mapping[str, Any]], gpus: float) -> GpuNeed | None:
    """What the trials of a study needed.

    Args:
        rows: of the history, or of all folds.
        gpus: of a trial; with a fraction, other trials had an equal part in the measured use.

    Returns:
        None if nothing was measured: no GPU was used, or an older version wrote the rows.
    """
    measured = [row for row in rows if row.get("gpu_memory") and row.get("gpu_memory_total")]
    if not measured:
        return None
    used = [row["gpu_use"] for row in measured if row.get("gpu_use") is not None]
    return GpuNeed(
        memory=int(max(row["gpu_memory"] for row in measured)) + CONTEXT,
        total=int(min(row["gpu_memory_total"] for row in measured)),
        use=fmean(used) / 100 * min(1.0, gpus) if used else None,
    )


def trials_per_gpu(need: GpuNeed, *, gpus: float, waiting: float) -> int | None:
    """How many trials to put on a GPU at once.

    Args:
        need: of a trial.
        gpus: that each trial has now.
        waiting: trials for each GPU; no more are put on it.

    Returns:
        The largest of 2, 4 and 8 that fits; None if none is more than now.
    """
    for count in _SIZES:
        fits = count * need.memory <= MOST_MEMORY * need.total
        fits = fits and (need.use is None or count * need.use <= MOST_USE)
        if fits and count <= math.ceil(waiting):
            return count if 1 / count < gpus else None
    return None


def proposal(count: int) -> str:
    """The option that puts a number of trials on each GPU, for people."""
    return f"`--gpus-per-worker {1 / count:g}` runs {count} trials at once on each"
