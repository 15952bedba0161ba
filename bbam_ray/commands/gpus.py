"""``--gpus-per-worker``: how many GPUs a worker gets by default, and what is used, for people."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbam_ray.errors import UsageError
from bbam_ray.results.gpu_need import GpuNeed, gpu_need, proposal, trials_per_gpu
from bbam_ray.results.study import StudyRecord
from bbam_ray.scale.workers.shapes import TrainShape, WorkerRequest

if TYPE_CHECKING:
    from bbam_ray.scale.study.plan import StudyPlan


def with_gpus(request: WorkerRequest, address: str) -> TrainShape:
    """The workers of a run with their GPUs.

    Args:
        request: where the number is open, each worker gets one if there are GPUs, or a fraction if the
            workers of a local run have to share them.
        address: of Ray; anything but "local" asks the cluster, which may be able to add nodes with GPUs.
    """
    if request.gpus is not None:
        return request.with_gpus(request.gpus)
    return request.with_gpus(automatic_gpus(request.max_workers, address))


def of_resumed(request: WorkerRequest, folder: Path) -> WorkerRequest:
    """The workers of a study or run that is resumed: without GPUs if it began without."""
    try:
        settings = StudyRecord.open(folder).content.get("settings") or {}
    except UsageError:  # damaged; it is repaired, or reported, when the folder is locked
        return request
    if request.gpus is None and settings.get("device") == "cpu":
        return replace(request, gpus=0.0)
    return request


def automatic_gpus(workers: int, address: str) -> float:
    """GPUs of each of a number of workers, if no one has chosen it; see ``with_gpus``."""
    if address != "local":
        return _of_cluster(address)
    import torch

    count = torch.cuda.device_count()
    if not count:
        return 0.0
    return 1.0 if workers <= count else 1 / math.ceil(workers / count)


def _of_cluster(address: str) -> float:
    from bbam_ray.scale.cluster.capacity import has_gpus  # loads Ray
    from bbam_ray.scale.cluster.connection import connected

    with connected(address, dashboard=False):
        return 1.0 if has_gpus() else 0.0


def devices_text(cpus: int, gpus: float, address: str) -> str:
    """What each worker computes on, such as "1 x NVIDIA H200 each".

    Args:
        cpus, gpus: of a worker.
        address: of Ray; the GPUs of a cluster are not named.
    """
    if not gpus:
        return f"{cpus} CPU{'s' * (cpus > 1)} each"
    if address != "local":
        return f"{gpus:.3g} GPU each"
    import torch

    return f"{gpus:.3g} x {torch.cuda.get_device_name()} each"


def unused_gpu(gpus: float, address: str) -> str | None:
    """A warning that the GPUs of this machine are not used; None if they are, or if there are none.

    Args:
        gpus: of a worker.
        address: of Ray.
    """
    if gpus or address != "local":
        return None
    import torch

    count = torch.cuda.device_count()
    if not count:
        return None
    return (
        f"note: {count} x {torch.cuda.get_device_name()} {'is' if count == 1 else 'are'} not used: "
        "training is on the CPU (--gpus-per-worker 0, or resumed from there)"
    )


def shared_gpus(
    plan: StudyPlan, rows: Iterable[Mapping[str, Any]], address: str
) -> tuple[GpuNeed, int | None] | None:
    """What a trial of a finished study needed of its GPU, and how many could share one.

    Args:
        plan: of the study.
        rows: of its history, or of all folds.
        address: of Ray; the CPUs of this machine limit a local study.

    Returns:
        None if no GPU was measured, or if trials have several workers, which use NCCL on a GPU each.
        The number is None if no more trials fit than now, or if none had to wait.
    """
    gpus = plan.shape.gpus
    several_workers = plan.gpus > gpus
    if several_workers or (need := gpu_need(rows, gpus)) is None:
        return None
    if plan.num_samples <= plan.concurrency:
        return need, None
    in_use = max(1, math.ceil(plan.concurrency * gpus))  # GPUs
    waiting = plan.num_samples / in_use
    if address == "local":
        waiting = min(waiting, (os.cpu_count() or 1) // plan.shape.cpus // in_use)
    return need, trials_per_gpu(need, gpus=gpus, waiting=waiting)


def sharing_sentence(need: GpuNeed, count: int) -> str:
    """The end of a study whose trials could share GPUs, for people."""
    return f"{need.sentence}; {proposal(count)}"
