"""No step of an epoch waits for the GPU, whatever the method.

On a CPU the operations that would wait are counted instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from method_steps import TRAINED
from waiting import AsksTheDevice

from bbam_ray.data.views import rand_augment
from bbam_ray.engine.minibatches import EpochSteps, Step
from bbam_ray.engine.optim import FiniteCheck
from bbam_ray.engine.trainer import Trainer

pytestmark = pytest.mark.gpu

Make = Callable[..., Trainer]


@contextmanager
def waiting_is_an_error(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        with AsksTheDevice() as asked:
            yield
        assert asked.count == 0
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Watched:
    """The steps of an epoch; until the last one is done nothing may wait."""

    def __init__(self, steps: EpochSteps, device: torch.device) -> None:
        self._steps, self._device, self.taken = steps, device, 0

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Step]:
        with waiting_is_an_error(self._device):
            for step in self._steps:
                self.taken += 1
                yield step


@pytest.mark.parametrize("method", TRAINED)
def test_no_step_waits(
    method: str, on_device: Make, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "bbam_ray.engine.trainer.FiniteCheck", partial(FiniteCheck, every_step=False)
    )
    trainer = on_device(method=method)
    for _ in range(3):  # both phases: the first step of each makes the optimizer's state
        trainer.run_epoch()
    for main_phase in (False, True) if trainer.method.semi_supervised else (False,):
        watched: Any = Watched(trainer._steps(trainer.epoch, main_phase=main_phase), device)
        losses = trainer.take_steps(watched, main_phase=main_phase)
        assert watched.taken == len(watched) > 0 and losses["loss"] == losses["loss"]


def test_no_step_waits_with_the_published_views(
    on_device: Make, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "bbam_ray.engine.trainer.FiniteCheck", partial(FiniteCheck, every_step=False)
    )
    monkeypatch.setattr(rand_augment, "computes_chosen_only", lambda device: False)  # on a CPU, too
    trainer = on_device(strong_view="uda", normalize=False, cutout=0.5, warmup_cutout=0.0)
    for _ in range(3):
        trainer.run_epoch()
    for main_phase in (False, True):
        watched: Any = Watched(trainer._steps(trainer.epoch, main_phase=main_phase), device)
        losses = trainer.take_steps(watched, main_phase=main_phase)
        assert watched.taken == len(watched) > 0 and losses["loss"] == losses["loss"]


@pytest.mark.parametrize("how", ["auto", "true"])
def test_no_step_waits_once_the_path_of_the_network_is_chosen(
    how: str, cuda: torch.device, on_device: Make
) -> None:
    trainer = on_device(compile=how, labeled_batch=8, warmup_passes=20, epochs=10, warmup_epochs=8)
    for _ in range(6):
        trainer.run_epoch()
    watched: Any = Watched(trainer._steps(trainer.epoch, main_phase=False), cuda)
    losses = trainer.take_steps(watched, main_phase=False)
    assert watched.taken == len(watched) > 20 and losses["loss"] == losses["loss"]


def test_waiting_is_noticed(device: torch.device) -> None:
    number = torch.ones((), device=device)
    with pytest.raises((RuntimeError, AssertionError)), waiting_is_an_error(device):
        number.item()
    if device.type == "cuda":
        with pytest.raises(RuntimeError), waiting_is_an_error(device):
            torch.arange(5).to(device)  # from memory that is not pinned
    assert number.item() == 1
