"""The small network of digits on a GPU, against two CPU cores of the same machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bbam_ray.engine.minibatches import EpochSteps
from bbam_ray.engine.task import prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods import run_config
from benchmarks.measure import SeparateProcess, alternate

ROUNDS = 5
_EPOCHS = 20  # of a run; the measurements train fewer


def digits_trainer(device: str, settings: dict[str, Any]) -> Trainer:
    """A trainer of digits with its default settings, and with the last weights kept."""
    values = {"dataset": "digits", "epochs": _EPOCHS, "keep": "last", "device": device}
    config = run_config({**values, **settings}, "benchmark")
    return Trainer(config, *prepare_training(config))


def step_loop(
    device: str, cores: int | None, settings: dict[str, Any], count: int
) -> Callable[[], Any]:
    """Epochs of the warm-up without evaluation; a function that trains ``count`` of them.

    Args:
        cores: threads of the process; None leaves them as they are.
    """
    if cores is not None:
        torch.set_num_threads(cores)
    trainer = digits_trainer(device, settings)
    trainer.run_epoch()

    def work() -> int:
        taken = 0
        for _ in range(count):
            steps = warmup_steps(trainer)
            trainer.take_steps(steps, main_phase=False)
            taken += len(steps)
        return taken

    return work


def warmup_steps(trainer: Trainer) -> EpochSteps:
    return EpochSteps(
        trainer.config.training, trainer.data, trainer.views, trainer.labels, 1, main_phase=False
    )


def epoch_loop(device: str, cores: int | None, settings: dict[str, Any]) -> Callable[[], Any]:
    """A function that trains an epoch of the main phase, with refresh and evaluation.

    The epochs before leave time to choose how the network runs; see the setting ``compile``.
    """
    if cores is not None:
        torch.set_num_threads(cores)
    trainer = digits_trainer(device, {**settings, "warmup_epochs": 1})
    for _ in range(5):
        trainer.run_epoch()
    return trainer.run_epoch


def warmup_step(
    device: str, *, cores: int, settings: dict[str, Any] | None = None, epochs: int = 3
) -> dict[str, Any]:
    """A step of the warm-up with its input, on the device and on CPU cores in a process of its own.

    Args:
        cores: threads of the other process.
        settings: replace the default settings of digits.
        epochs: whose steps are timed together.
    """
    chosen = settings or {}
    here = step_loop(device, None, chosen, epochs)
    other = SeparateProcess(step_loop, "cpu", cores, chosen, epochs)
    taken = here()
    timed = alternate(other, here, ROUNDS)
    other.end()
    for name in ("plain_s", "ours_s"):
        timed[name] /= taken
    details = {"milliseconds": 1e3 * timed["ours_s"], "plain_milliseconds": 1e3 * timed["plain_s"]}
    return timed | {"details": details}


def main_epoch(
    device: str, *, cores: int, settings: dict[str, Any] | None = None
) -> dict[str, Any]:
    """An epoch of the main phase, on the device and on CPU cores in a process of its own."""
    chosen = settings or {}
    other = SeparateProcess(epoch_loop, "cpu", cores, chosen)
    timed = alternate(other, epoch_loop(device, None, chosen), ROUNDS)
    other.end()
    return timed
