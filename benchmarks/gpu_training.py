"""Training, refresh and epochs on images on a GPU, against the same network without what surrounds it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mode
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bbam_ray.engine.minibatches import EpochSteps
from bbam_ray.engine.trainer import Trainer
from benchmarks.epoch import make_trainer
from benchmarks.measure import alternate, seconds, timed_alone
from benchmarks.step import network_steps

# Peak of dense bfloat16 in 10^12 operations per second, from the data sheets of the makers (SXM cards).
PEAKS = {"A100": 312.0, "H100": 989.0, "H200": 989.0, "L4": 121.0, "L40S": 362.0}
ROUNDS = 5


def image_trainer(
    device: str, root: Path, *, backbone: str, side: int, batch: int, compiled: bool = False
) -> Trainer:
    """A trainer after its first epoch of the main phase; its weights stay almost as they are.

    Args:
        root: of the images; the first use decodes them.
        side: of the views, in pixels.
        batch: samples of a step, a sixteenth of them labelled.
        compiled: the setting ``compile``; never "auto".
    """
    labeled = max(2, batch // 16)
    settings: dict[str, Any] = {"learning_rate": 1e-30, "warmup_learning_rate": 1e-30}
    settings |= {"backbone": backbone, "image_size": side, "device": device}
    settings |= {"labeled_batch": labeled, "unlabeled_batch": batch - labeled, "keep": "last"}
    settings |= {"compile": "true" if compiled else "false"}
    trainer = make_trainer(root, **settings)
    trainer.run_epoch()
    return trainer


def main_steps(trainer: Trainer) -> EpochSteps:
    return EpochSteps(
        trainer.config.training, trainer.data, trainer.views, trainer.labels, 1, main_phase=True
    )


def synthetic_steps(trainer: Trainer, count: int, batch: int) -> Callable[[], None]:
    """Training steps with the same network, precision and optimizer on random images on the device."""
    side = trainer.data.input_shape[-1]
    inputs = torch.randn(batch, 3, side, side, device=trainer.device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=1e-30, fused=True)

    def work() -> None:
        network_steps(trainer, [inputs] * count, optimizer)

    return work


def operations(trainer: Trainer, side: int) -> int:
    """Floating-point operations of a forward and backward pass for one image."""
    inputs = torch.randn(2, 3, side, side, device=trainer.device)
    # A copy is not compiled: what is compiled would not be counted.
    network = copy.deepcopy(trainer.average.module).requires_grad_(True).train()
    with FlopCounterMode(display=False) as counter:
        network(inputs)[1].sum().backward()
    return int(counter.get_total_flops()) // 2


def steps(device: str, root: Path, **sizes: Any) -> dict[str, Any]:
    """The steps of an epoch with their input, against the synthetic loop of as many steps.

    Compiled, the details have the seconds until the end of the first epoch of a trial, and of a second
    trial, which uses what the compiler has stored.

    Args:
        sizes: of ``image_trainer``.
    """
    started = time.perf_counter()
    trainer = image_trainer(device, root, **sizes)
    first_epoch = time.perf_counter() - started
    samples, count = main_steps(trainer).samples, len(main_steps(trainer))
    usual = mode(
        step.labeled.total + step.unlabeled.total for step in main_steps(trainer) if step.unlabeled
    )

    def real() -> None:
        trainer.take_steps(main_steps(trainer), main_phase=True)

    synthetic = synthetic_steps(trainer, count, usual)
    timed = alternate(synthetic, real, ROUNDS)
    rate = samples / timed["ours_s"]
    details: dict[str, Any] = {"images_per_second": rate, "share_of_synthetic": timed["ratio"]}
    if sizes.get("compiled"):
        again = seconds(lambda: image_trainer(device, root, **sizes))
        details |= {"first_epoch_s": first_epoch, "first_epoch_of_second_trial_s": again}
    if device == "cuda":
        name = torch.cuda.get_device_name()
        peak = next((tera for kind, tera in PEAKS.items() if kind in name), None)
        if peak is not None:
            details["share_of_peak"] = rate * operations(trainer, sizes["side"]) / (peak * 1e12)
    return timed | {"details": details}


def epoch(device: str, root: Path, **sizes: Any) -> dict[str, Any]:
    """A whole epoch with its refresh, against its steps and then its forward passes alone."""
    trainer = image_trainer(device, root, **sizes)

    def parts() -> None:
        trainer.take_steps(main_steps(trainer), main_phase=True)
        trainer._snapshot()

    timed = alternate(parts, trainer.run_epoch, ROUNDS)
    samples = main_steps(trainer).samples
    rates = {"images_per_second": samples / timed["ours_s"], "share_of_parts": timed["ratio"]}
    return timed | {"details": rates}


def whole_epoch(device: str, root: Path, *, backbone: str, side: int) -> dict[str, Any]:
    """An epoch of the main phase as a user runs it: default batches, refresh, steps and evaluation."""
    settings: dict[str, Any] = {"labeled_batch": 32, "unlabeled_batch": 96, "keep": "last"}
    settings |= {"backbone": backbone, "image_size": side, "device": device}
    trainer = make_trainer(root, **settings, validation_fraction=0.2)
    trainer.run_epoch()
    records = []
    timed = timed_alone(lambda: records.append(trainer.run_epoch().scalars), 3)
    last = records[-1]
    names = ("seconds_refresh", "seconds_train", "seconds_evaluate", "images_per_second")
    details = {"images": len(trainer.data.inputs)} | {name: last[name] for name in names}
    return timed | {"details": details}


def forwards(
    device: str, root: Path, *, backbone: str, side: int, batch: int = 256
) -> dict[str, Any]:
    """The forward passes of a refresh: two networks over the unlabelled images, one over the others."""
    trainer = image_trainer(device, root, backbone=backbone, side=side, batch=batch)
    timed = timed_alone(trainer._snapshot, ROUNDS)
    images = len(trainer.data.labeled) + len(trainer.data.unlabeled)
    return timed | {"details": {"images": images, "images_per_second": images / timed["ours_s"]}}
