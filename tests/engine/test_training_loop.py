"""The training loop: reproducible, divided into phases, and ending when it should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bbam_ray.data.datasets.digits import Digits
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError

Make = Callable[..., Trainer]


def test_the_same_seed_gives_the_same_run_twice(
    tiny_trainer: Make, run_to_end: Callable, figures: Callable, identical: Callable
) -> None:
    first, second = tiny_trainer(seed=3), tiny_trainer(seed=3)
    records = [[figures(r) for r in run_to_end(trainer)] for trainer in (first, second)]
    assert identical(records[0], records[1])
    assert identical(first.state_dict(), second.state_dict())


def test_another_seed_gives_another_split_start_and_order(tiny_trainer: Make) -> None:
    first, second = tiny_trainer(seed=0), tiny_trainer(seed=1)
    assert first.data.labeled.tolist() != second.data.labeled.tolist()
    start = [t.model.head.weight.detach().clone() for t in (first, second)]
    assert not torch.equal(*start)
    assert first.run_epoch().scalars["loss"] != second.run_epoch().scalars["loss"]


def test_building_and_training_a_second_trainer_leaves_the_first_alone(
    tiny_trainer: Make, run_to_end: Callable, identical: Callable
) -> None:
    alone, disturbed, other = tiny_trainer(), tiny_trainer(), tiny_trainer(seed=9)
    run_to_end(alone)
    while not disturbed.finished:
        disturbed.run_epoch()
        other.run_epoch()
    assert identical(disturbed.state_dict(), alone.state_dict())


def test_records_name_epoch_phase_and_the_losses_of_that_phase(
    tiny_trainer: Make, run_to_end: Callable
) -> None:
    records = [record.scalars for record in run_to_end(tiny_trainer())]
    assert [r["epoch"] for r in records] == [1, 2, 3, 4]
    assert [r["phase"] for r in records] == ["warmup", "warmup", "main", "main"]
    for record in records:
        main = record["phase"] == "main"
        assert (record["loss_unlabeled"] is not None) == main
        assert ("pseudo_precision" in record) == main
        total = record["loss_labeled"] + (record["loss_unlabeled"] or 0)
        assert record["loss"] == pytest.approx(total)
        assert record["seconds_train"] > 0 and record["images_per_second"] > 0
        assert 0 <= record["val_map"] <= 1


def test_a_supervised_run_has_one_phase_of_all_epochs(
    tiny_trainer: Make, run_to_end: Callable
) -> None:
    trainer = tiny_trainer(method="supervised")
    rates = [record.scalars["lr"] for record in run_to_end(trainer)]
    assert len(rates) == 4
    assert rates[-1] == min(rates)  # one cycle over the whole run, not one per phase


def test_a_run_without_warm_up_starts_with_the_main_phase(
    tiny_trainer: Make, run_to_end: Callable
) -> None:
    records = run_to_end(tiny_trainer(warmup_epochs=0, epochs=2))
    assert [record.scalars["phase"] for record in records] == ["main", "main"]


def test_without_validation_samples_there_are_no_validation_metrics(
    tiny_trainer: Make, run_to_end: Callable
) -> None:
    trainer = tiny_trainer(validation_fraction=0)
    for record in run_to_end(trainer):
        assert not [name for name in record.scalars if name.startswith("val_")]
        assert "val_ap" not in record.labels and "threshold" not in record.labels
    assert trainer.best_epoch == trainer.epoch == 4
    assert len(trainer.data.labeled) == 36


def test_stop_epoch_ends_early_and_keeps_the_schedule(
    tiny_trainer: Make, run_to_end: Callable, figures: Callable, identical: Callable
) -> None:
    whole, stopped = tiny_trainer(epochs=6), tiny_trainer(epochs=6, stop_epoch=3)
    first_epochs = [figures(whole.run_epoch()) for _ in range(3)]
    assert identical([figures(r) for r in run_to_end(stopped)], first_epochs)
    assert identical(stopped.state_dict(), whole.state_dict())
    shorter = tiny_trainer(epochs=3)
    assert not identical([figures(r) for r in run_to_end(shorter)], first_epochs)


def test_a_stop_epoch_after_the_schedule_does_not_lengthen_the_run(tiny_trainer: Make) -> None:
    try:
        trainer = tiny_trainer(epochs=4, stop_epoch=6)
    except UsageError:
        return
    while not trainer.finished:
        trainer.run_epoch()
    assert trainer.epoch == 4


def test_a_finished_run_cannot_continue(tiny_trainer: Make, run_to_end: Callable) -> None:
    trainer = tiny_trainer(epochs=2)
    run_to_end(trainer)
    with pytest.raises(RuntimeError, match="ended after epoch 2"):
        trainer.run_epoch()


def test_training_never_opens_the_test_part(
    tiny_trainer: Make, run_to_end: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, parts = Digits.load, []

    def watched(self: Digits, options: Any, data_dir: Any, part: str) -> Any:
        parts.append(part)
        if part == "test":
            raise AssertionError("training asked for the test part")
        return load(self, options, data_dir, part)

    monkeypatch.setattr(Digits, "load", watched)
    for method in ("bbam", "supervised"):
        run_to_end(tiny_trainer(method=method))
    assert set(parts) == {"train"}


def test_steps_train_and_the_average_follows_each_of_them(
    tiny_trainer: Make, run_to_end: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = tiny_trainer(warmup_passes=2, labeled_batch=10, weight_decay=0.03)
    modes: list[tuple[bool, bool]] = []
    for name in ("labeled_loss", "semi_supervised_loss"):

        def watched(model: Any, *args: Any, _loss: Any = getattr(trainer.method, name)) -> Any:
            modes.append((model.training, trainer.average.module.training))
            assert trainer.optimizer.param_groups[0]["weight_decay"] == 0.03
            return _loss(model, *args)

        monkeypatch.setattr(trainer.method, name, watched)
    run_to_end(trainer)
    steps = 2 * 2 * -(-len(trainer.data.labeled) // 10)
    steps += 2 * -(-len(trainer.data.unlabeled) // trainer.config.training.unlabeled_batch)
    assert modes == [(True, False)] * steps
    assert trainer.average.updates == steps


def test_the_main_phase_starts_with_a_fresh_optimizer(
    tiny_trainer: Make, run_to_end: Callable
) -> None:
    """The moments of the warm-up belong to another loss."""
    trainer = tiny_trainer()
    run_to_end(trainer)
    steps = 2 * -(-len(trainer.data.unlabeled) // trainer.config.training.unlabeled_batch)
    counted = {int(state["step"]) for state in trainer.optimizer.state.values()}
    assert counted == {steps}
