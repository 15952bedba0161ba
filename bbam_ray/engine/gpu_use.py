"""How much of its GPU a training uses, as columns of the history."""

from __future__ import annotations

from typing import Any

import torch


def busy_percent(device: torch.device) -> float | None:
    """Percentage of the last moments (up to a second) in which a kernel ran on a GPU, of any process.

    None on a CPU, without the package nvidia-ml-py, and where the driver does not say it, as on parts of
    a GPU (MIG). Training never fails because of it.
    """
    if device.type != "cuda":
        return None
    try:
        return float(torch.cuda.utilization(device))
    except Exception:  # of torch, of nvidia-ml-py or of the driver, under many names
        return None


def gpu_columns(device: torch.device, busy: float | None) -> dict[str, Any]:
    """Columns of an epoch: peak memory since the last reset, memory of the GPU, and use; none on a CPU.

    Args:
        device: of the training.
        busy: ``busy_percent`` at the end of the training steps.
    """
    if device.type != "cuda":
        return {}
    return {
        "gpu_memory": torch.cuda.max_memory_allocated(device),
        "gpu_memory_total": torch.cuda.get_device_properties(device).total_memory,
        "gpu_use": busy,
    }
