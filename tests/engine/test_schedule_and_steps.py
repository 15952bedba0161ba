"""The one-cycle schedule, and the step that rejects numbers that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from waiting import AsksTheDevice

from bbam_ray.engine.gradient_sum import GradientSum
from bbam_ray.engine.optim import FiniteCheck, Precision, apply_step, one_cycle
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import NonFiniteError
from bbam_ray.methods.method import StepLoss

Make = Callable[..., Trainer]
CPU = torch.device("cpu")


@pytest.mark.parametrize("total", [50, 1000])
@pytest.mark.parametrize("pct_start", [0.1, 0.2, 0.5])
def test_the_cycle_rises_to_its_peak_at_pct_start_and_falls_to_almost_zero(
    total: int, pct_start: float
) -> None:
    rates = [one_cycle(step, total, pct_start) for step in range(total)]
    peak = max(range(total), key=rates.__getitem__)
    assert peak == pytest.approx(pct_start * total, abs=1)
    assert rates[peak] == pytest.approx(1, abs=0.02)
    assert rates[0] == pytest.approx(1 / 25, abs=0.05)
    assert 0 < rates[-1] < 1e-2 * (50 / total)
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a > b for a, b in pairwise(rates[peak:]))
    assert all(0 < rate <= 1 for rate in rates)


def test_the_ends_of_a_long_cycle_are_1_25th_and_1_25th_of_1e_4() -> None:
    total = 10**7
    assert one_cycle(0, total, 0.2) == pytest.approx(1 / 25, rel=1e-4)
    assert one_cycle(total // 5, total, 0.2) == pytest.approx(1, rel=1e-4)
    assert one_cycle(total - 1, total, 0.2) == pytest.approx(1e-4 / 25, rel=1e-4)


def test_a_cycle_of_one_step_has_a_usable_rate() -> None:
    assert 0.1 < one_cycle(0, 1, 0.2) < 1


def test_the_cycle_of_each_phase_has_the_length_of_the_phase(
    tiny_trainer: Make, run_to_end: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer(
        warmup_epochs=3,
        epochs=5,
        warmup_passes=2,
        warmup_learning_rate=0.004,
        learning_rate=0.001,
    )
    rates: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    run_to_end(trainer)
    common, data = trainer.config.training, trainer.data
    warm = 3 * 2 * -(-len(data.labeled) // common.labeled_batch)
    main = 2 * -(-len(data.unlabeled) // common.unlabeled_batch)
    expected = [0.004 * one_cycle(step, warm, 0.2) for step in range(warm)]
    expected += [0.001 * one_cycle(step, main, 0.2) for step in range(main)]
    assert rates == pytest.approx(expected)


def broken_at(trainer: Trainer, step: int, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spoil the loss, or only its gradient, of one step of the main phase."""
    original, calls = trainer.method.semi_supervised_loss, []

    def spoiled(model: Any, *args: Any) -> StepLoss:
        loss = original(model, *args)
        calls.append(1)
        if len(calls) != step:
            return loss
        weight = model.head.weight.sum()
        extra = {
            "nan": weight * float("nan"),
            "inf": weight * 0 + float("inf"),
            "gradient": ((weight - weight.detach()) ** 2).sqrt(),  # 0, with a gradient of 0 / 0
        }[how]
        return StepLoss(loss.labeled, loss.unlabeled + extra)

    monkeypatch.setattr(trainer.method, "semi_supervised_loss", spoiled)


@pytest.mark.parametrize("how", ["nan", "inf", "gradient"])
def test_a_step_that_is_not_finite_names_epoch_and_step_and_changes_no_weight(
    how: str, tiny_trainer: Make, monkeypatch: pytest.MonkeyPatch, identical: Callable
) -> None:
    trainer = tiny_trainer()
    trainer.run_epoch()
    trainer.run_epoch()
    broken_at(trainer, 2, how, monkeypatch)
    states: list[Any] = []

    def state() -> Any:
        weights = [p.detach().clone() for p in trainer.model.parameters()]
        average = {k: v.clone() for k, v in trainer.average.module.state_dict().items()}
        return weights, average, trainer.average.updates

    update = trainer.average.update
    monkeypatch.setattr(trainer.average, "update", lambda: (update(), states.append(state())))
    with pytest.raises(NonFiniteError, match=r"epoch 3, step 2.*learning_rate"):
        trainer.run_epoch()
    assert len(states) == 1  # the first step changed the weights, the second did not
    assert identical(state(), states[-1])


def test_a_warm_up_step_that_is_not_finite_is_refused_too(
    tiny_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer(method="supervised")
    monkeypatch.setattr(
        trainer.method,
        "labeled_loss",
        lambda model, *args: StepLoss(model.head.weight.sum() * float("nan")),
    )
    before = [p.detach().clone() for p in trainer.model.parameters()]
    with pytest.raises(NonFiniteError, match="epoch 1, step 1"):
        trainer.run_epoch()
    assert all(map(torch.equal, before, trainer.model.parameters()))


def test_a_finite_step_is_that_of_the_optimizer_alone() -> None:
    torch.manual_seed(0)
    precision = Precision(CPU, True)
    inputs = torch.randn(4, 3)
    models = [torch.nn.Linear(3, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [torch.optim.AdamW(model.parameters(), lr=0.1, fused=True) for model in models]
    gradients = GradientSum(models[0].parameters())
    for _ in range(3):
        loss = models[0](inputs).square().sum()
        apply_step(loss, gradients, optimizers[0], precision, FiniteCheck(CPU, 1))
        optimizers[1].zero_grad()
        models[1](inputs).square().sum().backward()
        optimizers[1].step()
    assert torch.equal(models[0].weight, models[1].weight)


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_steps_after_one_that_is_not_finite_are_skipped_without_asking_the_device(bad: str) -> None:
    """As on a GPU: the weights stay where they were before that step, whose number is told at the end."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    check, gradients = FiniteCheck(CPU, 7, every_step=False), GradientSum(model.parameters())
    weights = []
    for number in range(4):
        loss = model(torch.randn(4, 3)).square().sum()
        if number == 2:
            extra = ((loss - loss.detach()) ** 2).sqrt() if bad == "gradient" else loss * math.inf
            loss = loss + extra
        asked = AsksTheDevice()
        with asked:
            apply_step(loss, gradients, optimizer, Precision(CPU, True), check)
        assert asked.count == 0
        weights.append(model.weight.detach().clone())
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[1], weights[2]) and torch.equal(weights[2], weights[3])
    with pytest.raises(NonFiniteError, match="epoch 7, step 3"):
        check.raise_if_not()


@pytest.mark.parametrize(
    "method",
    ["bbam", "cap", "supervised", "softmatch", "mime", "drml", "flatmatch", "d2l", "dicap"],
)
def test_the_steps_of_an_epoch_wait_for_the_device_once(
    method: str, tiny_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = partial(FiniteCheck, every_step=False)  # as on a GPU
    monkeypatch.setattr("bbam_ray.engine.trainer.FiniteCheck", lazy)
    trainer = tiny_trainer(method=method)
    asked = AsksTheDevice()
    take = trainer.take_steps

    def watched(*args: Any, **options: Any) -> Any:
        with asked:
            return take(*args, **options)

    monkeypatch.setattr(trainer, "take_steps", watched)
    while not trainer.finished:
        asked.count = 0
        trainer.run_epoch()
        # whether the losses are finite, and the two mean losses at the end
        assert asked.count <= 3


def test_precision_is_plain_float32_on_a_cpu() -> None:
    precision = Precision(torch.device("cpu"), True)
    assert not precision.enabled
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
