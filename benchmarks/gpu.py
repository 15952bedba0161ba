"""What training reaches on a GPU: each row against the same work without what surrounds it.

Every function takes its device and its sizes; the tests run all of them on a CPU at toy size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_refresh, gpu_small, gpu_training
from benchmarks.epoch import voc_like
from benchmarks.measure import Measured

VOC_IMAGES = 5_717  # of VOC 2012's part "train"
COCO = (4_104, 77_977)  # labelled and unlabelled samples with 5 % labels
RESNET: dict[str, Any] = {"backbone": "resnet50", "side": 224, "batch": 256}

#: part, case, and what is timed on a device with a folder of images: seconds, ratio, rounds and details
ROWS: list[tuple[str, str, Callable[[str, Path], dict[str, Any]]]] = [
    (
        "training on a GPU",
        "ResNet-50, 224 px, batches of 256",
        lambda device, root: gpu_training.steps(device, root, **RESNET),
    ),
    (
        "training on a GPU",
        "ResNet-50, 224 px, batches of 256, compiled",
        lambda device, root: gpu_training.steps(device, root, **RESNET, compiled=True),
    ),
    (
        "epoch on a GPU",
        "ResNet-50, 224 px, batches of 256; plain: steps, then forward passes",
        lambda device, root: gpu_training.epoch(device, root, **RESNET),
    ),
    (
        "epoch on a GPU",
        "ResNet-50, 224 px, batches of 256, compiled; plain: steps, then forward passes",
        lambda device, root: gpu_training.epoch(device, root, **RESNET, compiled=True),
    ),
    (
        "epoch on a GPU",
        "images of VOC 2012's size, ResNet-50, 224 px, default batches, with evaluation",
        lambda device, root: gpu_training.whole_epoch(device, root, backbone="resnet50", side=224),
    ),
    (
        "forward passes of a refresh on a GPU",
        "two networks, ResNet-50, 224 px",
        lambda device, root: gpu_training.forwards(device, root, backbone="resnet50", side=224),
    ),
    (
        "refresh on a GPU",
        "82,081 x 80, D = 256",
        lambda device, root: gpu_refresh.arithmetic(device, COCO, labels=80, width=256),
    ),
    *(
        (
            "views on a GPU",
            f"{kind}, 256 images of 224 px",
            lambda device, root, kind=kind: gpu_refresh.views(device, kind, side=224, batch=256),
        )
        for kind in ("weak", "strong", "uda")
    ),
    (
        "small network on a GPU",
        "digits, a step of the warm-up; plain: 2 CPU cores",
        lambda device, root: gpu_small.warmup_step(device, cores=2),
    ),
    (
        "small network on a GPU",
        "digits, an epoch of the main phase; plain: 2 CPU cores",
        lambda device, root: gpu_small.main_epoch(device, cores=2),
    ),
]


def run(full: bool) -> list[Measured]:
    """On 5,717 images if ``full``, else on 2,000. Without a GPU nothing is measured."""
    if not torch.cuda.is_available():
        return [Measured(part, case, None, None, None, 0) for part, case, _ in ROWS]
    with voc_like(VOC_IMAGES if full else 2_000) as root:
        return [measured(part, case, work, "cuda", root) for part, case, work in ROWS]


def measured(
    part: str, case: str, work: Callable[[str, Path], dict[str, Any]], device: str, root: Path
) -> Measured:
    """A row; not measured if it fails, with the reason in its details, so that the others are kept."""
    print(f"  {part}: {case}", file=sys.stderr, flush=True)
    try:
        return Measured(part, case, **work(device, root))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return Measured(part, case, None, None, None, 0, {"error": reason[:200]})
