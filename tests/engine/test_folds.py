"""What a trained fold yields: out-of-fold scores that its saved models give again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bbam_ray.data.sampling.splits import make_split
from bbam_ray.engine.folds import FoldResult, fold_result, without_files, write_files
from bbam_ray.engine.kept_weights import map_standard_error
from bbam_ray.engine.model import Model
from bbam_ray.engine.task import load_part
from bbam_ray.engine.trainer import Trainer

FOLDS = 3


@pytest.fixture(scope="module")
def trained(
    tiny_trainer: Callable[..., Trainer], run_to_end: Callable
) -> Callable[..., tuple[Trainer, FoldResult]]:
    """Trains a fold and returns its trainer and its result."""

    def train(**changes: Any) -> tuple[Trainer, FoldResult]:
        trainer = tiny_trainer(**{"folds": FOLDS, **changes})
        run_to_end(trainer)
        result = fold_result(trainer, with_models=True)
        assert result is not None
        return trainer, result

    return train


@pytest.fixture(scope="module")
def second(trained: Callable) -> tuple[Trainer, FoldResult]:
    """The second fold of a method with a main phase."""
    result: tuple[Trainer, FoldResult] = trained(fold=1)
    return result


def test_rows_and_labels_are_those_of_the_fold(second: tuple[Trainer, FoldResult]) -> None:
    trainer, result = second
    samples = load_part(trainer.config, "train")
    split = make_split(samples.labels, 0.3, 0.0, trainer.config.training.seed, folds=FOLDS, fold=1)
    assert result.fold == 1
    assert np.array_equal(result.rows, split.validation)
    assert result.labels.dtype == np.uint8
    assert np.array_equal(result.labels, samples.labels[result.rows])


def test_scores_are_a_forward_pass_of_the_saved_models(
    second: tuple[Trainer, FoldResult], tmp_path: Path
) -> None:
    trainer, result = second
    assert set(result.weights) == {"last", "warmup"}
    inputs = np.asarray(trainer.data.inputs[result.rows])
    for phase, weights in result.weights.items():
        write_files(weights.files, tmp_path / phase)
        logits = Model(tmp_path / phase, "cpu").logits(inputs)
        assert weights.logits.dtype == np.float32
        np.testing.assert_allclose(weights.logits, logits, atol=1e-5)
        error = map_standard_error(
            torch.from_numpy(weights.logits), torch.from_numpy(result.labels)
        )
        assert weights.standard_error == pytest.approx(error)
    assert [result.weights[phase].epoch for phase in ("warmup", "last")] == [2, 4]
    assert not np.array_equal(result.weights["warmup"].logits, result.weights["last"].logits)


def test_the_saved_models_are_those_of_their_epochs(
    second: tuple[Trainer, FoldResult], tiny_trainer: Callable, tmp_path: Path
) -> None:
    trainer, result = second
    warmup = tiny_trainer(folds=FOLDS, fold=1)
    for _ in range(2):
        warmup.run_epoch()
    for phase, expected in (("warmup", warmup), ("last", trainer)):
        write_files(result.weights[phase].files, tmp_path / phase)
        stored = load_file(tmp_path / phase / "model.safetensors")
        for name, tensor in expected.average.module.state_dict().items():
            assert torch.equal(stored[f"network.{name}"], tensor), (phase, name)


def test_the_trainer_is_left_as_it_was(trained: Callable, identical: Callable) -> None:
    trainer, _ = trained(fold=0)
    before = {name: t.clone() for name, t in trainer.average.module.state_dict().items()}
    again = fold_result(trainer, with_models=True)
    assert again is not None
    assert identical(trainer.average.module.state_dict(), before)


def test_a_supervised_method_has_the_weights_of_its_last_epoch_only(trained: Callable) -> None:
    _, result = trained(method="supervised", fold=2)
    assert list(result.weights) == ["last"]


def test_models_can_be_left_out(second: tuple[Trainer, FoldResult]) -> None:
    trainer, result = second
    without = fold_result(trainer, with_models=False)
    assert without is not None
    for each in (without, without_files(result)):
        assert all(weights.files == {} for weights in each.weights.values())
        for phase, weights in result.weights.items():
            assert np.array_equal(each.weights[phase].logits, weights.logits)
    assert all(weights.files for weights in result.weights.values())
