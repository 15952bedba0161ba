"""Confirmation: training uses all labelled data, and the test part is read once, at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bbam_ray.core.calibration import expected_calibration_error
from bbam_ray.core.metric_names import METRIC_NAMES
from bbam_ray.core.metrics import multilabel_metrics
from bbam_ray.data.datasets.digits import Digits
from bbam_ray.engine import confirm
from bbam_ray.engine.confirm import (
    CALIBRATION_ERROR,
    Decisions,
    confirmation_config,
    train_and_test,
)
from bbam_ray.engine.model import Model
from bbam_ray.engine.model_folder import load_weights, read_thresholds
from bbam_ray.engine.task import check_task, load_part, prepare_training
from bbam_ray.engine.trainer import Trainer
from bbam_ray.errors import UsageError

DECISIONS = Decisions([0.0] * 10, [1.0] * 10, [0.0] * 10)


@pytest.fixture(scope="module")
def settings(tiny_config: Callable) -> dict[str, Any]:
    return tiny_config(patience=1).flat()


def test_it_uses_another_seed_all_labels_and_the_whole_schedule(settings: dict) -> None:
    config = confirmation_config(settings, {"scale": 9, "margin": 0.1}, 7, None)
    common = config.training
    assert (common.seed, common.validation_fraction, common.patience) == (7, 0.0, None)
    assert common.stop_epoch is None and common.epochs == 4
    assert (config.method.scale, config.method.margin) == (9, 0.1)
    assert confirmation_config(settings, {}, 7, 3).training.stop_epoch == 3


def test_train_and_test_returns_all_metrics_and_the_sizes(settings: dict) -> None:
    figures = train_and_test(confirmation_config(settings, {}, 1, None), DECISIONS)
    assert figures["held_out"] is None
    measures = {name for name in figures if name.startswith("test_")}
    assert measures == {CALIBRATION_ERROR, *(f"test_{name}" for name in METRIC_NAMES)}
    assert all(np.isfinite(figures[name]) for name in measures)
    assert figures["n_labeled"] == 36  # 30 % of 120: nothing is held out
    assert figures["n_test"] == 40
    assert figures["epochs"] == 4
    assert figures["duration_s"] > 0


def test_the_metrics_are_those_of_the_saved_model(settings: dict, tmp_path: Path) -> None:
    config = confirmation_config(settings, {}, 1, 3)
    thresholds = [0.3 * k - 1 for k in range(10)]
    decisions = Decisions(thresholds, [2.0] * 10, [-1.0] * 10)
    figures = train_and_test(config, decisions, tmp_path / "model")
    assert figures["epochs"] == 3
    trainer = Trainer(config, *prepare_training(config))
    load_weights(tmp_path / "model", trainer)
    assert read_thresholds(tmp_path / "model") == thresholds
    test = load_part(config, "test")
    logits = trainer.score(test.inputs, np.arange(40))
    again = multilabel_metrics(
        logits, torch.from_numpy(test.labels), thresholds=torch.tensor(thresholds)
    )
    for name, value in again.items():
        assert figures[f"test_{name}"] == value
    saved = Model(tmp_path / "model", "cpu")
    probabilities = torch.from_numpy(saved.predict_proba(test.inputs[np.arange(40)]))
    assert torch.allclose(probabilities, torch.sigmoid(2 * logits.double() - 1), atol=1e-6)
    error = expected_calibration_error(probabilities, torch.from_numpy(test.labels))
    assert figures[CALIBRATION_ERROR] == pytest.approx(error, abs=1e-6)


def test_the_test_part_is_opened_once_and_only_after_training(
    settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    load, epoch = Digits.load, Trainer.run_epoch

    def watched_load(self: Digits, options: Any, data_dir: Any, part: str) -> Any:
        order.append(part)
        return load(self, options, data_dir, part)

    def watched_epoch(self: Trainer) -> Any:
        order.append("epoch")
        return epoch(self)

    monkeypatch.setattr(Digits, "load", watched_load)
    monkeypatch.setattr(confirm.Trainer, "run_epoch", watched_epoch)
    train_and_test(confirmation_config(settings, {}, 1, None), DECISIONS)
    assert order == ["train", *["epoch"] * 4, "test"]


def test_a_task_is_checked_before_anything_starts(tiny_config: Callable) -> None:
    split = check_task(tiny_config()).split
    assert len(split.labeled) + len(split.validation) == 36
    with pytest.raises(UsageError, match="backbone"):
        check_task(tiny_config(backbone="mlp"))
    with pytest.raises(UsageError, match="labeled_fraction"):
        check_task(tiny_config(labeled_fraction=0.001))


def test_no_label_of_an_unlabelled_sample_is_in_the_training_data(tiny_config: Callable) -> None:
    config = tiny_config()
    data, _ = prepare_training(config)
    pools = [data.labeled, data.validation, data.unlabeled]
    assert sorted(np.concatenate(pools).tolist()) == list(range(120))
    samples = load_part(config, "train")
    assert np.array_equal(data.labels.numpy(), samples.labels[data.labeled])
    assert np.array_equal(data.validation_labels.numpy(), samples.labels[data.validation])
    assert len(data.labels) + len(data.validation_labels) == 36


def test_a_model_of_all_labelled_samples_says_that_nothing_was_held_out(settings: dict) -> None:
    config = confirmation_config(settings, {"pseudo_label_weight": "measured"}, 1, None)
    assert train_and_test(config, DECISIONS)["held_out"] == 0
    known = torch.randn(7, 10), torch.zeros(7, 10, dtype=torch.uint8)
    assert train_and_test(config, DECISIONS, out_of_fold=known)["held_out"] == 7
