"""A main phase that destroys what the warm-up has learned ends early, and its weights are not kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from bbam_ray.cli.main import app
from bbam_ray.engine import checkpoint_folder
from bbam_ray.engine.checkpoint import load_checkpoint, save_checkpoint
from bbam_ray.engine.model import Model, load_model
from bbam_ray.engine.trainer import Trainer
from bbam_ray.methods.bbam import Bbam
from bbam_ray.results.store import read_table

WARMUP, EPOCHS = 2, 8
SETTINGS: dict[str, Any] = {
    "scenes": 300,
    "test_scenes": 60,
    "labeled_fraction": 0.5,
    "validation_fraction": 0.4,
    "epochs": EPOCHS,
    "warmup_epochs": WARMUP,
    "warmup_passes": 10,
    "hidden_dim": 32,
    "feature_dim": 16,
}
Make = Callable[..., Trainer]


@pytest.fixture()
def destructive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the main phase learn the opposite of every label."""

    def opposite(self: Bbam, model: Any, labeled: Any, labels: Any, unlabeled: Any) -> Any:
        return self.labeled_loss(model, labeled, 1 - labels)

    monkeypatch.setattr(Bbam, "semi_supervised_loss", opposite)


@pytest.fixture()
def make(tiny_trainer: Make) -> Make:
    return lambda **changes: tiny_trainer(**{**SETTINGS, **changes})


def validation_scores(trainer: Trainer) -> torch.Tensor:
    return trainer.score(trainer.data.inputs, trainer.data.validation)


def averages(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in trainer.average.module.state_dict().items()}


@pytest.mark.usefixtures("destructive")
class TestDestructiveMainPhase:
    def test_it_ends_after_half_of_its_epochs_and_the_warm_up_is_kept(
        self, make: Make, identical: Callable
    ) -> None:
        trainer = make()
        for _ in range(WARMUP):
            trainer.run_epoch()
        at_end, scores = averages(trainer), validation_scores(trainer)
        records = []
        while not trainer.finished:
            records.append(trainer.run_epoch())
        assert trainer.weight_choice.harmful and not trainer.stopped_early
        assert trainer.epoch == WARMUP + (EPOCHS - WARMUP) // 2  # judged from there on
        assert trainer.best_epoch == WARMUP
        assert trainer.kept_weights is trainer.weight_choice.fallback is not None
        assert torch.equal(trainer.kept_weights.logits, scores)
        assert identical(trainer.kept_weights.average, at_end)
        last, weights = validation_scores(trainer), averages(trainer)
        assert not torch.allclose(last, scores)
        with trainer.using(trainer.kept_weights):
            assert torch.equal(validation_scores(trainer), scores)
            assert identical(averages(trainer), at_end)
        assert torch.equal(validation_scores(trainer), last)
        assert identical(averages(trainer), weights)
        flipped = [record.scalars["flipped"] for record in records]
        assert all(0 <= share <= 1 for share in flipped) and flipped[-1] > 0.2
        with pytest.raises(RuntimeError, match="training has ended after epoch"):
            trainer.run_epoch()

    def test_weights_return_also_after_an_error(self, make: Make, identical: Callable) -> None:
        trainer = make(epochs=4)
        while not trainer.finished:
            trainer.run_epoch()
        weights = averages(trainer)
        assert trainer.kept_weights is not None
        with pytest.raises(ValueError, match="while saving"), trainer.using(trainer.kept_weights):
            raise ValueError("while saving")
        assert identical(averages(trainer), weights)

    def test_keep_last_trains_to_the_end_and_keeps_it(
        self, make: Make, run_to_end: Callable
    ) -> None:
        trainer = make(keep="last")
        records = run_to_end(trainer)
        assert (trainer.epoch, trainer.best_epoch, trainer.weight_choice.harmful) == (
            EPOCHS,
            EPOCHS,
            False,
        )
        assert trainer.kept_weights is None and trainer.weight_choice.fallback is None
        assert all("flipped" not in record.scalars for record in records)

    def test_keep_best_keeps_the_first_highest_epoch(
        self, make: Make, run_to_end: Callable
    ) -> None:
        trainer = make(keep="best")
        values = [record.scalars["val_map"] for record in run_to_end(trainer)]
        assert trainer.epoch == len(values) == EPOCHS
        assert trainer.best_epoch == 1 + int(np.argmax(values)) == WARMUP
        assert trainer.kept_weights is not None and trainer.kept_weights.value == max(values)

    @pytest.mark.parametrize("stop", [2, 3, 4, 5])
    def test_a_resumed_run_is_the_uninterrupted_one(
        self, stop: int, make: Make, identical: Callable, tmp_path: Path
    ) -> None:
        whole = make()
        while not whole.finished:
            whole.run_epoch()
            if whole.epoch == stop:
                save_checkpoint(tmp_path / "state.pt", whole.state_dict())
        again = make()
        again.load_state_dict(load_checkpoint(tmp_path / "state.pt"))
        assert (
            again.weight_choice.fallback is not None
            and again.weight_choice.fallback.epoch == WARMUP
        )
        while not again.finished:
            again.run_epoch()
        assert again.weight_choice.harmful and again.epoch == whole.epoch
        assert identical(again.state_dict(), whole.state_dict())

    def test_the_model_of_a_checkpoint_folder_is_the_kept_one(
        self, make: Make, tmp_path: Path
    ) -> None:
        trainer, records = make(), []
        while not trainer.finished:
            records.append(trainer.run_epoch())
        checkpoint_folder.save_part(tmp_path / "c", trainer, records)
        model = Model(tmp_path / "c" / checkpoint_folder.MODEL, "cpu")
        inputs = trainer.data.inputs[trainer.data.validation]
        assert trainer.kept_weights is not None
        np.testing.assert_allclose(
            model.logits(inputs), trainer.kept_weights.logits.numpy(), atol=1e-4
        )
        thresholds = records[WARMUP - 1].labels["threshold"]
        np.testing.assert_allclose(model.thresholds, thresholds, rtol=1e-6)

    @pytest.mark.parametrize("every", [1, 3])
    def test_train_saves_the_weights_of_the_warm_up(self, every: int, tmp_path: Path) -> None:
        history, trial, scores = train(tmp_path, "--checkpoint-every", str(every))
        assert trial["best_epoch"] == WARMUP and len(history) < EPOCHS
        assert trial["val_map"] == history[WARMUP - 1]["val_map"] > history[-1]["val_map"]
        _, stopped, expected = train(tmp_path, "--set", f"stop_epoch={WARMUP}")
        assert stopped["best_epoch"] == WARMUP
        np.testing.assert_array_equal(scores, expected)
        last = train(tmp_path, "--set", "keep=last")[2]
        assert np.abs(last - expected).max() > 0.1


