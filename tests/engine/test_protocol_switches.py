"""Each switch of the published protocol changes what it names, and resumes exactly."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from method_steps import TRAINED
from saved_training import train_to_end
from torch import nn

from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.optim import Precision
from bbam_ray.engine.task import check_task
from bbam_ray.engine.trainer import EpochRecord, Trainer
from bbam_ray.errors import UsageError
from bbam_ray.methods import run_config

Make = Callable[..., Trainer]
SWITCHES: dict[str, dict[str, Any]] = {
    "cycle_epochs": {"cycle_epochs": 5},
    "cycle_momentum": {"cycle_momentum": True},
    "warmup_views": {"warmup_views": "both"},
    "warmup_batch": {"warmup_batch": 4},
    "labeled_negatives, first": {"labeled_negatives": "first"},
    "labeled_negatives, all": {"labeled_negatives": "all"},
    "ema_warmup": {"ema_warmup": False},
    "ema_restart, trained": {"ema_restart": "trained"},
    "ema_restart, averaged": {"ema_restart": "averaged"},
    "shuffle": {"shuffle": False},
    "batch_composition": {"batch_composition": "fraction", "labeled_fraction": 0.2},
}
ALL = {name: value for switch in SWITCHES.values() for name, value in switch.items()}
ALL |= {"labeled_negatives": "first", "ema_restart": "trained"}


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in trainer.model.state_dict().items()}


@pytest.mark.parametrize("switches", [*SWITCHES.values(), ALL], ids=[*SWITCHES, "all"])
def test_a_run_resumes_exactly_after_every_epoch(
    switches: dict[str, Any],
    tiny_trainer: Make,
    figures: Callable,
    identical: Callable,
    tmp_path: Path,
) -> None:
    whole = tiny_trainer(**switches)
    expected = [figures(record) for record in train_to_end(whole, tmp_path)]
    for epoch in (1, 2, 3):
        again = tiny_trainer(**switches)
        records = checkpoint_folder.load(tmp_path / checkpoint_folder.folder_name(epoch), again)
        torch.rand(5)  # other random draws of the process must not matter
        assert identical(
            [figures(record) for record in train_to_end(again, before=records)], expected
        )
        assert identical(again.state_dict(), whole.state_dict())
        assert identical(again.sample_state(), whole.sample_state())


# ------------------------------------------------------------------------------- schedule


def rates(records: list[EpochRecord]) -> list[float]:
    return [record.scalars["lr"] for record in records]


def test_a_cycle_that_is_cut_has_the_rates_of_the_longer_run(
    tiny_trainer: Make, run_to_end: Callable
) -> None:
    longer = rates(run_to_end(tiny_trainer(epochs=7)))
    assert rates(run_to_end(tiny_trainer(cycle_epochs=5))) == longer[:4]
    assert rates(run_to_end(tiny_trainer()))[2:] != longer[2:4]


def test_the_cycle_of_the_warm_up_stays_as_long_as_the_warm_up(
    tiny_trainer: Make, run_to_end: Callable
) -> None:
    plain = rates(run_to_end(tiny_trainer(method="supervised")))
    assert rates(run_to_end(tiny_trainer(method="supervised", cycle_epochs=5))) == plain


def test_momentum_moves_against_the_rate_in_both_phases_and_only_with_its_switch(
    tiny_trainer: Make, monkeypatch: pytest.MonkeyPatch, run_to_end: Callable
) -> None:
    seen: list[tuple[float, float, float]] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *arguments: Any) -> Any:
        seen.extend((group["lr"], *group["betas"]) for group in self.param_groups)
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    run_to_end(tiny_trainer(warmup_passes=4))
    assert {(b, c) for _, b, c in seen} == {(0.9, 0.999)}
    seen.clear()
    trainer = tiny_trainer(warmup_passes=4, cycle_momentum=True)
    run_to_end(trainer)
    assert {c for _, _, c in seen} == {0.999}
    assert all(0.85 <= b <= 0.95 for _, b, _ in seen)
    main = 2 * 2 * len(batches(trainer, 3)[0])  # groups, epochs, steps
    for phase in (seen[:-main], seen[-main:]):
        by_rate = [beta for _, beta, _ in sorted(phase)]
        assert by_rate[0] > 0.93 and by_rate[-1] < 0.87


def test_every_weight_has_the_same_decay(tiny_trainer: Make) -> None:
    """The published protocol has one group; the two here differ in the learning rate only."""
    trainer = tiny_trainer()
    groups = trainer.optimizer.param_groups
    assert {group["weight_decay"] for group in groups} == {1e-4}
    decayed = {id(p) for group in groups for p in group["params"]}
    assert decayed == {id(p) for p in trainer.model.parameters()}


# -------------------------------------------------------------------------------- warm-up


@pytest.mark.parametrize("method", TRAINED)
def test_batch_norm_sees_both_views_in_the_warm_up_only(method: str, tiny_trainer: Make) -> None:
    sizes: dict[str, dict[bool, list[int]]] = {}
    ended = {}
    for views in ("strong", "both"):
        trainer = tiny_trainer(method=method, warmup_views=views, epochs=2, warmup_epochs=1)
        norm = next(m for m in trainer.model.modules() if isinstance(m, nn.BatchNorm2d))
        seen: dict[bool, list[int]] = {True: [], False: []}

        def note(
            module: nn.Module, inputs: Any, output: Any, seen: Any = seen, trainer: Any = trainer
        ) -> None:
            if module.training:
                warm = not trainer.method.semi_supervised or trainer.epoch == 1
                seen[warm].append(len(inputs[0]))

        norm.register_forward_hook(note)
        first = trainer.run_epoch()
        ended[views] = weights(trainer), first.scalars["loss"]
        trainer.run_epoch()
        sizes[views] = seen
    assert sizes["both"][True] == [2 * size for size in sizes["strong"][True]]
    assert sizes["both"][False] == sizes["strong"][False]
    assert not torch.equal(ended["both"][0]["head.weight"], ended["strong"][0]["head.weight"])
    # the loss is not that of twice as many samples
    assert ended["both"][1] == pytest.approx(ended["strong"][1], rel=0.3)


def test_equal_views_change_nothing_but_the_unbiased_running_variance(tiny_trainer: Make) -> None:
    """Two equal halves have the mean and variance of one; digits are not mirrored."""
    plain = {"strong_magnitude": 0.0, "cutout": 0.0}
    one, two = (tiny_trainer(warmup_views=views, **plain) for views in ("strong", "both"))
    losses = [trainer.run_epoch().scalars["loss"] for trainer in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    a, b = (
        torch.cat([t.flatten() for n, t in weights(trainer).items() if "running_var" not in n])
        for trainer in (one, two)
    )
    assert float((a - b).norm() / a.norm()) < 1e-4


@pytest.mark.parametrize("backbone", ["mlp", "identity"])
def test_both_views_are_refused_for_vectors(backbone: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((40, 3)) < 0.5).astype(np.uint8)
    np.savez(tmp_path / "f.npz", features=rng.random((40, 5), dtype=np.float32), labels=labels)
    settings = {"dataset": "features", "data_dir": str(tmp_path / "f.npz"), "labeled_fraction": 0.5}
    config = run_config({**settings, "backbone": backbone, "warmup_views": "both"}, "test")
    with pytest.raises(UsageError, match=f"warmup_views = both.*'{backbone}' has none: leave"):
        check_task(config)
    check_task(run_config({**settings, "backbone": backbone}, "test"))


def test_both_views_are_refused_for_texts(text_folder: Path) -> None:
    settings = {"dataset": "text", "data_dir": str(text_folder), "labeled_fraction": 0.4}
    with pytest.raises(UsageError, match=r"warmup_views = both.*'tiny-text' has none"):
        check_task(run_config({**settings, "warmup_views": "both"}, "test"))


def test_both_views_are_refused_with_frozen_running_statistics() -> None:
    with pytest.raises(UsageError, match=r"warmup_views = both.*backbone_rate = 0 freezes it"):
        run_config({"warmup_views": "both", "backbone_rate": 0.0}, "test")


# -------------------------------------------------------------------------------- batches


def batches(trainer: Trainer, epoch: int) -> tuple[list[Any], list[Any]]:
    """Rows of the labelled and of the unlabelled samples in each step of an epoch."""
    main = epoch > trainer.config.training.warmup_epochs
    steps = list(trainer._steps(epoch, main_phase=main))
    unlabeled = [step.unlabeled.rows.tolist() for step in steps if step.unlabeled]
    return [step.labeled.rows.tolist() for step in steps], unlabeled


def test_one_order_gives_the_same_batches_in_all_epochs_but_other_views(
    tiny_trainer: Make,
) -> None:
    fixed, drawn = tiny_trainer(shuffle=False, warmup_passes=2), tiny_trainer(warmup_passes=2)
    for first, second in ((1, 2), (3, 4)):
        assert batches(fixed, first) == batches(fixed, second)
        assert batches(drawn, first) != batches(drawn, second)
    labeled, _ = batches(fixed, 1)
    half = len(labeled) // 2
    assert labeled[:half] == labeled[half:]  # of two passes
    assert sorted(chain(*labeled[:half])) == list(range(len(fixed.data.labeled)))
    assert list(chain(*labeled[:half])) != list(range(len(fixed.data.labeled)))  # a random order
    steps = [next(iter(fixed._steps(epoch, main_phase=False))) for epoch in (1, 2)]
    views = [step.labeled.view("strong") for step in steps]
    assert not torch.equal(views[0], views[1])


def test_one_order_repeats_the_labelled_batches_until_the_unlabelled_ones_are_used(
    tiny_trainer: Make,
) -> None:
    trainer = tiny_trainer(shuffle=False, labeled_batch=5, unlabeled_batch=7)
    labeled, unlabeled = batches(trainer, 3)
    count = len(trainer.data.labeled)
    period = -(-count // 5)
    assert sorted(chain(*labeled[:period])) == list(range(count))
    assert all(rows == labeled[number % period] for number, rows in enumerate(labeled))
    assert len(labeled) > period
    assert sorted(chain(*unlabeled)) == list(range(len(trainer.data.unlabeled)))


def test_another_seed_has_another_order(tiny_trainer: Make) -> None:
    orders = [batches(tiny_trainer(shuffle=False, seed=s, split_seed=0), 1) for s in (1, 2)]
    assert orders[0] != orders[1]


def test_the_warm_up_has_a_batch_of_its_own(tiny_trainer: Make) -> None:
    trainer = tiny_trainer(warmup_batch=4)
    warm, _ = batches(trainer, 1)
    main, _ = batches(trainer, 3)
    assert max(map(len, warm)) == 4
    assert {len(rows) for rows in main} == {min(16, len(trainer.data.labeled))}
    assert batches(trainer, 3) == batches(tiny_trainer(), 3)


def test_the_composed_batch_is_that_of_the_steps_and_of_the_weight(tiny_trainer: Make) -> None:
    trainer = tiny_trainer(
        batch_composition="fraction", labeled_fraction=0.1, unlabeled_weight=None
    )
    labeled, unlabeled = batches(trainer, 3)
    assert {len(rows) for rows in labeled} == {min(8, len(trainer.data.labeled))}
    assert max(map(len, unlabeled)) <= 56
    assert trainer.method.task.unlabeled_batch == 56


# -------------------------------------------------------------------------------- average


@pytest.mark.parametrize("method", ["bbam", "d2l", "drml"])
@pytest.mark.parametrize("restart", ["none", "trained", "averaged"])
def test_the_main_phase_starts_from_the_chosen_weights(
    restart: str, method: str, tiny_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer(method=method, ema_restart=restart, warmup_passes=4)
    trainer.run_epoch()
    trainer.run_epoch()
    model = trainer.model.state_dict()
    before = {"trained": weights(trainer)}
    before["averaged"] = {n: t.clone() for n, t in trainer.average.module.state_dict().items()}
    assert not torch.equal(before["trained"]["head.weight"], before["averaged"]["head.weight"])
    started: list[dict[str, dict[str, torch.Tensor]]] = []

    def watched(*_: Any, **__: Any) -> Any:
        started.append(
            {
                "trained": weights(trainer),
                "averaged": copy.deepcopy(trainer.average.module.state_dict()),
            }
        )
        raise InterruptedError

    monkeypatch.setattr(trainer, "take_steps", watched)
    with pytest.raises(InterruptedError):
        trainer.run_epoch()
    (now,) = started
    for which in ("trained", "averaged"):
        source = before[which if restart == "none" else restart]
        for name in model:
            if not name.startswith("auxiliary"):  # d2l copies a head at this moment
                assert torch.equal(now[which][name], source[name]), (which, name)
    assert (trainer.average.updates == 0) == (restart != "none")


@pytest.mark.parametrize("restart", ["trained", "averaged"])
def test_held_out_scores_are_those_of_the_new_average(
    restart: str, tiny_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer(
        pseudo_labels="metric", threshold_positives=1, ema_restart=restart, warmup_passes=4
    )
    seen: list[torch.Tensor] = []
    refresh = trainer.method.refresh

    def noted(snapshot: Any) -> None:
        expected = trainer.score(trainer.data.inputs, trainer.data.validation)
        assert torch.equal(snapshot.held_out.logits, expected)
        seen.append(expected)
        refresh(snapshot)

    monkeypatch.setattr(trainer.method, "refresh", noted)
    while not trainer.finished:
        trainer.run_epoch()
    assert len(seen) == 2


def test_a_fixed_decay_follows_slowly_from_the_start(tiny_trainer: Make) -> None:
    distances = []
    for warmup in (True, False):
        trainer = tiny_trainer(ema_warmup=warmup, ema_decay=0.9997)
        trainer.run_epoch()
        difference = trainer.average.module.head.weight - trainer.model.head.weight
        distances.append(float(difference.detach().norm()))
    assert distances[1] > 2 * distances[0]


# ------------------------------------------------------------------------------ precision


def test_float16_without_autocast_is_refused() -> None:
    with pytest.raises(UsageError, match="amp_dtype = float16 needs autocast, and amp = false"):
        run_config({"amp_dtype": "float16", "amp": False}, "test")


def test_on_a_cpu_float16_changes_nothing() -> None:
    precision = Precision(torch.device("cpu"), True, float16=True)
    scaler = precision.scaler
    precision.start_epoch()
    assert precision.scaler is scaler and not scaler.is_enabled() and not precision.enabled


def test_the_scale_starts_again_in_every_epoch_with_float16_only() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a machine without a GPU
        published = Precision(torch.device("cuda"), True, float16=True)
        assert published.dtype == torch.float16
        before = published.scaler
        published.start_epoch()
        assert published.scaler is not before


@pytest.mark.parametrize(("cycle", "valid"), [(1, False), (2, True), (40, True)])
def test_a_cycle_covers_the_main_phase(cycle: int, valid: bool, tiny_config: Callable) -> None:
    if valid:
        assert tiny_config(cycle_epochs=cycle).training.cycle_epochs == cycle
        return
    with pytest.raises(UsageError, match="cycle_epochs = 1 is less than the 2 epochs of the main"):
        tiny_config(cycle_epochs=cycle)
