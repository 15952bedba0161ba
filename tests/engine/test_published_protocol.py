"""A run with all training switches of the published protocol equals plain arithmetic, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import naive_protocol as naive
import numpy as np
import pytest
import torch
from torch import Tensor

from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods.method import StepLoss

SCALE, MARGIN, PEAK = 20.0, 0.4, 1e-3
WARMUP, MAIN, CYCLE = 3, 7, 10  # epochs; 28 of 40 as published, divided by 4
PROTOCOL: dict[str, Any] = {
    "scenes": 240,
    "labeled_fraction": 0.1,
    "validation_fraction": 0.0,
    "epochs": WARMUP + MAIN,
    "warmup_epochs": WARMUP,
    "cycle_epochs": CYCLE,
    "cycle_momentum": True,
    "warmup_learning_rate": PEAK,
    "learning_rate": PEAK,
    "warmup_batch": 6,
    "warmup_views": "both",
    "labeled_negatives": "first",
    "batch_composition": "fraction",
    "labeled_batch": 4,
    "unlabeled_batch": 12,
    "unlabeled_weight": None,
    "ema_decay": 0.9,
    "ema_warmup": False,
    "ema_restart": "trained",
    "shuffle": False,
    "strong_magnitude": 0.5,
    "cutout": 0.3,
    "keep": "last",
}
FIRST = 8  # steps of the main phase whose losses are compared


@dataclass
class Run:
    """What happened in a run.

    Args:
        losses: of all steps.
        rates, momenta: of all steps, and of every parameter group.
        masks: of the labelled samples after each refresh.
        first: state of the samples after the first refresh.
        averages: weights of the average at the end of the warm-up and at each refresh.
    """

    trainer: Trainer
    initial: naive.Weights
    losses: list[float]
    rates: list[list[float]]
    momenta: list[list[float]]
    masks: list[Tensor]
    first: dict[str, Tensor]
    averages: list[naive.Weights]


def doubles(state: dict[str, Tensor]) -> naive.Weights:
    return {n: t.detach().double().clone() for n, t in state.items() if t.is_floating_point()}


@pytest.fixture(scope="module")
def product(tiny_trainer: Callable[..., Trainer]) -> Run:
    """A run of this package, watched."""
    trainer = tiny_trainer(**PROTOCOL)
    run = Run(trainer, doubles(trainer.model.state_dict()), [], [], [], [], {}, [])
    method: Any = trainer.method

    def watched(of_step: Callable[..., StepLoss]) -> Callable[..., StepLoss]:
        def call(*arguments: Any) -> StepLoss:
            loss = of_step(*arguments)
            run.losses.append(float(loss.total.detach()))
            return loss

        return call

    def refreshed(snapshot: Any, refresh: Any = method.refresh) -> None:
        run.averages.append(doubles(trainer.average.module.state_dict()))
        refresh(snapshot)
        run.masks.append(method.labeled_selected.clone())
        if not run.first:
            run.first.update({n: t.clone() for n, t in method.sample_state()[1].items()})
            run.first.update(mean=method.statistics.means, variance=method.statistics.variances)

    step = torch.optim.AdamW.step

    def stepped(self: torch.optim.AdamW, *arguments: Any) -> Any:
        run.rates.append([group["lr"] for group in self.param_groups])
        run.momenta.append([group["betas"][0] for group in self.param_groups])
        return step(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(method, "labeled_loss", watched(method.labeled_loss))
        patch.setattr(method, "semi_supervised_loss", watched(method.semi_supervised_loss))
        patch.setattr(method, "refresh", refreshed)
        patch.setattr(torch.optim.AdamW, "step", stepped)
        while not trainer.finished:
            trainer.run_epoch()
            if trainer.epoch == WARMUP:
                run.averages.append(doubles(trainer.average.module.state_dict()))
    return run


@dataclass
class Expected:
    """What plain arithmetic gives for the same images."""

    losses: list[float]
    refreshed: naive.Refreshed
    averages: list[naive.Weights]


@pytest.fixture(scope="module")
def plain(product: Run) -> Expected:
    """The warm-up, the first refresh and the first steps of the main phase."""
    trainer = product.trainer
    data = trainer.data
    labels, losses = data.labels.double(), []
    model = naive.Model(dict(product.initial), dict(product.initial), PROTOCOL["ema_decay"])
    adam, per_epoch = naive.Adam(model.weights), 24 // 6
    rates = naive.learning_rates(PEAK, WARMUP * per_epoch, WARMUP * per_epoch)
    betas = naive.momenta(WARMUP * per_epoch, WARMUP * per_epoch)
    for epoch in range(1, WARMUP + 1):
        for step in trainer._steps(epoch, main_phase=False):
            views = (step.labeled.view(kind).double() for kind in ("strong", "weak"))
            batch = (*views, step.labels.double(), SCALE, MARGIN)
            schedule = rates[adam.steps], betas[adam.steps]
            losses.append(model.step(adam, lambda w, b=batch: naive.warmup_loss(w, *b), *schedule))
    averages = [model.average]
    model.restart_average()
    averages.append(dict(model.average))

    def inputs(rows: np.ndarray) -> Tensor:
        images = torch.from_numpy(np.asarray(data.inputs[rows])).double() / 255
        return (images - data.views.mean[0]) / data.views.std[0]

    rows = np.concatenate([data.labeled, data.unlabeled])
    features, _, _ = naive.forward(model.weights, inputs(rows), training=False)
    _, cosine, _ = naive.forward(model.average, inputs(data.unlabeled), training=False)
    first = naive.refresh(cosine.numpy(), features.numpy(), data.labels.numpy(), 5.0, 0.998)
    adam = naive.Adam(model.weights)
    per_epoch = -(-len(data.unlabeled) // 14)
    rates = naive.learning_rates(PEAK, MAIN * per_epoch, CYCLE * per_epoch)
    betas = naive.momenta(MAIN * per_epoch, CYCLE * per_epoch)
    masks = torch.from_numpy(first.labeled_mask), torch.from_numpy(first.unlabeled_mask)
    for step in trainer._steps(WARMUP + 1, main_phase=True):
        assert step.unlabeled is not None
        known, hidden = step.labeled.rows, step.unlabeled.rows
        images = step.labeled.view("strong").double(), step.unlabeled.view("strong").double()
        assert len(images[0]) == 2 and len(images[1]) in (13, 14)
        targets = labels[known], torch.from_numpy(first.pseudo)[hidden]
        batch = (images, targets, (masks[0][known], masks[1][hidden]), first, SCALE, MARGIN)
        schedule = rates[adam.steps], betas[adam.steps]
        losses.append(model.step(adam, lambda w, b=batch: naive.main_loss(w, *b), *schedule))
        if adam.steps == FIRST:
            break
    return Expected(losses, first, averages)


def test_the_schedule_of_all_steps_is_the_published_one(product: Run) -> None:
    warm, main = WARMUP * 4, MAIN * 16
    rates = naive.learning_rates(PEAK, warm, warm) + naive.learning_rates(PEAK, main, CYCLE * 16)
    betas = naive.momenta(warm, warm) + naive.momenta(main, CYCLE * 16)
    assert len(product.rates) == len(rates)
    for groups, expected in ((product.rates, rates), (product.momenta, betas)):
        for values, value in zip(groups, expected, strict=True):
            assert values == pytest.approx([value] * 2, rel=1e-6)
    of_main = rates[warm:]
    assert of_main[0] == pytest.approx(PEAK / 25, rel=0.02)
    assert of_main.index(max(of_main)) == pytest.approx(2 * 16, abs=1)  # main epoch 8 of 40
    assert of_main[-1] == pytest.approx(0.31 * PEAK, rel=0.03)
    assert betas[warm + 2 * 16] == pytest.approx(0.85, abs=1e-3)
    assert betas[-1] == pytest.approx(0.95 - 0.1 * 0.31, abs=1e-3)


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*before.*optimizer.step")
def test_it_is_that_of_torch_s_one_cycle_with_less_than_a_step_between_them(product: Run) -> None:
    """Torch takes the schedule at the start of a step, where ours takes it in the middle."""
    steps = CYCLE * 16
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=PEAK, steps_per_epoch=16, epochs=CYCLE, pct_start=0.2
    )
    theirs = []
    for _ in range(steps):
        theirs.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"][0]))
        if len(theirs) < steps:
            schedule.step()
    ours = zip(product.rates[WARMUP * 4 :], product.momenta[WARMUP * 4 :], strict=True)
    for step, (rate, beta) in enumerate(ours):
        for index, value in enumerate((rate[0], beta[0])):
            around = [pair[index] for pair in theirs[max(0, step - 1) : step + 2]]
            assert min(around) * (1 - 1e-9) <= value <= max(around) * (1 + 1e-9)


def test_losses_of_the_warm_up_and_of_the_first_main_steps_are_those_of_plain_arithmetic(
    product: Run, plain: Expected
) -> None:
    assert len(plain.losses) == WARMUP * 4 + FIRST
    assert product.losses[: len(plain.losses)] == pytest.approx(plain.losses, rel=2e-4)
    assert max(plain.losses[WARMUP * 4 :]) > 3 * max(plain.losses[: WARMUP * 4])  # lambda_u is 7


def test_the_first_refresh_selects_the_entries_of_plain_arithmetic(
    product: Run, plain: Expected
) -> None:
    expected, first = plain.refreshed, product.first
    assert np.array_equal(first["pseudo"].numpy(), expected.pseudo)
    assert np.array_equal(first["confident"].numpy(), expected.confident)
    assert np.array_equal(first["selected"].numpy(), expected.unlabeled_mask)
    assert np.array_equal(product.masks[0].numpy(), expected.labeled_mask)
    np.testing.assert_allclose(first["mean"].numpy(), expected.mean, rtol=1e-4)
    np.testing.assert_allclose(first["variance"].numpy(), expected.variance, rtol=1e-3)
    labels = product.trainer.data.labels.numpy()
    assert 0 < (expected.labeled_mask & (labels == 0)).sum() < (labels == 0).sum()


def test_the_labelled_mask_stays_that_of_the_first_refresh(product: Run) -> None:
    assert len(product.masks) == MAIN
    assert all(torch.equal(mask, product.masks[0]) for mask in product.masks)


def test_the_average_has_a_fixed_decay_and_starts_again_from_the_trained_weights(
    product: Run, plain: Expected
) -> None:
    assert len(plain.averages) == 2
    for found, expected in zip(product.averages, plain.averages, strict=False):
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=2e-5)