def train(folder: Path, *arguments: str) -> tuple[list[dict[str, Any]], dict[str, Any], np.ndarray]:
    """History, trial row, and scores of the saved model on fixed inputs, of a new run."""
    settings = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    name = f"run-{len(list(folder.rglob('trials.parquet')))}"
    command = ["train", "--results", str(folder), "--name", name, *settings, *arguments]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 0, ended.output
    run = folder / "digits" / name
    inputs = np.random.default_rng(0).integers(0, 256, (20, 1, 24, 24), dtype=np.uint8)
    (trial,) = read_table(run / "trials.parquet").to_pylist()
    history = read_table(run / "history.parquet").to_pylist()
    return history, trial, load_model(run, "cpu").logits(inputs)


def test_a_main_phase_that_helps_is_kept(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def supervised(self: Bbam, model: Any, labeled: Any, labels: Any, unlabeled: Any) -> Any:
        return self.labeled_loss(model, labeled, labels)

    monkeypatch.setattr(Bbam, "semi_supervised_loss", supervised)
    trainer, values = make(warmup_passes=3), []
    while not trainer.finished:
        values.append(trainer.run_epoch().scalars["val_map"])
    assert not trainer.weight_choice.harmful and trainer.epoch == EPOCHS
    assert values[-1] > values[WARMUP - 1]
    assert trainer.best_epoch == EPOCHS and trainer.kept_weights is None
    # Of the epochs of the main phase the last one is kept, even if an earlier one was better.
    assert (
        trainer.weight_choice.fallback is not None
        and trainer.weight_choice.fallback.epoch == WARMUP
    )


def test_a_supervised_method_has_no_fallback(make: Make, run_to_end: Callable) -> None:
    trainer = make(method="supervised", epochs=3)
    run_to_end(trainer)
    assert trainer.weight_choice.fallback is None and trainer.best_epoch == trainer.epoch == 3


def test_without_validation_samples_the_last_epoch_is_kept(
    make: Make, run_to_end: Callable
) -> None:
    trainer = make(validation_fraction=0.0, epochs=3)
    run_to_end(trainer)
    assert trainer.weight_choice.fallback is None and trainer.best_epoch == trainer.epoch == 3
