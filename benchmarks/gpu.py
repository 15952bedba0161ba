"""On a GPU: training compared with the same network on one batch that stays on the device; a refresh.

The tests run both on a CPU at toy size.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bbam_ray.engine.minibatches import EpochSteps
from bbam_ray.engine.trainer import Trainer
from benchmarks.epoch import make_trainer, voc_like
from benchmarks.measure import Measured, alternate
from benchmarks.refresh import draw, refreshed
from benchmarks.step import network_steps

# Peak of dense bfloat16 in 10^12 operations per second, from the data sheets of the makers (SXM cards).
PEAKS = {"A100": 312.0, "H100": 989.0, "H200": 989.0, "L4": 121.0, "L40S": 362.0}


def synthetic_steps(trainer: Trainer, count: int, batch: int) -> Callable[[], None]:
    """Training steps with the same network, precision and optimizer on random images on the device."""
    side = trainer.data.input_shape[-1]
    inputs = torch.randn(batch, 3, side, side, device=trainer.device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=1e-30, fused=True)

    def work() -> None:
        network_steps(trainer, [inputs] * count, optimizer)
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()

    return work


def operations(trainer: Trainer, side: int) -> int:
    """Floating-point operations of a forward and backward pass for one image."""
    inputs = torch.randn(2, 3, side, side, device=trainer.device)
    trainer.model.train()
    with FlopCounterMode(display=False) as counter:
        trainer.model(inputs)[1].sum().backward()
    return int(counter.get_total_flops()) // 2


def training(device: str, *, backbone: str, side: int, images: int, batch: int) -> Measured:
    """Images per second of the training loop with data loading, compared with the synthetic loop."""
    rates: dict[str, Any] = {"learning_rate": 1e-30, "warmup_learning_rate": 1e-30}
    with voc_like(images) as root:
        labeled = max(2, batch // 16)
        trainer = make_trainer(
            root,
            device=device,
            backbone=backbone,
            image_size=side,
            labeled_batch=labeled,
            unlabeled_batch=batch - labeled,
            **rates,
        )
        trainer.run_epoch()
        common, data = trainer.config.training, trainer.data

        def real() -> None:
            steps = EpochSteps(common, data, trainer.views, trainer.labels, 1, main_phase=True)
            trainer.take_steps(steps, main_phase=True)

        steps = -(-len(data.unlabeled) // (batch - labeled))
        timed = alternate(synthetic_steps(trainer, steps, batch), real, 5)
        rate = steps * batch / timed["ours_s"]
        details: dict[str, Any] = {"images_per_second": rate, "share_of_synthetic": timed["ratio"]}
        if device == "cuda":
            name = torch.cuda.get_device_name()
            peak = next((tera for kind, tera in PEAKS.items() if kind in name), None)
            if peak is not None:
                details["share_of_peak"] = rate * operations(trainer, side) / (peak * 1e12)
    return Measured(
        "training on a GPU", f"{backbone}, {side} px, batches of {batch}", **timed, details=details
    )


def refresh(device: str, rows: tuple[int, int]) -> Measured:
    """The arithmetic of a refresh on the device."""
    cosine, features, known = (t.to(device) for t in draw(*rows, 80, 256))
    seconds = []
    for _ in range(7):
        copy = cosine.clone()
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        refreshed(copy, features, known)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    middle = sorted(seconds)[len(seconds) // 2]
    return Measured("refresh on a GPU", f"{sum(rows):,} x 80, D = 256", None, middle, None, 7)


def run(full: bool) -> list[Measured]:
    """At full size; without a GPU nothing is measured."""
    if not torch.cuda.is_available():
        return [
            Measured("training on a GPU", "ResNet-50, 224 px, batches of 256", None, None, None, 0),
            Measured("refresh on a GPU", "82,081 x 80, D = 256", None, None, None, 0),
        ]
    images = 20_000 if full else 4_000
    return [
        training("cuda", backbone="resnet50", side=224, images=images, batch=256),
        refresh("cuda", (4_104, 77_977)),
    ]
